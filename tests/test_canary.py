"""A canary goes the whole way, never to Omneo, and only where nothing else does; one that does not come back shows."""

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from standin import Omneo, Store, sale
from tills import Shop, wait_until
from tills import sale as file

from forwarder import patience
from forwarder.canary import Canary as Answer
from forwarder.replay import step
from journal import ingest, log
from journal.canary import Canary
from journal.files import CANARY


def entries(path: Path, book: str) -> list[tuple[int, str]]:
    with closing(log.open_book(path, book, write=False)) as db:
        return db.execute("SELECT seq, facts FROM log WHERE kind = 'canary'").fetchall()


def flown(shop: Shop) -> list[dict[str, Any]]:
    return shop.entries("canary")


def test_it_is_dropped_when_its_time_has_come_and_not_before(shop: Shop) -> None:
    Canary(shop.book, shop.spool, shop.delivery, every_s=60)()
    assert shop.waiting() == []
    Canary(shop.book, shop.spool, shop.delivery, every_s=0)()
    assert shop.waiting() == [CANARY]


def test_it_makes_one_entry_and_its_file_goes_and_nobody_counts_it(shop: Shop) -> None:
    Canary(shop.book, shop.spool, shop.delivery, every_s=0)()
    assert shop.sweep() == ingest.Swept()
    assert shop.waiting() == []
    assert [entry["canary"] for entry in flown(shop)] == [1]
    assert shop.said == []
    assert shop.problems() == []
    assert shop.run("list").stdout == ""
    assert shop.run("close-check").returncode == 0
    shop.drop("a.json", file())
    shop.sweep()
    assert [entry["n"] for entry in shop.entries("sale")] == [1]


def test_one_that_can_not_be_removed_is_one_entry(shop: Shop) -> None:
    Canary(shop.book, shop.spool, shop.delivery, every_s=0)()
    body = (shop.spool / CANARY).read_bytes()
    for _ in range(3):
        shop.sweep()
        (shop.spool / CANARY).write_bytes(body)
    assert len(flown(shop)) == 1


def test_one_that_a_power_cut_left_half_taken_is_taken(shop: Shop) -> None:
    Canary(shop.book, shop.spool, shop.delivery, every_s=0)()
    (shop.spool / CANARY).rename(shop.spool / f".taken-7-{CANARY}")
    shop.sweep()
    assert (shop.waiting(), len(flown(shop))) == ([], 1)


@pytest.mark.parametrize("body", [b"{}", b'{"canary":-1}', b'{"canary":1}x', b'{"canary":' + b"9" * 400 + b"}"])
def test_what_only_bears_its_name_is_judged_like_any_file(shop: Shop, body: bytes) -> None:
    (shop.spool / CANARY).write_bytes(body)
    shop.once()
    assert (flown(shop), len(shop.entries("invalid")), shop.waiting()) == ([], 1, [])


def test_a_sale_under_its_name_is_a_sale(shop: Shop) -> None:
    (shop.spool / CANARY).write_bytes(file("S-1"))
    shop.sweep()
    assert shop.sales() == ["S-1"]


def test_none_is_dropped_while_one_is_there_or_documents_go_the_whole_way(
    store: Store, omneo: Omneo, token: Path
) -> None:
    book = log.open_book(store.db, "journal", write=True)
    bird = Canary(book, store.spool, store.delivery, every_s=1000, now=store.now)

    def drops() -> bool:
        bird._due_at = 0
        (store.spool / CANARY).unlink(missing_ok=True)
        bird()
        return (store.spool / CANARY).exists()

    assert drops()  # there is no delivery book yet
    (store.spool / CANARY).write_bytes(b"the last one")
    bird._due_at = 0
    bird()
    assert (store.spool / CANARY).read_bytes() == b"the last one"
    store.spool.joinpath(CANARY).unlink()
    with store.forwarding(omneo.url, token=token) as run:
        store.take(sale("S-1"))
        step(run)
        run.books.flush()
        assert not drops()  # a sale has just gone
        log.append(run.books.delivery, [log.Entry("line", facts={"link": "down", "reason": "x"})])
        assert drops()
    book.close()


