"""
What Omneo shows of a document, held against what left for it: which fields say something else. Pure.

A field is judged where the document has it and Omneo's answer shows it at all. What Omneo may rightly write in another
way (a moment in UTC, a number as text, a location as an object, lines in another order) is no difference.
"""

import json
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from forwarder import omneo
from forwarder.outcome import moment
from journal.document import local_time

Row = dict[str, Any]
Field = dict[str, str | None]  # which, and both figures where it is one: nothing that could be a person's

FIGURES = ("total", "total_original", "rounding")
TEXTS = ("timezone", "currency", "receipt_ref", "linked_receipt_ref")
LINE_FIGURES = ("quantity", "price_current", "price_sell", "price_original")
LINE_TEXTS = ("name", "sku")
HALF_A_CENT, NO_MONEY = Decimal("0.005"), Decimal(0)
LINE = (*LINE_FIGURES, *LINE_TEXTS, "is_void")
OF_LINES = tuple(f"items.{name}" for name in LINE)
OF_SALES = ("transacted_at", "is_void", "location_id", "items", "redemption_id", "meta.omneo_journal")
NAMES = {*FIGURES, *TEXTS, *OF_LINES, *OF_SALES, "id", "state", "type", "profile_id", "linked_source_id"}
NAMES |= {"meta.external_id"}  # all that a difference can be in
OTHERS = ("id", "external_id", "meta", "type", "transacted_at", "is_void", "location", "location_id", "items")
KEPT = (*FIGURES, *TEXTS, *OTHERS, "redemption", "redemption_id", "profile_id", "profile", "linked_source_id")


def field(name: str, here: Any = None, there: Any = None) -> Field:
    """A field that differs."""
    return {"field": name, "here": None if here is None else str(here), "there": None if there is None else str(there)}


def kept(row: Row) -> bytes:
    """Of a row at Omneo what is compared, packed: a day can be long, and a row has much that nobody here looks at."""
    some = {name: row[name] for name in KEPT if name in row}
    if isinstance(some.get("items"), list):
        lines = (line for line in some["items"] if isinstance(line, dict))
        some["items"] = [{name: line[name] for name in LINE if name in line} for line in lines]
    return zlib.compress(json.dumps(some, default=str).encode(), 1)


def unpacked(row: bytes) -> Row:
    """What was kept."""
    return dict(json.loads(zlib.decompress(row)))


def sale(sent: Row, row: Row) -> Iterator[Field]:
    """A sale as it left, and the transaction."""
    yield from _figures(sent, row, FIGURES)
    yield from _texts(sent, row, TEXTS)
    if sent.get("transacted_at") is not None and "transacted_at" in row and not same_time(sent, row["transacted_at"]):
        yield field("transacted_at")
    if "items" in sent:  # all of it is known
        yield from _void(sent, row)
    places = locations(row)
    if sent.get("location_id") is not None and places is not None and str(sent["location_id"]) not in places:
        yield field("location_id")
    if isinstance(row.get("items"), list) and isinstance(sent.get("items"), list):
        yield from _lines(sent["items"], row["items"])


def spent(worth: Decimal | None, types: set[str], row: Row) -> Iterator[Field]:
    """What a redemption, reversal or return came to, and the row that Omneo has of it."""
    if row.get("type") is not None and row["type"] not in types:
        yield field("type", "/".join(sorted(types)), clean(row["type"]))
    there = figure(row.get("total"))
    if worth is not None and "total" in row and not _same(worth, there):
        yield field("total", worth, there)


def locations(row: Row) -> set[str] | None:
    """Every name that Omneo's answer gives the location; None where it shows none of these fields."""
    place = row.get("location")
    if "location_id" not in row and "location" not in row:
        return None
    names = [place.get(name) for name in ("id", "external_id", "external_code")] if isinstance(place, dict) else [place]
    return {str(name) for name in (row.get("location_id"), *names) if name is not None}


def place(row: Row) -> str | None:
    """Omneo's own id of the location, which is nobody else's code."""
    shown = row.get("location")
    found = shown.get("id") if isinstance(shown, dict) else None
    found = row.get("location_id") if found is None else found
    return None if found is None else str(found)


