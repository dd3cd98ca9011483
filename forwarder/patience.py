"""The loops around a step: how long to wait after a failure, what ends a wait, and what wakes an idle forwarder."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any, Self, TypeVar

import tenacity

from forwarder.outcome import Outcome
from forwarder.replay import Replay, step
from journal import hints
from journal.log import NotNow, reading_failed
from journal.say import Say

IDLE_S = 2.0  # the journal is looked at so often when no file event comes
LOOK_S = 30.0  # a long pause is taken in pieces, so that the chores are done
START_WAIT_S = 10.0  # how long a start waits for a journal's writer that was killed …
START_LOOK_S = 0.1  # … and how often it looks meanwhile
RETRY_S = 1.0  # a book that can't be read or written is tried again so often
ONCE_S = 5.0  # `--once` retries a passing failure for so long
HURRIED = 20  # tries of half a second each: most outages are over by then, and are noticed within that
JITTER = tenacity.wait_chain(  # after the first failure, the second, …
    tenacity.wait_random(0.25, 0.75),  # spreads shops that failed in one moment evenly over the time between two tries
    *[tenacity.wait_random(0.45, 0.55)] * (HURRIED - 1),
    tenacity.wait_random_exponential(multiplier=1.15**-HURRIED, exp_base=1.15, max=60),  # full jitter, from a second on
)

T = TypeVar("T")


@contextmanager
def watch(journal: Path, wake: threading.Event, say: Say) -> Iterator[None]:
    """Set `wake` when the journal has grown: its rollback file goes with each commit, and with nothing else."""
    rollback = os.fsencode(f"{journal.name}-journal")
    with hints.watching(wake, rollback.__eq__, hints.GONE, say) as events:
        events.look_at([journal.absolute().parent])
        yield


def run_until(run: Replay, stop: threading.Event, wake: threading.Event) -> None:
    """Deliver until stopped. `wake` is set when the journal has grown, or by whoever sets `stop`."""
    setback = Setback(run, stop)
    while True:
        wake.clear()
        if stop.is_set():
            run.pulse.stopping()
            return
        with setback:
            run.chores()
            setback.first()
            result = step_with_patience(run, stop, tenacity.stop_when_event_set(stop), back_off)
            run.pulse.beat()
            if result is None or result.kind == "waits":  # for a document, or for the redemption that it names
                run.books.flush()
                wake.wait(IDLE_S)


class Setback:
    """
    A book can't be read or written now: said once, tried again every second. On a full disk there may be room that was
    kept for that.
    """

    def __init__(self, run: Replay, stop: threading.Event) -> None:
        self._run = run
        self._stop = stop
        self._told = ""

    def first(self) -> None:
        """What is still in hand goes on disk before anything else leaves. Raises NotNow."""
        if self._told:
            self._run.books.flush()

    def __enter__(self) -> Self:
        """One pass of the loop."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        """True: it was NotNow, and was waited for."""
        if error is None and self._told:
            self._run.say("going_on")
            self._told = ""
        if not isinstance(error, NotNow):
            return False
        if not self._run.chores.make_room():
            if str(error) != self._told:
                self._run.say("not_now", reason=str(error))
            self._told = str(error)
            self._run.pulse.rest(self._stop, RETRY_S)
        return True


def run_once(run: Replay, stop: threading.Event) -> Outcome | None:
    """Deliver what can be delivered now. The outcome that ended it, or None when nothing is left."""
    began = 0.0
    enough = lambda state: stop.is_set() or time.monotonic() - began >= ONCE_S or hopeless(state)  # noqa: E731
    while not stop.is_set():
        began = time.monotonic()
        result = step_with_patience(run, stop, enough, short_wait)
        if result is None or not result.settles:
            run.line.settle()
            run.books.flush()
            return result
    return None


def step_with_patience(run: Replay, stop: threading.Event, enough: Any, wait: Any) -> Outcome | None:
    """Step; and again and again while it is not now, with pauses that SIGTERM ends at once."""
    first = step_unless(stop, run)
    if not fails(first):  # nearly always, and then tenacity would be a twentieth of all the work
        return first
    tries = chain([first], (step_unless(stop, run) for _ in count()))
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_result(fails),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        wait=wait,
        stop=enough,
        sleep=lambda seconds: rest(run, stop, seconds),
    )
    last: Outcome | None = retrying(next, tries)
    return last


def fails(result: Outcome | None) -> bool:
    """Is it worth another try of the same?"""
    return result is not None and result.kind in {"deferred", "paused"}


def step_unless(stop: threading.Event, run: Replay) -> Outcome | None:
    """A step, but none when the wait before it ended because the program is to stop. Raises NotNow."""
    if stop.is_set():
        return None
    try:  # not `with readable(run)`, which costs more than it says
        return step(run)
    except sqlite3.OperationalError as error:
        raise reading_failed(error, run.books.path) from error


def waited(act: Callable[[], T], journal: Path) -> T:
    """What a start reads: a writer that was killed since we opened its book is soon back. Raises NotNow if it isn't."""
    give_up = time.monotonic() + START_WAIT_S
    while True:
        try:
            return act()
        except sqlite3.OperationalError as error:
            known = reading_failed(error, journal)
            if not isinstance(known, NotNow) or time.monotonic() > give_up:
                raise known from error
        time.sleep(START_LOOK_S)


@contextmanager
def readable(run: Replay) -> Iterator[None]:
    """A journal whose writer was killed in the middle of a commit can't be read until that writer is back: NotNow."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise reading_failed(error, run.books.path) from error


def rest(run: Replay, stop: threading.Event, seconds: float) -> None:
    """Wait; but first put on disk what was recorded. The chores are done all the while."""
    run.books.flush()
    until = time.monotonic() + seconds
    while not stop.is_set() and (left := until - time.monotonic()) > 0:
        with suppress(NotNow):
            run.chores()
        run.pulse.rest(stop, min(left, LOOK_S))


def back_off(state: tenacity.RetryCallState) -> float:
    """Half a second for ten seconds, then full jitter that grows slowly to a minute; or as long as Omneo asked for."""
    return float(max(asked_s(state), JITTER(state)))


def short_wait(state: tenacity.RetryCallState) -> float:
    """Between the tries of `--once`."""
    return float(max(asked_s(state), tenacity.wait_random(0.1, 1.0)(state)))


def hopeless(state: tenacity.RetryCallState) -> bool:
    """Did Omneo ask for a longer wait than `--once` has, or does a person have to do something first?"""
    paused = state.outcome is not None and state.outcome.result().kind == "paused"
    return paused or asked_s(state) > ONCE_S


def asked_s(state: tenacity.RetryCallState) -> float:
    """How long Omneo asked us to wait, in seconds."""
    return float(state.outcome.result().retry_after_s or 0.0) if state.outcome else 0.0