def test_while_the_line_is_down_one_in_eight_is_dropped(store: Store, omneo: Omneo, token: Path) -> None:
    with (
        closing(log.open_book(store.db, "journal", write=True)) as book,
        store.forwarding(omneo.url, token=token) as run,
    ):
        bird = Canary(book, store.spool, store.delivery, every_s=1000, now=store.now)

        def drops(times: int) -> list[bool]:
            found = []
            for _ in range(times):
                bird._due_at = 0
                (store.spool / CANARY).unlink(missing_ok=True)
                bird()
                found.append((store.spool / CANARY).exists())
            return found

        def turn(link: str) -> None:
            log.append(run.books.delivery, [log.Entry("line", facts={"link": link, "reason": ""})])

        for down in ("down", "paused"):
            turn(down)
            assert drops(10) == [True, *[False] * 7, True, False]
            turn("up")
            assert drops(3) == [True] * 3


def test_the_forwarder_answers_each_once_across_restarts(store: Store, omneo: Omneo, token: Path) -> None:
    book = log.open_book(store.db, "journal", write=True)
    for _ in range(2):
        with store.forwarding(omneo.url, token=token) as run:
            Canary(book, store.spool, store.delivery, every_s=0)()
            store.sweep()
            for _ in range(2):
                run.chores.canary._looked_at = -10
                run.chores.canary.answer()
    book.close()
    flights = [seq for seq, _ in entries(store.db, "journal")]
    assert [facts for _, facts in entries(store.delivery, "delivery")] == [f'{{"seq":{seq}}}' for seq in flights]
    assert len(flights) == 2
    assert omneo.asked() == []
    store.verified()


@pytest.mark.parametrize("fault", [{"mode": "portal"}, {"mode": "throttle", "retry_after": 3600}])
def test_it_comes_back_though_the_line_is_down_and_omneo_asked_for_a_long_wait(
    store: Store, omneo: Omneo, token: Path, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "LOOK_S", 0.05)
    monkeypatch.setattr("forwarder.canary.LOOK_S", 0.0)
    store.take(sale("S-1"))
    omneo.fault(fault.pop("mode"), **fault)
    stop, wake = threading.Event(), threading.Event()
    loop = threading.Thread(target=_run, args=(store, omneo, token, stop, wake))
    loop.start()
    try:
        wait_until(omneo.asked)
        with closing(log.open_book(store.db, "journal", write=True)) as book:
            Canary(book, store.spool, store.delivery, every_s=0)()
        store.sweep()
        wait_until(lambda: entries(store.delivery, "delivery"))
    finally:
        stop.set()
        wake.set()
        loop.join()


def _run(store: Store, omneo: Omneo, token: Path, stop: threading.Event, wake: threading.Event) -> None:
    with store.forwarding(omneo.url, token=token) as run:
        patience.run_until(run, stop, wake)


def test_a_journal_that_can_not_be_read_just_now_is_no_answer_and_no_error(
    store: Store, omneo: Omneo, token: Path
) -> None:
    with store.forwarding(omneo.url, token=token) as run, closing(log.open_book(store.db, "journal", write=True)) as db:
        run.books.journal.execute("PRAGMA busy_timeout = 0")
        log.append(db, [log.Entry("canary", facts={"canary": 1})])
        db.execute("BEGIN EXCLUSIVE")
        answer = Answer(run.books)
        answer.answer()
        db.execute("ROLLBACK")
        assert entries(store.delivery, "delivery") == []
        answer._looked_at = -10
        answer.answer()
    assert len(entries(store.delivery, "delivery")) == 1


def test_the_daemon_drops_it_and_takes_it_by_its_next_regular_look(shop: Shop) -> None:
    with shop.start("--canary", "0.2") as daemon:
        wait_until(lambda: len(flown(shop)) > 1)
        assert daemon.stop() == 0
        assert (daemon.events("swept"), daemon.events("not_now")) == ([], [])
    numbers = [entry["canary"] for entry in flown(shop)]
    assert numbers == sorted(set(numbers))


def test_no_canary_when_none_is_wanted(shop: Shop) -> None:
    with shop.start("--canary", "0") as daemon:
        daemon.ready()
        shop.drop("a.json", file())
        wait_until(shop.sales)
        assert daemon.stop() == 0
    assert flown(shop) == []
