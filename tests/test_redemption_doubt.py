"""Redemptions, reversals and returns whose answer was lost: nothing is done twice, and nothing is silent."""

from typing import Any

import pytest
from redeeming import Counter

from forwarder import decide, link, omneo
from forwarder.sandbox.customers import JANE

ALTERATIONS = 402  # a benefit of Jane's, three times
NAMED = {"redemption_external_id": "R"}

APPLIED = [
    {"mode": "drop_after"},
    {"mode": "status", "code": 503, "apply": True},
    {"mode": "status", "code": 500, "apply": True},
    {"mode": "status", "code": 408, "apply": True},
    {"mode": "garbage", "apply": True},
    {"mode": "wrong_id", "apply": True},
    {"mode": "portal", "apply": True},
    {"mode": "redirect", "apply": True},
    {"mode": "status", "code": 422, "apply": True},
]


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "not applied"])
@pytest.mark.parametrize("fault", APPLIED[:-1], ids=lambda fault: f"{fault['mode']} {fault.get('code', '')}")
def test_an_answer_that_says_nothing_is_looked_up(counter: Counter, fault: dict[str, Any], *, applied: bool) -> None:
    fault = fault if applied else {**fault, "apply": False, "mode": fault["mode"].replace("after", "before")}
    counter.attempt(counter.redemption(), path="/redeem", **fault)
    counter.drain()
    if fault["mode"] != "wrong_id":  # a reversal's answer may be about the redemption
        counter.hit("/reversal", **fault)
    counter.deliver(counter.reversal(**NAMED))
    there = counter.at_omneo()
    assert (there.redemptions(), there.balance()) == (["redeem", "reversal"], 25)
    assert (counter.states(), counter.flags()) == ("R delivered, V delivered", set())


@pytest.mark.parametrize("path", ["/redeem", "/reversal", "/return"])
def test_a_no_to_what_was_done_all_the_same_is_a_yes(counter: Counter, path: str) -> None:
    counter.open()
    counter.hit(path, **APPLIED[-1])
    undo = counter.give_back if path == "/return" else counter.reversal
    counter.deliver(counter.redemption())
    counter.deliver(undo("V", **NAMED))
    assert (counter.states(), counter.at_omneo().balance()) == ("R delivered, V delivered", 25)


@pytest.mark.parametrize("routes", ["reference", "guide"])
@pytest.mark.parametrize("mode", ["drop_before", "drop_after"])
@pytest.mark.parametrize("how", ["goes on", "crashes", "reboots"])
def test_a_benefit_is_used_once_reference_or_not(counter: Counter, routes: str, mode: str, how: str) -> None:
    """Beside another use of the same benefit, a moment ago."""
    counter.options["routes"] = routes
    counter.deliver(counter.redemption("R-1", benefit_id=ALTERATIONS))
    route = "/redeem" if routes == "reference" else f"/{ALTERATIONS}/redemptions"
    counter.attempt(counter.redemption("R-2", benefit_id=ALTERATIONS), mode=mode, path=route)
    if how != "goes on":
        counter.reboot() if how == "reboots" else counter.crash()
    counter.drain()
    assert (counter.states(), counter.flags()) == ("R-1 delivered, R-2 delivered", set())
    there = counter.at_omneo()
    assert there.redemptions() == ["redeem", "redeem"]
    assert there.person()["benefits"][1]["redemptions_remaining"] == 1
    ids = {counter.store.show(name)["omneo_id"] for name in ("R-1", "R-2")}
    assert ids == {row["id"] for row in there.state["redemptions"]}


def test_a_use_of_a_benefit_that_no_list_shows_is_for_a_person(counter: Counter) -> None:
    """Omneo's lists may lag behind; the benefit's own count does not."""
    counter.omneo.control("/lag", seconds=300)
    counter.attempt(counter.redemption(benefit_id=ALTERATIONS), mode="drop_after", path="/redeem")
    counter.drain()
    assert (counter.states(), counter.flags()) == ("R held", {"doubtful R"})
    assert counter.at_omneo().redemptions() == ["redeem"]


