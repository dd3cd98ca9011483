"""The checkout flow of Omneo's guides, whole: what the till writes, and what the customer has left in the end."""

from decimal import Decimal
from typing import Any

import pytest
from redeeming import Counter

from forwarder.sandbox.customers import JANE, OMAR, PRIYA, WEI

FIRST_SPEND, ALTERATIONS = 401, 402  # Jane's benefits: once, and three times
CARD = {"profile_id_handle": "loyalty-card"}


@pytest.fixture(params=["reference", "guide"])
def routes(request: pytest.FixtureRequest, counter: Counter) -> str:
    counter.options["routes"] = request.param
    return str(request.param)


# ── What is spent ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("amount", "strategies", "left"),
    [
        (20, ["rewards"], {"reward_balance": 5, "point_balance": 1500, "credit_balance": 50}),
        (10, ["points"], {"reward_balance": 25, "point_balance": 500, "credit_balance": 50}),
        (20, ["credits"], {"reward_balance": 25, "point_balance": 1500, "credit_balance": 30}),
        (30, ["rewards", "points"], {"reward_balance": 0, "point_balance": 1000, "credit_balance": 50}),
        (30, ["points", "rewards"], {"reward_balance": 10, "point_balance": 0, "credit_balance": 50}),
        (30, ["credits", "rewards"], {"reward_balance": 0, "point_balance": 1500, "credit_balance": 45}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else None,
)
def test_a_redemption_takes_what_its_strategies_say_rewards_before_credits(
    counter: Counter, routes: str, amount: int, strategies: list[str], left: dict[str, int]
) -> None:
    intent = counter.redemption(amount=amount, strategies=strategies, transaction_external_id="S")
    counter.deliver(intent, counter.sale(redemption_external_id="R"))
    there = counter.at_omneo()
    assert {name: there.balance(name) for name in left} == left
    assert (there.row()["total"], there.row()["transaction_external_id"]) == (amount, "S")
    assert there.sale()["redemption_id"] == there.row()["id"]
    assert (counter.states(), counter.flags()) == ("R delivered, S delivered", set())
    assert any(line.endswith("/redeem" if routes == "reference" else "/redemptions") for line in counter.sent)


def test_a_benefit_is_used_and_linked(counter: Counter, routes: str) -> None:
    counter.deliver(counter.redemption(benefit_id=FIRST_SPEND), counter.sale(redemption_external_id="R"))
    there = counter.at_omneo()
    assert there.person()["benefits"][0]["redemptions_remaining"] == 0
    assert there.sale()["redemption_id"] == there.row()["id"]
    assert there.row()["external_id"] == ("R" if routes == "guide" else None)
    assert counter.flags() == set()


def test_a_redemption_made_online_is_linked_by_its_id(counter: Counter) -> None:
    number, _ = counter.online()
    counter.deliver(counter.sale(redemption_id=number))
    there = counter.at_omneo()
    assert (there.sale()["redemption_id"], there.redemptions(), there.balance()) == (number, ["redeem"], 5)


def test_less_than_asked_is_flagged_with_both_figures(counter: Counter) -> None:
    intent = counter.redemption(amount=Decimal("40.00"))
    counter.deliver(intent, counter.sale(redemption_external_id="R"))
    assert counter.flags() == {"redemption_short R"}
    flag = counter.detail("redemption_short")
    assert (Decimal(flag["asked"]), Decimal(flag["redeemed"])) == (40, 25)
    there = counter.at_omneo()
    assert (there.balance(), there.sale()["redemption_id"]) == (0, there.row()["id"])


def test_a_refused_redemption_is_flagged_and_its_sale_goes_without_it(counter: Counter) -> None:
    intent = counter.redemption(profile_id=PRIYA)
    counter.deliver(intent, counter.sale(redemption_external_id="R", profile_id=PRIYA))
    assert counter.states() == "R refused, S delivered"
    assert counter.flags() == {"redemption_refused R", "redemption_missing S"}
    sold = counter.at_omneo().sale()
    assert (sold["redemption_id"], sold["profile_id"]) == (None, PRIYA)


def test_what_has_run_out_since_is_refused_even_while_another_use_looks_alike(counter: Counter) -> None:
    """The reference route gives no reference back: a no is a no all the same."""
    counter.deliver(*(counter.redemption(f"R-{number}", benefit_id=FIRST_SPEND) for number in (1, 2)))
    assert counter.states() == "R-1 delivered, R-2 refused"
    counter.online(f"/profiles/{JANE}/benefits/{ALTERATIONS}/redeem", count=3)
    counter.deliver(counter.redemption("R-3", benefit_id=ALTERATIONS, count=3))
    assert counter.store.states()["R-3"] == "refused"


# ── Who the customer is ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "who",
    [
        {"profile_id": JANE},
        {"profile_id": "jane@example.com", "profile_id_handle": "email"},
        {"profile_id": "6000000001", **CARD},
    ],
    ids=["uuid", "email", "card"],
)
def test_the_customer_is_found_by_any_handle(counter: Counter, routes: str, who: dict[str, str]) -> None:
    assert routes
    counter.deliver(counter.redemption(**who), counter.sale(redemption_external_id="R", **who))
    there = counter.at_omneo()
    assert (there.balance(), there.sale()["profile_id"], there.row()["profile_id"]) == (5, JANE, JANE)
    assert (counter.states(), counter.flags()) == ("R delivered, S delivered", set())


