"""What the tills write: sales, repeats, conflicts and broken files, each a little differently, all by one seed."""

import json
import random
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from typing import Any
from zoneinfo import ZoneInfo

Doc = dict[str, Any]

LIMIT = 1024 * 1024  # contract, section 2
TILLS = ("", "till-1", "till-2", "Kasse 3", "レジ-4")
ZONES = ("Australia/Melbourne", "Asia/Tokyo", "Europe/Berlin")
CUSTOMERS: tuple[Doc, ...] = (
    {},
    {},
    {"profile_id": "jane@example.com", "profile_id_handle": "email"},
    {"profile_id": "omar@example.com", "profile_id_handle": "email"},
    {"profile_id": "6000000004", "profile_id_handle": "loyalty-card"},
    {"profile_id": "6000000003", "profile_id_handle": "loyalty-card"},
    {"profile_id": "92a7996b-abb6-4c9c-a845-9aaf8202fab6"},
)
AMOUNTS = (
    "0.10",
    "149.95",
    "1e2",
    "0.30",
    "19.9",
    "1E+3",
    "1234567890123456789012345678901.23",
    "0.000000000000000000000000000000001",
    "7",
    "0.07",
    "5e-1",
    "99.990",
)
_WIDE = Context(prec=120)
SHARES = {"sale": 56, "refused": 2, "repeat": 15, "conflict": 7, "conflict again": 2, "broken": 17, "broken again": 1}


@dataclass(frozen=True, slots=True)
class Drop:
    """One file that a till writes."""

    at: float  # seconds after the start
    what: str  # one of SHARES
    path: str  # below the spool
    body: bytes
    external_id: str | None = None
    in_place: bool = False  # written under its last name, half now and half later


