"""The shop of the demo: three tills that write what a POS writes, each file under a draft's name and then renamed."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

STORE, TIMEZONE = "MEL01", "Australia/Melbourne"
FIRST_NUMBERS = (418, 1207, 96)  # where the three tills' counters stand this morning

MENU = (
    ("Flat white", "COF-FW", "4.50"),
    ("Café crème", "COF-CC", "4.80"),
    ("Crème brûlée tart", "BAK-CB", "7.80"),
    ("抹茶ケーキ", "BAK-MK", "8.50"),
    ("Smørrebrød", "DEL-SM", "12.90"),
    ("Jalapeño salsa", "DEL-JS", "6.45"),
    ("Zoë's sourdough", "BAK-ZS", "9.20"),
    ("Żurek, 400 g", "DEL-ZU", "11.05"),
)

# People of the sandbox, as a till may know them: by e-mail, by card, by Omneo's own id, or not at all.
CUSTOMERS = (
    ("jane@example.com", "email"),
    ("6000000002", "loyalty-card"),
    ("6000000003", "loyalty-card"),
    ("5f2d9a10-4e8b-4b6f-b7c9-0e3a71d2c004", None),
    None,
    None,
    None,
)

_encoder = msgspec.json.Encoder(decimal_format="number")


@dataclass(slots=True)
class Tills:
    """What is sold, and every document that the shop may rely on."""

    spool: Path
    dice: Random = field(default_factory=lambda: Random(2025))
    numbers: list[int] = field(default_factory=lambda: list(FIRST_NUMBERS))
    written: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sold(self) -> list[dict[str, Any]]:
        """The sales among them."""
        return [document for document in self.written if document["kind"] == "sale"]

    def sell(self) -> dict[str, Any]:
        """One sale, at any till, to anybody."""
        return self.write(self.ring_up(self.dice.randrange(len(self.numbers))))

    def sell_with(self, redemption: dict[str, Any], reward: Decimal) -> dict[str, Any]:
        """A sale that was paid in part with a reward, its lines made net by the forwarder."""
        till = int(redemption["terminal"][-1]) - 1
        sale = self.ring_up(till)
        line = self._line("Smørrebrød, for six", "DEL-S6", "72.00") | {"quantity": 1}
        sale |= {"items": [line, *sale["items"]], "profile_id": redemption["profile_id"]}
        sale.pop("profile_id_handle", None)
        sale |= {"total": sale["total"] + line["price_sell"] - reward}
        sale |= {"redemption_external_id": redemption["external_id"], "apply_redemption": "proportional"}
        return self.write(sale)

    def redeem(self, till: int, member: str, amount: Decimal) -> dict[str, Any]:
        """A member spends rewards at a till."""
        return self.write(
            self._numbered("redemption", till) | {"profile_id": member, "amount": amount, "strategies": ["rewards"]}
        )

    def reverse(self, redemption: dict[str, Any]) -> dict[str, Any]:
        """The card is declined: the redemption is taken back."""
        till, named = int(redemption["terminal"][-1]) - 1, {"redemption_external_id": redemption["external_id"]}
        return self.write(self._numbered("reversal", till) | named | {"reason": "card declined"})

    def reverse_online(self, redemption_id: int, seconds: int) -> dict[str, Any]:
        """The same for a redemption that the till made at Omneo itself, so many seconds ago."""
        reversal = self._numbered("reversal", 2)
        made = datetime.now(ZoneInfo(TIMEZONE)) - timedelta(seconds=seconds)
        named = {"redemption_id": redemption_id, "redeemed_at": f"{made:%Y-%m-%d %H:%M:%S}"}
        return self.write(reversal | named | {"reason": "card declined"})

    def write(self, document: dict[str, Any]) -> dict[str, Any]:
        """Drop it, and remember it."""
        drop(self.directory(document), document)
        self.written.append(document)
        return document

    def _numbered(self, kind: str, till: int) -> dict[str, Any]:
        """The fields that redemptions and reversals share. The number is the next one of the till."""
        self.numbers[till] += 1
        number, terminal = self.numbers[till] - 1, f"{STORE}-T{till + 1}"
        now = datetime.now(ZoneInfo(TIMEZONE))
        return {
            "kind": kind,
            "external_id": f"{terminal}-{now:%Y%m%d}-{number:06d}",
            "terminal": terminal,
            "sequence": number,
            "issued_at": f"{now:%Y-%m-%d %H:%M:%S}",
            "timezone": TIMEZONE,
        }

    def botch(self, till: int) -> Path:
        """A till forgets what a sale must have. The file's path."""
        sale = self.ring_up(till)
        del sale["total"]
        return drop(self.directory(sale), sale)

    def ring_up(self, till: int) -> dict[str, Any]:
        """A sale that takes place now. Its number is the next one of its till."""
        self.numbers[till] += 1
        number, terminal = self.numbers[till] - 1, f"{STORE}-T{till + 1}"
        now = datetime.now(ZoneInfo(TIMEZONE))
        items = [self._line(*article) for article in self.dice.sample(MENU, self.dice.randint(1, 3))]
        customer = self.dice.choice(CUSTOMERS)
        profile = {} if customer is None else {"profile_id": customer[0], "profile_id_handle": customer[1]}
        return {
            "kind": "sale",
            "external_id": f"{terminal}-{now:%Y%m%d}-{number:06d}",
            "terminal": terminal,
            "sequence": number,
            **profile,
            "total": sum((item["price_sell"] * item["quantity"] for item in items), Decimal(0)),
            "transacted_at": f"{now:%Y-%m-%d %H:%M:%S}",
            "timezone": TIMEZONE,
            "location_id": STORE,
            "receipt_ref": f"T{till + 1}-{number:06d}",
            "payments": [self.dice.choice(("EFTPOS", "CASH"))],
            "items": items,
        }

    def directory(self, sale: dict[str, Any]) -> Path:
        """Each till has its own, one below the spool."""
        return self.spool / f"till-{sale['terminal'][-1]}"

    def left(self) -> int:
        """How many files the tills still see in their directories."""
        return sum(1 for _ in self.spool.glob("till-*/*.json"))

    def _line(self, name: str, sku: str, price: str) -> dict[str, Any]:
        unit = Decimal(price)
        return {
            "name": name,
            "sku": sku,
            "quantity": self.dice.choice((1, 1, 1, 2)),
            "price_current": unit,
            "price_sell": unit,
        }


def drop(directory: Path, document: dict[str, Any]) -> Path:
    """All that a POS has to do: write under a name with a dot, then rename."""
    directory.mkdir(exist_ok=True, mode=0o750)
    final = directory / f"{document['external_id']}.json"
    draft = directory / f".{final.name}.tmp"
    draft.write_bytes(_encoder.encode(document))
    return draft.rename(final)


def receipt(sale: dict[str, Any]) -> str:
    """A sale on one line."""
    items = ", ".join(f"{item['quantity']} x {item['name']}" for item in sale["items"])
    match sale.get("profile_id_handle"):
        case "email":
            customer = f" for {sale['profile_id']}"
        case "loyalty-card":
            customer = f" for card {sale['profile_id']}"
        case _:
            customer = " for a member" if "profile_id" in sale else ""
    return f"till {sale['terminal'][-1]}: {items}, {sale['total']}{customer}"
