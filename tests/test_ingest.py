"""The way of a sale into the journal: the sweep, the daemon, and what is left after a kill at any step of it."""

import json
import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from tills import LIMIT, Shop, broken, fork, sale, wait_until

from journal import ingest, log, spool

# -- the sweep


def test_when_the_file_is_gone_the_sale_is_in_the_journal(shop: Shop) -> None:
    shop.drop("till-1/a.json", sale())
    assert shop.sweep() == ingest.Swept(taken=1)
    assert shop.waiting() == []
    assert shop.sales() == ["S-1"]
    assert bytes(shop.book.execute("SELECT bytes FROM body").fetchone()[0]) == sale()
    assert shop.problems() == []


def test_documents_are_entered_oldest_first(shop: Shop) -> None:
    for name, age in {"a.json": 1, "b.json": 3, "c.json": 2}.items():
        shop.drop(name, sale(name), age=age)
    shop.sweep()
    assert shop.sales() == ["b.json", "c.json", "a.json"]


def test_a_burst_is_taken_in_several_commits(shop: Shop) -> None:
    for number in range(1500):
        shop.drop(f"{number}.json", sale(f"S-{number}"))
    assert shop.sweep().taken == 1500
    assert shop.waiting() == []
    assert len({entry["external_id"] for entry in shop.entries("sale")}) == 1500
    assert [entry["n"] for entry in shop.entries("sale")] == list(range(1, 1501))


def test_what_is_invalid_is_evidence_and_its_file_is_set_aside(shop: Shop) -> None:
    shop.drop("till-1/a.json", broken())
    assert shop.sweep() == ingest.Swept(rejected=1)
    entry, flag = shop.entries("invalid", "flag")
    why = "breaks its schema: /total must be a number"
    assert (entry["file"], entry["reason"], entry["pointers"]) == ("till-1/a.json", why, ["/total"])
    assert (flag["flag"], flag["about"]) == ("invalid", entry["seq"])
    assert shop.book.execute("SELECT bytes FROM body").fetchone()[0] == broken()
    words = json.loads((shop.spool / "rejected/till-1/a.json.error.json").read_text())
    problems = [{"pointer": "/total", "message": "must be a number"}]
    assert words == {"file": "a.json", "reason": why, "problems": problems, "seq": entry["seq"]}
    assert ("rejected", {"seq": entry["seq"], "reason": why, "pointers": ["/total"]}) in shop.said


