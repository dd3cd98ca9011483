"""
`--ordering customer` beside `strict`: a backlog with reversals in a hurry at its end, and how fast a backlog drains.

Real programs against the sandbox in a process of its own; what arrived, when and in which order is the sandbox's word.
"""

import json
import statistics
import subprocess
import time
from datetime import datetime
from typing import Any

from tests.bench.shop import Omneo, Shop, omneo, sale, shop

PEOPLE = 60
WINDOW_S = 600.0
ORDERINGS = ("strict", "customer")
LANES = ("--ordering", "customer", "--lanes", "8")

Row = dict[str, Any]


def reversals(sales: int, count: int, closes_s: tuple[float, float], timeout_s: float) -> Row:
    """
    So many sales, and behind them reversals whose windows close within these seconds, at 20 ms a request.

    Each has a sale of its customer before it. In time is what Omneo took: it refuses a reversal after the window.
    """
    figures: Row = {"sales": sales, "reversals": count}
    with omneo() as there:
        for ordering in ORDERINGS:
            found = _reversals(there, ordering, sales, count, closes_s, timeout_s)
            figures |= {f"{ordering}_{name}": value for name, value in found.items()}
    return figures


def _reversals(
    there: Omneo, ordering: str, sales: int, count: int, closes_s: tuple[float, float], timeout_s: float
) -> Row:
    with shop() as place:
        command = _forwarder(place, there, ordering, "--timeout", str(timeout_s))
        _begin(place, there, command)
        _ingest(place, [_sale(number) for number in range(sales)])
        began = time.monotonic()
        step = (closes_s[1] - closes_s[0]) / max(1, count - 1)
        made = [_redeem(there, number, closes_s[0] + number * step - WINDOW_S) for number in range(count)]
        _ingest(place, [_reversal(number, row) for number, row in enumerate(made)])
        # Omneo's clock stood still meanwhile: the windows close that many seconds from now.
        _tell(there, "/clock", offset_s=began - time.monotonic())
        _tell(there, "/latency", ms=20)
        took = place.run(command)
        state = _state(there)
        _all_once_and_in_order(state, sales)
        undone = {row["linked_source_id"]: _seconds(row) for row in state["redemptions"] if row["type"] == "reversal"}
        started = min(_at(line) for line in state["journal"] if line["external_id"] is not None and _is_ours(line))
        flagged = _flagged(place)
    late = {f"V-{number}" for number, row in enumerate(made) if row["id"] not in undone}
    return {
        "in_time": len(undone) / count,
        "lost": len(late - flagged) / count,
        "flagged": len(flagged) / count,
        "last_reversal_s": max(undone.values(), default=started) - started,
        "drained_s": took,
    }


def drain(sales: int, rounds: int) -> Row:
    """The same backlog at 50 ms a request in either order, in turns: process start to process end."""
    took: dict[str, list[float]] = {ordering: [] for ordering in ORDERINGS}
    with omneo() as there:
        for number in range(rounds):
            for ordering in ORDERINGS if number % 2 else reversed(ORDERINGS):
                with shop() as place:
                    command = _forwarder(place, there, ordering)
                    _begin(place, there, command)
                    _ingest(place, [_sale(each) for each in range(sales)])
                    _tell(there, "/latency", ms=50)
                    took[ordering].append(place.run(command))
                    people = _all_once_and_in_order(_state(there), sales)
    strict, customer = (statistics.median(took[ordering]) for ordering in ORDERINGS)
    return {
        "sales": sales,
        "customers_in_order": people,
        "strict_s": strict,
        "customer_s": customer,
        "ratio": strict / customer,
        "ratios": [one / other for one, other in zip(*took.values(), strict=True)],
    }


def _forwarder(place: Shop, there: Omneo, ordering: str, *options: str) -> list[str]:
    lanes = LANES if ordering == "customer" else ()
    return place.command("forwarder", "run", "--once", "--rate", "0", "--url", there.url, *lanes, *options)


