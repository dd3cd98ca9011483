"""Whose turn it is under `--ordering customer`: order in every lane, and, among the lanes, who is in a hurry first."""

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standin import Store, sale

from forwarder import by_customer
from forwarder.books import Books, create_delivery
from forwarder.by_customer import HURRIED, ByCustomer, keys
from forwarder.queues import SAME, Queues, Waiting
from journal import log
from journal.log import Entry
from journal.redact import redact

NOW = datetime(2025, 6, 15, 5, 0, tzinfo=UTC)


def redemption(external_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "redemption",
        "external_id": external_id,
        "profile_id": "jane",
        "issued_at": "2025-06-15 14:30:00",
        "timezone": "Australia/Melbourne",
        "amount": 5,
        "strategies": ["rewards"],
    } | fields


def reversal(external_id: str, **fields: Any) -> dict[str, Any]:
    issued = {"issued_at": "2025-06-15 14:31:00", "timezone": "Australia/Melbourne"}
    return {"kind": "reversal", "external_id": external_id} | issued | fields


def online(external_id: str, omneo_id: int, closes_in_s: float, **fields: Any) -> dict[str, Any]:
    """A reversal of a redemption that was made online, whose window closes then."""
    made = NOW + timedelta(seconds=closes_in_s - 600)
    return (
        reversal(
            external_id, redemption_id=omneo_id, redeemed_at=made.isoformat(timespec="seconds").replace("+00:00", "Z")
        )
        | fields
    )


class Shop:
    """Books and their lanes, and documents that are settled by hand."""

    def __init__(self, store: Store) -> None:
        self.store = store
        create_delivery(store.db, store.delivery)
        self.open()

    def open(self) -> None:
        self.books = Books(self.store.db, self.store.delivery, now=lambda: NOW)
        self.lane = ByCustomer(self.books, 600.0)

    def restart(self) -> None:
        self.books.close()
        self.open()

    def ready(self) -> list[str]:
        """All that may go now, in the order in which it would; nothing comes back meanwhile."""
        found = []
        while (document := self.lane.next_ready()) is not None:
            found.append(document.external_id)
            self.lane.take(document)
        for name in found:
            self.back(name)
        return found

    def turn(self) -> str | None:
        document = self.lane.next_ready()
        return None if document is None else document.external_id

    def take(self, name: str) -> None:
        self.lane.take(self.document(name))

    def back(self, name: str, wait_s: float = 0.0) -> None:
        self.lane.give_back(self.document(name), wait_s)

    def settle(self, name: str, kind: str = "delivered", profile: str | None = None, **facts: Any) -> None:
        document = self.document(name)
        self.books.record(Entry(kind, document.seq, name, {"omneo_id": document.seq} | facts))
        self.lane.settle(document, profile)

    def said_by_a_person(self, kind: str, name: str) -> None:
        self.books.flush()
        with closing(log.open_book(self.store.delivery, "delivery", write=True)) as book:
            log.append(book, [Entry(kind, self.document(name).seq, None, {"by": "A. Person"})])

    def document(self, name: str) -> Any:
        found = self.books.by_external_id(name)
        assert found is not None
        return found


@pytest.fixture
def shop(store: Store) -> Iterator[Shop]:
    found = Shop(store)
    yield found
    found.books.close()


# ── Lanes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_anonymous_sales_pass_each_other_and_a_customers_do_not(shop: Shop) -> None:
    shop.store.take(sale("A"), sale("J-1", profile_id="jane"), sale("J-2", profile_id="jane"), sale("B"))
    assert shop.ready() == ["A", "J-1", "B"]
    shop.settle("J-1")
    assert shop.ready() == ["A", "J-2", "B"]


def test_nothing_of_a_customer_is_ready_while_something_of_them_is_on_its_way(shop: Shop) -> None:
    shop.store.take(sale("J-1", profile_id="jane"), sale("J-2", profile_id="jane"))
    shop.take("J-1")
    assert shop.turn() is None
    shop.back("J-1")
    assert shop.turn() == "J-1"
    shop.take("J-1")
    shop.settle("J-1")
    assert shop.turn() == "J-2"