def test_a_list_that_lags_a_little_is_looked_at_twice(counter: Counter) -> None:
    """The first look finds nothing, a second one a settling time later does."""
    counter.omneo.control("/lag", seconds=2)
    counter.attempt(counter.redemption(), mode="drop_after", path="/redeem")
    counter.drain()
    assert (counter.states(), counter.flags()) == ("R delivered", set())
    assert (counter.at_omneo().redemptions(), counter.at_omneo().balance()) == (["redeem"], 5)


def test_what_a_part_of_a_list_does_not_show_is_for_a_person(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be in the rest: a customer with more redemptions than are read is not asked to pay twice."""
    monkeypatch.setattr(omneo, "paged", lambda page: f"page[size]=1&page[number]={page}")
    monkeypatch.setattr(link, "PAGES", 1)
    for _ in range(3):
        counter.online(amount=1, strategies=["points"])
    counter.attempt(counter.redemption(), mode="drop_after", path="/redeem")
    counter.drain()
    assert (counter.states(), counter.flags()) == ("R held", {"doubtful R"})
    assert counter.at_omneo().redemptions() == ["redeem"] * 4


def test_two_candidates_are_for_a_person(counter: Counter) -> None:
    counter.attempt(counter.redemption(benefit_id=ALTERATIONS), mode="drop_after", path="/redeem")
    counter.online(f"/profiles/{JANE}/benefits/{ALTERATIONS}/redeem", count=1)
    counter.deliver(counter.sale(**NAMED), counter.reversal(**NAMED), counter.give_back(count=1, **NAMED))
    assert counter.states() == "R held, S delivered, V held, B held"
    assert counter.flags() == {"doubtful R", "redemption_missing S"}
    counter.decide(decide.abandon, "R")
    counter.drain()
    assert counter.states() == "R abandoned, S delivered, V cancelled, B held"
    assert counter.flags() == {"doubtful R", "redemption_missing S", "redemption_missing B"}


def test_a_released_doubt_is_looked_up_once_more_and_frees_what_waited(counter: Counter) -> None:
    counter.attempt(counter.redemption(benefit_id=ALTERATIONS), mode="drop_after", path="/redeem")
    counter.omneo.control("/lag", seconds=300)
    counter.deliver(counter.reversal(**NAMED))
    assert counter.states() == "R held, V held"
    counter.omneo.control("/lag", seconds=0)
    counter.decide(decide.release, "R")
    counter.drain()
    assert counter.states() == "R delivered, V delivered"
    assert counter.at_omneo().redemptions() == ["redeem", "reversal"]


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "not applied"])
def test_poison_is_looked_up_before_it_is_held(counter: Counter, *, applied: bool) -> None:
    counter.options |= {"poison_after": 1, "poison_for_s": 0}
    counter.omneo.fault("status", code=500, apply=applied, path="/redeem")
    counter.deliver(counter.redemption())
    counter.omneo.mend()
    if applied:
        assert (counter.states(), counter.flags()) == ("R delivered", set())
    else:
        assert (counter.states(), counter.flags()) == ("R held", {"poison R"})
        counter.decide(decide.release, "R")
        counter.drain()
    assert (counter.states(), counter.at_omneo().balance()) == ("R delivered", 5)


@pytest.mark.parametrize("reversed_", [True, False], ids=["reversed", "redeemed"])
def test_a_lost_delivery_book_costs_look_ups_only(counter: Counter, *, reversed_: bool) -> None:
    counter.deliver(counter.redemption())
    if reversed_:
        counter.deliver(counter.reversal(**NAMED))
    counter.deliver(counter.sale(**NAMED))
    before = counter.at_omneo()
    counter.crash()
    counter.store.delivery.unlink()
    counter.drain()
    after = counter.at_omneo()
    assert (after.redemptions(), after.balance()) == (before.redemptions(), before.balance())
    assert set(counter.store.states().values()) == {"delivered"}


def test_a_pair_in_a_lost_book_is_cancelled_only_when_omneo_does_not_have_it(counter: Counter) -> None:
    counter.store.take(counter.redemption(), counter.reversal(**NAMED))
    counter.drain()  # the first run over an old journal
    assert (counter.states(), counter.at_omneo().redemptions()) == ("R cancelled, V cancelled", [])
    assert any("/redemptions" in asked for asked in counter.omneo.asked())
