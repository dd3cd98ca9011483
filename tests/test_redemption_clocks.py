"""The two clocks of a redemption: what is too late for a reversal, or for the till, and what nobody can tell."""

from typing import Any

import pytest
from redeeming import Counter

from forwarder import decide

NAMED = {"redemption_external_id": "R"}


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
    assert counter.states() == "R delivered, V held"
    assert counter.detail("reversal_too_late")["verdict"] == "cannot tell"
    assert counter.at_omneo().redemptions() == ["redeem"]


def test_a_redemption_found_by_a_look_up_can_still_be_reversed_after_a_reboot(counter: Counter) -> None:
    counter.attempt(counter.redemption(), mode="drop_after", path="/redeem")
    counter.box.passes(120)
    counter.drain()
    counter.reboot()
    counter.deliver(counter.reversal(**NAMED))
    assert (counter.states(), counter.at_omneo().balance()) == ("R delivered, V delivered", 25)


def test_a_lost_reversal_whose_window_has_closed_is_not_sent_again(counter: Counter) -> None:
    counter.deliver(counter.redemption())
    counter.attempt(counter.reversal(**NAMED), mode="drop_before", path="/reversal")
    counter.box.passes(700)
    counter.deliver(counter.sale(**NAMED))
    assert counter.states() == "R delivered, V held, S delivered"
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
    assert counter.states() == "R delivered, V delivered, S delivered"
    assert counter.flags() == {"reversal_too_late V", "redemption_missing S"}
    assert there.sale()["redemption_id"] is None


def test_a_late_reversal_that_a_person_releases_goes_as_a_return(counter: Counter) -> None:
    counter.deliver(counter.redemption())
    counter.box.passes(700)
    counter.deliver(counter.reversal(**NAMED))
    assert counter.states() == "R delivered, V held"
    counter.decide(decide.release, "V")
    counter.drain()
    assert (counter.states(), counter.at_omneo().redemptions()) == ("R delivered, V delivered", ["redeem", "return"])


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
    assert (counter.states(), counter.at_omneo().redemptions()) == ("R held, V cancelled", [])
    counter.decide(decide.release, "R")
    counter.drain()
    assert (counter.states(), counter.at_omneo().redemptions()) == ("R cancelled, V cancelled", [])


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
    assert (counter.states(), counter.flags()) == ("R delivered, S delivered, V delivered", {"redemption_missing S"})
    there = counter.at_omneo()
    assert (there.sale()["redemption_id"], there.balance()) == (None, 25)


def test_a_refused_reversal_is_flagged_and_no_sale_takes_what_it_may_have_undone(counter: Counter) -> None:
    counter.deliver(counter.redemption())
    counter.hit("/reversal", mode="status", code=422)
    counter.deliver(counter.reversal(**NAMED), counter.sale(**NAMED))
    assert counter.states() == "R delivered, V refused, S delivered"
    assert counter.flags() == {"reversal_too_late V", "redemption_missing S"}
    assert counter.at_omneo().sale()["redemption_id"] is None