def test_it_stays_the_same_documents_turn_until_that_is_taken(shop: Shop) -> None:
    shop.store.take(sale("A"), sale("B"))
    assert [shop.turn() for _ in range(3)] == ["A"] * 3
    shop.take("A")
    assert [shop.turn() for _ in range(3)] == ["B"] * 3


def test_a_receipt_chain_is_kept_in_order(shop: Shop) -> None:
    first, back, again = (
        sale("S-1", receipt_ref="R1", profile_id="jane"),
        sale("S-2", receipt_ref="R2", linked_receipt_ref="R1"),
        sale("S-3", receipt_ref="R3", linked_receipt_ref="R2", profile_id="omar"),
    )
    shop.store.take(first, back, again)
    for name in ("S-1", "S-2", "S-3"):
        assert shop.ready() == [name]
        shop.settle(name)


def test_a_document_waits_for_the_head_of_each_of_its_queues(shop: Shop) -> None:
    shop.store.take(
        sale("J", profile_id="jane"),
        sale("O", profile_id="omar", receipt_ref="R1"),
        sale("JR", profile_id="jane", linked_receipt_ref="R1"),
        sale("J-2", profile_id="jane"),
    )
    assert shop.ready() == ["J", "O"]
    shop.settle("J")
    assert shop.ready() == ["O"]
    shop.settle("O")
    assert shop.ready() == ["JR"]
    shop.settle("JR")
    assert shop.ready() == ["J-2"]


def test_a_reversal_belongs_to_the_customer_of_its_redemption(shop: Shop) -> None:
    shop.store.take(
        redemption("X"),
        sale("J-1", profile_id="jane"),
        reversal("V", redemption_external_id="X"),
        redemption("Y"),
        sale("B"),
    )
    assert shop.ready() == ["X", "B"]
    shop.settle("X", created_at=NOW.isoformat())
    assert shop.ready() == ["J-1", "B"]
    shop.settle("J-1")
    assert shop.ready() == ["V", "B"]  # Y could be short of what V gives back
    shop.settle("V")
    assert shop.ready() == ["Y", "B"]


def test_a_return_and_a_sale_stay_behind_the_redemption_that_they_name(shop: Shop) -> None:
    shop.store.take(
        redemption("X", profile_id="jane@example.com", profile_id_handle="email", transaction_external_id="S"),
        sale("S", redemption_external_id="X"),
        {**reversal("T", redemption_external_id="X", amount=1), "kind": "return"},
        sale("O", profile_id="omar"),
    )
    for name in ("X", "S", "T"):
        assert shop.ready() == [name, "O"]
        shop.settle(name, created_at=NOW.isoformat())


def test_a_redemption_that_comes_after_what_names_it_may_go_before_it(shop: Shop) -> None:
    shop.store.take(sale("S", redemption_external_id="X"), sale("J", profile_id="jane"))
    assert shop.ready() == ["S", "J"]
    shop.take("J")  # on its way when the redemption turns out to be the same customer's
    shop.store.take(redemption("X"), sale("J-2", profile_id="jane"))
    assert shop.turn() is None
    shop.settle("J")
    assert shop.turn() == "S"
    shop.take("S")
    assert shop.lane.may_go_before(shop.document("X"), shop.document("S"))
    shop.take("X")
    shop.settle("X", created_at=NOW.isoformat())
    shop.back("S")
    assert shop.ready() == ["S"]
    shop.settle("S")
    assert shop.ready() == ["J-2"]


def test_a_redemption_does_not_go_before_what_its_customer_has_on_the_way(shop: Shop, monkeypatch: Any) -> None:
    """It wasn't read yet when the document that names it got its turn."""
    monkeypatch.setattr(by_customer, "AHEAD", 2)
    shop.store.take(sale("S", redemption_external_id="X"), sale("J", profile_id="jane"))
    assert shop.ready() == ["S", "J"]
    shop.take("J")
    shop.take("S")
    shop.store.take(redemption("X"))
    assert not shop.lane.may_go_before(shop.document("X"), shop.document("S"))
    shop.back("S")
    assert shop.turn() is None
    shop.settle("J")
    assert shop.turn() == "S"
    shop.take("S")
    assert shop.lane.may_go_before(shop.document("X"), shop.document("S"))


