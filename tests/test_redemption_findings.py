"""What the redemption machine has found, each as short as it came out, so that it is looked for in every run."""

from collections.abc import Iterator
from typing import Any

import pytest
from shop_machine import Machine, one_world
from shop_oracles import Judge
from shop_tills import PEOPLE, VALUES

from forwarder.sandbox.faults import Rule

WEI = PEOPLE[0]


@pytest.fixture(scope="module", autouse=True)
def _one_world() -> Iterator[None]:
    with one_world():
        yield


@pytest.fixture(params=[0, 3], ids=["strict", "customer"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A shop that is open; at the end everything drains and is judged."""
    opened = Machine()
    usual = {"late_redemption": "send", "late_reversal": "flag", "routes": "reference"}
    opened.open_the_shop(lanes=request.param, rate=0, lag_s=0, shows=True, omneo_steps=False, **usual)
    yield opened
    opened.teardown()


def go_wrong(machine: Machine, **rule: Any) -> None:
    machine.world.line.desk.faults.add(Rule(**rule))


def test_a_401_that_takes_its_time_sends_no_reversal_after_the_window(machine: Machine) -> None:
    machine.redeem(WEI, VALUES[0], 0, for_a_sale=False)
    latency = [(0.0, 0.0), (14.5, 0.0), (14.5, 0.0)]
    machine.reverse_at_the_last_moment(0, 25, latency, {"mode": "unauthorized"}, by_path=True, online=False)
    assert machine.shop.states() == {"R-0": "delivered", "V-0": "held"}


def test_a_date_that_was_long_on_its_way_makes_no_redemption_younger(machine: Machine) -> None:
    machine.redeem_online(0, 20)
    latency = [(0.0, 14.5), (14.5, 0.0)]
    machine.reverse_at_the_last_moment(0, 25, latency, None, by_path=False, online=True)
    assert machine.shop.states() == {"V-0": "held"}


def test_a_tills_clock_is_no_word_of_omneos(machine: Machine) -> None:
    """The till's clock ran ahead, and Omneo would not show the redemption: nobody knows how old it is."""
    machine.redeem_online(300, 20)
    machine.time_passes(700)
    machine.reverse(0, "online")
    go_wrong(machine, mode="status", code=422, method="GET")
    machine.forward(3, 0)
    assert machine.shop.states() == {"V-0": "held"}


@pytest.mark.parametrize("mode", ["wrong_id", "portal_json"])
def test_an_answer_to_somebody_else_is_none(machine: Machine, mode: str) -> None:
    go_wrong(machine, mode=mode, apply=True, method="POST", path="/redeem", count=1)
    machine.redeem(WEI, VALUES[0], 0, for_a_sale=False)
    machine.forward(12, 0)
    assert machine.shop.states() == {"R-0": "delivered"}


def test_a_portal_that_speaks_json_proves_nothing_absent(machine: Machine) -> None:
    go_wrong(machine, mode="drop_after", method="POST", path="/redeem", count=1)
    go_wrong(machine, mode="portal_json", method="GET", path="/redemptions", count=4)
    machine.redeem(WEI, VALUES[0], 0, for_a_sale=False)
    machine.forward(12, 0)


def test_what_another_redeemed_is_not_adopted(machine: Machine) -> None:
    """The redemption never arrived; in its customer's list there is one that was made online."""
    go_wrong(machine, mode="drop_before", method="POST", path="/redeem", count=1)
    machine.redeem(WEI, VALUES[0], 0, for_a_sale=False)
    machine.forward(1, 0)
    machine.redeem_online(0, 3)
    machine.forward(12, 0)
    assert machine.shop.states() == {"R-0": "delivered"}


def test_a_dishonest_answer_leaves_no_line_gross(machine: Machine) -> None:
    machine.redeem_online(0, 3)
    go_wrong(machine, mode="portal_json", apply=True, method="GET", path="/redemptions", count=1)
    machine.sell(None, "online", 0, None, net=True)
    machine.forward(12, 0)


def test_a_release_counts_while_other_things_are_still_to_be_written(machine: Machine) -> None:
    machine.redeem(WEI, VALUES[0], 0, for_a_sale=False)
    machine.reverse(0, "one")
    machine.give_back(0, VALUES[0]["amount"])
    machine.forward(4, 0)
    machine.sell(None, "none", 0, None, net=False)
    machine.redeem(WEI, VALUES[0], 0, for_a_sale=False)
    machine.forward(1, 0)
    machine.a_person_decides("released", 0)
    machine.forward(6, 0)


def test_a_sale_that_was_found_without_its_redemption_is_flagged(machine: Machine) -> None:
    """It had gone without it; when it is looked up, the redemption has come after all."""
    machine.sell(None, "next", 0, None, net=False)
    machine.forward(1, 0)
    machine.time_passes(65)
    go_wrong(machine, mode="drop_after", method="POST", path="update-create", count=1)
    machine.forward(1, 0)
    machine.redeem(WEI, VALUES[0], 0, for_a_sale=False)
    machine.forward(12, 0)
    assert "S-0" in {name for name, flags in Judge(machine.shop, machine.world).flags.items() if flags}
