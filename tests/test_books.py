"""Both books from the forwarder's side: they belong together, and the position is found again from what they say."""

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from standin import Omneo, Store, sale

from forwarder.books import TURN, Books, create_delivery
from forwarder.known import left
from forwarder.replay import step
from journal import log
from journal.log import Entry, NotNow, utc_now


@pytest.fixture
def books(store: Store) -> Iterator[Books]:
    create_delivery(store.db, store.delivery)
    pair = Books(store.db, store.delivery)
    yield pair
    pair.close()
    store.verified()


def settle(books: Books, seq: int, kind: str = "delivered") -> None:
    books.record(Entry(kind, seq, f"S-{seq}", {"omneo_id": seq}))


# ── They belong together ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_delivery_book_of_another_journal_is_refused(store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    log.create(other, "journal", {"journal": str(uuid.uuid4())})
    create_delivery(other, store.delivery)
    with pytest.raises(log.Unusable, match="another journal"):
        Books(store.db, store.delivery)


def test_a_journal_that_ends_before_what_was_delivered_is_refused(store: Store) -> None:
    backup = store.db.read_bytes()
    store.take(sale("S-1"))
    create_delivery(store.db, store.delivery)
    books = Books(store.db, store.delivery)
    settle(books, 2)
    books.close()
    store.db.write_bytes(backup)
    with pytest.raises(log.Unusable, match="older"):
        Books(store.db, store.delivery)


def test_a_journal_that_lost_its_newest_documents_is_refused_before_they_are_numbered_anew(store: Store) -> None:
    """Once: a turn lets documents leave before anything is written about them; only `about` is looked at.

    The journal of an old backup, filled up by new sales to the old length, would be taken for the right one.
    """
    store.take(sale("S-1"))
    backup = store.db.read_bytes()
    store.take(sale("S-2"), sale("S-3"))
    create_delivery(store.db, store.delivery)
    books = Books(store.db, store.delivery)
    books.take_turn(0, 4)  # on disk: up to entry 4 may have left
    books.close()
    store.db.write_bytes(backup)
    with pytest.raises(log.Unusable):
        Books(store.db, store.delivery)


def test_a_journal_with_another_past_is_refused(store: Store) -> None:
    """Once: restored from a backup and gone on for as long as before, a journal is another one; the heads differ."""
    backup = store.db.read_bytes()
    store.take(sale("S-1"))
    create_delivery(store.db, store.delivery)
    books = Books(store.db, store.delivery)
    books.opened()
    settle(books, 2)
    books.close()
    store.db.write_bytes(backup)
    store.take(sale("S-9"), sale("S-10"))
    with pytest.raises(log.Unusable):
        Books(store.db, store.delivery)


def test_the_books_cannot_change_places(store: Store) -> None:
    create_delivery(store.db, store.delivery)
    with pytest.raises(log.Unusable):
        Books(store.delivery, store.db)


def test_a_delivery_book_is_not_made_twice(store: Store) -> None:
    create_delivery(store.db, store.delivery)
    before = store.delivery.read_bytes()
    with pytest.raises(log.Unusable):
        create_delivery(store.db, store.delivery)
    assert store.delivery.read_bytes() == before


def test_the_journal_cannot_be_written_from_here(store: Store, books: Books) -> None:
    before = store.db.read_bytes()
    with pytest.raises(log.NotNow):
        log.append(books.journal, [Entry("flag")])
    assert store.db.read_bytes() == before


# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_documents_come_in_journal_order_without_what_is_invalid(store: Store, books: Books) -> None:
    store.take(sale("S-1"), b"[]", sale("S-1", total=5), sale("S-2"))
    assert [document.external_id for document in books.documents(0, 10)] == ["S-1", "S-2"]
    assert [document.external_id for document in books.documents(0, 1)] == ["S-1"]
    first, second = books.documents(0, 10)
    assert books.documents(first.seq, 10) == [second]
    assert books.document(second.seq) == second
    assert books.document(second.seq + 100) is None
    assert books.document(1) is None
    assert books.by_external_id("S-2") == second
    assert books.by_external_id("S-3") is None


def test_the_first_of_two_with_one_id_is_the_document(store: Store, books: Books) -> None:
    store.take(sale("S-1"), sale("S-1", total=5))
    found = books.by_external_id("S-1")
    assert found is not None
    assert found.content["total"] != 5


def test_what_was_recorded_counts_before_it_is_on_disk(store: Store, books: Books) -> None:
    store.take(sale("S-1"), sale("S-2"))
    settle(books, 2)
    assert books.settled(1, 9) == {2}
    assert store.states() == {"S-1": "waiting", "S-2": "waiting"}
    books.flush()
    assert books.settled(1, 9) == {2}
    assert store.states() == {"S-1": "delivered", "S-2": "waiting"}


