"""
The guide's rule for line items: a redemption's value is spread over a sale's lines in proportion, to the cent. Pure.

Source: Omneo's POS integration guide, “Applying reward value across line items” (250.00 with 50.00 off: 13, 23, 5, 9).
"""

from decimal import ROUND_DOWN, ROUND_HALF_UP, Context, Decimal, localcontext
from typing import Any

CENT = Decimal("0.01")
DIGITS = Context(prec=100)  # tills have sent money of 33 digits
FINE = Decimal("0.000001")  # a unit price that, times its quantity, comes to the cent


def shares(values: list[Decimal], amount: Decimal) -> list[Decimal]:
    """
    Split an amount over line values in proportion, each share a multiple of a cent, together exactly the amount.

    Largest remainder: every share is rounded down, and the cents left over go to the lines that lost most by it. Only
    lines worth something bear a share, and none more than it is worth; what can't be borne is not spread.
    """
    with localcontext(DIGITS):
        return _shares([max(value, Decimal(0)) for value in values], amount)


def _shares(bearing: list[Decimal], amount: Decimal) -> list[Decimal]:
    total = sum(bearing, Decimal(0))
    amount = min(amount, total)
    if total <= 0 or amount <= 0:
        return [Decimal(0)] * len(bearing)
    exact = [amount * value / total for value in bearing]
    parts = [share.quantize(CENT, ROUND_DOWN) for share in exact]
    left = amount - sum(parts, Decimal(0))
    for index in sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i)):
        give = min(CENT, left, bearing[index] - parts[index])
        if give > 0:
            parts[index] += give
            left -= give
    return parts


def proportional(content: dict[str, Any], amount: Decimal) -> list[dict[str, Any]]:
    """The sale's lines with `price_sell` net of their share; `price_original` keeps what the price was."""
    with localcontext(DIGITS):
        return _proportional(content, amount)


def _proportional(content: dict[str, Any], amount: Decimal) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = content["items"]
    by_unit = _prices_are_by_unit(lines, content, amount)
    counted = [not line.get("is_void") and line.get("price_sell") is not None for line in lines]
    values = [
        _value(line, by_unit=by_unit) if count else Decimal(0) for line, count in zip(lines, counted, strict=True)
    ]
    spread = shares(values, amount)
    return [
        _net(line, value, share, by_unit=by_unit) if share else line
        for line, value, share in zip(lines, values, spread, strict=True)
    ]


def _prices_are_by_unit(lines: list[dict[str, Any]], content: dict[str, Any], amount: Decimal) -> bool:
    """Is `price_sell` the price of one, or of the line? Whichever reading adds up to the sale; of one, if both do."""
    gross = Decimal(content["total"]) + amount
    whole = content.get("total_original")
    wanted = {gross, Decimal(whole)} if whole is not None else {gross}
    priced = [line for line in lines if not line.get("is_void") and line.get("price_sell") is not None]
    by_line = sum((_value(line, by_unit=False) for line in priced), Decimal(0))
    by_unit = sum((_value(line, by_unit=True) for line in priced), Decimal(0))
    return not (by_line in wanted and by_unit not in wanted)


def _value(line: dict[str, Any], *, by_unit: bool) -> Decimal:
    price = Decimal(line["price_sell"])
    quantity = Decimal(line["quantity"]) if line.get("quantity") is not None else Decimal(1)
    return price * quantity if by_unit else price


def _net(line: dict[str, Any], value: Decimal, share: Decimal, *, by_unit: bool) -> dict[str, Any]:
    net = value - share
    quantity = Decimal(line["quantity"]) if line.get("quantity") is not None else Decimal(1)
    price = net
    if by_unit and quantity != 1:
        price = net / quantity
        price = (
            price.quantize(CENT, ROUND_HALF_UP)
            if price == price.quantize(CENT, ROUND_HALF_UP)
            else price.quantize(FINE)
        )
    original = line.get("price_original")
    return line | {"price_sell": price, "price_original": line["price_sell"] if original is None else original}