def test_an_unknown_customer_gets_nothing_and_no_sale_becomes_anonymous(counter: Counter) -> None:
    nobody = {"profile_id": "6999999999", **CARD}
    counter.deliver(
        counter.redemption(**nobody),
        counter.sale("S-1", redemption_external_id="R", **nobody),
        counter.sale("S-2", redemption_external_id="R"),
    )
    assert counter.states() == "R refused, S-1 refused, S-2 delivered"
    assert counter.flags() == {
        "redemption_refused R",
        "redemption_missing S-1",
        "sale_refused S-1",
        "redemption_missing S-2",
    }
    there = counter.at_omneo()
    assert [row["external_id"] for row in there.state["transactions"]] == ["S-2"]
    assert there.sale("S-2")["profile_id"] == JANE
    assert there.redemptions() == []


@pytest.mark.parametrize("lost", [None, "drop_before", "drop_after"])
def test_a_profile_merged_away_meanwhile_is_found_under_its_new_id(counter: Counter, lost: str | None) -> None:
    """By its card, that is: between the redemption and its sale, and between a lost answer and the look-up."""
    card = {"profile_id": "6000000002", **CARD}
    counter.open()
    if lost:
        counter.omneo.fault(lost, path="/redeem", count=1)
    counter.store.take(counter.redemption(**card))
    counter.step()
    counter.omneo.control("/merge", **{"from": OMAR, "to": WEI})
    counter.deliver(counter.sale(redemption_external_id="R", **card))
    there = counter.at_omneo()
    assert there.sale()["redemption_id"] == there.row()["id"]
    assert there.sale()["profile_id"] == there.row()["profile_id"] == WEI
    assert there.balance(profile=WEI) == 100_000 + 25 - 20
    assert (counter.states(), counter.flags()) == ("R delivered, S delivered", set())


@pytest.mark.parametrize(("lost", "state"), [("drop_before", "refused"), ("drop_after", "delivered")])
def test_a_lost_answer_of_a_profile_merged_away_is_found_by_its_sale(counter: Counter, lost: str, state: str) -> None:
    """By its old id alone nobody finds the customer again, but the redemption carries its sale's id."""
    counter.open()
    counter.omneo.fault(lost, path="/redeem", count=1)
    counter.store.take(counter.redemption(profile_id=OMAR, transaction_external_id="S"))
    counter.step()
    counter.omneo.control("/merge", **{"from": OMAR, "to": WEI})
    counter.drain()
    assert counter.store.states() == {"R": state}
    assert counter.at_omneo().balance(profile=WEI) == 100_000 + 25 - (20 if state == "delivered" else 0)


# ── Sales ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sale_waits_for_the_redemption_it_names_and_then_goes_without_it(counter: Counter) -> None:
    counter.open()
    counter.store.take(counter.sale(redemption_external_id="R"))
    first = counter.step()
    assert first is not None
    assert (first.kind, first.retry_after_s) == ("waits", 60)
    counter.drain()
    assert (counter.states(), counter.flags()) == ("S delivered", {"redemption_missing S"})
    counter.deliver(counter.redemption())  # it is not linked afterwards
    there = counter.at_omneo()
    assert (there.redemptions(), there.sale()["redemption_id"]) == (["redeem"], None)


def test_a_sale_gets_the_redemption_that_came_after_it(counter: Counter) -> None:
    counter.open()
    counter.store.take(counter.sale(redemption_external_id="R"))
    counter.step()
    counter.deliver(counter.redemption())
    there = counter.at_omneo()
    assert there.sale()["redemption_id"] == there.row()["id"]
    assert counter.flags() == set()


