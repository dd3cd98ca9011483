"""Lists: filters, order and Laravel's envelope (omneo-sdk src/types/pagination.ts, api-reference/transaction-item)."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode

from forwarder.sandbox.exchange import Answer, Call, json_answer
from forwarder.sandbox.state import Refusal, Row

PAGE_SIZE = 15
LARGEST_PAGE = 500
_FILTER = re.compile(r"filter\[([^\]]+)\](?:\[(\w+)\])?")


@dataclass(frozen=True, slots=True)
class Filter:
    field: str
    operator: str
    wanted: str


def filters(call: Call) -> list[Filter]:
    found = ((_FILTER.fullmatch(key), value) for key, value in call.arguments())
    return [Filter(match[1], match[2] or "eq", value) for match, value in found if match]


def page(call: Call, rows: Iterable[Row], fields: frozenset[str], present: Callable[[Row], Row]) -> Answer:
    """The rows that match, one page of them, with links to the others.

    Oldest first: a client that wants the newest must ask for it (`sort=-id`) or turn the pages.
    """
    wanted = filters(call)
    for unknown in [each.field for each in wanted if each.field not in fields]:
        raise Refusal(400, f"Requested filter `{unknown}` is not allowed.")
    kept = _sorted([row for row in rows if all(_matches(row, each) for each in wanted)], call)
    size = min(_number(call, ("page[size]", "per_page", "limit"), PAGE_SIZE), LARGEST_PAGE)
    number = _number(call, ("page[number]", "page"), 1)
    first = (number - 1) * size
    shown = [present(row) for row in kept[first : first + size]]
    return json_answer(200, {"data": shown} | _envelope(call, number, size, len(kept), len(shown)))


def _number(call: Call, names: tuple[str, ...], default: int) -> int:
    for name, value in call.arguments():
        if name in names:
            if not value.isdecimal() or int(value) < 1:
                raise Refusal(422, f"The {name} must be at least 1.", {name: [f"The {name} must be at least 1."]})
            return int(value)
    return default


def _sorted(rows: list[Row], call: Call) -> list[Row]:
    """`sort=field` or `sort=-field`; rows without the field come first."""
    for name, value in call.arguments():
        if name == "sort" and value:
            key = value.lstrip("-")
            rows.sort(key=lambda row: (row.get(key) is not None, row.get(key)), reverse=value.startswith("-"))
    return rows


def _matches(row: Row, each: Filter) -> bool:
    held = row.get(each.field.removesuffix(".handle"))
    match each.operator:
        case "nullable":
            return (held is None) == (each.wanted == "1")
        case "in":
            return any(_compare(held, wanted) == 0 for wanted in each.wanted.split(","))
        case "eq":
            return each.wanted in held if isinstance(held, list) else _compare(held, each.wanted) == 0
        case "ne":
            return _compare(held, each.wanted) != 0
    order = _compare(held, each.wanted)
    if order is None:
        return False
    tests = {"gt": order > 0, "gte": order >= 0, "lt": order < 0, "lte": order <= 0}
    if each.operator not in tests:
        raise Refusal(400, f"Requested filter operator `{each.operator}` is not allowed.")
    return tests[each.operator]


def _compare(held: Any, wanted: str) -> int | None:
    """Numbers as numbers (25 is 25.00), everything else as text; nothing compares with null."""
    if held is None:
        return None
    if isinstance(held, bool):
        return 0 if wanted.lower() in (("1", "true") if held else ("0", "false")) else 1
    if isinstance(held, int | Decimal):
        try:
            number = Decimal(wanted)
        except InvalidOperation:
            return None
        return (held > number) - (held < number)
    text = str(held)
    return (text > wanted) - (text < wanted)


def _envelope(call: Call, number: int, size: int, total: int, shown: int) -> Row:
    last = max(1, -(-total // size))
    kept = [(name, value) for name, value in call.arguments() if name not in {"page[number]", "page"}]
    path = call.origin + call.path

    def link(to: int) -> str | None:
        return f"{path}?{urlencode([*kept, ('page[number]', str(to))])}" if 1 <= to <= last else None

    first = (number - 1) * size + 1 if shown else None
    return {
        "links": {"first": link(1), "last": link(last), "prev": link(number - 1), "next": link(number + 1)},
        "meta": {
            "current_page": number,
            "from": first,
            "last_page": last,
            "links": [
                {"url": link(number - 1), "label": "&laquo; Previous", "active": False},
                {"url": link(number), "label": str(number), "active": True},
                {"url": link(number + 1), "label": "Next &raquo;", "active": False},
            ],
            "path": path,
            "per_page": size,
            "to": None if first is None else first + shown - 1,
            "total": total,
        },
    }
