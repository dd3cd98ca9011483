"""Contract, section 6, as behaviour: what becomes of a sale when a line, a proxy or Omneo does this or that to it."""

import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from standin import ENVIRONMENT, Listen, Omneo, Speaker, Store, execute, http, sale, says
from tills import wait_until

from forwarder import patience
from forwarder.link import SLOW_S
from forwarder.outcome import Outcome
from forwarder.replay import Replay, step
from forwarder.sandbox.customers import JANE
from forwarder.window import Instant
from journal import log
from journal.log import Entry

POST = "POST /api/v3/transactions/update-create"
UPSERT = "/transactions/update-create"


def upserts(omneo: Omneo) -> int:
    return len([line for line in omneo.state()["journal"] if line["path"].endswith(UPSERT)])


def look_ups(omneo: Omneo) -> int:
    return len([line for line in omneo.state()["journal"] if "/transactions/external/" in line["path"]])


def drain(run: Replay, most: int = 50) -> list[Outcome]:
    """Step until nothing waits."""
    results = []
    for _ in range(most):
        result = step(run)
        if result is None:
            run.books.flush()
            return results
        results.append(result)
    raise AssertionError(f"something still waits: {results[-3:]}")


@pytest.fixture
def run(store: Store, omneo: Omneo, token: Path) -> Iterator[Replay]:
    """A forwarder that was there before the first document came."""
    with store.forwarding(omneo.url, token=token, timeout=0.4) as running:
        yield running


@pytest.fixture(autouse=True)
def _sound_books(store: Store) -> Iterator[None]:
    """Whatever a test does, both books are in order after it."""
    yield
    if store.delivery.exists():
        store.verified()


# ── Delivered ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_waits_when_nothing_came(run: Replay, omneo: Omneo) -> None:
    assert step(run) is None
    assert omneo.asked() == []


def test_sales_arrive_once_each_and_in_order(store: Store, run: Replay, omneo: Omneo) -> None:
    ids = [f"S-{number}" for number in range(150)]  # more than a turn
    store.take(*(sale(name) for name in ids))
    assert {result.kind for result in drain(run, 200)} == {"delivered"}
    assert omneo.sales() == ids
    assert upserts(omneo) == len(ids)
    assert look_ups(omneo) == 0
    assert set(store.states().values()) == {"delivered"}
    assert store.flags() == []


def test_what_was_settled_on_a_slow_line_is_on_disk_while_the_next_one_is_under_way(
    store: Store, listen: Listen, token: Path
) -> None:
    on_disk = []

    def answer(speaker: Speaker, connection: socket.socket) -> None:
        while raw := speaker.hear(connection):
            body = json.loads(raw.partition(b"\r\n\r\n")[2])
            wait_until(lambda: delivered() == len(on_disk))
            time.sleep(10 * SLOW_S)  # after the commit, whose time is taken off the line's
            on_disk.append(delivered())
            echo = {"data": {"id": len(on_disk), "external_id": body["external_id"]}}
            connection.sendall(http("200 OK", json.dumps(echo).encode(), content_type="application/json"))

    def delivered() -> int:
        with closing(sqlite3.connect(f"{store.delivery.as_uri()}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT count(*) FROM log WHERE kind = 'delivered'").fetchone()[0])

    with store.forwarding(listen(answer).url, token=token) as running:
        store.take(sale("A"), sale("B"), sale("C"))
        assert [step(running).kind for _ in range(3)] == ["delivered"] * 3  # type: ignore[union-attr]
    assert on_disk == [0, 1, 2]


