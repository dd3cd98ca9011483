"""Does a sale add up? By any reading a till may mean; and an error beyond a cent a line is seen."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas
from journal import document
from journal.totals import totals

FULL = ["65.00", "115.00", "25.00", "45.00"]
SPREAD = ["52.00", "92.00", "20.00", "36.00"]


def line(price: str | None, quantity: str | int | None = 1, **fields: Any) -> dict[str, Any]:
    sell = None if price is None else Decimal(price)
    return {"price_sell": sell, "quantity": None if quantity is None else Decimal(quantity)} | fields


def sale(total: str, *lines: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Amounts in fields are given as text, as a parsed document would hold them as decimals."""
    amounts = {name: Decimal(value) if isinstance(value, str) else value for name, value in fields.items()}
    return {"total": Decimal(total), "items": list(lines)} | amounts


ADDS_UP = {
    "unit prices": (sale("21.00", line("10.50", 2)), None),
    "line prices": (sale("21.00", line("21.00", 2)), None),
    "no quantity is one": (sale("21.00", line("21.00", None)), None),
    "by weight": (sale("2.01", line("1.999", "1.005")), None),
    "a void line left out": (sale("10.00", line("10.00"), line("99.00", is_void=True)), None),
    "only void lines": (sale("0", line("99.00", is_void=True)), None),
    "a void sale that keeps its lines": (sale("0", line("99.00"), is_void=True), None),
    "rounded down": (sale("12.35", line("12.37"), line("0.03"), rounding="-0.05"), None),
    "rounded, sign the other way": (sale("12.35", line("12.40"), rounding="0.05"), None),
    "the guide's lines after the reward": (sale("200.00", *map(line, SPREAD), total_original="250.00"), None),
    "the guide's lines before the reward": (sale("200.00", *map(line, FULL), total_original="250.00"), None),
    "before a redemption of known amount": (sale("200.00", *map(line, FULL)), Decimal(50)),
    "after a redemption of known amount": (sale("200.00", *map(line, SPREAD)), Decimal(50)),
    "before a redemption, rounded": (sale("199.95", *map(line, FULL), rounding="-0.05"), Decimal(50)),
    "a redemption of unknown value": (sale("200.00", *map(line, FULL), redemption_id=159), None),
    "a benefit of unknown value": (sale("200.00", *map(line, FULL), redemption_external_id=..., rounding=None), None),
    "a cent a line": (sale("30.03", line("10"), line("10"), line("10")), None),
    "goods back, by unit": (sale("-49.95", line("49.95", -1)), None),
    "goods back, by line": (sale("-99.90", line("-99.90", -2)), None),
    "goods back, line price without a sign": (sale("-99.90", line("99.90", -2)), None),
    "an exchange": (sale("30.00", line("50.00", -1), line("80.00")), None),
    "the shelf price where none was paid": (sale("5.00", line(None, 1, price_current=Decimal(5))), None),
}
DOES_NOT = {
    "a dime too much": (sale("12.10", line("12.00")), None),
    "lines short of a total": (sale("250.00", *map(line, SPREAD)), None),
    "lines above a total without a redemption": (sale("200.00", *map(line, FULL)), None),
    "lines short even of a total with an unknown redemption": (
        sale("250.00", *map(line, SPREAD), redemption_id=1),
        None,
    ),
    "a redemption of another amount": (sale("200.00", *map(line, FULL), redemption_id=1), Decimal(20)),
    "two cents on one line": (sale("10.02", line("10.00")), None),
    "only void lines, but money": (sale("9.00", line("9.00", is_void=True)), None),
    "a void line counted in": (sale("109.00", line("10.00"), line("99.00", is_void=True)), None),
}


@pytest.mark.parametrize("name", ADDS_UP)
def test_a_sale_that_adds_up_by_some_reading_is_not_flagged(name: str) -> None:
    assert totals(*ADDS_UP[name]) is None


