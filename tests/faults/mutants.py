"""
Our own code with one thing wrong, 25 times over: do the tests and the other means notice?

Each mutant changes one place by hand, as a tired person might: a sync left out, a condition lost, an except too wide.
It is run in a copy of this tree against the test that should know best; a mutant that passes lives. The copy as it is
has to pass the same tests first, else a killed mutant would say nothing.
"""

import ast
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.faults.means import Figures, Means, Size

HOUSE = Path(__file__).resolve().parents[2]
COPIED = ("journal", "forwarder", "schemas", "tests", "docs", "pyproject.toml", "README.md")
LEAST = 24
LONG_S = 300.0
# Not a test of pytest's: a run of `power_recorded` over one scenario.
STATES = """
import sys
from pathlib import Path
from tests.faults.means import Size
from tests.faults.power_recorded import Explorer
from tests.faults.scenarios import SCENARIOS
explorer = Explorer(Size(1500, 1, Path(sys.argv[2])), 0)
try:
    recorded = explorer.record(SCENARIOS[sys.argv[1]], sys.argv[1])
    sys.exit(1 if explorer.look(recorded, 1500, 1) else 0)
finally:
    explorer.close()
"""


@dataclass(frozen=True)
class Mutant:
    """One place, and who has to notice: a test file with -k, or `states` with a scenario."""

    what: str
    file: str
    was: str
    becomes: str
    test: str
    which: str = ""


MUTANTS = (
    Mutant(
        "commits with synchronous=NORMAL",
        "journal/book.py",
        'db.execute("PRAGMA synchronous = EXTRA")',
        'db.execute("PRAGMA synchronous = NORMAL")',
        "states",
        "intake",
    ),
    Mutant(
        "a directory is not synced", "journal/book.py", "        os.fsync(handle)\n", "        pass\n", "test_durable"
    ),
    Mutant("words are not synced", "journal/rejected.py", "os.fsync(out.fileno())", "out.fileno()", "test_durable"),
    Mutant(
        "the words' directory is not synced",
        "journal/rejected.py",
        "        sync_directory(target)  # before the file moves here\n",
        "",
        "test_durable",
    ),
    Mutant(
        "a pack's directory is not synced",
        "journal/archive.py",
        "    log.sync_directory(path.parent)",
        "    path.parent",
        "test_archive",
        "on_disk",
    ),
    Mutant("drafts stay", "journal/book.py", "        clear_drafts(path)\n", "", "test_durable"),
    Mutant(
        "a second instance starts",
        "journal/book.py",
        "LOCK_EX | LOCK_NB",
        "LOCK_EX * 0 | 1 | LOCK_NB",
        "test_journal_cli",
        "second_instance",
    ),
    Mutant(
        "deleted bytes stay in the file",
        "journal/book.py",
        "PRAGMA secure_delete = ON",
        "PRAGMA secure_delete = OFF",
        "test_redact",
        "",
    ),
    Mutant(
        "a failed commit leaves its transaction open",
        "journal/log.py",
        '        if db.in_transaction:\n            db.execute("ROLLBACK")',
        "        pass",
        "test_log",
    ),
    Mutant(
        "a failed commit is none",
        "journal/log.py",
        "        raise reading_failed(error, path) from error\n    finally:\n        if db.in_transaction:",
        "        del error\n    finally:\n        if db.in_transaction:",
        "test_log",
    ),
    Mutant(
        "an entry is linked to nothing",
        "journal/log.py",
        "digest = chain.link(digest, row)",
        "digest = chain.link(chain.ZERO, row)",
        "test_log",
    ),
    Mutant(
        "the spool is looked at before an entry is written",
        "journal/ingest.py",
        "while not stop.is_set() and not patient",
        "while False and not patient",
        "test_ingest",
        "daemon_writes",
    ),
    Mutant(
        "a bad file is removed",
        "journal/ingest.py",
        'if verdict.fate == "accept" or nothing_to_keep:',
        'if verdict.fate != "repeat" or nothing_to_keep:',
        "test_ingest",
    ),
    Mutant(
        "a file goes before its commit",
        "journal/ingest.py",
        "    for contents, verdict in enter(due, db, now):",
        "    for contents, found in due:\n"
        '        _ = found.kind == "invalid" or spool.retire(contents.file)\n'
        "    for contents, verdict in enter(due, db, now):",
        "test_ingest",
    ),
    Mutant(
        "a file that can't be read stops everything",
        "journal/spool.py",
        "            except OSError as error:  # whatever the system says",
        "            except ValueError as error:  # whatever the system says",
        "test_spool",
    ),
    Mutant(
        "another file under the same name goes",
        "journal/spool.py",
        "if as_file(file.path, os.lstat(self._at(private))) == file:",
        "if os.lstat(self._at(private)):",
        "test_spool",
    ),
    Mutant(
        "a half-written file is judged at once",
        "journal/spool.py",
        "        return now - since >= QUIET_S\n",
        "        return now >= since\n",
        "test_spool",
    ),
    Mutant(
        "a repeat is judged by its id alone",
        "journal/check.py",
        "if content is not None and same(content, document.content):",
        "if content is not None:",
        "test_check",
    ),
    Mutant(
        "any 2xx is success",
        "forwarder/replay.py",
        'case "yes" if omneo.echoes(answer.data, document.external_id):',
        'case "yes":',
        "test_replay",
    ),
    Mutant(
        "resent without a look-up",
        "forwarder/replay.py",
        "    if errand.look_first:\n        found = look_up(talk, errand)",
        "    if False:\n        found = look_up(talk, errand)",
        "test_replay",
    ),
    Mutant(
        "sent before it is on disk that it may",
        "forwarder/replay.py",
        "        run.books.take_turn(run.lane.settled_upto, document.seq + TURN)",
        "        run.books.turn.upto = document.seq + TURN",
        "states",
        "delivery",
    ),
    Mutant(
        "an attempt at a redemption stays in memory",
        "forwarder/replay.py",
        'Entry("attempt", document.seq, document.external_id, facts))\n        run.books.flush()\n',
        'Entry("attempt", document.seq, document.external_id, facts))\n',
        "states",
        "delivery",
    ),
    Mutant(
        "what may have left before the start is forgotten",
        "forwarder/books.py",
        "self.unknown_upto = max(self.turn.upto, self._lost_upto)",
        "self.unknown_upto = 0",
        "test_replay",
    ),
    Mutant(
        "absent once is absent",
        "forwarder/lookup.py",
        "    if left > 0:\n",
        "    if left > SETTLE_S:\n",
        "test_redemption_doubt",
        "lags_a_little",
    ),
    Mutant(
        "a redaction keeps the body",
        "journal/redact.py",
        "log.erase(db, each.seq)",
        "log.has_body(db, each.seq)",
        "test_redact",
    ),
)


