"""Eight lanes against the sandbox: order for each customer, each sale once, whatever fails and whenever it stops."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from standin import ENVIRONMENT, Listen, Omneo, Speaker, Store, at_once, command, execute, quiet, sale
from test_by_customer import redemption, reversal

from forwarder import by_customer, side_by_side
from forwarder.books import Books, create_delivery
from forwarder.link import Credentials, Link, check_url
from forwarder.replay import Policy, Replay
from forwarder.sandbox.customers import JANE, WEI
from forwarder.side_by_side import Lanes, run_once, run_until, turn
from forwarder.wire import Wire
from journal.log import NotNow

LANES = 8
PEOPLE = 12
UPSERT = "/transactions/update-create"


@pytest.fixture(autouse=True)
def _sound_books(store: Store) -> Iterator[None]:
    yield
    if store.delivery.exists():
        store.verified()


Open = Callable[..., Any]


@pytest.fixture
def forwarding(store: Store, omneo: Omneo, token: Path) -> Open:
    """As `omneo-forwarder run --ordering customer` puts it together."""

    @contextmanager
    def opened(
        url: str = omneo.url, *, lanes: int = LANES, timeout: float = 2.0, say: Any = quiet, **policy: Any
    ) -> Iterator[Replay]:
        if not store.delivery.exists():
            create_delivery(store.db, store.delivery)
        books, wire = Books(store.db, store.delivery), Wire(timeout)
        books.opened()
        link = Link(check_url(url), Credentials(token), wire, rate=0, sleep=at_once)
        try:
            yield Replay(books, link, Policy(timeout_s=timeout, **policy), say, lanes=lanes)
        finally:
            wire.close()
            books.delivery.close()
            books.journal.close()

    return opened


@pytest.fixture
def run(forwarding: Open) -> Iterator[Replay]:
    """A forwarder that was there before the first document came."""
    with forwarding() as running:
        yield running


def once(run: Replay) -> Any:
    return run_once(run, threading.Event())


def until(run: Replay, true: Callable[[], bool], *, seconds: float = 20) -> None:
    """`run_until`, stopped as soon as something is so."""
    stop, wake = threading.Event(), threading.Event()

    def watch() -> None:
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up and not true():
            time.sleep(0.01)
        stop.set()
        wake.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    run_until(run, stop, wake)
    watcher.join()
    assert true(), "waited in vain"


def people(omneo: Omneo) -> None:
    for number in range(PEOPLE):
        omneo.control("/profiles", id=f"u-{number}", email=f"p{number}@example.com", points=100000)


def backlog(sales: int, seed: int = 1) -> list[dict[str, Any]]:
    """Sales of some people, in no regular order, and a few of nobody."""
    dice = Random(seed)
    found = []
    for number in range(sales):
        who = dice.randrange(PEOPLE + 2)
        person: dict[str, Any] = {"profile_id": f"u-{who}"} if who < PEOPLE else {}
        if who < PEOPLE and who % 2:
            person = {"profile_id": f"p{who}@example.com", "profile_id_handle": "email"}
        found.append(sale(f"S-{number}", **person))
    return found


def arrived(omneo: Omneo) -> list[str]:
    """External ids in the order in which Omneo first did what they ask, from the sandbox's own journal."""
    lines = [line for line in omneo.state()["journal"] if line["applied"] and line["external_id"] is not None]
    return list(dict.fromkeys(line["external_id"] for line in lines if line["method"] == "POST"))


def in_order(contents: list[dict[str, Any]], order: list[str]) -> None:
    """Each customer's documents arrived in the order in which they stand in the journal."""
    place = {name: number for number, name in enumerate(order)}
    by_person: dict[str, list[str]] = {}
    for content in contents:
        if content.get("profile_id") is not None:
            by_person.setdefault(content["profile_id"], []).append(content["external_id"])
    last = len(order)
    for names in by_person.values():
        assert names == sorted(names, key=lambda name: place.get(name, last))