def test_it_need_not_wait_longer_once_its_redemption_has_come(shop: Shop) -> None:
    shop.store.take(sale("S", redemption_external_id="X"))
    shop.take(str(shop.turn()))
    shop.back("S", 60.0)
    assert shop.turn() is None
    shop.store.take(redemption("X"))
    assert shop.turn() == "S"


def test_keys_name_no_customer_for_an_anonymous_sale(shop: Shop) -> None:
    shop.store.take(sale("A"), sale("B", profile_id=None, receipt_ref=None, linked_receipt_ref=None))
    assert [keys(shop.document(name)) for name in "AB"] == [["sale A"], ["sale B"]]


# ── One customer, several handles ─────────────────────────────────────────────────────────────────────────────────

JANE = {"profile_id": "u-1"}
MAIL = {"profile_id": "jane@example.com", "profile_id_handle": "email"}
CARD = {"profile_id": "600", "profile_id_handle": "loyalty-card"}


def test_two_handles_are_one_customer_once_both_are_known_to_be(shop: Shop) -> None:
    shop.store.take(
        sale("M-1", **MAIL), sale("U-1", **JANE), sale("C-1", **CARD), sale("M-2", **MAIL), sale("U-2", **JANE)
    )
    assert shop.ready() == ["M-1", "U-1", "C-1"]
    shop.settle("M-1", profile="u-1")
    assert shop.ready() == ["U-1", "C-1"]
    shop.settle("C-1", profile="u-1")
    shop.settle("U-1", profile="u-1")
    shop.store.take(sale("C-2", **CARD))
    for name in ("M-2", "U-2", "C-2"):
        assert shop.ready() == [name]
        shop.settle(name, profile="u-1")
    shop.store.take(sale("C-3", **CARD), sale("M-3", **MAIL))  # no queue of theirs was left
    assert shop.ready() == ["C-3"]


def test_what_is_on_its_way_when_two_turn_out_to_be_one_holds_the_one_lane(shop: Shop) -> None:
    shop.store.take(
        *(sale(name, **who) for name, who in zip("ABCDEF", [MAIL, MAIL, JANE, JANE, CARD, CARD], strict=True))
    )
    for name in "ACE":
        assert shop.turn() == name
        shop.take(name)
    shop.settle("A", profile="u-1")  # C is on its way
    assert shop.turn() is None
    shop.settle("E", profile="u-1")
    assert shop.turn() is None
    shop.settle("C")
    for name in "BDF":
        assert shop.ready() == [name]
        shop.settle(name)


def test_what_fails_while_two_become_one_goes_again_before_what_is_later(shop: Shop) -> None:
    shop.store.take(sale("U-1", **JANE), sale("M-1", **MAIL), sale("M-2", **MAIL))
    shop.take("U-1")
    shop.take("M-1")
    shop.settle("M-1", profile="u-1")
    shop.back("U-1")
    assert shop.ready() == ["U-1"]


def test_a_profile_that_was_merged_away_brings_its_handles_along(shop: Shop) -> None:
    shop.store.take(sale("M-1", **MAIL), sale("M-2", **MAIL))
    shop.settle("M-1", profile="u-1")
    shop.settle("M-2", profile="u-9")  # Omneo merged u-1 into u-9
    shop.store.take(sale("U-1", profile_id="u-9"), sale("M-3", **MAIL), sale("U-2", profile_id="u-1"))
    assert shop.ready() == ["U-1"]


def test_what_is_known_of_handles_is_bounded() -> None:
    queues = Queues(lambda _: None)
    for number in range(SAME + 10):
        queues.merge(f"customer card\0{number}", f"customer \0u-{number}")
    assert len(queues._same) == SAME
    first, second = Waiting(1), Waiting(2)
    queues.join(first, ["customer card\0" + "1"])
    queues.join(second, ["customer card\0" + "1"])
    assert (first.is_ready, second.is_ready) == (True, False)


