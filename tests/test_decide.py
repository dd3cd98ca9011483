"""What a person decides of held documents, and what would go next: `release`, `abandon`, `plan`."""

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from standin import Done, Omneo, Store, execute, sale

from forwarder.books import Books, create_delivery
from forwarder.plan import plan as walk
from forwarder.replay import Policy, Replay, step
from forwarder.window import Instant
from journal import log

WEI = "5f2d9a10-4e8b-4b6f-b7c9-0e3a71d2c004"
NOW = {"issued_at": f"{log.utc_now():%Y-%m-%d %H:%M:%S}", "timezone": "UTC"}


def redemption(external_id: str, **fields: Any) -> dict[str, Any]:
    own = {"profile_id": WEI, "amount": 5, "strategies": ["rewards"]}
    return {"kind": "redemption", "external_id": external_id, **NOW, **own, **fields}


def reversal(external_id: str, of: str) -> dict[str, Any]:
    return {"kind": "reversal", "external_id": external_id, **NOW, "redemption_external_id": of}


def drain(run: Replay) -> None:
    while (result := step(run)) is not None and (result.settles or not result.line):
        time.sleep(0 if result.settles else result.retry_after_s or 0)  # it is looked for twice, a moment apart
    run.books.flush()


def command(store: Store, name: str, *arguments: str) -> Done:
    return execute("forwarder", name, *arguments, "--db", store.db)


def decided(store: Store, name: str, *arguments: str) -> Done:
    return command(store, name, *arguments, "--by", "J. Smith", "--note", "looked into it")


def sent(store: Store, omneo: Omneo, token: Path, **options: Any) -> None:
    with store.forwarding(omneo.url, token=token, **options) as run:
        drain(run)


@pytest.fixture
def poisoned(store: Store, omneo: Omneo, token: Path) -> Store:
    """S-1 keeps failing and is held."""
    store.take(sale("S-1"), sale("S-2"))
    omneo.fault("status", code=500, contains="S-1", count=1)
    with store.forwarding(omneo.url, token=token, poison_after=1, poison_for_s=0) as run:
        for _ in range(5):
            step(run)
        run.books.flush()
    assert store.states() == {"S-1": "held", "S-2": "delivered"}
    return store


def test_what_is_released_goes(poisoned: Store, omneo: Omneo, token: Path) -> None:
    done = decided(poisoned, "release", "S-1")
    assert (done.code, "goes when its turn comes" in done.out) == (0, True), done.err
    assert poisoned.states()["S-1"] == "waiting"
    sent(poisoned, omneo, token)
    assert poisoned.states()["S-1"] == "delivered"
    told = [row for row in poisoned.show("S-1")["history"] if row["what"] == "released"]
    assert (told[0]["by"], told[0]["note"]) == ("J. Smith", "looked into it")
    poisoned.verified()


def test_what_is_abandoned_never_goes(poisoned: Store, omneo: Omneo, token: Path) -> None:
    assert decided(poisoned, "abandon", "2").code == 0  # by its number
    sent(poisoned, omneo, token)
    assert poisoned.states()["S-1"] == "abandoned"
    assert omneo.sales() == ["S-2"]
    assert decided(poisoned, "release", "S-1").code == 1
    poisoned.verified()


def test_a_name_is_enough_to_release(poisoned: Store) -> None:
    assert command(poisoned, "release", "S-1").code == 0


@pytest.mark.parametrize("name", ["release", "abandon"])
def test_only_what_is_held_can_be_decided(poisoned: Store, name: str) -> None:
    for wrong, why in (("S-2", "is delivered, not held"), ("S-9", "no document S-9"), ("99", "no document 99")):
        done = decided(poisoned, name, wrong)
        assert (done.code, why in done.err) == (1, True), done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize("missing", [("--by", "x"), ("--note", "x"), ("--by", " ", "--note", "x")])
def test_to_abandon_needs_a_name_and_a_note(poisoned: Store, missing: tuple[str, ...]) -> None:
    assert command(poisoned, "abandon", "S-1", *missing).code == 2
    assert poisoned.states()["S-1"] == "held"


def test_a_decision_is_heard_while_the_forwarder_runs(poisoned: Store, omneo: Omneo, token: Path) -> None:
    with poisoned.forwarding(omneo.url, token=token) as run:
        drain(run)
        assert decided(poisoned, "release", "S-1").code == 0
        drain(run)
    assert poisoned.states()["S-1"] == "delivered"


