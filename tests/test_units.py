"""What systemd/ promises as far as files can show it; `make units` asks systemd itself, `make boot` tries it out."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import units
from test_docs import OPTIONS

SYSTEMD = units.UNITS
SERVICES = sorted(path.name for path in SYSTEMD.glob("*.service"))
FORWARDER, LEDGER = "omneo-forwarder.service", "omneo-ledger.service"
NETWORKED = {FORWARDER, LEDGER}
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")


def lines(name: str) -> list[str]:
    """A unit's settings, without its words."""
    text = (SYSTEMD / name).read_text("utf-8")
    return [line for line in text.splitlines() if line and line[0] not in "#["]


def test_nothing_waits_for_the_network_or_needs_the_other_program() -> None:
    for path in SYSTEMD.glob("omneo*"):
        text = path.read_text("utf-8")
        assert "network-online" not in text
        assert not re.search(r"^(Requires|BindsTo|Requisite|After)=", text, re.MULTILINE), path.name


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_shut_in_alike(name: str) -> None:
    of_all = set(lines("omneo-journal.service")[lines("omneo-journal.service").index("ProtectSystem=strict") :])
    assert of_all - {"WantedBy=omneo.target"} <= set(lines(name))
    assert {"RestrictAddressFamilies=AF_UNIX", "PrivateNetwork=yes"} <= set(lines(name)) or name in NETWORKED
    assert "InaccessiblePaths=-/var/spool/omneo" in " ".join(lines(name)) or name == "omneo-journal.service"


@pytest.mark.parametrize("name", ["omneo-journal.service", FORWARDER, LEDGER])
def test_every_program_comes_back_however_often_it_ends(name: str) -> None:
    promised = {"Restart=always", "StartLimitIntervalSec=0", "Type=notify", "NotifyAccess=main"}
    assert promised <= set(lines(name))
    assert any(line.startswith("WatchdogSec=") for line in lines(name))


def test_the_example_of_an_environment_file_names_only_what_is_heard() -> None:
    given = set(re.findall(r"^#?(OMNEO_\w+)=", (SYSTEMD / "omneo.env").read_text("utf-8"), re.MULTILINE))
    heard = {str(option.envvar) for option in OPTIONS.values()}
    nightly = set(re.findall(r"OMNEO_\w+", (SYSTEMD / "nightly").read_text("utf-8")))
    assert given <= heard | nightly
    assert nightly <= given
    assert "OMNEO_TOKEN" not in given


def test_after_a_few_starts_in_a_row_it_waits_longer_and_longer_and_never_gives_up(tmp_path: Path) -> None:
    shim, slept = tmp_path / "sleep", tmp_path / "slept"
    shim.write_text(f'#!/bin/sh\necho "$1" >>{slept}\n')
    shim.chmod(0o755)
    around = {"RUNTIME_DIRECTORY": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def start() -> int:
        subprocess.run([SYSTEMD / "pause"], env=around, check=True)
        return int(slept.read_text().split()[-1])

    assert [start() for _ in range(12)] == [0, 0, 0, 0, 2, 4, 8, 16, 30, 60, 60, 60]
    up_for_a_while = time.time() - 31
    os.utime(tmp_path / "starts", (up_for_a_while, up_for_a_while))
    assert [start() for _ in range(5)] == [0, 0, 0, 0, 2]


@needs_systemd
@pytest.mark.parametrize(
    ("name", "was", "becomes", "complaint"),
    [
        ("omneo-journal.service", "TasksMax=32", "TaskMax=32", "Unknown key"),
        ("omneo-journal.service", "WatchdogSec=2min", "WatchdogSec=soon", "Failed to parse"),
        ("omneo-backup.timer", "OnCalendar=*-*-* 02:20:00", "OnCalendar=at night", "calendar"),
    ],
)
def test_a_slip_in_a_unit_is_found(tmp_path: Path, name: str, was: str, becomes: str, complaint: str) -> None:
    shutil.copytree(SYSTEMD, place := tmp_path / "systemd")
    assert units.complaints(place) == []
    text = (place / name).read_text("utf-8")
    (place / name).write_text(text.replace(was, becomes))
    assert any(complaint in said for said in units.complaints(place))


@needs_systemd
def test_a_service_that_is_too_open_is_found(tmp_path: Path) -> None:
    shutil.copytree(SYSTEMD, place := tmp_path / "systemd")
    unit = place / "omneo-journal.service"
    before = units.exposure(place, unit.name)
    unit.write_text(unit.read_text("utf-8").replace("PrivateNetwork=yes\n", ""))
    assert before <= units.MOST < units.exposure(place, unit.name)