def test_a_handle_that_was_forgotten_while_its_customer_waits_is_learned_again() -> None:
    queues = Queues(lambda _: None)
    first, second = Waiting(1), Waiting(2)
    queues.join(first, ["card"])
    queues.join(second, ["uuid"])
    queues.merge("card", "uuid")
    queues._same.clear()
    queues.merge("card", "uuid")
    third = Waiting(3)
    queues.join(third, ["card"])
    assert [each.is_ready for each in (first, second, third)] == [True, False, False]
    queues.leave(first)
    queues.leave(second)
    assert third.is_ready
    queues.leave(third)
    assert queues._queues == {}


# ── What a person, or the end of a doubt, lets go again ───────────────────────────────────────────────────────────


def test_a_released_document_goes_before_its_customers_later_ones(shop: Shop) -> None:
    shop.store.take(*(sale(f"J-{number}", profile_id="jane") for number in range(4)))
    shop.settle("J-0", "held")
    assert shop.turn() == "J-1"
    shop.take("J-1")
    shop.said_by_a_person("released", "J-0")
    assert shop.turn() is None  # one of theirs is on its way
    shop.settle("J-1")
    for name in ("J-0", "J-2", "J-3"):
        assert shop.ready() == [name]
        shop.settle(name)
    assert shop.turn() is None
    assert not shop.lane.waits


def test_a_release_is_heeded_while_much_else_waits(shop: Shop) -> None:
    shop.store.take(*(sale(f"S-{number}") for number in range(9)))
    shop.settle("S-0", "held")
    assert shop.turn() == "S-1"
    shop.said_by_a_person("released", "S-0")
    assert shop.turn() == "S-0"


def test_what_was_released_and_then_abandoned_never_goes(shop: Shop) -> None:
    shop.store.take(sale("S-0"), sale("S-1"))
    shop.settle("S-0", "held")
    shop.said_by_a_person("released", "S-0")
    assert shop.ready() == ["S-0", "S-1"]
    shop.said_by_a_person("abandoned", "S-0")
    assert shop.ready() == ["S-1"]


def test_what_is_put_back_stands_where_it_stood(shop: Shop) -> None:
    shop.store.take(sale("J-0", profile_id="jane"), sale("J-1", profile_id="jane"))
    shop.settle("J-0", "held")
    assert shop.turn() == "J-1"
    document = shop.document("J-0")
    shop.books.record(Entry("released", document.seq, "J-0", {}))
    shop.lane.put_back(document)
    shop.said_by_a_person("noted", "J-1")  # another commit, before ours is on disk
    assert shop.ready() == ["J-0"]


def test_released_documents_are_found_after_a_restart(shop: Shop) -> None:
    shop.store.take(*(sale(f"J-{number}", profile_id="jane") for number in range(3)))
    shop.settle("J-0", "held")
    shop.settle("J-1")
    shop.said_by_a_person("released", "J-0")
    shop.restart()
    assert shop.ready() == ["J-0"]


# ── Position, failures, bounds ────────────────────────────────────────────────────────────────────────────────────


def test_the_settled_mark_never_passes_a_document_that_waits(shop: Shop) -> None:
    shop.store.take(*(sale(f"S-{number}") for number in range(5)))
    assert shop.turn() == "S-0"
    assert shop.lane.settled_upto == 1
    shop.settle("S-1")
    shop.settle("S-4")
    assert shop.lane.settled_upto == 1
    shop.settle("S-0")
    assert shop.lane.settled_upto == shop.document("S-1").seq
    shop.settle("S-3")
    shop.settle("S-2")
    assert shop.lane.settled_upto == shop.document("S-4").seq


def test_gaps_before_the_position_are_found_after_a_restart(shop: Shop) -> None:
    shop.store.take(*(sale(f"S-{number}") for number in range(6)))
    assert shop.turn() == "S-0"
    for name in ("S-0", "S-2", "S-5"):
        shop.settle(name)
    shop.books.take_turn(shop.lane.settled_upto, 99)
    shop.restart()
    assert shop.ready() == ["S-1", "S-3", "S-4"]
    assert shop.books.unknown_upto == 99


def test_what_failed_waits_alone_with_those_behind_it(shop: Shop) -> None:
    shop.store.take(sale("J-0", profile_id="jane"), sale("J-1", profile_id="jane"), sale("B"))
    shop.take("J-0")
    shop.back("J-0", 0.05)
    assert shop.turn() == "B"
    assert shop.lane.next_due_s == pytest.approx(0.05, abs=0.05)
    shop.settle("B")
    assert shop.turn() is None
    time.sleep(0.06)
    assert shop.ready() == ["J-0"]
    shop.settle("J-0")
    assert shop.ready() == ["J-1"]
    assert shop.lane.next_due_s is None