def test_a_doubt_that_a_person_ends_frees_what_waited_for_it(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(redemption("R-1"), reversal("V-1", "R-1"))
    book = store.delivery
    with store.forwarding(omneo.url, token=token) as run:
        entries = [
            log.Entry("attempt", 2, "R-1", log.boot_facts()),
            log.Entry("held", 2, "R-1", {"doubtful": True}),
        ]
        log.append(run.books.delivery, entries)
        drain(run)
    assert store.states() == {"R-1": "held", "V-1": "held"}
    assert book.exists()
    assert decided(store, "abandon", "R-1").code == 0
    assert store.states() == {"R-1": "abandoned", "V-1": "waiting"}
    sent(store, omneo, token)
    assert store.states() == {"R-1": "abandoned", "V-1": "cancelled"}
    assert omneo.state()["redemptions"] == []
    store.verified()


def test_a_reversal_that_is_too_late_is_released_as_a_return(store: Store, omneo: Omneo, token: Path) -> None:
    sent(store, omneo, token)
    store.take(redemption("R-1"))
    sent(store, omneo, token)
    omneo.control("/clock", offset_s=700)
    store.take(reversal("V-1", "R-1"))
    sent(store, omneo, token)
    assert store.states()["V-1"] == "held"
    assert ("reversal_too_late", "V-1") in store.flags()
    assert decided(store, "release", "V-1").code == 0
    sent(store, omneo, token)
    assert store.states()["V-1"] == "delivered"
    assert [row["type"] for row in omneo.state()["redemptions"]] == ["redeem", "return"]
    store.verified()


# ── What would go next ────────────────────────────────────────────────────────────────────────────────────────────


def plan(store: Store, *options: str) -> list[dict[str, Any]]:
    done = command(store, "plan", "--json", *options)
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_a_plan_tells_the_order_and_sends_nothing(store: Store, omneo: Omneo, token: Path) -> None:
    sent(store, omneo, token)
    before = store.delivery.read_bytes()
    store.take(
        sale("S-1"),
        sale("S-2", redemption_external_id="R-1"),
        redemption("R-1"),
        redemption("R-2"),
        reversal("V-2", "R-2"),
        reversal("V-9", "R-9"),
    )
    rows = plan(store)
    assert [(row["external_id"], row["what"]) for row in rows] == [
        ("S-1", "send"),
        ("R-1", "send"),
        ("S-2", "send"),
        ("R-2", "cancel"),
        ("V-2", "cancel"),
        ("V-9", "wait"),
    ]
    assert "S-2, which needs it" in rows[1]["why"]
    assert store.delivery.read_bytes() == before
    assert omneo.asked() == []


def test_a_plan_without_a_delivery_book_makes_none(store: Store) -> None:
    """A first run over a full journal looks for each document, and never cancels a pair unasked."""
    store.take(redemption("R-2"), reversal("V-2", "R-2"))
    rows = plan(store)
    assert [row["what"] for row in rows] == ["send", "send"]
    assert all("looked for at Omneo first" in row["why"] for row in rows)
    assert not store.delivery.exists()


def test_a_plan_is_what_then_happens(store: Store, omneo: Omneo, token: Path) -> None:
    sent(store, omneo, token)
    store.take(*(sale(f"S-{n}", profile_id=WEI) for n in range(5)), redemption("R-1"), sale("S-9"))
    planned = plan(store, "--limit", "0")
    sent(store, omneo, token)
    posted = [row["external_id"] for row in omneo.state()["transactions"]]
    assert [row["external_id"] for row in planned if row["kind"] == "sale"] == posted
    assert {row["what"] for row in planned} == {"send"}
    assert plan(store) == []


def test_a_plan_by_customer(store: Store, omneo: Omneo, token: Path) -> None:
    sent(store, omneo, token)
    store.take(sale("S-1", profile_id=WEI), sale("S-2"), sale("S-3", profile_id=WEI))
    assert [row["external_id"] for row in plan(store, "--ordering", "customer")] == ["S-1", "S-2", "S-3"]
    assert len(plan(store, "--limit", "2")) == 2
    told = command(store, "plan", "--ordering", "customer", "--lanes", "3")
    assert (told.code, len(told.out.splitlines())) == (0, 3)
    assert command(store, "plan", "--lanes", "3").code == 2


def test_a_plan_is_made_beside_a_running_forwarder(store: Store, omneo: Omneo, token: Path) -> None:
    """Somebody else's commit in the middle of it changes nothing, and nothing is written."""
    sent(store, omneo, token)
    store.take(*(sale(f"S-{n}") for n in range(4)))
    books = Books(store.db, store.delivery, write=False)
    rows = walk(books, Policy(), 0, Instant(**log.boot_facts(), wall=log.utc_now()))
    assert next(rows)["external_id"] == "S-0"
    with closing(log.open_book(store.delivery, "delivery", write=True)) as other:
        log.append(other, [log.Entry("line", facts={"link": "up", "reason": ""})])
    assert [row["external_id"] for row in rows] == ["S-1", "S-2", "S-3"]
    books.close()
    store.verified()


def test_documents_without_bodies_are_not_the_end(store: Store) -> None:
    """A whole turn of redacted documents in a row: each has its turn, with nothing in it."""
    store.take(*(sale(f"S-{n}") for n in range(200)))
    with sqlite3.connect(store.db) as book:
        book.execute("DROP TRIGGER body_no_delete")
        book.execute("DELETE FROM body WHERE seq < 190")
    book.close()
    create_delivery(store.db, store.delivery)
    books = Books(store.db, store.delivery)
    piece = books.documents(0, 64)
    assert [(document.seq, document.gone) for document in piece] == [(seq, True) for seq in range(2, 66)]
    assert [document.gone for document in books.documents(188, 3)] == [True, False, False]
    books.close()
