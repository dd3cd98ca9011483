"""Whose turn it is under `--ordering strict`: one at a time, in journal order; what a person released goes first."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from standin import Omneo, Store, sale

from forwarder.books import TURN
from forwarder.replay import Replay, step
from journal import log
from journal.log import Entry


@pytest.fixture
def run(store: Store, omneo: Omneo, token: Path) -> Iterator[Replay]:
    with store.forwarding(omneo.url, token=token, poison_after=1, poison_for_s=0) as running:
        yield running
    store.verified()


def drain(run: Replay) -> None:
    while step(run) is not None:
        pass
    run.books.flush()


def turn(run: Replay) -> str | None:
    document = run.lane.next_ready()
    return None if document is None else document.external_id


def said_by_a_person(store: Store, run: Replay | None, kind: str, seq: int) -> None:
    """`release` and `abandon` are a short commit beside the running program, of what they see on disk."""
    if run is not None:
        run.books.flush()
    with closing(log.open_book(store.delivery, "delivery", write=True)) as book:
        log.append(book, [Entry(kind, seq, None, {"by": "A. Person"})])


def test_it_stays_the_same_documents_turn_until_that_is_settled(store: Store, run: Replay) -> None:
    assert turn(run) is None
    store.take(sale("S-1"), sale("S-2"))
    assert [turn(run) for _ in range(3)] == ["S-1"] * 3
    step(run)
    assert [turn(run) for _ in range(2)] == ["S-2"] * 2
    step(run)
    assert turn(run) is None


def test_what_comes_later_gets_its_turn(store: Store, run: Replay, omneo: Omneo) -> None:
    for number in range(3):
        store.take(sale(f"S-{number}"))
        assert turn(run) == f"S-{number}"
        step(run)
        assert turn(run) is None
    assert omneo.sales() == ["S-0", "S-1", "S-2"]


def test_order_is_kept_over_many_turns(store: Store, run: Replay, omneo: Omneo) -> None:
    ids = [f"S-{number}" for number in range(2 * TURN + 3)]
    store.take(*(sale(name) for name in ids))
    drain(run)
    assert omneo.sales() == ids


def test_settled_documents_are_passed_over_after_a_restart(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(*(sale(f"S-{number}") for number in range(5)))
    with store.forwarding(omneo.url, token=token) as run:
        for _ in range(3):
            step(run)
    with store.forwarding(omneo.url, token=token) as run:
        assert turn(run) == "S-3"


def test_a_released_document_goes_before_everything_that_waits(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(*(sale(f"S-{number}") for number in range(3)))
    omneo.fault("status", code=500, contains="S-0", count=1)
    step(run)
    run.books.flush()
    assert store.states()["S-0"] == "held"
    assert turn(run) == "S-1"
    said_by_a_person(store, run, "released", 2)
    assert turn(run) == "S-0"
    drain(run)
    assert omneo.sales() == ["S-0", "S-1", "S-2"]
    assert set(store.states().values()) == {"delivered"}


def test_a_released_document_is_found_after_a_restart(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-0"), sale("S-1"))
    omneo.fault("status", code=500, contains="S-0", count=1)
    with store.forwarding(omneo.url, token=token, poison_after=1, poison_for_s=0) as run:
        drain(run)
    said_by_a_person(store, None, "released", 2)
    with store.forwarding(omneo.url, token=token) as run:
        assert turn(run) == "S-0"
        step(run)
        assert turn(run) is None
    assert store.states() == {"S-0": "delivered", "S-1": "delivered"}


def test_an_abandoned_document_never_goes(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-0"), sale("S-1"))
    omneo.fault("status", code=500, contains="S-0", count=1)
    step(run)
    said_by_a_person(store, run, "abandoned", 2)
    drain(run)
    assert omneo.sales() == ["S-1"]
    assert store.states() == {"S-0": "abandoned", "S-1": "delivered"}


def test_a_release_while_a_step_is_under_way_loses_nothing(store: Store, run: Replay, omneo: Omneo) -> None:
    """A commit of another program moves the head between two of ours."""
    store.take(*(sale(f"S-{number}") for number in range(6)))
    omneo.fault("status", code=500, contains="S-1", count=1)
    for number in range(20):
        if number == 3:
            said_by_a_person(store, run, "released", 3)
        if step(run) is None:
            run.books.flush()
            break
    assert set(store.states().values()) == {"delivered"}
    assert sorted(omneo.sales()) == [f"S-{number}" for number in range(6)]
    assert omneo.counts()["transactions_created"] == 6


def test_a_released_document_that_is_poison_again_is_held_again(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-0"), sale("S-1"))
    omneo.fault("status", code=500, contains="S-0")
    step(run)
    said_by_a_person(store, run, "released", 2)
    drain(run)
    assert store.states() == {"S-0": "held", "S-1": "delivered"}


def test_a_released_document_gets_its_full_number_of_tries(store: Store, omneo: Omneo, token: Path) -> None:
    """Once: the failures from before the release are counted again: one 5xx, and it is held at once."""
    store.take(sale("S-0"))
    omneo.fault("status", code=500, contains="S-0", count=4)
    with store.forwarding(omneo.url, token=token, poison_after=3, poison_for_s=0) as run:
        drain(run)
    assert store.states() == {"S-0": "held"}
    said_by_a_person(store, None, "released", 2)
    with store.forwarding(omneo.url, token=token, poison_after=3, poison_for_s=0) as run:
        drain(run)
    assert store.states() == {"S-0": "delivered"}


def test_the_settled_mark_never_passes_a_document_that_waits(store: Store, run: Replay) -> None:
    store.take(sale("S-0"), b"[]", sale("S-1"), sale("S-2"))
    while (document := run.lane.next_ready()) is not None:
        assert run.lane.settled_upto < document.seq
        assert run.books.settled(1, run.lane.settled_upto) == {
            earlier.seq for earlier in run.books.documents(0, 9) if earlier.seq <= run.lane.settled_upto
        }
        step(run)
    assert run.books.settled(1, run.lane.settled_upto) == {document.seq for document in run.books.documents(0, 9)}


def test_the_position_is_kept_while_an_old_journal_is_looked_through(store: Store, omneo: Omneo, token: Path) -> None:
    """With a new delivery book beside a full journal everything may have left: turns come all the same."""
    store.take(*(sale(f"S-{number}") for number in range(400)))
    with store.forwarding(omneo.url, token=token) as run:
        drain(run)
        assert run.books.unknown_upto >= 400
        assert run.books.turn.settled > 200
    with store.forwarding(omneo.url, token=token) as run:
        assert run.books.turn.settled > 200
        assert step(run) is None
    assert set(store.states().values()) == {"delivered"}
