"""A line that goes and comes back: how soon the first request is there, how often it is tried, what a week leaves."""

import contextlib
import random
import shutil
import socket
import statistics
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import tenacity

from forwarder import patience
from journal import log
from tests.bench import idle
from tests.bench.shop import PATIENCE_S, Shop, quick, shop, wait
from tests.bench.turns import high, middle

SEED = 7
HOUR_S, DAY_S = 3600.0, 86400.0
FIRST_S = 10.0  # "at first"
STORES, SHARE_S = 1000, 0.05
RATE = 2000.0  # so many times as fast does a made-up clock run
CLOCKS = Path(__file__).parents[1] / "boot" / "clocks.c"
AGAIN = 10  # tries that a line fails for the same reason, before it fails for another one


def back(times: int, down_s: tuple[float, float]) -> dict[str, Any]:
    """
    So often a line that is down for so long, then a server that answers: from the moment at which it listens to the
    first sale that it gets. And how often it is tried at first, by one store and by many.
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
                    wait(lambda: there.last()["first"], PATIENCE_S, 0.01)
                    waited.append(max(0.0, there.last()["first"] - listens))
    return {
        "times": times,
        "first_s": middle(waited),
        "first_p95_s": high(waited) if times > 1 else waited[0],
        "tries_a_second_at_first": statistics.mean(_tried_again(FIRST_S) for _ in range(min(times, 3))),
        "busiest_moment": _together(random.Random(SEED)),
    }


def _tried_again(seconds: float) -> float:
    """Tries a second after the first one, counted by somebody who takes each connection and hangs up."""
    with shop() as place, _hanging_up() as (url, came):
        idle.pile(place.journal, 100)
        with place.daemon("forwarder", "run", "--url", url, "--rate", "0"):
            wait(lambda: came, PATIENCE_S)
            time.sleep(max(0.0, came[0] + seconds - time.monotonic()))
        return sum(0 < at - came[0] <= seconds for at in came) / seconds


@contextlib.contextmanager
def _hanging_up(busy_every: int = 0) -> Iterator[tuple[str, list[float]]]:
    """
    A URL at which each connection is taken and hung up, and when that was (monotonic). `busy_every`: after so many, as
    many are answered that the server is busy.
    """
    came: list[float] = []

    def hang_up() -> None:
        while True:
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            came.append(time.monotonic())
            with taken, contextlib.suppress(OSError):
                if busy_every and len(came) // busy_every % 2:
                    taken.recv(65536)
                    taken.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/api/v3", came
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _together(dice: random.Random) -> float:
    """
    So many stores lose the line in the same moment: how often do they try in the worst twentieth of a second beside the
    average, in the ten seconds after their first pauses? By the forwarder's own schedule: one machine can't be so many.
    """
    random.seed(dice.random())  # tenacity takes its jitter from there
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    moments: Counter[int] = Counter()
    for _ in range(STORES):
        at = 0.0
        for state.attempt_number in range(1, 10_000):
            at += float(patience.JITTER(state))
            if at >= 1 + FIRST_S:
                break
            moments[int(at / SHARE_S)] += 1
    busy = [moments[slot] for slot in range(int(1 / SHARE_S), int((1 + FIRST_S) / SHARE_S))]
    return max(busy) / statistics.mean(busy)


# -- a week ---------------------------------------------------------------------------------------------------------


def week(documents: int, days: float) -> dict[str, Any]:
    """
    So many days without a line while so many documents wait, for the real programs, by a clock that runs fast: rows a
    day in the delivery book, and how often it is tried. With one reason all the while, and with two that take turns.
    """
    figures: dict[str, Any] = {"documents": documents, "days": days, "rate": RATE}
    for name, busy_every in (("one_reason", 0), ("two_reasons", AGAIN)):
        with shop() as place, _hanging_up(busy_every) as (url, came):
            idle.pile(place.journal, documents)
            rows, began = _days(place, url, days)
            figures |= {f"{name}_{kind}_rows_a_day": count / days for kind, count in rows.items()}
            figures[f"{name}_rows_a_day"] = rows.total() / days
            late = sum(at > began + HOUR_S / RATE for at in came)
            figures[f"{name}_tries_in_30_s"] = late * 30 / (days * DAY_S - HOUR_S)
    most = max(("one_reason", "two_reasons"), key=lambda name: figures[f"{name}_rows_a_day"])
    figures["rows_a_day"] = figures[f"{most}_rows_a_day"]
    return figures | {"tries_in_30_s_after_an_hour": figures["one_reason_tries_in_30_s"]}


def _days(place: Shop, url: str, days: float) -> tuple[Counter[str], float]:
    """What the delivery book got in so many days, rows of each kind; and when they began (monotonic)."""
    delivery, hands = place.journal.with_name("delivery.db"), place.journal.with_name("clocks")
    library = place.journal.with_name("clocks.so")
    if (cc := shutil.which("cc")) is None:
        raise RuntimeError("a clock that runs fast needs a C compiler (cc)")
    subprocess.run([cc, "-O2", "-shared", "-fPIC", "-o", library, CLOCKS, "-ldl"], check=True)
    hands.write_bytes(struct.pack("4d", 0, 0, RATE, 0))
    place.env |= {"LD_PRELOAD": str(library), "CLOCKS": str(hands)}
    with place.daemon("journal", "ingest"), place.daemon("forwarder", "run", "--url", url, "--rate", "0"):
        before, began = _rows(delivery), time.monotonic()
        with hands.open("r+b") as clock:
            clock.write(struct.pack("4d", began, began + 2 * days * DAY_S / RATE, RATE, 0))
        time.sleep(days * DAY_S / RATE)
        return _rows(delivery) - before, began


def _rows(book: Path) -> Counter[str]:
    with closing(log.open_book(book, "delivery", write=False)) as db:
        return Counter(dict(db.execute("SELECT kind, count(*) FROM log GROUP BY kind")))
