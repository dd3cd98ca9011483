"""How things stand: `status`, for people and for machines."""

from datetime import timedelta
from pathlib import Path

from standin import Omneo, Store, sale

from forwarder.replay import step
from forwarder.status import status
from journal import log

KEYS = {"link", "reason", "waiting", "oldest_waiting_s", "delivered", "refused", "held", "invalid", "open_flags"}


def standing(store: Store, later_s: float = 0) -> dict[str, object]:
    return status(store.db, store.delivery, log.utc_now() + timedelta(seconds=later_s))


def test_the_keys_are_those_of_the_contract(store: Store) -> None:
    """Once: `cancelled` and `abandoned` are there too, which the contract's object (section 7) doesn't have."""
    assert set(standing(store)) == KEYS


def test_a_shop_that_never_forwarded_knows_what_waits(store: Store) -> None:
    store.take(sale("S-1"), sale("S-2"), b"[]")
    found = standing(store)
    assert (found["link"], found["waiting"], found["delivered"], found["invalid"]) == ("unknown", 2, 0, 1)
    assert found["open_flags"] == 1
    assert not store.delivery.exists()  # looking changes nothing


def test_nothing_that_waits_is_no_age(store: Store) -> None:
    found = standing(store)
    assert (found["waiting"], found["oldest_waiting_s"]) == (0, None)


def test_every_document_is_counted_in_one_place(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"), sale("S-2", profile_id="nobody"), sale("S-3"), b"[]", sale("S-4"), sale("S-5"))
    omneo.fault("status", code=500, contains="S-3")
    with store.forwarding(omneo.url, token=token, poison_after=1, poison_for_s=0) as run:
        for _ in range(4):
            step(run)
    found = standing(store, later_s=100)
    counted = {name: found[name] for name in ("waiting", "delivered", "refused", "held", "invalid")}
    assert counted == {"waiting": 1, "delivered": 2, "refused": 1, "held": 1, "invalid": 1}
    assert found["link"] == "up"
    assert found["open_flags"] == 3
    assert isinstance(found["oldest_waiting_s"], float)
    assert 99 < found["oldest_waiting_s"] < 130


def test_a_line_that_is_down_says_why_and_comes_up_again(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"))
    omneo.fault("portal")
    with store.forwarding(omneo.url, token=token) as run:
        step(run)
        run.line.settle()
        found = standing(store)
        assert (found["link"], found["waiting"]) == ("down", 1)
        assert "portal" in str(found["reason"])
        omneo.mend()
        step(run)
        run.books.flush()
    found = standing(store)
    assert (found["link"], found["reason"], found["waiting"], found["delivered"]) == ("up", "", 0, 1)


def test_a_paused_link_says_what_to_mend(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"))
    omneo.control("/revoke")
    with store.forwarding(omneo.url, token=token) as run:
        step(run)
    found = standing(store)
    assert found["link"] == "paused"
    assert "token" in str(found["reason"])


def test_a_line_whose_reason_changes_tells_the_new_one(store: Store, omneo: Omneo, token: Path) -> None:
    """Once: `line` is written when it turns only; an outage that began as no connection and goes on as a captive
    portal keeps its first reason for ever.
    """
    store.take(sale("S-1"))
    with store.forwarding(omneo.url, token=token) as run:
        for mode in ("throttle", "portal"):
            omneo.fault(mode, count=1)
            step(run)
            run.line.settle()
    assert "portal" in str(standing(store)["reason"])


def test_the_oldest_is_the_one_that_waits_longest(store: Store, omneo: Omneo, token: Path) -> None:
    """A document that was released waits again, for as long as it has been in the journal."""
    store.take(sale("S-1"), sale("S-2"))
    omneo.fault("status", code=500, contains="S-1", count=1)
    with store.forwarding(omneo.url, token=token, poison_after=1, poison_for_s=0) as run:
        step(run)
        step(run)
        run.books.flush()
    book = log.open_book(store.delivery, "delivery", write=True)
    log.append(book, [log.Entry("released", 2, "S-1")])
    book.close()
    found = standing(store, later_s=50)
    assert (found["waiting"], found["held"]) == (1, 0)
    assert isinstance(found["oldest_waiting_s"], float)
    assert 49 < found["oldest_waiting_s"] < 80


def test_counts_add_up_over_many_turns(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(*(sale(f"S-{number}") for number in range(200)))
    with store.forwarding(omneo.url, token=token) as run:
        for _ in range(150):
            step(run)
    found = standing(store)
    assert (found["waiting"], found["delivered"]) == (50, 150)


def test_a_clock_that_went_back_makes_no_negative_age(store: Store) -> None:
    """Once: the age is the difference of two readings of the wall clock."""
    store.take(sale("S-1"))
    age = standing(store, later_s=-3600)["oldest_waiting_s"]
    assert isinstance(age, int | float)
    assert age >= 0