def each_once(omneo: Omneo, contents: list[dict[str, Any]]) -> None:
    sales = [content["external_id"] for content in contents if content["kind"] == "sale"]
    assert sorted(omneo.sales()) == sorted(sales)
    assert omneo.counts()["transactions_created"] == len(sales)


# ── Delivered ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_waits_when_nothing_came(run: Replay, omneo: Omneo) -> None:
    assert once(run) is None
    assert omneo.asked() == []


def test_a_backlog_arrives_once_each_in_order_and_side_by_side(store: Store, run: Replay, omneo: Omneo) -> None:
    people(omneo)
    contents = backlog(120)
    store.take(*contents)
    omneo.control("/latency", ms=30)
    began = time.monotonic()
    assert once(run) is None
    took = time.monotonic() - began
    in_order(contents, arrived(omneo))
    each_once(omneo, contents)
    assert set(store.states().values()) == {"delivered"}
    assert len(omneo.asked()) == 120
    assert took < 120 * 0.030  # one after the other they would take that, and their own time too


def test_never_more_than_so_many_at_once(store: Store, forwarding: Open, omneo: Omneo, monkeypatch: Any) -> None:
    store.take(*backlog(60))
    people(omneo)
    now, most = [0], [0]
    real = side_by_side.replay.converse

    def converse(*arguments: Any) -> Any:
        now[0] += 1
        most[0] = max(most[0], now[0])
        time.sleep(0.005)
        result = real(*arguments)
        now[0] -= 1
        return result

    monkeypatch.setattr(side_by_side.replay, "converse", converse)
    with forwarding(lanes=3) as run:
        assert once(run) is None
    assert most == [3]


def test_two_handles_of_one_customer_keep_one_order_once_that_is_known(store: Store, run: Replay, omneo: Omneo) -> None:
    people(omneo)
    handles = [
        {"profile_id": "u-0"},
        {"profile_id": "p0@example.com", "profile_id_handle": "email"},
        {"profile_id": "P0@example.com", "profile_id_handle": "email"},
    ]
    store.take(*(sale(f"known-{number}", **handle) for number, handle in enumerate(handles)))
    assert once(run) is None
    dice = Random(7)
    contents = [sale(f"S-{number}", **dice.choice(handles)) for number in range(40)]
    store.take(*contents)
    omneo.control("/latency", ms=5)
    assert once(run) is None
    assert arrived(omneo)[3:] == [content["external_id"] for content in contents]


def test_redemptions_their_sales_reversals_and_returns_keep_their_order(
    store: Store, run: Replay, omneo: Omneo
) -> None:
    """Online and offline ones, of several customers; what was never sent meets its reversal here."""
    people(omneo)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    contents: list[dict[str, Any]] = []
    for number in range(6):
        person = {"profile_id": f"u-{number}"}
        fields = person | {"amount": 10, "strategies": ["points"], "issued_at": now}
        contents += [
            redemption(f"X-{number}", **fields),
            sale(f"S-{number}", **person, redemption_external_id=f"X-{number}"),
            {**reversal(f"T-{number}", redemption_external_id=f"X-{number}", amount=4), "kind": "return"},
            redemption(f"Y-{number}", **fields),
            reversal(f"V-{number}", redemption_external_id=f"Y-{number}"),
            sale(f"Z-{number}", **person),
        ]
    store.take(*contents)
    assert once(run) is None
    order = arrived(omneo)
    for number in range(6):
        assert [name for name in order if name.endswith(f"-{number}")] == [f"{kind}-{number}" for kind in "XSTZ"]
    states = store.states()
    assert {states[f"{kind}-{number}"] for kind in "YV" for number in range(6)} == {"cancelled"}
    balances = [row["balances"] for row in omneo.state()["profiles"] if row["id"].startswith("u-")][:6]
    assert {each["point_balance_dollars"] for each in balances} == {990}
    assert (omneo.counts()["redemptions_redeem"], omneo.counts()["redemptions_return"]) == (6, 6)