@pytest.mark.parametrize("name", DOES_NOT)
def test_a_sale_that_adds_up_by_no_reading_is_flagged(name: str) -> None:
    found = totals(*DOES_NOT[name])
    assert found is not None
    assert Decimal(found["total"]) == DOES_NOT[name][0]["total"]


def test_the_detail_shows_both_sums_with_cents() -> None:
    assert totals({"total": 12, "items": [{"price_sell": Decimal("12.3")}]}) == {"lines": "12.30", "total": "12.00"}


def test_the_detail_shows_the_reading_that_comes_closest() -> None:
    assert totals(sale("21.50", line("21.00", 2))) == {"lines": "21.00", "total": "21.50"}


@pytest.mark.parametrize("lines", [[], [line(None)], [line("1.00"), {}]])
def test_lines_without_a_price_cannot_be_judged(lines: list[dict[str, Any]]) -> None:
    assert totals(sale("12.00", *lines)) is None


@pytest.mark.parametrize("example", schemas.load("sale")["examples"], ids=lambda sale: sale["external_id"])
def test_the_schemas_examples_add_up(example: dict[str, Any]) -> None:
    exact = {"total": Decimal(str(example["total"])), "items": [decimals(item) for item in example["items"]]}
    assert totals(decimals(example) | exact) is None


def decimals(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: Decimal(str(value)) if type(value) is float else value for name, value in fields.items()}


cents = st.integers(-100_000, 1_000_000).map(lambda n: Decimal(n) / 100)
lines = st.lists(
    st.fixed_dictionaries(
        {"price_sell": cents, "quantity": st.integers(-9, 9) | st.decimals("0.001", 99, places=3)},
        optional={"is_void": st.booleans() | st.none()},
    ),
    min_size=1,
    max_size=12,
)


@given(lines, st.booleans(), cents, cents, st.sampled_from([-1, 0, 1]), st.booleans())
def test_a_sale_built_to_add_up_is_never_flagged(
    items: list[dict[str, Any]], by_unit: bool, rounding: Decimal, redeemed: Decimal, sign: int, before: bool
) -> None:
    counted = [item for item in items if not item.get("is_void")]
    added = sum((item["price_sell"] * (item["quantity"] if by_unit else 1) for item in counted), Decimal(0))
    total = round(added + sign * rounding - (redeemed if before else 0), 2)
    assert totals({"total": total, "items": items, "rounding": rounding}, redeemed) is None


@given(lines, st.integers(1, 10**6).map(lambda n: Decimal(n) / 1000))
def test_a_total_above_every_reading_by_more_than_a_cent_a_line_is_flagged(
    items: list[dict[str, Any]], excess: Decimal
) -> None:
    counted = [item for item in items if not item.get("is_void")]
    most = sum((abs(item["price_sell"]) * max(1, abs(item["quantity"])) for item in counted), Decimal(0))
    found = totals({"total": most + Decimal("0.01") * max(1, len(counted)) + excess, "items": items})
    assert found is not None


extreme = st.integers(-(10**308), 10**308) | st.decimals(allow_nan=False, allow_infinity=False)


@given(
    st.fixed_dictionaries({"total": extreme}, optional={"total_original": extreme | st.none(), "rounding": extreme}),
    st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(("price_sell", "quantity"), extreme | st.none()))),
    st.none() | st.decimals(allow_nan=False, allow_infinity=False),
)
def test_no_amounts_make_it_raise(
    fields: dict[str, Any], items: list[dict[str, Any]], redeemed: Decimal | None
) -> None:
    found = totals(fields | {"items": items}, redeemed)
    assert found is None or set(found) == {"lines", "total"}


def test_amounts_at_the_edge_of_doubles_do_not_make_it_raise() -> None:
    items = '[{"price_sell": 1e308, "quantity": 1e308}, {"price_sell": 5e-324, "quantity": -1e308}]'
    found = totals(document.parse(f'{{"total": 1e-300, "items": {items}, "rounding": 3e307}}'.encode()))
    assert found is not None
    assert all(len(amount) < 100 for amount in found.values())
