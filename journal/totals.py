"""What is worth a person's attention in a document that is valid. Pure: nothing here keeps a document from going on."""

from collections.abc import Iterator
from decimal import Context, Decimal, localcontext
from operator import mul
from typing import Any

CENT = Decimal("0.01")
# Room for any sane amount exactly; for absurd ones it rounds rather than raises.
ARITHMETIC = Context(prec=60, traps=[])


def totals(content: dict[str, Any], redeemed: Decimal | None = None) -> dict[str, str] | None:
    """None when the lines add up to the total by at least one reading, or cannot be judged; else the two sums.

    Tills differ in what a line's price means, and no field says so: a false alarm on every sale would bury the real
    ones. `redeemed` is the amount of the redemption that the sale names, where it is known.
    """
    lines = [line for line in content["items"] if not line.get("is_void")]
    prices = [price for price in map(_price, lines) if price is not None]
    if not content["items"] or len(prices) < len(lines):
        return None
    with localcontext(ARITHMETIC):
        sums, wanted = [], list(_totals(content, redeemed))
        allowed = CENT * max(1, len(lines))
        for added in _sums(content, prices, [_quantity(line) for line in lines]):  # the first is nearly always right
            if any(abs(added - total) <= allowed for total in wanted):
                return None
            sums.append(added)
        total = +Decimal(content["total"])
        if _redeemed_unknown(content, redeemed) and any(added >= total - allowed for added in sums):
            return None
        closest = min(sums, key=lambda added: abs(added - total))
        return {"lines": _money(closest), "total": _money(total)}


def _price(line: dict[str, Any]) -> Decimal | None:
    price = line.get("price_current") if line.get("price_sell") is None else line["price_sell"]
    return None if price is None else Decimal(price)


def _quantity(line: dict[str, Any]) -> Decimal:
    return Decimal(1) if line.get("quantity") is None else Decimal(line["quantity"])


def _sums(content: dict[str, Any], prices: list[Decimal], quantities: list[Decimal]) -> Iterator[Decimal]:
    """What the lines come to: by unit prices, by line prices, and by line prices where only the quantity has a sign."""
    yield sum(map(mul, prices, quantities), Decimal(0))
    yield sum(prices, Decimal(0))
    yield sum(map(_signed, prices, quantities), Decimal(0))
    if content.get("is_void"):
        yield Decimal(0)  # a sale that was voided as a whole may keep its lines


def _signed(price: Decimal, quantity: Decimal) -> Decimal:
    return -abs(price) if quantity < 0 else price


def _totals(content: dict[str, Any], redeemed: Decimal | None) -> Iterator[Decimal]:
    """What the lines may come to: the total after the redemption or before it, with the rounding in or out."""
    total, original = Decimal(content["total"]), content.get("total_original")
    rounding = Decimal(content.get("rounding") or 0)
    bases = [total]
    if original is not None:
        bases.append(Decimal(original))
    if redeemed is not None:
        bases.append(total + redeemed)
    for base in bases:
        yield from (base, base + rounding, base - rounding)


def _redeemed_unknown(content: dict[str, Any], redeemed: Decimal | None) -> bool:
    """A benefit, or a redemption made elsewhere: the lines may be worth any more than what was paid."""
    names = content.get("redemption_id") is not None or content.get("redemption_external_id") is not None
    return names and redeemed is None and content.get("total_original") is None


def _money(amount: Decimal) -> str:
    """With cents where there are none, so that two amounts compare at a glance."""
    exponent = amount.as_tuple().exponent
    return f"{amount:.2f}" if isinstance(exponent, int) and -2 < exponent < 20 else str(amount)