def test_what_was_released_waits_again_until_it_is_settled_again(store: Store, books: Books) -> None:
    store.take(sale("S-1"))
    settle(books, 2, "held")
    books.record(Entry("released", 2, "S-1"))
    books.flush()
    assert (books.settled(1, 9), books.released()) == (set(), [2])
    settle(books, 2)
    assert (books.settled(1, 9), books.released()) == ({2}, [])


def test_the_history_of_a_document_is_what_this_book_says_of_it(books: Books, store: Store) -> None:
    store.take(sale("S-1"), sale("S-2"))
    books.record(Entry("deferred", 2, "S-1", {"status": 500}), Entry("delivered", 2, "S-1", {"omneo_id": 7}))
    settle(books, 3)
    books.flush()
    assert [(kind, facts) for _, _, kind, facts in books.history(2)] == [
        ("deferred", {"status": 500}),
        ("delivered", {"omneo_id": 7}),
    ]


def test_what_a_full_disk_did_not_take_yet_has_a_moment_too(books: Books, store: Store) -> None:
    """Once: an attempt or failure that could not be written down had none, and the forwarder fell over it."""
    store.take(sale("S-1"))
    books.delivery.execute("PRAGMA query_only = ON")
    attempt = {"boot": "b", "since_boot_s": 1.0}
    books.record(Entry("attempt", 2, "S-1", attempt), Entry("deferred", 2, "S-1", {"status": 500}))
    with pytest.raises(NotNow):
        books.flush()
    document = books.document(2)
    assert document is not None
    began = left(books, document)
    assert began is not None
    assert abs(began.wall - utc_now()) < timedelta(minutes=1)
    (failed,) = books.failures(2)
    assert abs(datetime.fromisoformat(failed) - utc_now()) < timedelta(minutes=1)
    books.delivery.execute("PRAGMA query_only = OFF")
    books.flush()
    assert [kind for _, _, kind, _ in books.history(2)] == ["attempt", "deferred"]


# ── Turns ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_turn_is_found_again_with_its_totals(store: Store, books: Books) -> None:
    store.take(*(sale(f"S-{number}") for number in range(4)))
    settle(books, 2)
    settle(books, 3, "refused")
    books.take_turn(3, 60)
    settle(books, 4, "held")
    books.flush()
    again = Books(store.db, store.delivery)
    assert (again.turn.settled, again.turn.upto, again.unknown_upto) == (3, 60, 60)
    assert again.turn.totals == {"delivered": 1, "refused": 1, "held": 0, "cancelled": 0, "abandoned": 0}
    again.take_turn(4, 99)
    assert again.turn.totals == {"delivered": 1, "refused": 1, "held": 1, "cancelled": 0, "abandoned": 0}
    again.close()


def test_released_and_abandoned_documents_are_no_longer_counted_as_held(store: Store, books: Books) -> None:
    store.take(*(sale(f"S-{number}") for number in range(3)))
    for seq in (2, 3, 4):
        settle(books, seq, "held")
    books.record(Entry("released", 2, "S-0"), Entry("abandoned", 3, "S-1"))
    books.take_turn(0, 60)
    assert books.turn.totals == {"delivered": 0, "refused": 0, "held": 1, "cancelled": 0, "abandoned": 1}


def test_what_an_old_journal_holds_may_have_left_before(store: Store) -> None:
    store.take(sale("S-1"), sale("S-2"))
    create_delivery(store.db, store.delivery)
    with_old = Books(store.db, store.delivery)
    assert (with_old.turn.settled, with_old.unknown_upto) == (0, 3)
    with_old.close()


def test_what_a_turn_let_leave_may_have_left_before_a_restart(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"))
    run = store.open(omneo.url, token=token)
    store.take(*(sale(f"S-{number}") for number in range(2, 5)))
    for _ in range(2):
        assert step(run) is not None
    store.crash(run)
    again = Books(store.db, store.delivery)
    assert again.unknown_upto >= 3
    assert again.unknown_upto <= 5 + TURN
    again.close()


def test_what_was_recorded_but_not_flushed_is_gone_after_a_crash_and_nothing_else(store: Store, books: Books) -> None:
    store.take(sale("S-1"), sale("S-2"))
    settle(books, 2)
    books.flush()
    settle(books, 3)
    again = Books(store.db, store.delivery)
    assert again.settled(1, 9) == {2}
    again.close()


def test_recorded_entries_are_due_after_a_moment_or_a_number(books: Books, store: Store) -> None:
    import time

    store.take(*(sale(f"S-{number}") for number in range(TURN)))
    assert not books.flush_due
    settle(books, 2)
    time.sleep(0.02)
    assert books.flush_due
    books.flush()
    assert not books.flush_due


def test_closing_puts_everything_on_disk(store: Store, books: Books) -> None:
    store.take(sale("S-1"))
    settle(books, 2)
    books.close()
    assert store.states() == {"S-1": "delivered"}
    books.journal = log.open_book(store.db, "journal", write=False)
    books.delivery = log.open_book(store.delivery, "delivery", write=True)
