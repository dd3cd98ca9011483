"""
Many lanes at once. One thread keeps the books and decides; the others only talk to Omneo.

The same steps as in `replay.step`, with the conversation handed to a pool: what must be on disk before a document
leaves is on disk before the pool gets it, and what came back is recorded as it comes.
"""

import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

import tenacity

from forwarder import replay
from forwarder.books import FLUSH_S, Document
from forwarder.by_customer import ByCustomer
from forwarder.errand import Errand, Pair, prepare
from forwarder.outcome import Outcome
from forwarder.patience import IDLE_S, JITTER, ONCE_S
from forwarder.replay import Replay
from journal.log import NotNow

Flight = tuple[Document, Errand]  # whose turn it was, and what left for it (itself, or what has to go before it)


@dataclass(slots=True)
class Lanes:
    """What is in flight, and how long everything pauses after a failure."""

    run: Replay
    pool: ThreadPoolExecutor
    flights: dict[Future[Outcome], Flight] = field(default_factory=dict)
    failures: int = 0  # in a row
    resume_at: float = 0.0  # monotonic
    last: Outcome | None = None  # the last one that settled nothing

    @property
    def lane(self) -> ByCustomer:
        """The lanes of this run."""
        assert isinstance(self.run.lane, ByCustomer)
        return self.run.lane


def run_until(run: Replay, stop: threading.Event, wake: threading.Event) -> None:
    """Deliver until stopped."""
    with ThreadPoolExecutor(run.lanes) as pool:
        lanes = Lanes(run, pool)
        while not stop.is_set():
            wake.clear()
            try:
                busy = turn(lanes)
            except NotNow as reason:  # what was recorded is still in hand
                run.say("not_now", reason=str(reason))
                stop.wait(1.0)
                continue
            if not busy:
                run.books.flush()
                lanes.lane.look_again()
                wake.wait(pause_s(lanes))
        land(lanes, None)
        run.books.flush()


def run_once(run: Replay, stop: threading.Event) -> Outcome | None:
    """Deliver what can be delivered now. The last outcome that settled nothing, or None when nothing is left."""
    with ThreadPoolExecutor(run.lanes) as pool:
        lanes = Lanes(run, pool)
        give_up = time.monotonic() + ONCE_S
        while not stop.is_set():
            if turn(lanes):
                if lanes.failures == 0:
                    give_up = time.monotonic() + ONCE_S
                continue
            asked = lanes.last.retry_after_s if lanes.last else None
            due = pause_s(lanes)
            if lanes.lane.next_due_s is None and lanes.resume_at <= time.monotonic():
                break
            if time.monotonic() + due > give_up or (asked is not None and asked > ONCE_S):
                break
            stop.wait(due)
        land(lanes, None)
        run.line.settle()
        run.books.flush()
        return lanes.last if run.lane.settled_upto < run.books.last_document() else None


def turn(lanes: Lanes) -> bool:
    """Fill the free lanes, then take in what came back. False when there is nothing to do for now."""
    started = False
    while len(lanes.flights) < lanes.run.lanes and time.monotonic() >= lanes.resume_at:
        document = lanes.lane.next_ready()
        if document is None:
            break
        started = True
        start(lanes, document)
    if not lanes.flights:
        return started
    land(lanes, FLUSH_S if lanes.run.books.has_pending else IDLE_S)
    return True


def start(lanes: Lanes, due: Document) -> None:
    """One document: decided at once, or handed to the pool after what must be on disk is on disk."""
    run = lanes.run
    lanes.lane.take(due)
    document, ready = prepare(due, run.view)
    if isinstance(ready, Pair):
        replay.cancel(run, ready)
    elif isinstance(ready, Outcome):
        replay.record(run, document, ready)
        if not ready.settles:
            lanes.lane.give_back(due, min(IDLE_S, ready.retry_after_s or IDLE_S))
            lanes.last = ready
            return
    else:
        held_up = replay.probe(run, ready)
        if held_up is not None:
            came_back(lanes, (due, ready), held_up)
            return
        lanes.lane.take(document)
        replay.may_leave(run, ready)
        lanes.flights[lanes.pool.submit(replay.converse, run.talk, ready)] = (due, ready)
        return
    if due.seq != document.seq:
        lanes.lane.give_back(due)


def land(lanes: Lanes, timeout_s: float | None) -> None:
    """Take in what came back: whatever has, or (without a time-out) all of it."""
    done, _ = wait(lanes.flights, timeout_s, FIRST_COMPLETED if timeout_s is not None else "ALL_COMPLETED")
    for future in done:
        came_back(lanes, lanes.flights.pop(future), future.result())
    if lanes.run.books.flush_due:
        lanes.run.books.flush()


def came_back(lanes: Lanes, flight: Flight, result: Outcome) -> None:
    """Record it; after a failure everything pauses for a moment, and the document for longer each time."""
    due, errand = flight
    run, document = lanes.run, errand.document
    result = replay.poisoned(run, errand, result)
    if errand.look_first and not result.settles:
        result = replace(result, look_up=True)
    replay.record(run, document, result)
    if result.settles:
        lanes.failures = 0
    else:
        lanes.last = result
        lanes.failures += result.line
        wait_s = max(jitter_s(max(1, lanes.failures)), result.retry_after_s or 0.0)
        if result.line:
            lanes.resume_at = time.monotonic() + wait_s
        lanes.lane.give_back(document, wait_s if result.status is not None or not result.line else 0.0)
    if due.seq != document.seq:
        lanes.lane.give_back(due)


def jitter_s(failures: int) -> float:
    """The same back-off as in strict order, after so many failures in a row."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = failures
    return float(JITTER(state))


def pause_s(lanes: Lanes) -> float:
    """How long there is nothing to do, unless something wakes us."""
    now = time.monotonic()
    dues = [lanes.resume_at - now] if lanes.resume_at > now else []
    if (due := lanes.lane.next_due_s) is not None:
        dues.append(due)
    return min([*dues, IDLE_S])
