"""
Many lanes at once. One thread keeps the books and decides; the others only talk to Omneo.

The same steps as in `replay.step`, with the conversation handed to a pool: what must be on disk before a document
leaves is there before the pool gets it; what came back is recorded as it comes. While the line fails, one lane tries.
"""

import threading
import time
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

import tenacity

from forwarder import replay
from forwarder.books import FLUSH_S, TURN, Document
from forwarder.by_customer import ByCustomer
from forwarder.errand import Errand, Pair, prepare
from forwarder.outcome import Outcome
from forwarder.patience import IDLE_S, JITTER, ONCE_S, Setback, readable
from forwarder.queues import NEVER
from forwarder.replay import Replay
from journal.log import NotNow

GRAVER = {"paused": 2, "deferred": 1}  # of several reasons why something still waits, the one to tell


@dataclass(frozen=True, slots=True)
class Flight:
    """What is on its way."""

    due: Document  # whose turn it was
    errand: Errand  # what left for it: itself, or what has to go before it
    probe: bool  # a harmless request for now, to learn whether the line is there
    left_at: float  # monotonic


Coming = Future[Outcome | None]  # None: a probe went well
Flights = dict[Coming, Flight]


@dataclass(slots=True)
class Lanes:
    """What is in flight, and what has failed."""

    run: Replay
    pool: ThreadPoolExecutor
    stop: threading.Event = field(default_factory=threading.Event)
    wake: threading.Event = field(default_factory=threading.Event)  # something came back, or the journal has grown
    once: bool = False
    flights: Flights = field(default_factory=dict)
    stuck: dict[int, tuple[int, Outcome]] = field(default_factory=dict)  # how often tried, and why it waits
    failing: set[int] = field(default_factory=set)  # documents that failed since the line was last seen well
    failures: int = 0  # of the line, in a row
    failed_at: float = -NEVER  # monotonic
    resume_at: float = -NEVER  # monotonic: until then everything pauses
    well_at: float = -NEVER  # monotonic: when the line was last seen well

    @property
    def lane(self) -> ByCustomer:
        """Whose turn it is."""
        assert isinstance(self.run.lane, ByCustomer)
        return self.run.lane

    @property
    def has_room(self) -> bool:
        """May one more go now? While the line fails, one at a time."""
        most = 1 if self.failures else self.run.lanes
        return len(self.flights) < most and time.monotonic() >= self.resume_at


def run_until(run: Replay, stop: threading.Event, wake: threading.Event) -> None:
    """Deliver until stopped. `wake` is set when the journal has grown, or by whoever sets `stop`."""
    with ThreadPoolExecutor(run.lanes) as pool:
        lanes, setback = Lanes(run, pool, stop, wake), Setback(run, stop)
        while not stop.is_set():
            with setback:
                run.chores()
                setback.first()
                if not turn(lanes) and not stop.is_set():
                    wake.wait(pause_s(lanes))
                if not lanes.flights:  # of what is on its way the answers tell: a lane that hangs is no progress
                    run.pulse.beat()
        run.pulse.stopping()
        finish(lanes)


def run_once(run: Replay, stop: threading.Event) -> Outcome | None:
    """Deliver what can be delivered now. Why something still waits, or None when nothing does."""
    with ThreadPoolExecutor(run.lanes) as pool:
        lanes = Lanes(run, pool, stop, once=True, well_at=time.monotonic())
        while not stop.is_set():
            if turn(lanes):
                continue
            if is_over(lanes):
                break
            stop.wait(pause_s(lanes))
        finish(lanes)
        run.line.settle()
        run.books.flush()
        if stop.is_set() or not lanes.lane.waits:
            return None
        reasons = [reason for _, reason in lanes.stuck.values()] or [Outcome("waits", "not everything was tried")]
        return max(reasons, key=lambda reason: GRAVER.get(reason.kind, 0))


def is_over(lanes: Lanes) -> bool:
    """Nothing is in flight: is there nothing more that `--once` would wait for?"""
    due_s = due_in_s(lanes)
    if due_s is None or any(reason.kind == "paused" for _, reason in lanes.stuck.values()):
        return True
    return time.monotonic() + due_s > lanes.well_at + ONCE_S


def due_in_s(lanes: Lanes) -> float | None:
    """Seconds until something that waits is tried again; None if nothing is going to be."""
    paused_s = lanes.resume_at - time.monotonic()
    return paused_s if paused_s > 0 and lanes.lane.waits else lanes.lane.next_due_s


def pause_s(lanes: Lanes) -> float:
    """How long there is nothing to do, unless something wakes us."""
    dues = [IDLE_S]
    if lanes.run.books.pending:
        dues.append(FLUSH_S)
    if (lanes.has_room or not lanes.flights) and (due_s := due_in_s(lanes)) is not None:
        dues.append(due_s)
    return min(dues)


def finish(lanes: Lanes) -> None:
    """Nothing more is sent; what is on its way comes back."""
    while lanes.flights:
        with suppress(NotNow):  # said below, if it is still so
            land(lanes, None)
    lanes.run.books.flush()


def turn(lanes: Lanes) -> bool:
    """Fill the free lanes, then take in what came back. False when there is nothing to do for now."""
    lanes.wake.clear()
    started = 0
    while started < TURN and lanes.has_room and not lanes.stop.is_set():
        with readable(lanes.run):
            document = lanes.lane.next_ready()
        if document is None:
            break
        started += 1
        start(lanes, document)
    if lanes.run.books.flush_due or not lanes.flights:
        lanes.run.books.flush()  # Settled, on disk: while the lanes are busy
    if lanes.flights:
        land(lanes, 0.0 if started == TURN and lanes.has_room else pause_s(lanes))
        return True
    return started > 0


