"""The demo as a visitor runs it: one process, a pipe for a screen, and nothing left behind but files."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import forwarder

DEMO = [sys.executable, "-c", "from forwarder.cli import main; main()", "demo"]
SENTENCES = (
    "A shop with three tills",
    "All files are in ",
    "1  The shop opens",
    "24 sales so far: 24 at Omneo, 0 waiting.",
    "2  The line is cut",
    "Files left in the tills' directories: 0. All 43 sales are in the journal.",
    "The forwarder says: no connection.",
    "3  Rewards are spent, with nobody to ask",
    "23 documents wait, and the reward is granted at the till",
    "4  A till writes nonsense",
    ".json.error.json",
    "/total: ",
    "5  A captive portal answers",
    "fooled nobody: all ",
    "6  The line is back",
    "It noticed after ",
    "The pair that met here",
    "7  Rewards are taken back",
    "Taken back at once: 5.00 were spent",
    "held and flagged",
    "8  What became of it all",
    "63 delivered, 0 waiting, 0 refused, 1 held, 2 cancelled, 1 invalid.",
    "Omneo holds each sale exactly once: ",
    "They came to Omneo in the order of the journal.",
    "Each reward was spent once",
    "looked up at Omneo, and not sent again.",
    "nothing altered.",
    " invalid\n",
    " sequence_gap\n",
    " reversal_too_late\n",
    "Look around yourself",
    "export OMNEO_JOURNAL_DB=",
    "omneo-journal list",
    "omneo-journal show MEL01-T",
    "omneo-journal verify",
)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A short path: the demo's commands hold it, and they are never broken."""
    with tempfile.TemporaryDirectory(prefix="d-") as made:
        yield Path(made)


def start(temporary: Path, **environment: str) -> subprocess.Popen[str]:
    root = str(Path(forwarder.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    env = os.environ | {"TMPDIR": str(temporary), "COLUMNS": "80", "PYTHONPATH": path} | environment
    return subprocess.Popen(DEMO, env=env, text=True, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def until(demo: subprocess.Popen[str], words: str) -> None:
    assert demo.stdout
    assert any(words in line for line in demo.stdout)


def children_of(temporary: Path) -> dict[int, str]:
    """Processes, whoever their parent is by now, that work on the demo's files."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"OMNEO_JOURNAL_DB={temporary}" in (process / "environ").read_text(errors="replace"):
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_tells_the_whole_story_in_a_pipe(temporary: Path) -> None:
    # Names that a developer's shell may have set must not reach the programs, nor colours the pipe.
    demo = start(temporary, FORCE_COLOR="1", OMNEO_ORDERING="nonsense", CREDENTIALS_DIRECTORY=str(temporary))
    out, err = demo.communicate(timeout=60)
    assert (demo.returncode, err) == (0, ""), out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)
    assert max(len(line) for line in out.splitlines()) <= 80
    at = 0
    for sentence in SENTENCES:
        assert sentence in out[at:], f"{sentence!r} is missing, or comes too early:\n{out}"
        at = out.index(sentence, at) + len(sentence)
    assert "✗" not in out
    assert children_of(temporary) == {}
    exported = re.search(r"export OMNEO_JOURNAL_DB=(\S+)", out)
    assert exported
    assert Path(exported[1]).is_file()


@pytest.mark.slow
def test_says_so_when_omneo_has_what_no_till_sold(temporary: Path) -> None:
    demo = start(temporary)
    until(demo, "2  The line is cut")
    url = next(temporary.glob("*/logs/sandbox.log")).read_text().strip()
    until(demo, "5  A captive portal answers")
    until(demo, "6  The line is back")
    bearer = {"Authorization": "Bearer sandbox"}
    stray = {"total": 1, "transacted_at": "2025-06-15 14:32:00", "timezone": "Australia/Melbourne", "items": []}
    for _ in range(100):
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.post(f"{url}/transactions", json=stray | {"external_id": "STRAY"}, headers=bearer)
            if answer.is_success and "html" not in answer.headers["content-type"]:
                break
    out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "✗ Omneo holds each sale exactly once" in out
    assert "✓ verify" in out


def test_says_so_when_a_program_dies(temporary: Path) -> None:
    demo = start(temporary)
    until(demo, "1  The shop opens")
    running = next(number for number, line in children_of(temporary).items() if " run " in line)
    os.kill(running, signal.SIGKILL)
    out, err = demo.communicate(timeout=20)
    assert (demo.returncode, err) == (1, "")
    assert "✗ The program behind `run` has ended by itself" in " ".join(out.split())
    assert children_of(temporary) == {}


@pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 130)])
def test_takes_its_children_with_it(temporary: Path, by: signal.Signals, code: int) -> None:
    demo = start(temporary)
    until(demo, "1  The shop opens")
    if Path("/proc/self/environ").exists():
        assert len(children_of(temporary)) == 3
    asked = time.monotonic()
    demo.send_signal(by)
    out, err = demo.communicate(timeout=10)
    assert (demo.returncode, err) == (code, "")
    assert time.monotonic() - asked < 5
    assert f"in {temporary}" in out
    assert children_of(temporary) == {}


def test_a_reader_who_leaves_leaves_no_children(temporary: Path) -> None:
    demo = start(temporary)
    assert demo.stdout
    demo.stdout.readline()
    demo.stdout.close()
    demo.wait(timeout=30)
    assert demo.stderr
    assert "Traceback" not in demo.stderr.read()
    demo.stderr.close()
    assert children_of(temporary) == {}