def guide_sale(counter: Counter, **fields: Any) -> dict[str, Any]:
    """The guide's example: 250.00 in four lines, 50.00 off."""
    prices = [Decimal(price) for price in ("65.00", "115.00", "25.00", "45.00")]
    items = [{"name": "Line", "quantity": 1, "price_current": each, "price_sell": each} for each in prices]
    sold = {"total": Decimal("200.00"), "total_original": Decimal("250.00"), "items": items, "profile_id": WEI}
    return counter.sale(**sold, apply_redemption="proportional", **fields)


@pytest.mark.parametrize("made", ["offline", "online"])
def test_a_redemptions_value_is_spread_over_the_lines_as_in_the_guide(counter: Counter, made: str) -> None:
    if made == "online":
        number, _ = counter.online(f"/profiles/{WEI}/redeem", amount=50, strategies=["rewards"])
        counter.deliver(guide_sale(counter, redemption_id=number))
    else:
        intent = counter.redemption(amount=Decimal("50.00"), profile_id=WEI)
        counter.deliver(intent, guide_sale(counter, redemption_external_id="R"))
    posted = counter.at_omneo().sale()["posted"]
    assert [line["price_original"] - line["price_sell"] for line in posted["items"]] == [13, 23, 5, 9]
    assert [line["price_original"] for line in posted["items"]] == [65, 115, 25, 45]
    assert sum(line["price_sell"] for line in posted["items"]) == posted["total"]
    assert "apply_redemption" not in posted
    assert counter.flags() == set()


def test_without_its_redemption_nothing_is_taken_off_the_lines(counter: Counter) -> None:
    intent = counter.redemption(profile_id=PRIYA, amount=50)
    counter.deliver(intent, guide_sale(counter, redemption_external_id="R"))
    assert [line["price_sell"] for line in counter.at_omneo().sale()["posted"]["items"]] == [65, 115, 25, 45]


# ── Returns ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("made", ["offline", "online"])
def test_value_comes_back_as_new_value(counter: Counter, made: str) -> None:
    if made == "online":
        number, _ = counter.online()
        name: dict[str, Any] = {"redemption_id": number}
    else:
        counter.deliver(counter.redemption())
        name = {"redemption_external_id": "R"}
    counter.deliver(counter.sale(**name), counter.give_back(amount=Decimal("12.50"), **name))
    there = counter.at_omneo()
    assert (there.row("return")["total"], there.balance()) == (Decimal("12.50"), Decimal("17.50"))
    counter.deliver(counter.give_back("B-2", amount=Decimal("7.50"), **name))
    counter.deliver(counter.give_back("B-3", amount=Decimal("0.01"), **name))  # more than there was
    assert counter.at_omneo().balance() == 25
    assert (counter.store.states()["B-3"], counter.flags()) == ("refused", set())


@pytest.mark.parametrize("made", ["offline", "online"])
def test_a_benefit_comes_back_by_count(counter: Counter, routes: str, made: str) -> None:
    if made == "online":
        number, _ = counter.online(f"/profiles/{JANE}/benefits/{ALTERATIONS}/redeem", count=2)
        counter.deliver(counter.give_back(redemption_id=number, count=2))
        remaining = [1, 2]
    else:
        counter.deliver(counter.redemption(benefit_id=ALTERATIONS))
        counter.deliver(counter.give_back(redemption_external_id="R", count=1))
        remaining = [2, 1]
    assert routes
    benefits = counter.at_omneo().person()["benefits"]
    found = [each["redemptions_remaining"] for each in benefits if each["definition"]["handle"] == "alterations"]
    assert found == remaining
    assert (counter.store.states()["B"], counter.flags()) == ("delivered", set())


def test_what_never_came_can_not_be_given_back(counter: Counter) -> None:
    counter.deliver(counter.give_back(redemption_external_id="R", amount=5))
    assert (counter.states(), counter.flags()) == ("B held", {"redemption_missing B"})
    assert counter.at_omneo().redemptions() == []


@pytest.mark.parametrize("lost", ["drop_before", "drop_after"])
def test_a_lost_return_is_looked_up_and_made_once(counter: Counter, lost: str) -> None:
    """Beside one of the same worth that came before it."""
    counter.deliver(counter.redemption())
    name = {"redemption_external_id": "R", "amount": 5}
    counter.deliver(counter.give_back("B-1", **name))
    counter.omneo.fault(lost, path="/return", count=1)
    counter.deliver(counter.give_back("B-2", **name))
    there = counter.at_omneo()
    assert (there.redemptions(), there.balance()) == (["redeem", "return", "return"], 15)
    assert counter.states() == "R delivered, B-1 delivered, B-2 delivered"