class Tills:
    """Writes documents as tills do, each a little differently; remembers what it wrote."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.numbers: Counter[str] = Counter()
        self.sales: list[tuple[float, Doc]] = []
        self.conflicts: list[tuple[float, Doc]] = []
        self.broken: list[bytes] = []
        self.count = 0

    def drop(self, what: str, at: float) -> Drop:
        """The next file. What needs an earlier one to refer to is a sale where there is none yet."""
        self.count += 1
        old = [doc for then, doc in self.sales if at - then > 1.0]  # settled which of two conflicting ones came first
        old_conflicts = [doc for then, doc in self.conflicts if at - then > 1.0]
        doc: Doc | None = None
        if what == "repeat" and self.sales:
            doc = self.dice.choice(self.sales[-200:])[1]
        elif what == "conflict" and old:
            doc = self.dice.choice(old) | {"staff_id": f"C-{self.count}"}
            self.conflicts.append((at, doc))
        elif what == "conflict again" and old_conflicts:
            doc = self.dice.choice(old_conflicts)
        elif what == "broken" or (what == "broken again" and not self.broken):
            return self._broken(at)
        elif what == "broken again":
            return Drop(at, what, self._path(), self.dice.choice(self.broken))
        elif what == "refused":
            nobody = {"profile_id": f"nobody-{self.count}@example.com", "profile_id_handle": "email"}
            doc = self._unnumbered_sale() | nobody
        if doc is None:
            what, doc = "sale", self._sale()
            self.sales.append((at, doc))
        in_place = what in {"sale", "repeat"} and self.dice.random() < 0.12
        body = spell(doc, self.dice, plain=what == "sale").encode()
        return Drop(at, what, self._path(), body, doc["external_id"], in_place=in_place)

    def _path(self) -> str:
        till = self.dice.choice(TILLS)
        name = f"{self.dice.choice(('sale', 'doc ü', 'R'))}-{self.count:05d}.json"
        return f"{till}/{name}" if till else name

    def _sale(self) -> Doc:
        dice = self.dice
        terminal = f"T{dice.randrange(4)}"
        self.numbers[terminal] += 1
        back = dice.random() < 0.12
        prices = [Decimal(dice.choice(AMOUNTS)) for _ in range(dice.randrange(1, 4))]
        lines = [_line(price, dice, back=back) for price in prices]
        total = _exact_sum(prices)
        zone = dice.choice(ZONES)
        moment = datetime(
            2025, 6, 15, dice.randrange(24), dice.randrange(60), dice.randrange(60), tzinfo=ZoneInfo(zone)
        )
        local = moment.strftime("%Y-%m-%d %H:%M:%S") if dice.random() < 0.7 else moment.isoformat()
        doc = {
            "kind": "sale",
            "external_id": self._external_id(),
            "terminal": terminal,
            "sequence": self.numbers[terminal],
            "total": total.copy_negate() if back else total,  # a plain minus would round
            "transacted_at": local,
            "timezone": zone,
            "items": lines,
            "receipt_ref": f"R{self.count:06d}",
            **dice.choice(CUSTOMERS),
        }
        if back:
            doc["linked_receipt_ref"] = f"R{dice.randrange(1, self.count + 1):06d}"
        if dice.random() < 0.3:
            doc["meta"] = {"exact": Decimal(dice.choice(AMOUNTS)), "none": None, "nested": [Decimal("1.10"), "é"]}
        if dice.random() < 0.2:
            doc |= {"staff_id": None, "x_unknown_field": "passes through", "location_id": "MEL01"}
        return doc

    def _external_id(self) -> str:
        odd = ("MEL01", "MEL 01", "ÄÖ-é", "a/b", "100%")  # as tills really name things
        return f"{self.dice.choice(odd)}-{self.count:05d}-{self.dice.randrange(10**6)}"

    def _broken(self, at: float) -> Drop:
        good = self._unnumbered_sale()
        text = spell(good, self.dice, plain=True)
        bad = self.dice.choice(
            (
                text[: self.dice.randrange(1, len(text) - 1)],
                text.replace('"items"', '"rate":NaN,"items"', 1),
                text.replace('"kind"', f'"total":{self.count},"kind"', 1),
                spell({name: value for name, value in good.items() if name != "total"}, self.dice),
                spell(good | {"total": "12.50"}, self.dice),
                spell(good | {"timezone": "Mars/Olympus"}, self.dice),
                spell(good | {"kind": f"gift-{self.count}"}, self.dice),
                f"[{text}]",
                text + "}",
                text.replace('"items"', '"half":"\\ud800","items"', 1),
                "",
                f"\x00{self.count}",
            )
        )
        body = bad.encode()
        if self.dice.random() < 0.03:
            body = spell(good | {"meta": {"much": "x" * (LIMIT + self.count)}}, self.dice).encode()
        elif self.dice.random() < 0.06:
            body = text.encode("utf-16")
        self.broken.append(body)
        return Drop(at, "broken", self._path(), body, None, in_place=self.dice.random() < 0.2)

    def _unnumbered_sale(self) -> Doc:
        doc = self._sale()
        self.numbers[doc["terminal"]] -= 1
        return {name: value for name, value in doc.items() if name not in {"terminal", "sequence"}}


def _line(price: Decimal, dice: random.Random, *, back: bool) -> Doc:
    line: Doc = {"name": dice.choice(("Linen Shirt", "抹茶ケーキ", 'Crème "brûlée"')), "price_sell": price}
    return line | {"price_current": price, "quantity": -1 if back else 1, "sku": f"S{dice.randrange(1000)}"}


def _exact_sum(prices: list[Decimal]) -> Decimal:
    """Decimal's own sum would round at 28 digits."""
    scale = min(int(price.as_tuple().exponent) for price in prices)
    whole = sum(int(price.scaleb(-scale, context=_WIDE)) for price in prices)
    return Decimal(whole).scaleb(scale, context=_WIDE)


def spell(value: Any, dice: random.Random, *, plain: bool = False) -> str:
    """JSON by hand: members in any order, numbers spelled in any way, unless `plain`."""
    if isinstance(value, dict):
        members = list(value.items())
        if not plain:
            dice.shuffle(members)
        return "{" + ",".join(f"{json.dumps(name)}:{spell(child, dice, plain=plain)}" for name, child in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(spell(child, dice, plain=plain) for child in value) + "]"
    if isinstance(value, Decimal) or (isinstance(value, int) and not isinstance(value, bool)):
        number = Decimal(value)
        point = format(number, "f")
        longer = point + "0" if "." in point else point + ".0"
        return str(value) if plain else dice.choice((str(value), point, longer, format(number, "E")))
    return json.dumps(value, ensure_ascii=dice.random() < 0.5)


def make_drops(dice: random.Random, count: int, seconds: float) -> list[Drop]:
    """So many files in bursts over so many seconds."""
    moments: list[float] = []
    while len(moments) < count:
        moments += [dice.uniform(0, seconds)] * dice.choice((1, 1, 2, 5, 20, 60))
    tills = Tills(dice)
    kinds = dice.choices(list(SHARES), list(SHARES.values()), k=count)
    return [tills.drop(what, at) for what, at in zip(kinds, sorted(moments[:count]), strict=True)]