def _copy(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name in COPIED:
        source = HOUSE / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)


def passes(root: Path, test: str, which: str) -> bool:
    """Does the copy pass?"""
    if test == "states":
        command = [sys.executable, "-c", STATES, which, str(root / "scratch")]
    else:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{test}.py"]
        command += ["-k", which] if which else []
    env = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, timeout=LONG_S, check=False)
    except subprocess.TimeoutExpired:
        return False  # it hangs: that is noticed
    return done.returncode == 0


def _lives(root: Path, mutant: Mutant) -> bool:
    _copy(root)
    path = root / mutant.file
    path.write_text(path.read_text().replace(mutant.was, mutant.becomes))
    lives = passes(root, mutant.test, mutant.which)
    shutil.rmtree(root, ignore_errors=True)
    return lives


def run(size: Size) -> Figures:
    """The tests on the copy as it is, then on each mutant."""
    figures = Figures()
    for mutant in MUTANTS:
        text = (HOUSE / mutant.file).read_text()
        if text.count(mutant.was) != 1:
            raise ValueError(f"{mutant.what}: {mutant.file} has changed; the mutant has to be made anew")
        ast.parse(text.replace(mutant.was, mutant.becomes))  # one that can't even be read says nothing
    sound = size.scratch / "sound"
    _copy(sound)
    tests = sorted({(mutant.test, mutant.which) for mutant in MUTANTS})
    mutants = MUTANTS[: size.points]
    with ThreadPoolExecutor(size.jobs) as pool:
        good = list(pool.map(lambda test: passes(sound, *test), tests))
        lives = list(pool.map(lambda each: _lives(size.scratch / f"mutant-{each[0]}", each[1]), enumerate(mutants)))
    shutil.rmtree(sound, ignore_errors=True)
    figures.found = [
        f"{test} -k {which!r} fails without any mutation"
        for (test, which), ok in zip(tests, good, strict=True)
        if not ok
    ]
    figures.points = len(mutants)
    killed = {mutant.what: not alive for mutant, alive in zip(mutants, lives, strict=True)}
    figures.detail = {
        "killed": sum(killed.values()),
        "alive": ", ".join(what for what, dead in killed.items() if not dead),
    }
    figures.caught = {what: dead for what, dead in killed.items() if dead}
    if sum(killed.values()) < min(LEAST, len(mutants)):
        figures.found += [f"alive: {what}" for what, dead in killed.items() if not dead]
    return figures


MEANS = Means("mutants", "mutants", "mutants of our own code", small=0, full=len(MUTANTS), needs=lambda: None, run=run)
