"""
The units as systemd sees them: not one line of complaint from `verify`, and the exposure of each under its bound.

`make units` runs it. Where systemd-analyze is missing, one line says so and nothing was looked at (exit 0; `--strict`:
69). That the units do what they say is tried by `make boot`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

UNITS = Path(__file__).resolve().parents[1] / "systemd"
MOST = 0.5  # exposure of a unit, from 0 (tight) to 10 (open) …
MOST_OF = {"omneo-forwarder.service": 1.6, "omneo-ledger.service": 1.6}  # … and of those that have to talk to others
PROGRAM = re.compile(r"^(ExecStart\w*=)/opt/omneo-journal/\S+", re.MULTILINE)
EXPOSURE = re.compile(r"Overall exposure level for \S+: ([\d.]+)")


def analyze(*words: str, where: Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *words]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=False, timeout=60)


def copied(units: Path, place: Path) -> list[str]:
    """The units, with programs that are on every machine in place of ours: `verify` looks whether they are there."""
    names = sorted(path.name for path in units.iterdir() if path.suffix in {".service", ".target", ".timer"})
    for name in names:
        text = (units / name).read_text("utf-8")
        (place / name).write_text(
            re.sub(r"^(ExecStart\w*=)/opt/omneo-journal/\S+", r"\1/bin/true", text, flags=re.MULTILINE)
        )
    return names


def complaints(units: Path) -> list[str]:
    """Whatever `verify` says: it exits with 0 on keys that it doesn't know."""
    with TemporaryDirectory() as scratch:
        place = Path(scratch)
        done = analyze("verify", "--man=no", *(f"./{name}" for name in copied(units, place)), where=place)
    said = (done.stdout + done.stderr).splitlines()
    return said or ([f"verify ended with {done.returncode} without a word"] if done.returncode else [])


def exposure(units: Path, name: str) -> float:
    """How open a service is, by systemd's reckoning, from its file alone."""
    done = analyze("security", "--offline=yes", f"./{name}", where=units)
    found = EXPOSURE.search(done.stdout)
    if found is None:
        sys.exit(f"make units: systemd-analyze security says nothing of {name}: {done.stderr.strip()}")
    return float(found[1])


def main() -> int:
    """Print the figures. 1: a complaint, or a unit over its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail where systemd-analyze is missing")
    parser.add_argument("--units", type=Path, default=UNITS)
    given = parser.parse_args()
    if shutil.which("systemd-analyze") is None:
        print("make units: SKIPPED, no unit was looked at: missing here is systemd-analyze.", flush=True)
        return os.EX_UNAVAILABLE if given.strict else 0
    bad = complaints(given.units)
    for line in bad:
        print(f"verify: {line}")
    if not bad:
        print("verify: not a line")
    for name in sorted(path.name for path in given.units.glob("*.service")):
        most, found = MOST_OF.get(name, MOST), exposure(given.units, name)
        print(f"exposure of {name}: {found} (at most {most}){'' if found <= most else ' TOO OPEN'}")
        bad += [name] if found > most else []
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