def start(lanes: Lanes, due: Document, *, probed: bool = False) -> None:
    """One document: decided at once, or handed to the pool after what must be on disk is on disk."""
    lanes.lane.take(due)
    try:
        with readable(lanes.run):
            document, ready = prepare(due, lanes.run.view)
            if isinstance(ready, Errand):
                leave(lanes, due, ready, probed=probed)
                return
            if isinstance(ready, Pair):
                ready = replay.cancel(lanes.run, ready)
            else:
                replay.record(lanes.run, document, ready)
    except NotNow:
        put_right(lanes, due)
        raise
    wait_s = 0.0
    if ready.settles:
        lanes.stuck.pop(due.seq, None)
        lanes.stuck.pop(document.seq, None)
    else:  # for a redemption that may still come
        note(lanes, due, ready)
        wait_s = NEVER if lanes.once else min(IDLE_S, ready.retry_after_s or IDLE_S)
    lanes.lane.give_back(due, wait_s)


def leave(lanes: Lanes, due: Document, errand: Errand, *, probed: bool) -> None:
    """It goes, or, while the line fails, a harmless request goes before it."""
    run, document = lanes.run, errand.document
    if document.seq != due.seq and not lanes.lane.may_go_before(document, due):
        lanes.lane.give_back(due)  # its turn comes when the redemption's has
        return
    probe = not probed and errand.intent and not errand.look_first and run.line.failing
    if not probe:
        replay.may_leave(run, errand)
    lanes.lane.take(document)
    future: Coming
    if probe:
        future = lanes.pool.submit(replay.probe, run, errand)
    else:
        future = lanes.pool.submit(replay.converse, run.talk, errand)
    lanes.flights[future] = Flight(due, errand, probe, time.monotonic())
    future.add_done_callback(lambda _: lanes.wake.set())


def land(lanes: Lanes, timeout_s: float | None) -> None:
    """Take in whatever comes back within the time; without one, something."""
    done, _ = wait(lanes.flights, timeout_s, lanes.wake)
    for future in done:
        flight = lanes.flights.pop(future)
        result = future.result()
        try:
            if result is not None:
                with readable(lanes.run):
                    came_back(lanes, flight, result)
        except NotNow:
            if not flight.probe:
                lanes.run.memory.doubt.add(flight.errand.document.seq)
            put_right(lanes, flight.errand.document, flight.due)
            raise
        if result is None:  # the line is there: decided anew, for things may have changed meanwhile
            lanes.lane.give_back(flight.errand.document)
            lanes.lane.give_back(flight.due)
            if not lanes.stop.is_set():
                start(lanes, flight.due, probed=True)


def wait(flights: Flights, timeout_s: float | None, wake: threading.Event) -> tuple[set[Coming], set[Coming]]:
    """Until one of them is back or something else wakes us. What is back, and what is not."""
    if timeout_s is None:
        futures.wait(flights, return_when=futures.FIRST_COMPLETED)
    elif not any(future.done() for future in flights):
        wake.wait(timeout_s)
    done = {future for future in flights if future.done()}
    return done, set(flights) - done


def came_back(lanes: Lanes, flight: Flight, result: Outcome) -> None:
    """Record it. After a failure the document waits, for longer each time, and everything if it is the line's."""
    run, errand = lanes.run, flight.errand
    if not flight.probe:
        result = replay.poisoned(run, errand, result)
    if errand.look_first and not result.settles:
        result = replace(result, look_up=True)
    replay.record(run, errand.document, result)
    if result.settles or not result.line:
        lanes.failures, lanes.well_at = 0, time.monotonic()
        lanes.failing.clear()
    if result.settles:
        lanes.stuck.pop(errand.document.seq, None)
        lanes.stuck.pop(flight.due.seq, None)
    wait_s = 0.0 if result.settles else failed(lanes, flight, result)
    lanes.lane.give_back(errand.document, wait_s)
    lanes.lane.give_back(flight.due, wait_s)


def failed(lanes: Lanes, flight: Flight, result: Outcome) -> float:
    """How long the document waits. A single one with 5xx while others pass is its own failure, not the line's."""
    document, now = flight.errand.document, time.monotonic()
    tries = note(lanes, document, result)
    asked_s = result.retry_after_s or 0.0
    wait_s = max(asked_s, jitter_s(tries))
    if not result.line:
        return asked_s or wait_s
    lanes.failing.add(document.seq)
    if (result.status or 0) >= 500 and not asked_s and len(lanes.failing) == 1 and not flight.probe:
        return wait_s
    if flight.left_at >= lanes.failed_at:  # what left before that learned of the same failure
        lanes.failures += 1
        asked_s = max(asked_s, jitter_s(lanes.failures))
    lanes.failed_at = now
    lanes.resume_at = max(lanes.resume_at, now + asked_s)
    return wait_s if result.status is not None else 0.0


def note(lanes: Lanes, document: Document, result: Outcome) -> int:
    """Why it waits, and how often it was tried."""
    tries = lanes.stuck.pop(document.seq, (0, result))[0] + 1
    lanes.stuck[document.seq] = tries, result
    return tries


def put_right(lanes: Lanes, *documents: Document) -> None:
    """A book could not be written: whatever was not recorded has its turn again."""
    for document in documents:
        if lanes.run.books.state(document.seq) == "waiting":
            lanes.lane.give_back(document, IDLE_S)
        else:
            lanes.run.memory.forget(document.seq)
            lanes.lane.settle(document)


def jitter_s(failures: int) -> float:
    """The same back-off as in strict order, after so many failures in a row."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = failures
    return float(JITTER(state))
