"""Redemptions whose answer was lost, whose window has closed, whose clocks can't be read: nothing twice or silent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redeeming import Counter
from standin import Omneo, Store

from forwarder import decide
from forwarder.sandbox.customers import JANE

FIRST_SPEND, ALTERATIONS = 401, 402  # Jane's benefits: once, and three times
NAMED = {"redemption_external_id": "R"}


@pytest.fixture
def counter(store: Store, omneo: Omneo, token: Path) -> Iterator[Counter]:
    """A shop; whatever happened in it, its books are in order in the end."""
    made = Counter(store, omneo, token)
    yield made
    made.close()
    store.verified()


def hit(counter: Counter, path: str, *, mode: str, **more: Any) -> None:
    """What happens to the next such request."""
    counter.omneo.fault(mode, path=path, method="POST", count=1, **more)


def attempt(counter: Counter, *documents: dict[str, Any], path: str, **fate: Any) -> None:
    """One try, and its fate."""
    counter.open()
    hit(counter, path, **fate)
    counter.store.take(*documents)
    before = len(counter.sent)
    while len(counter.sent) == before:
        counter.step()


def states(counter: Counter) -> str:
    return ", ".join(f"{name} {state}" for name, state in counter.store.states().items())


# ── Whether it is there ───────────────────────────────────────────────────────────────────────────────────────────

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
    attempt(counter, counter.redemption(), path="/redeem", **fault)
    counter.drain()
    if fault["mode"] != "wrong_id":  # a reversal's answer may be about the redemption
        hit(counter, "/reversal", **fault)
    counter.deliver(counter.reversal(**NAMED))
    there = counter.at_omneo()
    assert (there.redemptions(), there.balance()) == (["redeem", "reversal"], 25)
    assert (states(counter), counter.flags()) == ("R delivered, V delivered", set())


@pytest.mark.parametrize("path", ["/redeem", "/reversal", "/return"])
def test_a_no_to_what_was_done_all_the_same_is_a_yes(counter: Counter, path: str) -> None:
    counter.open()
    hit(counter, path, **APPLIED[-1])
    undo = counter.give_back if path == "/return" else counter.reversal
    counter.deliver(counter.redemption())
    counter.deliver(undo("V", **NAMED))
    assert (states(counter), counter.at_omneo().balance()) == ("R delivered, V delivered", 25)


@pytest.mark.parametrize("routes", ["reference", "guide"])
@pytest.mark.parametrize("mode", ["drop_before", "drop_after"])
@pytest.mark.parametrize("how", ["goes on", "crashes", "reboots"])
def test_a_benefit_is_used_once_reference_or_not(counter: Counter, routes: str, mode: str, how: str) -> None:
    """Beside another use of the same benefit, a moment ago."""
    counter.options["routes"] = routes
    counter.deliver(counter.redemption("R-1", benefit_id=ALTERATIONS))
    route = "/redeem" if routes == "reference" else f"/{ALTERATIONS}/redemptions"
    attempt(counter, counter.redemption("R-2", benefit_id=ALTERATIONS), mode=mode, path=route)
    if how != "goes on":
        counter.reboot() if how == "reboots" else counter.crash()
    counter.drain()
    assert (states(counter), counter.flags()) == ("R-1 delivered, R-2 delivered", set())
    there = counter.at_omneo()
    assert there.redemptions() == ["redeem", "redeem"]
    assert there.person()["benefits"][1]["redemptions_remaining"] == 1
    ids = {counter.store.show(name)["omneo_id"] for name in ("R-1", "R-2")}
    assert ids == {row["id"] for row in there.state["redemptions"]}


def test_a_use_of_a_benefit_that_no_list_shows_is_for_a_person(counter: Counter) -> None:
    """Omneo's lists may lag behind; the benefit's own count does not."""
    counter.omneo.control("/lag", seconds=300)
    attempt(counter, counter.redemption(benefit_id=ALTERATIONS), mode="drop_after", path="/redeem")
    counter.drain()
    assert (states(counter), counter.flags()) == ("R held", {"doubtful R"})
    assert counter.at_omneo().redemptions() == ["redeem"]


def test_two_candidates_are_for_a_person(counter: Counter) -> None:
    attempt(counter, counter.redemption(benefit_id=ALTERATIONS), mode="drop_after", path="/redeem")
    counter.online(f"/profiles/{JANE}/benefits/{ALTERATIONS}/redeem", count=1)
    counter.deliver(counter.sale(**NAMED), counter.reversal(**NAMED), counter.give_back(count=1, **NAMED))
    assert states(counter) == "R held, S delivered, V held, B held"
    assert counter.flags() == {"doubtful R", "redemption_missing S"}
    counter.decide(decide.abandon, "R")
    counter.drain()
    assert states(counter) == "R abandoned, S delivered, V cancelled, B held"
    assert counter.flags() == {"doubtful R", "redemption_missing S", "redemption_missing B"}


def test_a_released_doubt_is_looked_up_once_more_and_frees_what_waited(counter: Counter) -> None:
    attempt(counter, counter.redemption(benefit_id=ALTERATIONS), mode="drop_after", path="/redeem")
    counter.omneo.control("/lag", seconds=300)
    counter.deliver(counter.reversal(**NAMED))
    assert states(counter) == "R held, V held"
    counter.omneo.control("/lag", seconds=0)
    counter.decide(decide.release, "R")
    counter.drain()
    assert states(counter) == "R delivered, V delivered"
    assert counter.at_omneo().redemptions() == ["redeem", "reversal"]


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "not applied"])
def test_poison_is_looked_up_before_it_is_held(counter: Counter, *, applied: bool) -> None:
    counter.options |= {"poison_after": 1, "poison_for_s": 0}
    counter.omneo.fault("status", code=500, apply=applied, path="/redeem")
    counter.deliver(counter.redemption())
    counter.omneo.mend()
    if applied:
        assert (states(counter), counter.flags()) == ("R delivered", set())
    else:
        assert (states(counter), counter.flags()) == ("R held", {"poison R"})
        counter.decide(decide.release, "R")
        counter.drain()
    assert (states(counter), counter.at_omneo().balance()) == ("R delivered", 5)


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
    assert (states(counter), counter.at_omneo().redemptions()) == ("R cancelled, V cancelled", [])
    assert any("/redemptions" in asked for asked in counter.omneo.asked())


# ── Whether it is in time ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("after_s", "state"), [(500, "delivered"), (578, "delivered"), (590, "held"), (700, "held")])
@pytest.mark.parametrize("made", ["offline", "online"])
def test_a_reversal_goes_only_if_it_can_still_arrive(counter: Counter, made: str, after_s: int, state: str) -> None:
    """The window less a whole request: 600 s, 15 s and what the machine itself needs."""
    name: dict[str, Any] = NAMED
    if made == "online":
        number, redeemed_at = counter.online()
        name = {"redemption_id": number, "redeemed_at": redeemed_at}
    else:
        counter.deliver(counter.redemption())
    counter.box.passes(after_s)
    counter.deliver(counter.reversal(**name))
    assert counter.store.states()["V"] == state
    assert counter.at_omneo().redemptions() == ["redeem", "reversal"][: 2 if state == "delivered" else 1]
    assert counter.flags() == (set() if state == "delivered" else {"reversal_too_late V"})


@pytest.mark.parametrize("ahead_s", [-100_000_000, -3000, 3000, 100_000_000])
@pytest.mark.parametrize(("after_s", "state"), [(60, "delivered"), (700, "held")])
@pytest.mark.parametrize("reboots", [False, True])
def test_the_wall_clock_decides_nothing(
    counter: Counter, ahead_s: int, after_s: int, state: str, *, reboots: bool
) -> None:
    """After a reboot Omneo's own two clocks still tell: its `created_at`, and its `Date` now."""
    counter.deliver(counter.redemption())
    counter.box.passes(after_s)
    if reboots:
        counter.reboot(5)
    reversal = counter.reversal(**NAMED)
    counter.box.wall_ahead_s = ahead_s
    counter.deliver(reversal)
    assert counter.store.states()["V"] == state
    assert counter.flags() - {"clock_skew V"} == (set() if state == "delivered" else {"reversal_too_late V"})