def test_a_document_that_was_redacted_while_it_waited_comes_without_its_content(shop: Shop) -> None:
    shop.store.take(sale("J-0", profile_id="jane"), sale("J-1", profile_id="jane"))
    assert shop.turn() == "J-0"
    redact(shop.store.db, shop.store.delivery, [shop.document("J-0").seq], "Ann", "she asked", even_unsent=True)
    document = shop.lane.next_ready()
    assert document is not None
    assert (document.external_id, document.gone, document.content) == ("J-0", True, {})
    shop.settle("J-0", "cancelled")
    assert shop.turn() == "J-1"


def test_no_more_is_kept_in_memory_than_is_looked_ahead(shop: Shop, monkeypatch: Any) -> None:
    monkeypatch.setattr(by_customer, "AHEAD", 128)
    shop.store.take(*(sale(f"J-{number}", profile_id="jane") for number in range(300)))
    for number in range(300):
        assert shop.turn() == f"J-{number}"
        assert len(shop.lane._waiting) < 128 + 64
        shop.settle(f"J-{number}")
    assert shop.turn() is None
    assert len(shop.lane._queues._queues) == 0


def waits(number: int, customers: int) -> tuple[Waiting, list[str]]:
    return Waiting(number), [f"customer \0{number % customers}", f"receipt {number}", f"sale {number}"]


def test_twenty_thousand_that_wait_take_little_memory() -> None:
    tracemalloc.start()
    queues = Queues(lambda _: None)
    for number in range(20_000):
        queues.join(*waits(number, 5000))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 32 * 1024 * 1024


@pytest.mark.parametrize("customers", [1, 20_000])
def test_twenty_thousand_that_wait_cost_no_more_each_than_two_thousand(customers: int) -> None:
    """All of one customer, with a reversal every so often, is the worst that a queue can be."""

    def seconds(count: int) -> float:
        ready: list[Waiting] = []
        queues = Queues(ready.append)
        began = time.process_time()
        everything = []
        for number in range(count):
            waiting, names = waits(number, customers)
            queues.join(waiting, names)
            if number % 10 == 9:
                queues.hurry(waiting, 1e9 + number)
            everything.append(waiting)
        for waiting in everything:
            assert waiting.is_ready
            queues.set_busy(waiting, busy=True)
            queues.leave(waiting)
        return time.process_time() - began

    seconds(2000)
    small, large = (min(seconds(count) for _ in range(3)) for count in (2000, 20_000))
    assert large < 10 * small * 4


# ── Hurry ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_reversal_whose_window_closes_first_goes_first(shop: Shop) -> None:
    shop.store.take(
        sale("S-0"), online("V-90", 90, 90), online("V-30", 30, 30), sale("S-1"), online("V-60", 60, 60), sale("S-2")
    )
    assert shop.ready() == ["V-30", "V-60", "V-90", "S-0", "S-1", "S-2"]
    assert shop.lane.closes_at(shop.document("V-30")) == (NOW + timedelta(seconds=30)).timestamp()
    assert shop.lane.closes_at(shop.document("S-0")) is None


def test_plain_documents_get_every_fifth_turn(shop: Shop) -> None:
    shop.store.take(sale("S-0"), sale("S-1"), *(online(f"V-{n}", n, 60 + n) for n in range(1, 11)), sale("S-2"))
    names = shop.ready()
    assert [names.index(name) for name in ("S-0", "S-1")] == [HURRIED, 2 * HURRIED + 1]
    assert [name for name in names if name[0] == "V"] == [f"V-{n}" for n in range(1, 11)]


def test_whatever_stands_before_a_reversal_is_hurried_with_it(shop: Shop) -> None:
    """In its own lanes, and in the lanes of those."""
    shop.store.take(
        sale("S-0"),
        sale("O", profile_id="omar", receipt_ref="R1"),
        sale("J-0", profile_id="jane", linked_receipt_ref="R1"),
        sale("S-1"),
        sale("J-1", profile_id="jane"),
        online("V", 7, 60, profile_id="jane"),
        sale("J-2", profile_id="jane"),
    )
    order = []
    while (name := shop.turn()) is not None:
        order.append(name)
        shop.settle(name)
    assert order == ["O", "J-0", "J-1", "V", "S-0", "S-1", "J-2"]


