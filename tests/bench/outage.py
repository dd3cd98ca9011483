"""A line that goes and comes back: how soon the first request is there, how often it is tried, what a week leaves."""

import random
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import Any

import tenacity

from forwarder import patience
from tests.bench import idle
from tests.bench.shop import quick, shop
from tests.bench.turns import high, middle

SEED = 7
HOUR_S = 3600.0


def back(times: int, down_s: tuple[float, float]) -> dict[str, Any]:
    """
    So often a line that is down for so long, then a server that answers; and the schedule of tries over hours.

    From the moment at which it listens to the first request that it gets.
    """
    dice, waited = random.Random(SEED), []
    with shop() as place:
        idle.pile(place.journal, 2 * times + 1000)
        with closing(socket.socket()) as nobody:
            nobody.bind(("127.0.0.1", 0))
            port = nobody.getsockname()[1]
        url = f"http://127.0.0.1:{port}/api/v3"
        for _ in range(times):
            with place.daemon("forwarder", "run", "--url", url, "--rate", "10"):
                time.sleep(dice.uniform(*down_s))
                with quick(port=port) as there:
                    listens = time.monotonic()
                    while not (seen := there.last())["first"]:
                        time.sleep(0.01)
                    waited.append(max(0.0, seen["first"] - listens))
    early = [_tries(dice, 10.0) / 10.0 for _ in range(200)]
    late = [(_tries(dice, HOUR_S + 600) - _tries(dice, HOUR_S)) / 20.0 for _ in range(200)]
    return {
        "times": times,
        "first_s": middle(waited),
        "first_p95_s": high(waited) if times > 1 else waited[0],
        "tries_a_second_at_first": sum(early) / len(early),
        "tries_in_30_s_after_an_hour": sum(late) / len(late),
        "tries_a_second_measured": _hung_up(5.0),
    }


def _tries(dice: random.Random, seconds: float) -> int:
    """How often the forwarder's own schedule tries in so long an outage."""
    random.seed(dice.random())  # tenacity takes its jitter from there
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    at, tries = 0.0, 1
    while True:
        state.attempt_number = tries
        at += float(patience.JITTER(state))
        if at > seconds:
            return tries
        tries += 1


def _hung_up(seconds: float) -> float:
    """Tries a second, counted by somebody who takes each connection and hangs up."""
    came = []

    def hang_up() -> None:
        while True:
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            came.append(time.monotonic())
            taken.close()

    with shop() as place, socket.create_server(("127.0.0.1", 0)) as listener:
        idle.pile(place.journal, 100)
        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/v3"
        with place.daemon("forwarder", "run", "--url", url, "--rate", "0"):
            time.sleep(seconds)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    return len(came) / seconds


# -- a week ---------------------------------------------------------------------------------------------------------

WEEK = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from forwarder import line
from forwarder.books import Books, create_delivery
from forwarder.outcome import Outcome
from journal import log

journal, reasons = Path(sys.argv[1]), sys.argv[2].split("|")
delivery = journal.with_name("delivery.db")
create_delivery(journal, delivery)
books, clock = Books(journal, delivery), SimpleNamespace(now=0.0)
line.time = SimpleNamespace(monotonic=lambda: clock.now)
told, began = line.Line(books, lambda *_, **__: None), log.head(books.delivery)[0]
tries = 7 * 24 * 120
for number in range(tries):
    clock.now += 30.0
    told.saw(Outcome("deferred", reasons[number // 10 % len(reasons)]))
    books.flush()
print((log.head(books.delivery)[0] - began) / 7)
"""


def week(documents: int) -> dict[str, Any]:
    """
    A week without a line while so many documents wait, a try every half minute, in made-up time: rows a day in the
    delivery book. With one reason all the while, and with two that take turns every five minutes.
    """
    figures: dict[str, Any] = {"documents": documents}
    for name, reasons in (("one_reason", "no connection"), ("two_reasons", "no connection|no answer in time")):
        with shop() as place:
            idle.pile(place.journal, documents)
            command = [sys.executable, "-P", "-c", WEEK, str(place.journal), reasons]
            said = subprocess.run(command, env=place.env, check=True, capture_output=True)
            figures[f"{name}_rows_a_day"] = float(said.stdout)
    figures["rows_a_day"] = max(figures["one_reason_rows_a_day"], figures["two_reasons_rows_a_day"])
    return figures