def test_a_journal_that_is_held_by_a_long_reader_keeps_the_files_and_goes_on_after(shop: Shop) -> None:
    shop.book.execute("PRAGMA busy_timeout = 20")
    shop.drop("a.json", sale())
    with closing(sqlite3.connect(shop.db, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM log").fetchone()
        with pytest.raises(log.NotNow):
            shop.sweep()
        assert shop.waiting() == ["a.json"]
    assert shop.sweep().taken == 1


def test_a_journal_that_another_program_writes_is_not_now(shop: Shop) -> None:
    shop.book.execute("PRAGMA busy_timeout = 20")
    shop.drop("a.json", sale())
    with closing(sqlite3.connect(shop.db, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(log.NotNow):
            shop.sweep()
    assert shop.sweep().taken == 1


def test_a_full_disk_keeps_the_files(shop: Shop) -> None:
    shop.book.execute(f"PRAGMA max_page_count = {shop.book.execute('PRAGMA page_count').fetchone()[0]}")
    for number in range(200):
        shop.drop(f"{number}.json", sale(f"S-{number}", meta={"note": "x" * 2000}))
    with pytest.raises(log.NotNow, match="full"):
        shop.sweep()
    assert len(shop.waiting()) == 200
    assert shop.sales() == []
    shop.book.execute("PRAGMA max_page_count = 100000")
    assert shop.sweep().taken == 200


def test_a_stop_ends_a_long_sweep_after_the_batch(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "BATCH_FILES", 10)
    stop = threading.Event()
    shop.files = spool.Spool(shop.spool, LIMIT, lambda *_: None, stop)
    for number in range(100):
        shop.drop(f"{number}.json", sale(f"S-{number}"))
    for batch in shop.files.batches(shop.files.ready(), 0):
        assert len(batch) == 10
        stop.set()
    assert shop.sweep().taken == 0
    assert len(shop.waiting()) == 100


def test_the_opening_entry_vouches_for_the_delivery_book(shop: Shop) -> None:
    log.create(shop.delivery, "delivery", {})
    ingest.opened(shop.book, shop.delivery, say=shop.say)
    assert shop.entries("opened")[-1]["other_book"]["entries"] == 1


@pytest.mark.parametrize("how", ["empty", "text", "directory", "loop"])
def test_a_spoilt_delivery_book_never_keeps_a_sale_out(shop: Shop, how: str) -> None:
    if how == "directory":
        shop.delivery.mkdir()
    elif how == "loop":
        shop.delivery.symlink_to(shop.delivery)
    else:
        shop.delivery.write_text("" if how == "empty" else "x" * 5000)
    ingest.opened(shop.book, shop.delivery, say=shop.say)
    assert "other_book" not in shop.entries("opened")[-1]
    assert [event for event, _ in shop.said] == ["delivery_unreadable"]


# -- once


def test_once_takes_a_file_that_becomes_whole_while_it_waits(shop: Shop) -> None:
    path = shop.drop("a.json", sale()[:50])
    writer = threading.Timer(0.3, path.write_bytes, [sale()])
    writer.start()
    began = time.monotonic()
    assert shop.once()
    writer.join()
    assert time.monotonic() - began < spool.QUIET_S
    assert shop.sales() == ["S-1"]


@pytest.mark.parametrize("body", [b"", sale()[:50], b"\0" * 20, b"x" * (LIMIT + 1)])
def test_once_judges_what_stood_still_for_two_seconds(shop: Shop, body: bytes) -> None:
    shop.drop("a.json", body)
    began = time.monotonic()
    assert shop.once()
    assert spool.QUIET_S <= time.monotonic() - began < ingest.ONCE_WAIT_S
    (entry,) = shop.entries("invalid")
    assert entry["bytes"] == len(body)
    kept = shop.book.execute("SELECT bytes FROM body").fetchone()
    assert kept == ((body,) if len(body) <= LIMIT else None)
    assert shop.rejected() == ["a.json", "a.json.error.json"]
    assert shop.problems() == []


def test_once_leaves_what_still_changes(shop: Shop) -> None:
    path = shop.drop("a.json", b"{")
    shop.drop("b.json", sale())
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.1):
            with path.open("ab") as more:
                more.write(b" ")

    writer = threading.Thread(target=write)
    writer.start()
    began = time.monotonic()
    assert not shop.once()
    assert time.monotonic() - began < ingest.ONCE_WAIT_S + 0.5
    done.set()
    writer.join()
    assert shop.waiting() == ["a.json"]
    assert shop.sales() == ["S-1"]


def test_once_takes_both_when_a_file_is_replaced_while_it_is_taken(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.drop("a.json", sale("S-1"))
    real = log.append

    def append(*args: object, **options: object) -> int:
        if not shop.sales() and (shop.spool / "a.json").read_bytes() == sale("S-1"):
            shop.drop("a.json", sale("S-2"))
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(log, "append", append)
    assert shop.once()
    assert shop.sales() == ["S-1", "S-2"]
    assert shop.waiting() == []


# -- killed at any step


def fill(shop: Shop) -> None:
    """One of each fate. Everything is whole JSON, so that nothing has to be waited for."""
    shop.drop("first.json", sale("S-1"), age=9)
    shop.sweep()
    shop.drop("till-1/a.json", sale("S-2"), age=5)
    shop.drop("till-1/bad.json", broken("B-1"), age=4)
    shop.drop("conflict.json", sale("S-1", total=13), age=3)
    shop.drop("repeat.json", sale("S-1"), age=2)


def settle(shop: Shop) -> None:
    """The restart: a fresh process's state, swept until nothing is left."""
    shop.book.close()
    shop.book = log.open_book(shop.db, "journal", write=True)
    shop.files = shop.new_spool()
    ingest.opened(shop.book, shop.delivery, say=shop.say)
    assert shop.once()


def is_as_it_should_be(shop: Shop) -> None:
    assert shop.sales() == ["S-1", "S-2"]
    reasons = [entry["reason"] for entry in shop.entries("invalid")]
    assert reasons == ["breaks its schema: /total must be a number", "conflict"]
    assert [entry["flag"] for entry in shop.entries("flag")] == ["invalid", "conflict"]
    assert shop.waiting() == []
    files = ["conflict.json", "till-1/bad.json"]
    assert shop.rejected() == sorted(files + [f"{name}.error.json" for name in files])
    assert shop.problems() == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_loses_nothing_and_doubles_nothing(tmp_path: Path, when: str) -> None:
    """The kill moves one step further with each turn, until the sweep gets through."""
    for step in range(1, 200):
        shop = Shop(tmp_path / str(step))
        fill(shop)
        shop.book.close()

        def start(shop: Shop = shop) -> None:
            shop.book = log.open_book(shop.db, "journal", write=True)
            ingest.opened(shop.book, shop.delivery, say=shop.say)
            shop.sweep()

        status = fork(start, die_at=(step, when))
        assert status in {0, signal.SIGKILL}
        settle(shop)
        is_as_it_should_be(shop)
        shop.book.close()
        if status == 0:
            assert step > 25
            return
    pytest.fail("the sweep never got through")


@pytest.mark.parametrize("second", range(1, 12))
def test_a_kill_while_recovering_from_a_kill(tmp_path: Path, second: int) -> None:
    """The first kill comes between the commit and the first file that goes; the second during the restart."""
    shop = Shop(tmp_path)
    fill(shop)
    shop.book.close()

    def start() -> None:
        shop.book = log.open_book(shop.db, "journal", write=True)
        shop.sweep()

    def commit_and_die() -> None:
        real = os.rename
        os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        start()
        os.rename = real

    assert fork(commit_and_die) == signal.SIGKILL
    fork(start, die_at=(10 + 2 * second, "after"))
    settle(shop)
    is_as_it_should_be(shop)
    shop.book.close()


# -- the daemon


def test_the_daemon_takes_what_was_there_and_what_comes_and_ends_cleanly(shop: Shop) -> None:
    shop.drop("before.json", sale("S-1"))
    with shop.start().ready() as daemon:
        wait_until(lambda: shop.sales() == ["S-1"])
        shop.drop("till-9/new.json", sale("S-2"))
        (shop.spool / "in-place.json").write_bytes(sale("S-3"))
        wait_until(lambda: not shop.waiting())
        assert daemon.stop() == 0
        assert daemon.events("stopped")
    assert set(shop.sales()) == {"S-1", "S-2", "S-3"}
    assert shop.problems() == []


def test_the_daemon_leaves_a_slow_writer_alone_and_condemns_an_abandoned_file(shop: Shop) -> None:
    slow = shop.spool / "slow.json"
    (shop.spool / "abandoned.json").write_bytes(b'{"half')
    with shop.start().ready():
        with slow.open("wb", buffering=0) as out:
            for piece in sale("S-1").split(b" "):
                out.write(piece + b" ")
                time.sleep(0.15)  # the writer is slow: longer in all than a file must stand still
        wait_until(lambda: not shop.waiting())
    assert shop.sales() == ["S-1"]
    assert shop.rejected() == ["abandoned.json", "abandoned.json.error.json"]


def test_a_daemon_killed_in_a_burst_loses_nothing_and_doubles_nothing(shop: Shop) -> None:
    """The POS drops files, by rename and in place, while the program is killed again and again."""
    done = threading.Event()
    names: list[str] = []

    def drop() -> None:
        while not done.is_set() and len(names) < 3000:
            name = f"S-{len(names)}"
            names.append(name)
            if len(names) % 5:
                shop.drop(f"till-{len(names) % 3}/{name}.json", sale(name))
            else:
                (shop.spool / f"{name}.json").write_bytes(sale(name))
            time.sleep(0.0005)

    pos = threading.Thread(target=drop)
    pos.start()
    for _ in range(4):
        with shop.start() as daemon:
            before = len(shop.entries("sale"))
            wait_until(lambda before=before: len(shop.entries("sale")) > before + 50 or not pos.is_alive())
            daemon.kill()
    done.set()
    pos.join()
    assert shop.run("ingest", "--once").returncode == 0
    assert sorted(shop.sales()) == sorted(names)
    assert shop.waiting() == []
    assert shop.rejected() == []
    assert shop.problems() == []


def test_the_daemon_outlives_a_long_reader_and_says_so(shop: Shop) -> None:
    with shop.start().ready() as daemon, closing(sqlite3.connect(shop.db, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM log").fetchone()
        shop.drop("a.json", sale())
        (event,) = wait_until(lambda: daemon.events("not_now"))
        assert "held by another program" in event["reason"]
        assert shop.waiting() == ["a.json"]
        reader.execute("ROLLBACK")
        wait_until(lambda: not shop.waiting())
        wait_until(lambda: daemon.events("going_on"))
        assert daemon.stop() == 0
    assert shop.sales() == ["S-1"]


def test_the_daemon_waits_for_a_spool_that_has_gone_and_finds_a_new_one(shop: Shop) -> None:
    with shop.start().ready() as daemon:
        shop.spool.rename(shop.root / "away")
        wait_until(lambda: daemon.events("not_now"))
        shop.spool.mkdir()
        shop.drop("a.json", sale())
        wait_until(lambda: not shop.waiting())
        assert daemon.process.poll() is None


def test_the_daemon_writes_an_entry_before_it_takes_anything(shop: Shop) -> None:
    """After a sync that failed, it is this commit that puts what was read from memory on disk."""
    shop.drop("a.json", sale())
    with shop.start().ready():
        wait_until(lambda: not shop.waiting())
    rows = shop.book.execute("SELECT kind FROM log ORDER BY seq").fetchall()
    assert [kind for (kind,) in rows] == ["created", "opened", "sale"]


def test_what_can_not_be_done_is_said_once_however_often_it_is_tried(shop: Shop) -> None:
    said: list[str] = []
    looks: list[int] = []
    stop, wake = threading.Event(), threading.Event()
    shop.spool.rename(shop.root / "away")

    def wakes() -> None:
        try:
            wait_until(lambda: wake.set() or len(looks) >= 5)
        finally:
            stop.set()
            wake.set()

    waker = threading.Thread(target=wakes)
    waker.start()
    keep = lambda: looks.append(1)  # noqa: E731 - a checkpoint that is always possible
    ingest.run(shop.files, shop.book, shop.delivery, stop, wake, say=lambda what, **_: said.append(what), chores=[keep])
    waker.join()
    assert len(looks) >= 5
    assert said == ["no_file_events", "ready", "not_now", "stopped"]


def test_the_daemon_does_not_spin_over_a_file_that_it_can_not_set_aside(shop: Shop) -> None:
    (shop.spool / "rejected").touch()
    shop.drop("a.json", b"{")
    with shop.start().ready() as daemon:
        wait_until(lambda: daemon.events("passed_over"))
        used = Path(f"/proc/{daemon.process.pid}/stat")
        before = int(used.read_text().split()[13])
        time.sleep(1)
        assert int(used.read_text().split()[13]) - before < 20  # of a hundred ticks
        assert len(daemon.events("passed_over")) == 1


def test_the_daemon_goes_on_when_nobody_reads_its_log_any_more(shop: Shop) -> None:
    reading, writing = os.pipe()
    daemon = fork_exec(shop, writing)
    os.close(writing)
    wait_until(lambda: b"ready" in os.read(reading, 4096))
    os.close(reading)
    shop.drop("a.json", sale())
    wait_until(lambda: not shop.waiting())
    shop.drop("b.json", sale("S-2"))
    wait_until(lambda: not shop.waiting())
    os.kill(daemon, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(daemon, 0)[1]) == 0


def fork_exec(shop: Shop, stderr: int) -> int:
    from tills import PROGRAM

    actions = [(os.POSIX_SPAWN_DUP2, stderr, 2)]
    return os.posix_spawn(PROGRAM[0], [*PROGRAM, "ingest"], shop.environment(), file_actions=actions)