def test_what_no_clock_can_tell_is_treated_as_too_late(counter: Counter) -> None:
    counter.deliver(counter.redemption())
    counter.reboot(5)
    counter.omneo.control("/date", skew_s=-7200)  # Omneo's two clocks contradict each other
    counter.deliver(counter.reversal(**NAMED))
    assert states(counter) == "R delivered, V held"
    assert counter.detail("reversal_too_late")["verdict"] == "cannot tell"
    assert counter.at_omneo().redemptions() == ["redeem"]


def test_a_redemption_found_by_a_look_up_can_still_be_reversed_after_a_reboot(counter: Counter) -> None:
    attempt(counter, counter.redemption(), mode="drop_after", path="/redeem")
    counter.box.passes(120)
    counter.drain()
    counter.reboot()
    counter.deliver(counter.reversal(**NAMED))
    assert (states(counter), counter.at_omneo().balance()) == ("R delivered, V delivered", 25)


def test_a_lost_reversal_whose_window_has_closed_is_not_sent_again(counter: Counter) -> None:
    counter.deliver(counter.redemption())
    attempt(counter, counter.reversal(**NAMED), mode="drop_before", path="/reversal")
    counter.box.passes(700)
    counter.deliver(counter.sale(**NAMED))
    assert states(counter) == "R delivered, V held, S delivered"
    assert counter.flags() == {"reversal_too_late V"}
    there = counter.at_omneo()
    assert (there.redemptions(), there.sale()["redemption_id"]) == (["redeem"], there.row()["id"])