def test_a_reversal_far_back_is_seen_while_the_lanes_are_busy(shop: Shop) -> None:
    shop.store.take(*(sale(f"S-{number}") for number in range(700)), online("V", 7, 60))
    turns = 0
    while (name := shop.turn()) != "V":
        assert name is not None
        shop.settle(name)
        turns += 1
    assert turns < 20


def test_nothing_is_hurried_for_a_redemption_that_was_not_sent(shop: Shop) -> None:
    shop.store.take(sale("S-0"), redemption("X"), reversal("V", redemption_external_id="X"))
    assert shop.ready() == ["S-0", "X"]
    assert shop.lane.closes_at(shop.document("V")) is None


def test_a_reversal_is_hurried_from_when_its_redemption_is_made(shop: Shop) -> None:
    shop.store.take(sale("S-0"), redemption("X"), reversal("V", redemption_external_id="X"))
    assert shop.ready() == ["S-0", "X"]
    shop.settle("X", created_at="2025-06-15T04:55:00+00:00")
    assert shop.ready() == ["V", "S-0"]
    assert shop.lane.closes_at(shop.document("V")) == (NOW + timedelta(seconds=300)).timestamp()


def test_a_redemption_that_may_have_been_made_has_a_running_clock(shop: Shop) -> None:
    shop.store.take(sale("S-0"), redemption("X"), reversal("V", redemption_external_id="X"))
    attempted = shop.document("X").seq
    shop.books.record(Entry("attempt", attempted, "X", log.boot_facts()))
    shop.books.flush()
    assert shop.ready() == ["X", "S-0"]
    shop.settle("X", "refused")
    shop.restart()
    assert shop.ready() == ["S-0", "V"]


def test_a_reversal_of_a_delivered_redemption_is_hurried_after_a_restart(shop: Shop) -> None:
    shop.store.take(sale("S-0"), redemption("X"), reversal("V", redemption_external_id="X"))
    shop.settle("X", created_at=None, date="2025-06-15T04:58:00+00:00")
    shop.restart()
    assert shop.ready() == ["V", "S-0"]


def test_what_can_still_be_in_time_goes_before_what_is_too_late(shop: Shop) -> None:
    """After a day offline: hundreds whose window has long closed must not cost the one that is open."""
    shop.store.take(*(online(f"L-{n}", n, -n) for n in range(1, 4)), online("V", 99, 20), sale("S-0"))
    assert shop.ready()[0] == "V"


def test_with_a_clock_that_is_years_ahead_the_first_to_close_goes_first_all_the_same(shop: Shop) -> None:
    shop.store.take(sale("S-0"), *(online(f"V-{n}", n, 100 - n) for n in (3, 1, 2)))
    shop.books.now = lambda: NOW + timedelta(days=1000)
    assert shop.ready() == ["V-3", "V-2", "V-1", "S-0"]


def test_a_released_document_is_hurried_if_a_reversal_waits_behind_it(shop: Shop) -> None:
    shop.store.take(sale("J-0", profile_id="jane"), sale("S-0"), online("V", 7, 60, profile_id="jane"))
    shop.settle("J-0", "held")
    assert shop.ready() == ["V", "S-0"]
    shop.said_by_a_person("released", "J-0")
    assert shop.ready() == ["J-0", "S-0"]


def test_a_customer_that_becomes_one_with_a_hurried_one_is_hurried(shop: Shop) -> None:
    shop.store.take(sale("S-0"), sale("M-0", **MAIL), sale("M-1", **MAIL), online("V", 7, 60, **JANE))
    assert shop.ready() == ["V", "S-0", "M-0"]
    shop.settle("M-0", profile="u-1")
    assert shop.ready() == ["M-1", "S-0"]


# ── Whatever comes ────────────────────────────────────────────────────────────────────────────────────────────────