def test_a_commit_that_takes_long_does_not_make_the_line_a_slow_one(
    store: Store, run: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: each commit that was made while a request was under way brought about the next one."""
    monkeypatch.setattr("forwarder.link.SLOW_S", 0.2)
    monkeypatch.setattr(run.books, "flush", lambda: time.sleep(0.3))
    store.take(sale("A"))
    run.link.slow = True
    assert step(run) is not None
    assert not run.link.slow


def test_a_delivered_sale_knows_its_omneo_id(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-1"))
    drain(run)
    assert store.show("S-1")["omneo_id"] == omneo.state()["transactions"][0]["id"]


def test_invalid_and_conflicting_files_are_never_sent(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-1"), b'{"kind": "sale"}', sale("S-1", total=Decimal(5)), sale("S-2"))
    drain(run)
    assert omneo.sales() == ["S-1", "S-2"]
    assert omneo.state()["transactions"][0]["posted"]["total"] == Decimal("19.95")


def test_a_step_does_not_look_further_than_its_document(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-1"), sale("S-2"))
    omneo.fault("status", contains="S-1")
    for _ in range(3):
        result = step(run)
        assert result is not None
        assert result.kind == "deferred"
    assert not any("S-2" in str(line) for line in omneo.state()["journal"])


# ── A no to the document ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_sale_that_omneo_will_not_have_is_refused_after_a_look_up_and_the_line_moves_on(
    store: Store, run: Replay, omneo: Omneo
) -> None:
    store.take(sale("S-1", profile_id="nobody@example.com", profile_id_handle="email"), sale("S-2"))
    kinds = [result.kind for result in drain(run)]
    assert kinds == ["refused", "delivered"]
    assert look_ups(omneo) == 1
    assert store.states() == {"S-1": "refused", "S-2": "delivered"}
    assert store.flags() == [("sale_refused", "S-1")]
    assert "nobody" not in json.dumps(store.show("S-1")["history"])


@pytest.mark.parametrize("code", [400, 409, 413, 422])
def test_a_no_to_a_sale_that_omneo_has_is_a_delivery(store: Store, run: Replay, omneo: Omneo, code: int) -> None:
    store.take(sale("S-1"))
    omneo.fault("status", code=code, apply=True, count=1)
    assert [result.kind for result in drain(run)] == ["delivered"]
    assert (store.states(), omneo.sales()) == ({"S-1": "delivered"}, ["S-1"])


def test_a_no_stands_only_once_omneo_could_be_asked(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-1", profile_id="nobody"))
    omneo.fault("status", path="/external/", count=2)
    result = step(run)
    assert result is not None
    assert result.kind == "deferred"
    assert store.states() == {"S-1": "waiting"}
    assert drain(run)[-1].kind == "refused"


# ── Not now ───────────────────────────────────────────────────────────────────────────────────────────────────────

NOT_NOW: dict[str, dict[str, Any]] = {
    **{f"{code}": {"mode": "status", "code": code} for code in (408, 425, 429, 500, 502, 503, 504, 520)},
    "503 with a page": {"mode": "status", "code": 503, "html": True},
    "500 that did it all the same": {"mode": "status", "code": 500, "apply": True},
    "504 that did it all the same": {"mode": "status", "code": 504, "apply": True},
    "throttled": {"mode": "throttle"},
    "throttled until a date": {"mode": "throttle", "as_date": True},
    "hung up before": {"mode": "drop_before"},
    "hung up after": {"mode": "drop_after"},
    "reset before": {"mode": "drop_before", "reset": True},
    "reset after": {"mode": "drop_after", "reset": True},
    "refused": {"mode": "refuse"},
    "silence before": {"mode": "hang", "seconds": 1},
    "silence after": {"mode": "hang_after", "seconds": 1},
    "trickled": {"mode": "trickle"},
    "cut off": {"mode": "truncate"},
    "a captive portal": {"mode": "portal"},
    "a captive portal behind which it was done": {"mode": "portal", "apply": True},
    "a portal that speaks JSON": {"mode": "portal_json"},
    "a redirect": {"mode": "redirect"},
    "a redirect after it was done": {"mode": "redirect", "apply": True},
    "garbage": {"mode": "garbage"},
    "garbage after it was done": {"mode": "garbage", "apply": True},
    "an answer about another sale": {"mode": "wrong_id"},
    "an answer about another sale after it was done": {"mode": "wrong_id", "apply": True},
}


@pytest.mark.parametrize("fault", NOT_NOW.values(), ids=NOT_NOW.keys())
def test_what_goes_wrong_settles_nothing_and_makes_nothing_twice(
    store: Store, run: Replay, omneo: Omneo, fault: dict[str, Any]
) -> None:
    store.take(sale("S-1"), sale("S-2"))
    omneo.control("/faults", **fault, count=1)
    result = step(run)
    assert result is not None
    assert (result.kind, result.settles) == ("deferred", False)
    assert store.states() == {"S-1": "waiting", "S-2": "waiting"}
    assert {result.kind for result in drain(run)} == {"delivered"}
    assert omneo.sales() == ["S-1", "S-2"]
    assert omneo.counts()["transactions_created"] == 2
    assert store.states() == {"S-1": "delivered", "S-2": "delivered"}


APPLIED = ["500 that did it all the same", "hung up after", "reset after", "silence after", "trickled", "cut off"]
APPLIED += [
    "garbage after it was done",
    "a redirect after it was done",
    "an answer about another sale after it was done",
]


@pytest.mark.parametrize("name", APPLIED)
def test_a_lost_answer_is_looked_up_and_nothing_is_sent_again(
    store: Store, run: Replay, omneo: Omneo, name: str
) -> None:
    store.take(sale("S-1"))
    omneo.control("/faults", **NOT_NOW[name], count=1)
    step(run)
    result = step(run)
    assert result is not None
    assert (result.kind, result.facts.get("found")) == ("delivered", True)
    assert (upserts(omneo), look_ups(omneo)) == (1, 1)
    assert omneo.counts().get("transactions_updated", 0) == 0
    assert store.flags() == []


@pytest.mark.parametrize("name", ["hung up before", "reset before", "500", "502", "a captive portal", "garbage"])
def test_a_sale_that_did_not_arrive_is_sent_once_more_after_a_look_up(
    store: Store, run: Replay, omneo: Omneo, name: str
) -> None:
    store.take(sale("S-1"))
    omneo.control("/faults", **NOT_NOW[name], count=1)
    drain(run)
    paths = [line["path"] for line in omneo.state()["journal"]]
    assert [path.rpartition("/")[2] for path in paths] == ["update-create", "S-1", "update-create"]


@pytest.mark.parametrize("name", ["425", "429", "throttled", "throttled until a date"])
def test_what_surely_did_nothing_needs_no_look_up(store: Store, run: Replay, omneo: Omneo, name: str) -> None:
    store.take(sale("S-1"))
    omneo.control("/faults", **NOT_NOW[name], count=1)
    drain(run)
    assert (upserts(omneo), look_ups(omneo)) == (2, 0)


def test_while_omneo_is_away_nothing_is_lost(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-1"))
    omneo.fault("down", seconds=60)
    for _ in range(5):
        result = step(run)
        assert result is not None
        assert (result.kind, result.status) == ("deferred", None)
    omneo.mend()
    assert drain(run)[-1].kind == "delivered"
    assert omneo.sales() == ["S-1"]


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_reaches_whoever_waits(store: Store, run: Replay, omneo: Omneo, *, as_date: bool) -> None:
    store.take(sale("S-1"))
    omneo.fault("throttle", retry_after=40, as_date=as_date, count=1)
    result = step(run)
    assert result is not None
    assert result.retry_after_s is not None
    assert 38 <= result.retry_after_s <= 41


def test_a_look_up_that_fails_is_made_again_before_anything_is_sent(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-1"))
    omneo.fault("drop_after", count=1)
    for fault in ({"mode": "portal"}, {"mode": "status", "code": 500}, {"mode": "wrong_id"}, {"mode": "unauthorized"}):
        omneo.control("/faults", **fault, path="/external/", count=2 if fault["mode"] == "unauthorized" else 1)
    outcomes = [result.kind for result in drain(run)]
    assert outcomes == ["deferred", "deferred", "deferred", "deferred", "paused", "delivered"]
    assert upserts(omneo) == 1


# ── Credentials and configuration ─────────────────────────────────────────────────────────────────────────────────


def test_a_revoked_token_pauses_and_a_new_one_is_enough_to_go_on(
    store: Store, run: Replay, omneo: Omneo, token: Path
) -> None:
    store.take(sale("S-1"), sale("S-2"))
    step(run)
    omneo.control("/revoke")
    for _ in range(3):
        result = step(run)
        assert result is not None
        assert result.kind == "paused"
    assert store.states() == {"S-1": "delivered", "S-2": "waiting"}
    omneo.control("/tokens", accept="renewed")
    token.write_text("renewed")
    assert [result.kind for result in drain(run)] == ["delivered"]
    assert omneo.sales() == ["S-1", "S-2"]


def test_a_token_without_the_scope_pauses(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-1"))
    omneo.fault("forbidden", count=2)
    assert [result.kind for result in drain(run)] == ["paused", "paused", "delivered"]
    assert store.flags() == []


def test_a_401_that_a_fresh_token_cures_is_no_pause(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-1"))
    omneo.fault("unauthorized", count=1)
    assert [result.kind for result in drain(run)] == ["delivered"]


@pytest.mark.parametrize("code", [404, 405])
@pytest.mark.parametrize("fields", [{}, {"profile_id": JANE}])
def test_a_route_that_is_not_there_pauses_and_refuses_nothing(
    store: Store, run: Replay, omneo: Omneo, code: int, fields: dict[str, Any]
) -> None:
    store.take(sale("S-1", **fields), sale("S-2"))
    omneo.fault("status", code=code, path=UPSERT, count=1)
    assert [result.kind for result in drain(run)] == ["paused", "delivered", "delivered"]
    assert omneo.sales() == ["S-1", "S-2"]


def test_a_url_with_another_path_pauses_whoever_the_customer_is(store: Store, omneo: Omneo, token: Path) -> None:
    """Where every route answers 404, so does the customer's: only an answer that knows our token says more."""
    store.take(sale("S-1", profile_id=JANE))
    with store.forwarding(omneo.url.replace("/v3", "/v9"), token=token) as run:
        assert [step(run).kind for _ in range(2)] == ["paused", "paused"]
    assert store.states() == {"S-1": "waiting"}


@pytest.mark.parametrize("who", [("nobody", None), ("nobody@example.com", "email"), ("9999", "loyalty-card")])
def test_a_404_about_the_customer_refuses_the_sale(
    store: Store, run: Replay, omneo: Omneo, who: tuple[str, str | None]
) -> None:
    profile, handle = who
    store.take(sale("S-1", profile_id=profile, **({"profile_id_handle": handle} if handle else {})), sale("S-2"))
    omneo.fault("status", code=404, path=UPSERT, count=1)
    assert [result.kind for result in drain(run)] == ["refused", "delivered"]


def test_a_404_while_the_customer_cannot_be_asked_for_settles_nothing(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-1", profile_id="nobody"))
    omneo.fault("status", code=404, path=UPSERT, count=1)
    omneo.fault("status", code=503, path="/profiles/", count=1)
    result = step(run)
    assert result is not None
    assert not result.settles
    assert store.states() == {"S-1": "waiting"}


# ── Poison ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sale_that_keeps_failing_is_held_and_the_line_moves_on(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"), sale("S-2"))
    omneo.fault("status", code=500, contains="S-1")
    with store.forwarding(omneo.url, token=token, poison_after=3, poison_for_s=0) as run:
        kinds = [result.kind for result in drain(run)]
    assert kinds == ["deferred", "deferred", "held", "delivered"]
    assert store.states() == {"S-1": "held", "S-2": "delivered"}
    assert store.flags() == [("poison", "S-1")]


def test_nothing_is_poison_before_its_time(store: Store, omneo: Omneo, token: Path) -> None:
    clock = [datetime(2025, 6, 15, 4, 0, tzinfo=UTC)]
    store.take(sale("S-1"))
    omneo.fault("status", code=500, contains="S-1")
    with store.forwarding(omneo.url, token=token, poison_after=3, poison_for_s=900, now=lambda: clock[0]) as run:
        for _ in range(6):
            assert step(run).kind == "deferred"
        clock[0] += timedelta(seconds=899)
        assert step(run).kind == "deferred"
        clock[0] += timedelta(seconds=2)
        assert step(run).kind == "held"


def test_poison_is_counted_over_restarts(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"))
    omneo.fault("status", code=500, contains="S-1")
    kinds = []
    for _ in range(4):
        run = store.open(omneo.url, token=token, poison_after=4, poison_for_s=0)
        kinds.append(step(run).kind)
        store.crash(run)
    # A look-up answers in between, which is no failure of the document.
    assert kinds == ["deferred", "deferred", "deferred", "held"]


def test_nothing_is_poison_while_omneo_fails_for_everything(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"))
    omneo.fault("status", code=503)
    with store.forwarding(omneo.url, token=token, poison_after=3, poison_for_s=0) as run:
        assert {step(run).kind for _ in range(8)} == {"deferred"}
        omneo.mend()
        assert drain(run)[-1].kind == "delivered"


@pytest.mark.parametrize("fault", [{"mode": "throttle"}, {"mode": "drop_before"}, {"mode": "portal"}])
def test_only_5xx_is_poison(store: Store, omneo: Omneo, token: Path, fault: dict[str, Any]) -> None:
    store.take(sale("S-1"))
    omneo.control("/faults", **fault, contains="S-1")
    with store.forwarding(omneo.url, token=token, poison_after=3, poison_for_s=0) as run:
        assert {step(run).kind for _ in range(8)} == {"deferred"}


def test_poison_that_omneo_has_after_all_is_delivered(store: Store, omneo: Omneo, token: Path) -> None:
    """Once: the last failure may have done its work (5xx to a sale that was applied): held without a look-up."""
    store.take(sale("S-1"))
    omneo.fault("status", code=500, contains="S-1", count=2)
    omneo.fault("status", code=500, contains="S-1", apply=True)
    with store.forwarding(omneo.url, token=token, poison_after=3, poison_for_s=0) as run:
        drain(run)
    assert (omneo.sales(), store.states()) == (["S-1"], {"S-1": "delivered"})


# ── What Omneo had before ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_sale_that_omneo_had_long_before_is_delivered_and_flagged(store: Store, run: Replay, omneo: Omneo) -> None:
    omneo.control("/clock", offset_s=-86400)
    store.take(sale("S-1", total=Decimal("19.95")))
    made = omneo.desk.post(
        omneo.url + UPSERT,
        json={"external_id": "S-1", "total": 5, "transacted_at": "2025-06-14 10:00:00", "timezone": "UTC", "items": []},
        headers={"Authorization": "Bearer sandbox"},
    )
    assert made.status_code == 201
    omneo.control("/clock", offset_s=0)
    drain(run)
    assert store.states() == {"S-1": "delivered"}
    assert store.flags() == [("conflict", "S-1")]


@pytest.mark.parametrize("crash", [False, True])
def test_our_own_sale_is_not_older_than_it_is_when_the_clock_was_set_back(
    store: Store, omneo: Omneo, token: Path, *, crash: bool
) -> None:
    """Once: the time since the first attempt was told by the wall clock alone, and a conflict was flagged."""
    passed = [0.0, 0.0]  # by the kernel's clock, by the wall clock
    began = log.utc_now() + timedelta(seconds=40)  # ahead, until it is set
    now: log.Clock = lambda: began + timedelta(seconds=passed[1])  # noqa: E731
    clocks = {"now": now, "instant": lambda: Instant("this boot", 1000.0 + passed[0], now())}
    run = store.open(omneo.url, token=token, timeout=0.4, **clocks)
    with closing(log.open_book(store.db, "journal", write=True)) as book:
        facts = {"program": "omneo-journal", "boot": "this boot", "since_boot_s": 1000.0}
        log.append(book, [Entry("opened", facts=facts)], now=now)
    store.now = now
    store.take(sale("S-1"))
    omneo.fault("drop_after", contains="S-1")
    first = step(run)
    assert first is not None
    assert first.kind == "deferred"
    if crash:
        store.crash(run)
    else:
        run.books.flush()
    passed[:] = [60.0, 20.0]
    omneo.control("/clock", offset_s=60)
    if crash:
        run = store.open(omneo.url, token=token, timeout=0.4, **clocks)
    drain(run)
    run.books.close()
    store.wire.close()
    assert (store.states(), store.flags()) == ({"S-1": "delivered"}, [])


def test_a_delivery_book_that_was_lost_costs_look_ups_only(store: Store, omneo: Omneo, token: Path) -> None:
    ids = [f"S-{number}" for number in range(5)]
    store.take(*(sale(name) for name in ids[:3]))
    with store.forwarding(omneo.url, token=token) as run:
        drain(run)
    store.delivery.unlink()
    store.take(*(sale(name) for name in ids[3:]))
    with store.forwarding(omneo.url, token=token) as run:
        drain(run)
    assert omneo.sales() == ids
    assert (upserts(omneo), look_ups(omneo)) == (5, 3 + 5)  # the first run met an old journal too
    assert omneo.counts().get("transactions_updated", 0) == 0
    assert set(store.states().values()) == {"delivered"}


def test_a_clock_far_off_is_flagged_once(store: Store, omneo: Omneo, token: Path) -> None:
    """Our own is two days fast; nothing else may come of it."""

    def fast() -> datetime:
        return datetime.now(UTC) + timedelta(days=2)

    store.now = fast
    store.take(*(sale(f"S-{number}") for number in range(3)))
    with store.forwarding(omneo.url, token=token) as run:
        drain(run)
    assert [flag for flag, _ in store.flags()] == ["clock_skew"]
    assert set(store.states().values()) == {"delivered"}


# ── Whatever a server says ────────────────────────────────────────────────────────────────────────────────────────

ODD = {
    "an id with a fraction": b'{"data": {"id": 50001.5, "external_id": "S-1"}}',
    "an id that is no number": b'{"data": {"id": NaN, "external_id": "S-1"}}',
    "an id beyond all numbers": b'{"data": {"id": ' + b"9" * 400 + b', "external_id": "S-1"}}',
    "half a character for an id": b'{"data": {"id": "\\ud800", "external_id": "S-1"}}',
    "a list for an id": b'{"data": {"id": [1.5], "external_id": "S-1"}}',
    "an odd total": b'{"data": {"id": 1, "external_id": "S-1", "total": {"a": [1]}}}',
    "odd moments": b'{"data": {"id": 1, "external_id": "S-1", "created_at": "9999-12-31T23:59:59-12:00"}}',
}
# Once: an id of Omneo's answer goes into the book as it came. As a decimal it can't be written as JSON (TypeError), as
# NaN the store refuses it (IntegrityError), and half a character can't be stored: each time the forwarder dies, and
# dies again at the same document after every restart.


def hears_a_transaction(speaker: Speaker, connection: Any, answer: bytes) -> None:
    while heard := speaker.hear(connection):
        missing = http("404 Not Found", b'{"message": "none"}', content_type="application/json")
        connection.sendall(answer if heard.startswith(b"POST") else missing)


@pytest.mark.parametrize("body", ODD.values(), ids=ODD.keys())
def test_no_answer_stops_the_forwarder(store: Store, listen: Listen, token: Path, body: bytes) -> None:
    store.take(sale("S-1"))
    answer = http("200 OK", body, content_type="application/json")
    speaker = listen(lambda speaker, connection: hears_a_transaction(speaker, connection, answer))
    with store.forwarding(speaker.url, token=token) as run:
        result = step(run)
        assert result is not None
        run.books.flush()
    assert store.states()["S-1"] in {"delivered", "waiting"}


@pytest.mark.parametrize("message", ["\\ud800", "\\u0000", "x" * 10_000])
def test_no_refusal_stops_the_forwarder(store: Store, listen: Listen, token: Path, message: str) -> None:
    """Once: the words of a refusal are kept as they came; half a character among them can't be stored."""
    store.take(sale("S-1"))
    answer = http("422 No", f'{{"message": "{message}"}}'.encode(), content_type="application/json")
    speaker = listen(lambda speaker, connection: hears_a_transaction(speaker, connection, answer))
    with store.forwarding(speaker.url, token=token) as run:
        assert step(run).kind == "refused"
        run.books.flush()
    assert store.states() == {"S-1": "refused"}


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(http("429 Later", b"{}", retry_after="²"), id="Retry-After in other digits"),
        pytest.param(
            http("200 OK", b"{}", date="Mon, 01 Jan 99999999999999999999 00:00:00 GMT"), id="Date out of range"
        ),
        pytest.param(http("200 OK", b'{"a": 1e99999999999999999999}'), id="a number out of range"),
    ],
)
def test_no_header_and_no_number_stops_the_forwarder(store: Store, listen: Listen, token: Path, raw: bytes) -> None:
    """Once: the same as in test_outcome, seen from the daemon: the exception ends `run`."""
    store.take(sale("S-1"))
    with store.forwarding(listen(says(raw)).url, token=token) as run:
        result = step(run)
    assert result is not None
    assert result.kind == "deferred"


# ── Killed at every step ──────────────────────────────────────────────────────────────────────────────────────────

DRIVER = """
import os, sys
from pathlib import Path
from forwarder import wire
from forwarder.books import Books, create_delivery
from forwarder.link import Credentials, Link, check_url
from forwarder.replay import Policy, Replay, step
from journal import log

root, url, place, when = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
steps = 0

def deadly(act, name):
    def one(*args, **kwargs):
        global steps
        steps += 1
        mine = steps
        if mine == place and when == "before":
            print(name, flush=True); os._exit(9)
        try:
            return act(*args, **kwargs)
        finally:
            if mine == place and when == "after":
                print(name, flush=True); os._exit(9)
    return one

log.append = deadly(log.append, "append")
log.create = deadly(log.create, "create")
wire.Wire.handle_request = deadly(wire.Wire.handle_request, "request")

db, delivery = root / "journal.db", root / "delivery.db"
if not delivery.exists():
    create_delivery(db, delivery)
pair = Books(db, delivery)
pair.opened()
link = Link(check_url(url), Credentials(root / "token"), wire.Wire(2), rate=0, sleep=lambda s: None)
run = Replay(pair, link, Policy(), lambda event, **facts: None)
while step(run) is not None:
    pass
pair.close()
print(steps)
"""


def die(store: Store, omneo: Omneo, place: int, when: str) -> str | None:
    """A child that ends without a word at its nth step; the step's name, or None when it came to its end before."""
    arguments = [sys.executable, "-c", DRIVER, str(store.root), omneo.url, str(place), when]
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in {0, 9}, done.stderr
    return done.stdout.strip() if done.returncode == 9 else None


@pytest.mark.parametrize("fault", [None, "drop_after", "status"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_step_each_sale_arrives_once_and_in_order(
    tmp_path: Path, omneo: Omneo, when: str, fault: str | None
) -> None:
    """Every step of the way in turn (a commit, a request), the program gone before it or after it."""
    names = []
    for place in range(1, 60):
        omneo.control("/reset")
        (tmp_path / str(place)).mkdir()
        store = Store(tmp_path / str(place))
        token = store.root / "token"
        token.write_text("sandbox")
        store.take(sale("S-1"))
        with store.forwarding(omneo.url, token=token) as run:  # a book that knows the journal, and then three more
            drain(run)
        store.take(sale("S-2"), sale("S-3", profile_id="nobody"), sale("S-4"))
        if fault:
            omneo.fault(fault, count=1, path=UPSERT, apply=fault == "status")
        name = die(store, omneo, place, when)
        omneo.mend()
        store.verified()
        with store.forwarding(omneo.url, token=token) as run:
            drain(run)
        store.verified()
        assert store.states() == {"S-1": "delivered", "S-2": "delivered", "S-3": "refused", "S-4": "delivered"}
        assert omneo.sales() == ["S-1", "S-2", "S-4"]
        assert omneo.counts()["transactions_created"] == 3
        assert [flag for flag in store.flags() if flag[0] != "sale_refused"] == []
        if name is None:
            break
        names.append(name)
    # Where commits fall depends on how long requests take, so the places of two runs differ by a few.
    assert names.count("request") >= 2
    assert names.count("append") >= 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_the_delivery_book_begins_the_next_start_goes_on(
    store: Store, omneo: Omneo, token: Path, when: str
) -> None:
    store.take(sale("S-1"))
    assert die(store, omneo, 1, when) == "create"
    with store.forwarding(omneo.url, token=token) as run:
        drain(run)
    assert omneo.sales() == ["S-1"]


# ── The loops ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Said:
    """What the program would log."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **facts: Any) -> None:
        self.events.append((event, facts))


def test_once_delivers_what_it_can_and_says_what_stopped_it(store: Store, omneo: Omneo, token: Path) -> None:
    import threading

    said, stop = Said(), threading.Event()
    store.take(sale("S-1"), sale("S-2"))
    with store.forwarding(omneo.url, token=token, say=said) as run:
        assert patience.run_once(run, stop) is None
        store.take(sale("S-3"))
        omneo.fault("throttle", retry_after=100)
        result = patience.run_once(run, stop)
        assert result is not None
        assert result.kind == "deferred"
    assert [event for event, _ in said.events] == ["line_up", "line_down"]
    assert omneo.sales() == ["S-1", "S-2"]


def test_nothing_personal_is_said_or_kept(store: Store, omneo: Omneo, token: Path) -> None:
    """Names, e-mails and card numbers of a sale are in its body and nowhere else: no log line, no entry's facts."""
    said = Said()
    personal = {
        "profile_id": "jane.hush@example.com",
        "profile_id_handle": "email",
        "receipt_email": "other.hush@x.org",
    }
    store.take(sale("S-1", **personal, meta={"card": "4111-hush"}))
    omneo.fault("portal", count=1)
    omneo.fault("drop_after", count=1)
    with store.forwarding(omneo.url, token=token, say=said) as run:
        drain(run)
    with sqlite3.connect(store.delivery) as book:
        facts = " ".join(row[0] for row in book.execute("SELECT facts FROM log"))
    book.close()
    assert store.states() == {"S-1": "refused"}
    assert "hush" not in facts + str(said.events)


def test_the_books_refuse_each_other_after_a_restore(store: Store, omneo: Omneo, token: Path) -> None:
    """A journal from yesterday's backup under today's delivery book would be sent in part: say so instead."""
    backup = store.db.read_bytes()
    store.take(sale("S-1"))
    with store.forwarding(omneo.url, token=token) as run:
        drain(run)
    whole = store.db.read_bytes()
    store.db.write_bytes(backup)
    with pytest.raises(log.Unusable, match="older"):
        store.open(omneo.url, token=token)
    store.db.write_bytes(whole)


def test_the_command_does_the_same(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"))
    done = execute("forwarder", "run", "--once", "--db", store.db, "--url", omneo.url, "--token-file", token)
    assert (done.code, omneo.sales()) == (0, ["S-1"]), done.err