@pytest.mark.parametrize("crash", [None, "before", "after"])
@pytest.mark.parametrize("mode", [None, "drop_before", "drop_after"])
def test_a_late_reversal_becomes_a_return_if_the_operator_chose_so(
    counter: Counter, mode: str | None, crash: str | None
) -> None:
    counter.options["late_reversal"] = "return"
    counter.deliver(counter.redemption())
    counter.box.passes(700)
    if mode is not None:
        counter.omneo.fault(mode, path="/return", count=1)
    counter.store.take(counter.reversal(**NAMED), counter.sale(**NAMED))
    counter.cut_at = {"/return"} if crash == "before" else set()
    counter.step()
    counter.cut_at = set()
    if crash == "after":
        counter.open().books.flush()
        counter.crash()
    counter.drain()
    there = counter.at_omneo()
    assert (there.redemptions(), there.balance()) == (["redeem", "return"], 25)
    assert states(counter) == "R delivered, V delivered, S delivered"
    assert counter.flags() == {"reversal_too_late V", "redemption_missing S"}
    assert there.sale()["redemption_id"] is None


def test_a_late_reversal_that_a_person_releases_goes_as_a_return(counter: Counter) -> None:
    counter.deliver(counter.redemption())
    counter.box.passes(700)
    counter.deliver(counter.reversal(**NAMED))
    assert states(counter) == "R delivered, V held"
    counter.decide(decide.release, "V")
    counter.drain()
    assert (states(counter), counter.at_omneo().redemptions()) == ("R delivered, V delivered", ["redeem", "return"])


@pytest.mark.parametrize(("policy", "state"), [("send", "delivered"), ("hold", "held")])
def test_a_redemption_that_comes_late_is_flagged_sent_or_held(counter: Counter, policy: str, state: str) -> None:
    counter.options["late_redemption"] = policy
    intent = counter.redemption()
    counter.open()
    counter.store.take(intent)
    counter.box.passes(700)
    counter.deliver(counter.sale(**NAMED))
    assert counter.store.states()["R"] == state
    missing = {"redemption_missing S"} if state == "held" else set()
    assert counter.flags() == {"reversal_window_exceeded R"} | missing
    flag = counter.detail("reversal_window_exceeded")
    assert (flag["verdict"], flag["window_s"]) == ("out", 600)
    assert flag["seconds"] >= 700
    if state == "held":
        assert counter.at_omneo().redemptions() == []
        counter.decide(decide.release, "R")
        counter.drain()
    assert (counter.store.states()["R"], counter.at_omneo().balance()) == ("delivered", 5)


def test_a_reversal_of_what_was_held_has_nothing_to_undo(counter: Counter) -> None:
    counter.options["late_redemption"] = "hold"
    intent = counter.redemption()
    counter.open()
    counter.store.take(intent)
    counter.box.passes(700)
    counter.drain()
    counter.deliver(counter.reversal(**NAMED))
    assert (states(counter), counter.at_omneo().redemptions()) == ("R held, V cancelled", [])
    counter.decide(decide.release, "R")
    counter.drain()
    assert (states(counter), counter.at_omneo().redemptions()) == ("R cancelled, V cancelled", [])


def test_what_has_not_left_while_the_line_is_down_is_cancelled_with_its_reversal(counter: Counter) -> None:
    """Also when it was tried: what can't connect sends not one byte, and while the line fails nothing is risked."""
    counter.deliver(counter.sale("S-0"))
    counter.omneo.fault("refuse", count=1)
    counter.store.take(counter.redemption())
    counter.step()
    counter.omneo.fault("down", seconds=30)
    counter.step()
    counter.omneo.mend()
    counter.deliver(counter.reversal(**NAMED))
    assert counter.at_omneo().balance() == 25


def test_two_reversals_of_one_redemption_are_one(counter: Counter) -> None:
    counter.deliver(counter.redemption(), counter.sale("S-0"))
    counter.deliver(counter.reversal("V-1", **NAMED), counter.reversal("V-2", **NAMED))
    assert counter.at_omneo().redemptions() == ["redeem", "reversal"]
    assert counter.store.states()["V-2"] == "delivered"
    assert counter.flags() == set()


def test_a_sale_goes_without_what_is_about_to_be_reversed(counter: Counter) -> None:
    """Also when it stands before the reversal in the journal."""
    counter.deliver(counter.redemption())
    counter.deliver(counter.sale(**NAMED), counter.reversal(**NAMED))
    assert (states(counter), counter.flags()) == ("R delivered, S delivered, V delivered", {"redemption_missing S"})
    there = counter.at_omneo()
    assert (there.sale()["redemption_id"], there.balance()) == (None, 25)


def test_a_refused_reversal_is_flagged_and_no_sale_takes_what_it_may_have_undone(counter: Counter) -> None:
    counter.deliver(counter.redemption())
    hit(counter, "/reversal", mode="status", code=422)
    counter.deliver(counter.reversal(**NAMED), counter.sale(**NAMED))
    assert states(counter) == "R delivered, V refused, S delivered"
    assert counter.flags() == {"reversal_too_late V", "redemption_missing S"}
    assert counter.at_omneo().sale()["redemption_id"] is None