names = st.integers(0, 3).map(lambda n: {"profile_id": f"u-{n}"})
handles = st.integers(0, 3).map(lambda n: {"profile_id": f"{n}@example.com", "profile_id_handle": "email"})
people = st.one_of(st.just({}), names, handles)
receipts = st.sampled_from([{}, {}, {"receipt_ref": "R1"}, {"linked_receipt_ref": "R1"}, {"receipt_ref": "R2"}])
kinds = st.sampled_from(["sale", "sale", "redemption", "reversal", "online", "naming"])
tills = st.lists(st.tuples(kinds, people, receipts, st.integers(0, 9)), min_size=1, max_size=30)


def documents(till: list[tuple[str, dict[str, Any], dict[str, Any], int]]) -> list[dict[str, Any]]:
    found = []
    for number, (kind, person, receipt, other) in enumerate(till):
        name = f"D-{number}"
        match kind:
            case "sale":
                found.append(sale(name, **person, **receipt))
            case "redemption":
                found.append(redemption(name, **(person or {"profile_id": "u-0"})))
            case "reversal":
                found.append(reversal(name, redemption_external_id=f"D-{other}"))
            case "online":
                found.append(online(name, other, 30 * (other + 1)))
            case "naming":
                found.append(sale(name, redemption_external_id=f"D-{other}", **person))
    return found


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(till=tills, seed=st.integers(0, 2**32))
def test_whatever_comes_back_when_and_how_every_lane_keeps_its_order(
    till: list[Any], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dice, contents = Random(seed), documents(till)
    shop = Shop(Store(tmp_path_factory.mktemp("shop")))
    coming, flying, left = list(contents), list[str](), list[str]()
    profiles: dict[str, str] = {}  # a handle → whose it is, once that is known
    try:
        while len(left) < len(contents):
            if coming and dice.random() < 0.2:
                count = dice.randint(1, len(coming))
                shop.store.take(*coming[:count])
                del coming[:count]
            draw = dice.random()
            if draw < 0.5:
                if (document := shop.lane.next_ready()) is None:
                    assert flying or coming or len(left) == len(contents), "something waits and nothing is ready"
                    continue
                mine = common(document.content, profiles)
                assert document.external_id not in [*flying, *left]
                for other in flying:
                    assert not mine & common(shop.document(other).content, profiles), "two of a lane at once"
                for earlier in contents[: int(document.external_id[2:])]:
                    settled = earlier["external_id"] in left
                    assert settled or not mine & common(earlier, profiles), f"{document.external_id} passes {earlier}"
                shop.lane.take(document)
                flying.append(document.external_id)
            elif draw < 0.98 and flying:
                name = flying.pop(dice.randrange(len(flying)))
                if dice.random() < 0.2:
                    shop.back(name)
                    continue
                profile, content = None, shop.document(name).content
                if content.get("profile_id") is not None:
                    profile = "u-" + str(content["profile_id"]).removesuffix("@example.com").removeprefix("u-")
                    profiles[str(content["profile_id"])] = profile
                kind = dice.choice(["delivered", "delivered", "held", "refused"])
                shop.settle(name, kind, profile, created_at=NOW.isoformat())
                left.append(name)
            elif draw >= 0.98:
                shop.restart()
                flying.clear()
                profiles.clear()
        assert shop.lane.next_ready() is None
        assert not shop.lane.waits
        assert shop.lane.settled_upto == shop.books.last_document()
        assert shop.lane._queues._queues == {}
        assert sorted(left) == sorted(content["external_id"] for content in contents)
    finally:
        shop.books.close()


def common(content: dict[str, Any], profiles: dict[str, str]) -> set[str]:
    """What two documents must not have in common, told in another way than the lanes tell it."""
    found = {f"receipt {content[name]}" for name in ("receipt_ref", "linked_receipt_ref") if content.get(name)}
    if content.get("profile_id") is not None:
        name = str(content["profile_id"])
        found.add(f"profile {profiles.get(name, name)}")
    if content["kind"] == "redemption":
        found.add(f"external {content['external_id']}")
    if content.get("redemption_external_id") is not None:
        found.add(f"external {content['redemption_external_id']}")
    if content.get("redemption_id") is not None:
        found.add(f"online {content['redemption_id']}")
    return found
