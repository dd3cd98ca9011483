"""A redemption's value over a sale's lines: to the cent, in proportion, and never more than a line is worth."""

from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.apportion import CENT, proportional, shares

WIDE = Context(prec=100)
money = st.decimals(Decimal(-500), Decimal(5000), places=2)
values = st.lists(money | st.decimals(Decimal(0), Decimal(10), places=3), min_size=1, max_size=30)
amounts = st.decimals(Decimal(0), Decimal(6000), places=2)


def total(numbers: list[Decimal]) -> Decimal:
    with localcontext(WIDE):
        return sum(numbers, Decimal(0))


def line(price: str | Decimal, quantity: Any = 1, **more: Any) -> dict[str, Any]:
    return {"name": "x", "quantity": quantity, "price_sell": Decimal(price), **more}


def test_the_guides_example() -> None:
    """250.00 with 50.00 off (pos-integration-guide)."""
    assert shares([Decimal(65), Decimal(115), Decimal(25), Decimal(45)], Decimal(50)) == [13, 23, 5, 9]


@given(values, amounts)
def test_the_shares_add_up_to_the_amount_or_to_all_that_can_be_borne(of: list[Decimal], amount: Decimal) -> None:
    borne = total([max(value, Decimal(0)) for value in of])
    assert total(shares(of, amount)) == min(amount, borne)


@given(values, amounts)
def test_no_line_falls_below_zero_and_no_returned_line_bears_anything(of: list[Decimal], amount: Decimal) -> None:
    for value, share in zip(of, shares(of, amount), strict=True):
        assert Decimal(0) <= share <= max(value, Decimal(0))


@given(values, amounts)
def test_each_share_is_within_a_cent_of_its_proportion(of: list[Decimal], amount: Decimal) -> None:
    bearing = [max(value, Decimal(0)) for value in of]
    whole = total(bearing)
    for value, share in zip(bearing, shares(of, amount), strict=True):
        assert not whole or abs(share - min(amount, whole) * value / whole) <= CENT


@given(values, amounts, st.randoms())
def test_the_order_of_lines_changes_nothing_but_who_bears_a_cent(of: list[Decimal], amount: Decimal, dice: Any) -> None:
    mixed = list(of)
    dice.shuffle(mixed)
    assert total(shares(mixed, amount)) == total(shares(of, amount))
    for value in set(of):
        mine = sorted(share for each, share in zip(of, shares(of, amount), strict=True) if each == value)
        theirs = sorted(share for each, share in zip(mixed, shares(mixed, amount), strict=True) if each == value)
        assert all(abs(one - other) <= CENT for one, other in zip(mine, theirs, strict=True))


def test_money_of_many_digits_is_exact() -> None:
    of = [Decimal("123456789012345678901234567890.11"), Decimal("0.07")]
    assert total(shares(of, Decimal("99999999999999999999999999999.99"))) == Decimal("99999999999999999999999999999.99")


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30000)), min_size=1, max_size=12), st.integers(0, 4000))
def test_lines_with_quantities_come_to_the_total(of: list[tuple[int, int]], cents: int) -> None:
    """Prices of one: the net price of a line of several may need more than two decimals, its sum hardly ever does."""
    lines = [line(Decimal(price) / 100, quantity) for quantity, price in of]
    gross = total([item["price_sell"] * item["quantity"] for item in lines])
    amount = min(Decimal(cents) / 100, gross)
    net = proportional({"items": lines, "total": gross - amount, "total_original": gross}, amount)
    came = total([item["price_sell"] * item["quantity"] for item in net])
    assert abs(came - (gross - amount)) < Decimal("0.0001") * len(lines)
    for before, after in zip(lines, net, strict=True):
        assert after["price_sell"] >= 0
        assert after.get("price_original", before["price_sell"]) == before["price_sell"]


def test_prices_of_lines_stay_prices_of_lines() -> None:
    """Both readings are in use: that one which adds up to the sale is taken."""
    lines = [line("20.00", 2), line("30.00", 3)]
    net = proportional({"items": lines, "total": Decimal(40), "total_original": Decimal(50)}, Decimal(10))
    assert [item["price_sell"] for item in net] == [16, 24]


@pytest.mark.parametrize("field", ["is_void", "price_sell"])
def test_void_and_unpriced_lines_bear_nothing(field: str) -> None:
    idle = line("10.00", is_void=True) if field == "is_void" else {"name": "gift"}
    net = proportional({"items": [idle, line("10.00")], "total": Decimal(5)}, Decimal(5))
    assert net[0] == idle
    assert net[1]["price_sell"] == 5


def test_a_price_that_was_reduced_before_keeps_its_original() -> None:
    net = proportional({"items": [line("10.00", price_original=Decimal(15))], "total": Decimal(8)}, Decimal(2))
    assert (net[0]["price_sell"], net[0]["price_original"]) == (8, 15)


def test_lines_that_bear_nothing_are_untouched() -> None:
    lines = [line("-5.00"), line("0.00"), line("5.00")]
    net = proportional({"items": lines, "total": Decimal(-2)}, Decimal(2))
    assert net[:2] == lines[:2]
    assert net[2]["price_sell"] == 3


def test_a_returned_line_in_the_same_sale_keeps_its_price() -> None:
    back = line("30.00", -1)
    net = proportional({"items": [line("100.00"), back], "total": Decimal(60)}, Decimal(10))
    assert (net[0]["price_sell"], net[1]) == (90, back)


@given(st.lists(st.tuples(st.integers(2, 9), st.integers(1, 30000)), min_size=1, max_size=12), st.integers(1, 4000))
def test_prices_of_lines_come_to_the_total_to_the_cent(of: list[tuple[int, int]], cents: int) -> None:
    lines = [line(Decimal(price) / 100, quantity) for quantity, price in of]
    gross = total([item["price_sell"] for item in lines])
    amount = min(Decimal(cents) / 100, gross)
    net = proportional({"items": lines, "total": gross - amount, "total_original": gross}, amount)
    assert total([item["price_sell"] for item in net]) == gross - amount