def linked(row: Row) -> str | None:
    """The redemption that a sale at Omneo goes with."""
    shown = row.get("redemption") or row.get("redemption_id")  # an object, or only its number
    found = shown.get("id") if isinstance(shown, dict) else shown
    return str(found) if isinstance(found, int | str) else None


def same_time(sent: Row, shown: Any) -> bool:
    """Local time as it was sent, or that moment (Omneo's answers look like UTC); either, of one that comes twice."""
    local = local_time(sent["transacted_at"], sent["timezone"]).replace(microsecond=0)
    found = moment(shown)
    if found is None:
        return False
    if datetime.fromisoformat(shown).tzinfo is None and found.replace(tzinfo=None) == local.replace(tzinfo=None):
        return True
    # In UTC: of two zones no moment in a repeated hour is ever equal (PEP 495).
    return any(found == local.replace(fold=fold).astimezone(UTC) for fold in (0, 1))


def figure(value: Any) -> Decimal | None:
    """A number, or a text that is one."""
    try:
        found = None if value is None or isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found is not None and found.is_finite() else None


def clean(value: Any) -> str | None:
    """A name that Omneo has, as the book can keep it."""
    return None if value is None else str(value).encode("utf-8", "replace").decode()[:128]


def _figures(sent: Row, row: Row, names: tuple[str, ...]) -> Iterator[Field]:
    for name in names:
        here, there = figure(sent.get(name)), figure(row.get(name))
        if here is None or name not in row or (name == "rounding" and here == 0 and row[name] is None):
            continue
        if not _same(here, there, NO_MONEY if name == "quantity" else HALF_A_CENT):
            yield field(name, here, there)


def _same(here: Decimal, there: Decimal | None, within: Decimal = HALF_A_CENT) -> bool:
    """Less than half a cent is how somebody rounds: a line's share of a redemption may be a fraction of one."""
    return there is not None and (here == there or abs(here - there) < within)


def _texts(sent: Row, row: Row, names: tuple[str, ...]) -> Iterator[Field]:
    """Texts may be anybody's: only which one differs is told. What Omneo shows as an object can't be compared."""
    for name in names:
        there = row.get(name)
        if sent.get(name) is None or name not in row or isinstance(there, dict | list):
            continue
        if str(sent[name]).strip() != ("" if there is None else str(there).strip()):  # Laravel trims; empty is null
            yield field(name)


def _void(sent: Row, row: Row) -> Iterator[Field]:
    shown = row.get("is_void")
    if shown is not None and (shown in (True, "1", "true")) != bool(sent.get("is_void")):
        yield field("is_void", bool(sent.get("is_void")), not sent.get("is_void"))


def _lines(here: list[Row], there: list[Row]) -> Iterator[Field]:
    """Lines in any order; where they don't all find their like, by their places."""
    if len(here) != len(there):
        yield field("items", len(here), len(there))
        return
    differing = [list(_line(*pair)) for pair in zip(here, there, strict=True)]
    if not any(differing) or _all_alike(here, there):
        return
    for number, fields in enumerate(differing, 1):
        yield from (each | {"line": str(number)} for each in fields)


def _all_alike(here: list[Row], there: list[Row]) -> bool:
    left = list(there)
    for line in sorted(here, key=lambda line: sum(line.get(name) is None for name in (*LINE_FIGURES, *LINE_TEXTS))):
        alike = next((other for other in left if not any(_line(line, other))), None)
        if alike is None:
            return False
        left.remove(alike)
    return True


def _line(here: Row, there: Row) -> Iterator[Field]:
    fields = (*_figures(here, there, LINE_FIGURES), *_texts(here, there, LINE_TEXTS), *_void(here, there))
    for each in fields:
        yield each | {"field": f"items.{each['field']}"}


def reference(row: Row, external_id: str, borrowed: str | None) -> Iterator[Field]:
    """Our own name in a redemption, where Omneo gives one back (it may be that of the redemption it undoes)."""
    shown = omneo.reference(row)
    if shown is not None and shown not in {external_id, borrowed}:
        yield field("meta.external_id")
