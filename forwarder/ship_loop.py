"""The loop around shipping: when to look, how long to wait after a failure, and what is said of it, once each."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from forwarder.ship import Jitter, Shipper, pause
from journal.log import NotNow, Unusable
from journal.notify import Pulse

# Who looks no oftener hangs up meanwhile: ten thousand open lines cost head office more than new ones.
HANG_UP_S = 15.0
BATCH_S = 90.0  # for one batch, answer and all: then the line is given up and made anew


@contextmanager
def only_shipper(journal: Path) -> Iterator[None]:
    """
    One at a time from a store: of two, the one that looked first would seem to have lost entries. Raises NotNow.

    The lock is on the journal's own file, which this user need not be able to write; SQLite's are of another kind.
    """
    with journal.open("rb") as book:
        try:
            flock(book, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise NotNow(f"Another omneo-forwarder ship already reads {journal}; stop it first.") from None
        yield


def run_until(shipper: Shipper, stop: threading.Event, pulse: Pulse, every_s: float, jitter: Jitter) -> None:
    """
    Ship until stopped. A role that isn't let in is tried again like a line that is down: once it is enrolled, or its
    password is right, everything goes on by itself.
    """

    def goes_on() -> bool:
        pulse.beat()
        return not stop.is_set()

    shipper.goes_on = goes_on
    pulse.ready(2 * BATCH_S)
    shipper.say("ready", head=shipper.heads()[0].seq)
    failures, told = 0, ""
    while not stop.is_set():
        began = time.monotonic()
        try:
            shipper.go()
        except (NotNow, Unusable) as error:
            if str(error) != told:
                shipper.say("ledger_down", reason=str(error))
            told = str(error)
            failures += 1
            pulse.rest(stop, pause(failures, jitter))
            continue
        if failures:
            shipper.say("ledger_up", shipped=shipper.shipped)
        failures, told = 0, ""
        if every_s >= HANG_UP_S:
            shipper.ledger.close()
        pulse.rest(stop, max(0.05, every_s - (time.monotonic() - began)))
    pulse.stopping()
    shipper.say("stopped", shipped=shipper.shipped)
