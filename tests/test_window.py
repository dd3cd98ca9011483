"""The two clocks of a redemption: a truth table, and that nothing ever makes *cannot tell* an *in*."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.window import Instant, Made, Omneo, lateness, reversal, skew

T0 = datetime(2025, 6, 15, 14, 0, tzinfo=UTC)
WINDOW_S, RESERVE_S = 600.0, 17.0
moments = st.integers(-(10**8), 10**8).map(lambda s: T0 + timedelta(seconds=s))


def at(seconds: float, boot: str | None = "one", wall_s: float | None = None) -> Instant:
    return Instant(boot, 1000 + seconds, T0 + timedelta(seconds=seconds if wall_s is None else wall_s))


def made(left: Instant | None, created_s: float | None, date_s: float | None = None) -> Made:
    moment = lambda s: None if s is None else T0 + timedelta(seconds=s)  # noqa: E731
    return Made(left, moment(created_s), moment(created_s if date_s is None else date_s))


def seen(seconds: float, boot: str = "one", skew_s: float = 0.0) -> Omneo:
    return Omneo(T0 + timedelta(seconds=seconds + skew_s), at(seconds, boot))


TABLE = {
    "at once": (made(at(0), 0), at(1), seen(1), "in"),
    "just so": (made(at(0), 0), at(582), seen(582), "in"),
    "the reserve is gone": (made(at(0), 0), at(584), seen(584), "out"),
    "long after": (made(at(0), 0), at(5000), seen(5000), "out"),
    "the wall clock jumped a year ahead": (made(at(0), 0), at(10, wall_s=3e7), seen(10), "in"),
    "the wall clock fell back to 1970": (made(at(0), 0), at(5000, wall_s=-1.7e9), seen(5000), "out"),
    "rebooted, Omneo's clock seen since": (made(at(0, "old"), 0), at(30), seen(30), "in"),
    "rebooted, too long ago by Omneo": (made(at(0, "old"), 0), at(900), seen(900), "out"),
    "rebooted, Omneo's clock not seen yet": (made(at(0, "old"), 0), at(30), None, "cannot tell"),
    "no boot id at all": (made(at(0, None), None), at(30, None), None, "cannot tell"),
    "only the kernel's clock": (made(at(0), None), at(30), None, "in"),
    "only the kernel's clock, out": (made(at(0), None), at(590), None, "out"),
    "Omneo says older than the kernel": (made(at(0), -700), at(10), seen(10), "out"),
    "online, in": (made(None, 0), at(30), seen(30), "in"),
    "online, out": (made(None, 0), at(601), seen(601), "out"),
    "online, nothing known": (made(None, None), at(1), seen(1), "cannot tell"),
    "Omneo's two clocks disagree": (made(None, 0, 3600), at(30), seen(30), "cannot tell"),
    "created in Omneo's future": (made(None, 400), at(30), seen(30), "cannot tell"),
    "Omneo's two clocks disagree, but the kernel knows": (made(at(0), 0, 3600), at(30), seen(30), "in"),
    "rebooted, Omneo's clock seen before that": (made(at(0, "old"), 0), at(30), seen(30, "old"), "cannot tell"),
    "online, Omneo's clock seen a while ago": (made(None, 0), at(640), seen(60), "out"),
    "Omneo's clock runs ahead of the kernel": (made(at(0), 0), at(60), seen(60, skew_s=530), "out"),
    "Omneo's clock runs behind the kernel": (made(at(0), 0), at(590), seen(590, skew_s=-530), "out"),
}


@pytest.mark.parametrize(("when", "now", "omneo", "judged"), TABLE.values(), ids=TABLE.keys())
def test_the_truth_table(when: Made, now: Instant, omneo: Omneo | None, judged: str) -> None:
    assert reversal(when, now, omneo, WINDOW_S, RESERVE_S).judged == judged


@given(
    st.floats(0, 10**6), st.floats(0, 10**6), moments, moments, st.sampled_from(["same", "other", None]), st.booleans()
)
def test_in_only_where_a_clock_that_can_be_trusted_says_so(
    left_s: float, now_s: float, wall_left: datetime, wall_now: datetime, boot: str | None, read: bool
) -> None:
    """Whatever the wall clock does, it decides nothing; and *in* has room for a whole request."""
    left = Instant("same", left_s, wall_left)
    now = Instant(boot, left_s + now_s, wall_now)
    omneo = Omneo(T0 + timedelta(seconds=now_s), now) if read else None
    verdict = reversal(Made(left, T0, T0), now, omneo, WINDOW_S, RESERVE_S)
    known = boot == "same" or (read and boot is not None)
    if verdict.judged == "in":
        assert known
        assert now_s <= WINDOW_S - RESERVE_S + 1e-6
    if not known:
        assert verdict.judged == "cannot tell"
    same = reversal(Made(left, T0, T0), Instant(now.boot, now.since_boot_s, T0), omneo, WINDOW_S, RESERVE_S)
    assert same.judged == verdict.judged


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_an_older_redemption_is_never_judged_better(age: int, more: int) -> None:
    order = {"in": 0, "out": 1}
    younger, older = (
        reversal(made(at(0), 0), at(seconds), seen(seconds), WINDOW_S, RESERVE_S).judged
        for seconds in (age, age + more)
    )
    assert order[younger] <= order[older]


@given(st.integers(0, 700), st.integers(0, 700))
def test_what_leaves_within_the_spare_time_still_arrives(by_kernel: int, by_omneo: int) -> None:
    now, there = at(by_kernel), Omneo(T0 + timedelta(seconds=by_omneo), at(by_kernel))
    verdict = reversal(made(at(0), 0), now, there, WINDOW_S, RESERVE_S)
    oldest = max(by_kernel, by_omneo + 1)
    assert (verdict.judged == "in") == (oldest + RESERVE_S <= WINDOW_S)
    assert verdict.spare_s == max(0, WINDOW_S - RESERVE_S - oldest)


LATE: dict[str, tuple[float, float, float, str]] = {  # issued, received, made (seconds), judged
    "at once": (0, 1, 2, "in"),
    "within the window": (0, 1, 599, "in"),
    "after an outage": (0, 1, 601, "out"),
    "the till wrote it late": (0, 700, 701, "out"),
    "a till a little ahead": (60, 0, 1, "in"),
    "a till far ahead": (3600, 0, 1, "cannot tell"),
    "a till far ahead, and an outage": (3600, 0, 900, "out"),
    "a till an hour behind": (-3600, 0, 1, "out"),
    "made before it was issued": (0, 0, -500, "cannot tell"),
}


@pytest.mark.parametrize(("issued", "received", "done", "judged"), LATE.values(), ids=LATE.keys())
def test_how_late_a_redemption_came(issued: float, received: float, done: float, judged: str) -> None:
    moment = [T0 + timedelta(seconds=seconds) for seconds in (issued, received, done)]
    verdict = lateness(moment[0], moment[1], moment[2], WINDOW_S)
    assert verdict.judged == judged
    assert {"issued_at", "received_at", "made_at", "seconds"} <= verdict.inputs.keys()


@pytest.mark.parametrize(
    ("ours_s", "till_s", "whose"),
    [(0, 0, None), (119, 0, None), (-121, 0, "this machine"), (1e8, 0, "this machine"), (0, 500, "the till")],
)
def test_whose_clock_is_wrong(ours_s: float, till_s: float, whose: Any) -> None:
    ours = T0 + timedelta(seconds=ours_s)
    found = skew(ours, T0, T0 + timedelta(seconds=till_s), T0)
    assert (found and found["whose"]) == whose


def test_a_till_that_is_behind_can_not_be_told_from_a_late_one() -> None:
    assert skew(T0, T0, T0 - timedelta(days=3), T0) is None