def test_what_comes_while_another_request_hangs_is_not_held_up(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-0"))
    omneo.fault("hang", contains="S-0", count=1, seconds=1.5)
    came: list[float] = []
    stop, wake = threading.Event(), threading.Event()

    def shop() -> None:
        while not omneo.asked():
            time.sleep(0.005)
        store.take(sale("S-1"))
        began = time.monotonic()
        wake.set()
        while "S-1" not in omneo.sales() and time.monotonic() < began + 5:
            time.sleep(0.005)
        came.append(time.monotonic() - began)
        stop.set()
        wake.set()

    watcher = threading.Thread(target=shop)
    watcher.start()
    run_until(run, stop, wake)
    watcher.join()
    assert came[0] < 0.4


# ── What fails ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_fails_holds_up_its_own_customer_only(store: Store, run: Replay, omneo: Omneo) -> None:
    people(omneo)
    contents = [sale(f"S-{number}", profile_id=f"u-{number % 4}") for number in range(60)]
    store.take(*contents)
    omneo.fault("status", code=500, contains='"S-1"')
    began = time.monotonic()
    result = once(run)
    assert (result.kind, result.status) == ("deferred", 500)
    assert time.monotonic() - began < 8
    there = {content["external_id"] for content in contents if content["profile_id"] != "u-1"}
    assert set(omneo.sales()) == there
    assert {name for name, state in store.states().items() if state == "waiting"} == {
        content["external_id"] for content in contents if content["profile_id"] == "u-1"
    }
    omneo.mend()
    assert once(run) is None
    in_order(contents, arrived(omneo))
    each_once(omneo, contents)


def test_a_document_that_fails_does_not_slow_down_the_others(
    store: Store, run: Replay, omneo: Omneo, monkeypatch: Any
) -> None:
    """Once, everything paused after each of its failures."""
    monkeypatch.setattr(side_by_side, "jitter_s", lambda _: 5.0)
    people(omneo)
    contents = [sale("bad", profile_id="u-0"), *(sale(f"S-{number}") for number in range(150))]
    store.take(*contents)
    omneo.fault("status", code=500, contains='"bad"')
    omneo.control("/latency", ms=20)
    began = time.monotonic()
    until(run, lambda: omneo.counts().get("transactions_created", 0) == 150)
    assert time.monotonic() - began < 3


def test_while_the_line_fails_one_lane_tries_for_all(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(*(sale(f"S-{number}") for number in range(100)))
    omneo.fault("status", code=503)
    assert once(run).kind == "deferred"
    asked = len(omneo.asked())
    assert LANES <= asked < 50  # a try for each lane, then one at a time with longer and longer pauses
    omneo.mend()
    assert once(run) is None
    assert omneo.counts()["transactions_created"] == 100


def test_retry_after_is_for_all_lanes(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(*(sale(f"S-{number}") for number in range(40)))
    omneo.fault("throttle", count=1, skip=10, retry_after=2)
    began = time.monotonic()
    assert once(run) is None
    assert time.monotonic() - began > 1.9
    assert omneo.counts()["transactions_created"] == 40


def test_once_does_not_wait_for_a_long_retry_after(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(*(sale(f"S-{number}") for number in range(40)))
    omneo.fault("throttle", retry_after=600)
    began = time.monotonic()
    assert once(run).retry_after_s == 600
    assert time.monotonic() - began < 2


def test_once_ends_at_a_pause(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(*(sale(f"S-{number}") for number in range(40)))
    omneo.fault("forbidden")
    began = time.monotonic()
    assert once(run).kind == "paused"
    assert time.monotonic() - began < 2
    assert set(store.states().values()) == {"waiting"}


def test_once_does_not_wait_for_a_redemption_that_may_still_come(store: Store, run: Replay, omneo: Omneo) -> None:
    """Once, `run --once` tried again each second for the whole minute of grace."""
    people(omneo)
    store.take(sale("S-0", redemption_external_id="X", profile_id="u-0"), sale("S-1", profile_id="u-0"), sale("S-2"))
    began = time.monotonic()
    result = once(run)
    assert time.monotonic() - began < 2
    assert result.kind == "waits"
    assert omneo.sales() == ["S-2"]


def test_a_sale_goes_without_a_redemption_that_never_came(store: Store, forwarding: Open, omneo: Omneo) -> None:
    people(omneo)
    with forwarding(grace_s=0.3) as run:
        store.take(sale("S-0", redemption_external_id="X", profile_id="u-0"), sale("S-1", profile_id="u-0"))
        until(run, lambda: len(omneo.sales()) == 2)
    assert omneo.sales() == ["S-0", "S-1"]
    assert store.flags() == [("redemption_missing", "S-0")]


def test_a_redemption_that_comes_in_time_goes_before_its_sale_at_once(store: Store, run: Replay, omneo: Omneo) -> None:
    people(omneo)
    store.take(sale("S-0", redemption_external_id="X", profile_id="u-0"), sale("S-1"))
    fields = {"profile_id": "u-0", "amount": 10, "strategies": ["points"]}
    come = threading.Timer(0.3, lambda: store.take(redemption("X", **fields)))
    come.start()
    until(run, lambda: len(omneo.sales()) == 2)
    come.join()
    assert arrived(omneo) == ["S-1", "X", "S-0"]


def test_a_redemption_does_not_pass_what_its_customer_has_on_the_way(
    store: Store, run: Replay, omneo: Omneo, monkeypatch: Any
) -> None:
    """It comes when the sale that names it has its turn already, too late to be read ahead."""
    monkeypatch.setattr(by_customer, "AHEAD", 2)
    people(omneo)
    store.take(sale("S", redemption_external_id="X"), sale("J", profile_id="u-0"))
    events: list[str] = []
    real = side_by_side.replay.converse

    def converse(talk: Any, errand: Any) -> Any:
        events.append(f"{errand.document.external_id} leaves")
        time.sleep(1.5 if errand.document.external_id == "J" else 0.0)
        result = real(talk, errand)
        events.append(f"{errand.document.external_id} is back")
        return result

    monkeypatch.setattr(side_by_side.replay, "converse", converse)
    come = threading.Timer(0.2, lambda: store.take(redemption("X", profile_id="u-0", strategies=["points"])))
    come.start()
    until(run, lambda: len(omneo.sales()) == 2)
    come.join()
    assert events == [f"{name} {what}" for name in "JXS" for what in ("leaves", "is back")]


def test_a_redemption_that_waits_for_the_line_has_not_left(
    store: Store, run: Replay, omneo: Omneo, monkeypatch: Any
) -> None:
    """Something harmless asks first while the line fails, in a lane of its own."""
    monkeypatch.setattr(side_by_side, "ONCE_S", 1.0)
    store.take(sale("S-0"))
    omneo.fault("status", code=503)
    assert once(run).kind == "deferred"
    issued = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    store.take(redemption("X", profile_id=JANE, issued_at=issued))
    once(run)
    assert not any("redeem" in line for line in omneo.asked())
    store.take(reversal("V", redemption_external_id="X"))
    omneo.mend()
    assert once(run) is None
    assert store.states() == {"S-0": "delivered", "X": "cancelled", "V": "cancelled"}
    assert not any("redeem" in line for line in omneo.asked())


def test_a_redemption_leaves_once_the_line_is_back(store: Store, run: Replay, omneo: Omneo, monkeypatch: Any) -> None:
    monkeypatch.setattr(side_by_side, "ONCE_S", 0.5)
    store.take(sale("S-0"))
    omneo.fault("status", code=503)
    assert once(run).kind == "deferred"
    store.take(redemption("X", profile_id=JANE))
    before = len(omneo.asked())
    omneo.mend()
    omneo.fault("status", code=503, count=2)
    until(run, lambda: omneo.counts().get("redemptions_redeem", 0) == 1)
    asked = [line.split("/")[-1] for line in omneo.asked()[before:]]
    assert asked.count("redeem") == 1
    if "update-create" not in asked[: asked.index("redeem")]:  # the sale's own success ends the outage too
        assert "verify" in asked[: asked.index("redeem")]


def test_a_request_that_no_server_answers_is_tried_by_one_lane(store: Store, forwarding: Open, listen: Listen) -> None:
    """Eight lanes' worth of connections at first, one at a time from then on."""

    def hangs_up(speaker: Speaker, connection: Any) -> None:
        speaker.hear(connection)

    store.take(*(sale(f"S-{number}") for number in range(50)))
    speaker = listen(hangs_up)
    with forwarding(speaker.url) as run:
        assert once(run).kind == "deferred"
    assert speaker.connections < 30


# ── It stops ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_on_its_way_when_it_has_to_stop_is_written_down(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(*(sale(f"S-{number}") for number in range(60)))
    omneo.control("/latency", ms=200)
    began = time.monotonic()
    until(run, lambda: time.monotonic() > began + 0.1)
    sales = omneo.sales()
    assert 1 <= len(sales) <= LANES
    assert sorted(name for name, state in store.states().items() if state == "delivered") == sorted(sales)


def test_a_stop_while_everything_pauses_is_heeded_at_once(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-0"))
    omneo.fault("throttle", retry_after=600)
    began = time.monotonic()
    until(run, lambda: time.monotonic() > began + 0.3)
    assert time.monotonic() - began < 60


def crash(run: Replay, turns: int, pool: ThreadPoolExecutor) -> None:
    """So many turns, and then nobody hears what comes back."""
    lanes = Lanes(run, pool)
    for _ in range(turns):
        turn(lanes)
    wait_for(lanes.flights)


@pytest.mark.parametrize("seed", range(6))
def test_order_and_once_hold_through_faults_and_crashes(
    seed: int, store: Store, forwarding: Open, omneo: Omneo
) -> None:
    people(omneo)
    dice = Random(seed)
    contents = backlog(90, seed)
    coming = list(contents)
    omneo.fault("any", share=0.25, seed=seed, seconds=0.3, interval=0.001, skew_s=0, retry_after=0)
    with forwarding():
        pass  # the delivery book is there before the first document
    with ThreadPoolExecutor(LANES) as pool:
        while coming or "waiting" in store.states().values():
            store.take(*coming[:30])
            coming = coming[30:]
            with forwarding(timeout=0.25) as run:
                crash(run, dice.randrange(4, 60), pool)
            if not coming and dice.random() < 0.3:
                omneo.mend()
    assert set(store.states().values()) == {"delivered"}
    in_order(contents, arrived(omneo))
    each_once(omneo, contents)


def test_order_and_once_hold_when_the_process_is_killed(store: Store, omneo: Omneo, token: Path) -> None:
    """The real program, eight times, with SIGKILL at random moments, then to its end."""
    people(omneo)
    contents = backlog(300)
    options = ["--db", store.db, "--url", omneo.url, "--token-file", token]
    options += ["--ordering", "customer", "--rate", 0, "--timeout", 1]
    assert execute("forwarder", "run", "--once", *options).code == 0
    store.take(*contents)
    omneo.control("/latency", ms=10)
    omneo.fault("drop_after", share=0.1, seed=1)
    dice = Random(2)
    for _ in range(8):
        process = subprocess.Popen(command("forwarder", "run", *map(str, options)), env=ENVIRONMENT, stderr=-1)
        assert process.stderr is not None
        process.stderr.readline()  # ready
        time.sleep(dice.uniform(0.0, 0.12))
        process.kill()
        process.communicate()
    omneo.mend()
    done = execute("forwarder", "run", "--once", *options)
    assert done.code == 0, done.err
    in_order(contents, arrived(omneo))
    each_once(omneo, contents)
    assert set(store.states().values()) == {"delivered"}


def test_after_a_crash_what_may_have_left_is_looked_up_and_nothing_else(
    store: Store, forwarding: Open, omneo: Omneo
) -> None:
    with forwarding():
        pass
    store.take(*(sale(f"S-{number}") for number in range(200)))
    with forwarding() as run, ThreadPoolExecutor(LANES) as pool:
        crash(run, 5, pool)
        upto = run.books.turn.upto
    settled = [name for name, state in store.states().items() if state != "waiting"]
    before = len(omneo.asked())
    with forwarding() as run:
        assert once(run) is None
    looked_up = {line.rsplit("/", 1)[1] for line in omneo.asked()[before:] if line.startswith("GET")}
    assert looked_up == {f"S-{number}" for number in range(upto - 1)} - set(settled)
    assert omneo.counts()["transactions_created"] == 200


# ── The books can't be written for a moment ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("what", "nth"), [("take_turn", 1), *(("flush", nth) for nth in range(1, 17))])
def test_a_full_disk_at_any_moment_loses_nothing_and_sends_nothing_twice(
    what: str, nth: int, store: Store, run: Replay, omneo: Omneo, monkeypatch: Any
) -> None:
    people(omneo)
    contents: list[dict[str, Any]] = [redemption("X", profile_id=WEI)]
    contents += [sale("XS", profile_id=WEI, redemption_external_id="X"), *backlog(12)]
    store.take(*contents)
    omneo.fault("status", code=500, contains='"S-1"', count=1)
    real, calls = getattr(run.books, what), [0]

    def fails(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth:
            raise NotNow("the disk is full")
        return real(*arguments)

    monkeypatch.setattr(side_by_side, "IDLE_S", 0.05)
    monkeypatch.setattr(run.books, what, fails)
    stop, waited = threading.Event(), threading.Event()
    monkeypatch.setattr(stop, "wait", lambda seconds: waited.wait(min(seconds, 0.01)))
    wake = threading.Event()
    lanes_over = time.monotonic() + 10

    def watch() -> None:
        while time.monotonic() < lanes_over and len(omneo.sales()) < 13:
            time.sleep(0.01)
        time.sleep(0.1)
        stop.set()
        wake.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run_until(run, stop, wake)
    except NotNow:  # at the very end
        run.books.flush()
    watcher.join()
    assert set(store.states().values()) == {"delivered"}
    in_order(contents, arrived(omneo))
    each_once(omneo, contents)
    assert omneo.counts()["redemptions_redeem"] == 1
    (delivered,) = run.books.delivery.execute("SELECT count(*) FROM log WHERE kind = 'delivered'").fetchone()
    assert delivered == len(contents)


# ── Windows ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_reversals_at_the_end_of_a_backlog_arrive_in_their_window(store: Store, forwarding: Open, omneo: Omneo) -> None:
    """Whatever stands before them and isn't theirs waits."""
    people(omneo)
    made = []
    with forwarding():
        pass
    for number in range(4):
        omneo.control("/clock", offset_s=-600 + 2.0 + 2.0 + number)
        answer = omneo.desk.post(
            f"{omneo.url}/profiles/u-{number}/redeem",
            json={"amount": 10, "strategies": ["points"]},
            headers={"Authorization": "Bearer sandbox"},
        )
        made.append(answer.json()["data"])
    omneo.control("/clock", offset_s=0)
    contents = backlog(400)
    for number, row in enumerate(made):
        at = datetime.fromisoformat(row["created_at"]).strftime("%Y-%m-%dT%H:%M:%SZ")
        contents.append(reversal(f"V-{number}", redemption_id=row["id"], redeemed_at=at, profile_id=f"u-{number}"))
    store.take(*contents)
    omneo.control("/latency", ms=60)
    with forwarding(timeout=5, window_s=600 + 120) as run:  # a slow machine has time enough; the order is what counts
        until(run, lambda: omneo.counts().get("redemptions_reversal", 0) == 4, seconds=60)
    assert len(omneo.sales()) < 300
    in_order(contents, arrived(omneo))


def test_the_window_of_a_redemption_is_not_the_reason_to_send_it(store: Store, run: Replay, omneo: Omneo) -> None:
    """A redemption that was not sent has no running clock at Omneo."""
    people(omneo)
    issued = (datetime.now(UTC) - timedelta(seconds=590)).strftime("%Y-%m-%dT%H:%M:%SZ")
    store.take(*backlog(80), redemption("X", profile_id=WEI, issued_at=issued))
    omneo.control("/latency", ms=5)
    assert once(run) is None
    assert arrived(omneo).index("X") >= 60