def _begin(place: Shop, there: Omneo, command: list[str]) -> None:
    """A sandbox as new, with our customers; a delivery book that is there before the first document."""
    there.desk("POST", "/reset")
    for number in range(PEOPLE):
        _tell(there, "/profiles", id=f"u-{number}", email=_mail(number), points=100000)
    place.run(command)


def _ingest(place: Shop, documents: list[Row]) -> None:
    for number, document in enumerate(documents):
        (place.spool / f"{document['kind']}-{number:07d}.json").write_text(json.dumps(document))
    place.run(place.command("journal", "ingest", "--once"))


def _sale(number: int) -> Row:
    """Of everybody in turn, and every tenth of nobody."""
    document: Row = json.loads(sale(number)) | {"external_id": f"S-{number}"}
    for name in ("profile_id", "profile_id_handle", "terminal", "sequence"):
        document.pop(name, None)
    if number % 10:
        document |= {"profile_id": _mail(number % PEOPLE), "profile_id_handle": "email"}
    return document


def _mail(number: int) -> str:
    return f"p{number}@example.com"


def _redeem(there: Omneo, number: int, offset_s: float) -> Row:
    """One made online, so long ago."""
    _tell(there, "/clock", offset_s=offset_s)
    head = {"Authorization": "Bearer sandbox", "Content-Type": "application/json"}
    body = json.dumps({"amount": 10, "strategies": ["points"]})
    there.line.request("POST", f"/api/v3/profiles/u-{number % PEOPLE}/redeem", body, head)
    row: Row = json.loads(there.line.getresponse().read())["data"]
    return row


def _reversal(number: int, row: Row) -> Row:
    made = str(row["created_at"]).replace(" ", "T").removesuffix("Z") + "Z"
    return {
        "kind": "reversal",
        "external_id": f"V-{number}",
        "redemption_id": row["id"],
        "redeemed_at": made,
        "issued_at": made,
        "timezone": "Australia/Melbourne",
        "profile_id": _mail(number % PEOPLE),
        "profile_id_handle": "email",
    }


def _all_once_and_in_order(state: Row, sales: int) -> int:
    """Each sale is there once, and each customer's arrived in the order of the journal. How many customers."""
    asked = [line["external_id"] for line in state["journal"] if line["applied"] and _is_ours(line)]
    if sorted(asked) != sorted(f"S-{number}" for number in range(sales)) or len(state["transactions"]) != sales:
        raise RuntimeError(f"{len(asked)} requests made {len(state['transactions'])} of {sales} sales")
    lanes: dict[int, list[int]] = {}
    for number in (int(name.removeprefix("S-")) for name in asked):
        if number % 10:
            lanes.setdefault(number % PEOPLE, []).append(number)
    astray = [lane for lane in lanes.values() if lane != sorted(lane)]
    if astray:
        raise RuntimeError(f"out of order: {astray[0]}")
    return len(lanes)


def _is_ours(line: Row) -> bool:
    return str(line["external_id"]).startswith("S-") and line["method"] == "POST"


def _flagged(place: Shop) -> set[str]:
    command = place.command("journal", "flags", "--json")
    raised = subprocess.run(command, env=place.env, check=True, capture_output=True, text=True).stdout
    return {row["external_id"] for row in map(json.loads, raised.splitlines()) if row["flag"] == "reversal_too_late"}


def _state(there: Omneo) -> Row:
    there.line.close()  # it was idle for longer than the sandbox keeps a connection
    state: Row = there.desk("GET", "/state")
    return state


def _tell(there: Omneo, route: str, **fields: Any) -> None:
    there.line.request("POST", f"/_sandbox{route}", json.dumps(fields), {"Content-Type": "application/json"})
    answer = there.line.getresponse()
    answer.read()
    if answer.status >= 400:
        raise RuntimeError(f"the sandbox answered {answer.status} to {route}")


def _seconds(row: Row) -> float:
    return datetime.fromisoformat(str(row["created_at"])).timestamp()


def _at(line: Row) -> float:
    return datetime.fromisoformat(str(line["at"])).timestamp()
