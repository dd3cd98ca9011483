"""A backlog goes to Omneo: ours in strict order beside N, S and I, a bare HTTP loop, and a line of 50 ms a request."""

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.bench import burst
from tests.bench.shop import IDEAL, NAIVE, Quick, Shop, Spent, quick, sale, shop
from tests.bench.turns import in_turns, middle, ratio

HEAD = {"Authorization": "Bearer sandbox", "Content-Type": "application/json", "Accept": "application/json"}


def delivery(sales: int, rounds: int) -> dict[str, Any]:
    """From the spool to a server that answers at once, both halves one after the other, each to its end."""
    turns: dict[str, Callable[[], tuple[Spent, Spent]]] = {
        "ours": lambda: _through(sales, _ours),
        "ideal": lambda: _through(sales, lambda *where: _ideal(*where, "rename", "group")),
        "careful": lambda: _through(sales, lambda *where: _ideal(*where, "unlink", "each")),
        "naive": lambda: _through(sales, _naive),
        "bare": lambda: _through(sales, _bare),
    }
    found = in_turns(rounds, turns)
    figures: dict[str, Any] = {"sales": sales}
    for name, rows in found.items():
        figures[f"{name}_a_second"] = sales / middle([taken.wall_s + sent.wall_s for taken, sent in rows])
        figures[f"{name}_sent_a_second"] = sales / middle([sent.wall_s for _, sent in rows])
        figures[f"{name}_cpu_ms"] = middle([(taken.cpu_s + sent.cpu_s) / sales * 1e3 for taken, sent in rows])
    whole = {name: [taken.wall_s + sent.wall_s for taken, sent in rows] for name, rows in found.items()}
    sent = {name: [sent.wall_s for _, sent in rows] for name, rows in found.items()}
    figures |= {f"of_{name}": ratio(whole[name], whole["ours"]) for name in ("careful", "ideal")}
    figures["times_naive"] = ratio(whole["naive"], whole["ours"])
    figures |= {f"sent_of_{name}": ratio(sent[name], sent["ours"]) for name in ("careful", "ideal", "bare")}
    figures["sent_times_naive"] = ratio(sent["naive"], sent["ours"])
    figures["cpu_of_ideal"] = figures["ours_cpu_ms"] / figures["ideal_cpu_ms"]
    return figures


def forwarder(place: Shop, there: Quick, *options: str) -> list[str]:
    """Deliver what waits, as fast as it goes."""
    return place.command("forwarder", "run", "--once", "--rate", "0", "--url", there.url, *options)


def _through(sales: int, both: Callable[[Shop, Quick, int], tuple[Spent, Spent]]) -> tuple[Spent, Spent]:
    """All of them must have come, each once and in order."""
    with quick() as there, shop() as place:
        spent = both(place, there, sales)
        seen = there.last()
        if seen["posts"] != sales or seen["inversions"]:
            raise RuntimeError(f"{seen['posts']} of {sales} sales came, {seen['inversions']} of them out of order")
        return spent


def _ours(place: Shop, there: Quick, sales: int) -> tuple[Spent, Spent]:
    place.run(forwarder(place, there))  # begins the delivery book: what the journal holds by then is looked up
    place.fill(range(sales))
    spent = place.spend(burst.ours(place)), place.spend(forwarder(place, there))
    said = subprocess.run(
        place.command("forwarder", "status", "--json"), env=place.env, capture_output=True, check=True
    )
    if (told := json.loads(said.stdout))["delivered"] != sales:
        raise RuntimeError(f"the books say {told}")
    return spent


def _ideal(place: Shop, there: Quick, sales: int, removal: str, mode: str) -> tuple[Spent, Spent]:
    place.fill(range(sales))
    command = [sys.executable, str(IDEAL), "deliver", str(place.naive), there.host, mode]
    return place.spend(burst.ideal(place, removal)), place.spend(command)


def _naive(place: Shop, there: Quick, sales: int) -> tuple[Spent, Spent]:
    place.fill(range(sales))
    command = [sys.executable, str(NAIVE), "deliver", str(place.naive), there.url]
    return place.spend(burst.naive(place, "wal")), place.spend(command)


def _bare(_: Shop, there: Quick, sales: int) -> tuple[Spent, Spent]:
    """A loop around http.client: what a line and a server allow, if nothing has to be remembered."""
    began, used = time.perf_counter(), time.process_time()
    post(there, [sale(number) for number in range(sales)])
    return Spent(0.0, 0.0, 0.0), Spent(time.perf_counter() - began, time.process_time() - used, 0.0)


def post(there: Quick, bodies: list[bytes]) -> None:
    """One after the other, on one connection."""
    with contextlib.closing(http.client.HTTPConnection(there.host, timeout=60)) as line:
        for body in bodies:
            line.request("POST", "/api/v3/transactions/update-create", body, HEAD)
            answer = line.getresponse()
            answer.read()
            if answer.status not in {200, 201}:
                raise RuntimeError(f"the server answered {answer.status}")


# -- a line with a delay --------------------------------------------------------------------------------------------


def line(delay_ms: float, requests: int, rounds: int) -> dict[str, Any]:
    """
    So long a request: what one lane, 8 and 32 get of 1/RTT each, by the clock of the server, from first to last.

    Each sale is another customer's. `requests` are one lane's; more lanes get so many times more.
    """
    figures: dict[str, Any] = {"delay_ms": delay_ms, "requests": requests}
    turns: dict[str, Callable[[], float]] = {
        "bare": lambda: _rate(delay_ms, requests, 0),
        "strict": lambda: _rate(delay_ms, requests, 1),
        "lanes_8": lambda: _rate(delay_ms, requests * 8, 8),
        "lanes_32": lambda: _rate(delay_ms, requests * 16, 32),
    }
    found = in_turns(rounds, turns)
    for name, rates in found.items():
        figures[f"{name}_of_rtt"] = middle(rates) * delay_ms / 1000
    figures["strict_of_bare"] = figures["strict_of_rtt"] / figures["bare_of_rtt"]
    return figures


def _rate(delay_ms: float, sales: int, lanes: int) -> float:
    """Requests a second; 0 lanes are the bare loop."""
    with quick(delay_ms) as there:
        if lanes:
            with shop() as place:
                options = ("--ordering", "customer", "--lanes", str(lanes)) if lanes > 1 else ()
                place.run(forwarder(place, there, *options))
                for number in range(sales):
                    document = json.loads(sale(number)) | {"profile_id": f"u{number}@example.com"}
                    document["profile_id_handle"] = "email"
                    (place.spool / f"sale-{number:07d}.json").write_text(json.dumps(document))
                place.run(burst.ours(place))
                place.run(forwarder(place, there, *options))
        else:
            post(there, [sale(number) for number in range(sales)])
        seen = there.last()
        if seen["posts"] != sales or (seen["inversions"] and lanes < 2):
            raise RuntimeError(f"{seen['posts']} of {sales} sales came, {seen['inversions']} of them out of order")
        return (sales - max(1, lanes)) / (seen["last"] - seen["first"])
