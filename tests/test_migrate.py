"""Upgrades: whatever an earlier version wrote opens, is brought forward whole or not at all, and loses nothing."""

import gzip
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from standin import Omneo
from tills import PROGRAM, ROOT, fork

from journal import log, migrate, standalone
from journal.book import FORMAT
from journal.verify import SCHEMA, verify

FORMS = Path(__file__).parent / "formats"
KEPT = sorted(path.name.partition(".")[0] for path in FORMS.glob("*.journal.db.gz"))
OLD = [name for name in KEPT if int(name[0]) < FORMAT]
FORWARDER = [sys.executable, "-c", "from forwarder.cli import main; main()"]
WAITING = ["S-6", "S-7"]


class Box:
    """A shop's books as a version left them."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name
        self.db, self.delivery, self.spool = root / "journal.db", root / "delivery.db", root / "spool"
        self.spool.mkdir()
        for path in (self.db, self.delivery):
            path.write_bytes(gzip.decompress((FORMS / f"{name}.{path.name}.gz").read_bytes()))

    def run(self, program: list[str], *words: str, **around: str) -> subprocess.CompletedProcess[str]:
        given = {"OMNEO_JOURNAL_DB": str(self.db), "OMNEO_JOURNAL_SPOOL": str(self.spool), "PYTHONPATH": str(ROOT)}
        command = [*program, *words]
        return subprocess.run(command, env=given | around, capture_output=True, text=True, check=False, timeout=60)

    def forward(self) -> None:
        for path, book in ((self.db, "journal"), (self.delivery, "delivery")):
            with log.only_instance(path, "a test"):
                migrate.forward(path, book)


@pytest.fixture(params=KEPT)
def kept(request: Any, tmp_path: Path) -> Box:
    return Box(tmp_path, request.param)


@pytest.fixture(params=OLD)
def old(request: Any, tmp_path: Path) -> Box:
    return Box(tmp_path, request.param)


def content(path: Path) -> tuple[list[Any], list[Any]]:
    with closing(sqlite3.connect(path)) as db:
        entries = db.execute("SELECT * FROM log ORDER BY seq").fetchall()
        return entries, db.execute("SELECT * FROM body ORDER BY seq").fetchall()


def shape(path: Path) -> tuple[int, set[Any]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0], set(db.execute(SCHEMA))


def new_shape() -> tuple[int, set[Any]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        log.lay_tables(db)
        return FORMAT, set(db.execute(SCHEMA))


def test_there_is_a_book_of_every_form_and_a_step_from_each_to_the_next() -> None:
    assert {int(name[0]) for name in KEPT} == set(range(1, FORMAT + 1))
    assert migrate.STEPS.keys() == set(range(1, FORMAT))


def test_its_waiting_documents_reach_omneo_and_no_other_does_again(kept: Box, omneo: Omneo) -> None:
    assert kept.run(PROGRAM, "ingest", "--once").returncode == 0
    done = kept.run(FORWARDER, "run", "--once", OMNEO_URL=omneo.url, OMNEO_TOKEN="sandbox")
    assert done.returncode == 0, done.stderr
    assert omneo.sales() == WAITING
    assert verify(kept.db, kept.delivery)["problems"] == []


def test_it_is_brought_to_the_form_of_a_new_book_and_its_entries_stay(old: Box) -> None:
    before = {path: content(path) for path in (old.db, old.delivery)}
    old.forward()
    for path, (entries, bodies) in before.items():
        assert shape(path) == new_shape()
        after, same = content(path)
        assert (after[:-1], same) == (entries, bodies)
        assert after[-1][2] == "migrated"
    assert verify(old.db, old.delivery)["problems"] == []


def test_a_copy_of_it_is_kept_beside_it(old: Box) -> None:
    was = {path.name: (content(path), shape(path)) for path in (old.db, old.delivery)}
    old.forward()
    for name, held in was.items():
        copy = old.root / f"{name}.format-1"
        assert (content(copy), shape(copy)) == held
        assert copy.stat().st_mode & 0o777 == 0o440
    for path in was:  # and it works with what is kept
        shutil.copy(old.root / f"{path}.format-1", old.root / path)
    assert verify(old.db, old.delivery)["problems"] == []


def test_a_second_start_changes_nothing(old: Box) -> None:
    old.forward()
    before = old.db.read_bytes(), sorted(path.name for path in old.root.iterdir())
    old.forward()
    assert before == (old.db.read_bytes(), sorted(path.name for path in old.root.iterdir()))


def test_a_reader_reads_it_as_it_is_and_changes_nothing(old: Box) -> None:
    before = old.db.read_bytes()
    listed = old.run(PROGRAM, "list", "--state", "waiting", "--json").stdout.splitlines()
    assert [line.split('"external_id":"')[1].split('"')[0] for line in listed] == WAITING
    assert old.run(PROGRAM, "verify").returncode == 0
    told = {book: standalone.Book(book) for book in ("journal", "delivery")}
    for name, path in (("journal", old.db), ("delivery", old.delivery)):
        assert standalone.file(path, told[name]).problems == []
    assert old.run(FORWARDER, "status").returncode == 0
    assert old.db.read_bytes() == before


def test_whoever_else_would_write_is_told_what_to_start(old: Box) -> None:
    before = old.db.read_bytes()
    done = old.run(PROGRAM, "resolve", "J7", "--by", "me", "--note", "seen")
    assert (done.returncode, done.stderr) == (
        75,
        f"{old.db} is of an earlier version; start omneo-journal ingest first, which brings it to this one's form.\n",
    )
    assert old.db.read_bytes() == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_step_it_is_of_the_one_form_or_the_other(tmp_path: Path, when: str) -> None:
    entries = content(Box(tmp_path, "1a").db)[0]
    shutil.rmtree(tmp_path / "spool")
    seen, step, status = set(), 0, -1
    while status != 0:
        step += 1
        (place := tmp_path / f"step-{step}").mkdir()
        box = Box(place, "1a")
        status = fork(lambda: migrate.forward(box.db, "journal"), (step, when))  # noqa: B023
        assert status in {0, signal.SIGKILL}
        log.open_book(box.db, "journal", write=True, older=True).close()  # whoever comes next undoes what was half done
        version, _ = shape(box.db)
        seen.add(version)
        if version == FORMAT:
            assert content(box.root / "journal.db.format-1")[0] == entries
        box.forward()
        assert shape(box.db) == new_shape()
        assert content(box.db)[0][:-1] == entries
        assert verify(box.db, box.delivery)["problems"] == []
        assert not [path for path in box.root.iterdir() if path.name.endswith(".new")]
    assert seen == {1, FORMAT}
    assert step > 8


def test_without_room_for_a_copy_nothing_happens_and_it_is_said(tmp_path: Path) -> None:
    box = Box(tmp_path, "1a")
    before = box.db.read_bytes()

    def cramped() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            migrate.forward(box.db, "journal")
        except (log.NotNow, sqlite3.OperationalError):
            os._exit(7)

    assert fork(cramped) == 7 << 8
    assert box.db.read_bytes() == before
    assert [path.name for path in tmp_path.glob("*format*")] == []


@contextmanager
def changed(path: Path, *statements: str) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)
    yield


@pytest.mark.parametrize(
    "how",
    [
        "DROP TRIGGER log_no_update",
        "CREATE INDEX log_names ON log (at)",
        "CREATE TABLE log_gap (x)",
        "DROP INDEX log_about",
    ],
)
def test_what_was_done_to_an_old_book_is_found_before_and_after(tmp_path: Path, how: str) -> None:
    box = Box(tmp_path, "1a")
    with changed(box.db, how):
        assert verify(box.db, box.delivery)["problems"] != []
    try:
        box.forward()
    except sqlite3.OperationalError:
        assert shape(box.db)[0] == 1
    assert verify(box.db, box.delivery)["problems"] != []


@pytest.mark.parametrize(
    "words", [("ingest", "--once"), ("list",), ("verify",), ("resolve", "J1", "--by", "a", "--note", "b")]
)
def test_a_newer_journal_is_refused_with_a_clear_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    box = Box(tmp_path, KEPT[-1])
    with changed(box.db, f"PRAGMA user_version = {FORMAT + 1}"):
        before = box.db.read_bytes()
    done = box.run(PROGRAM, *words)
    said = f"{box.db} was written by a newer version of this program; install that version or a later one."
    assert said in done.stderr + done.stdout
    assert done.returncode == 78
    assert box.db.read_bytes() == before


def test_a_newer_delivery_book_is_refused_too(tmp_path: Path) -> None:
    box = Box(tmp_path, KEPT[-1])
    with changed(box.delivery, f"PRAGMA user_version = {FORMAT + 1}"):
        done = box.run(FORWARDER, "run", "--once", OMNEO_URL="http://127.0.0.1:9/api/v3", OMNEO_TOKEN="x")
    assert (done.returncode, "newer version" in done.stderr) == (78, True)
