"""
The two clocks of a redemption: how long a reversal may still come, and how late the redemption came itself. Pure.

Omneo counts its ten minutes from its own creation of the redemption (docs: return-strategy/add-redemption-reversal). We
take the earliest that this can have been. The kernel's clock within one boot can't jump; Omneo's own clock (`Date`)
can be compared with its `created_at`; this machine's wall clock may be years off and decides nothing. Where neither of
the first two can be read the verdict is *cannot tell*, which is acted upon as *out*.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

SECOND_S = 1.0  # Omneo's moments have whole seconds
TILL_AHEAD_S = 120.0  # a till's clock that is further ahead than this is not believed

CLOCK_SKEW_S = 120.0

Judged = Literal["in", "out", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment on this machine: the kernel's boot id and seconds since boot (sleep included), and the wall clock."""

    boot: str | None
    since_boot_s: float
    wall: datetime

    def until_s(self, later: "Instant") -> float | None:
        """Seconds from here to a later instant of the same boot; None across boots."""
        same = self.boot is not None and self.boot == later.boot
        return later.since_boot_s - self.since_boot_s if same else None

    def set_back_s(self, later: "Instant") -> float:
        """By how many seconds the wall clock was set back from here to a later instant, as far as it can be told."""
        passed = self.until_s(later)
        return 0.0 if passed is None else max(0.0, passed - (later.wall - self.wall).total_seconds())


@dataclass(frozen=True, slots=True)
class Made:
    """When Omneo made a redemption, as far as anybody can tell."""

    left: Instant | None = None  # just before our first request for it left; None for one made online
    created_at: datetime | None = None  # Omneo's word
    date: datetime | None = None  # Omneo's `Date` in the same answer: do its two clocks agree?


@dataclass(frozen=True, slots=True)
class Omneo:
    """Omneo's clock as last seen: its `Date`, and when that came."""

    date: datetime
    seen: Instant

    def at(self, now: Instant) -> datetime | None:
        """Omneo's clock now, if this machine still runs as it did then."""
        passed = self.seen.until_s(now)
        return None if passed is None else self.date + timedelta(seconds=passed)


@dataclass(frozen=True, slots=True)
class Verdict:
    """In the window, out of it, or cannot tell; with everything that it was judged by."""

    judged: Judged
    inputs: dict[str, Any]
    spare_s: float = 0.0  # in: so much later may it still leave


def reversal(made: Made, now: Instant, omneo: Omneo | None, window_s: float, reserve_s: float) -> Verdict:
    """Can a reversal that leaves now still arrive inside the window? `reserve_s`: the whole time of a request."""
    by_kernel = made.left.until_s(now) if made.left else None
    by_omneo = _by_omneo(made, now, omneo)
    ages = [age for age in (by_kernel, by_omneo) if age is not None]
    inputs = {
        "window_s": window_s,
        "reserve_s": reserve_s,
        "age_by_kernel_s": _round(by_kernel),
        "age_by_omneo_s": _round(by_omneo),
        "created_at": _text(made.created_at),
        "now": now.wall.isoformat(timespec="milliseconds"),
    }
    if not ages:
        return Verdict("cannot tell", inputs)
    spare_s = window_s - reserve_s - max(ages)
    return Verdict("in", inputs, spare_s) if spare_s >= 0 else Verdict("out", inputs)


def lateness(issued_at: datetime, received_at: datetime, made_at: datetime, window_s: float) -> Verdict:
    """
    From the till's redemption to Omneo's (or to now, when it is asked before sending).

    Three clocks: the till's, this machine's at intake, Omneo's. A till that runs ahead can't be believed.
    """
    age = (made_at - issued_at).total_seconds()
    waited = (made_at - received_at).total_seconds()
    ahead = (issued_at - received_at).total_seconds()
    inputs = {
        "window_s": window_s,
        "issued_at": _text(issued_at),
        "received_at": _text(received_at),
        "made_at": _text(made_at),
        "seconds": _round(age),
    }
    if age > window_s or waited > window_s:
        return Verdict("out", inputs)
    if ahead > TILL_AHEAD_S or age < -TILL_AHEAD_S or waited < -TILL_AHEAD_S:
        return Verdict("cannot tell", inputs)
    return Verdict("in", inputs)


def skew(ours: datetime, date: datetime, till: datetime, received_at: datetime) -> dict[str, Any] | None:
    """Whose clock is more than two minutes from Omneo's, this machine's or the till's; None if neither is."""
    ahead_s = (ours - date).total_seconds()
    if abs(ahead_s) > CLOCK_SKEW_S:
        return {"whose": "this machine", "seconds": round(ahead_s)}
    till_ahead_s = (till - received_at).total_seconds()  # behind can't be told from late
    return {"whose": "the till", "seconds": round(till_ahead_s)} if till_ahead_s > CLOCK_SKEW_S else None


def _by_omneo(made: Made, now: Instant, omneo: Omneo | None) -> float | None:
    """Age by Omneo's own clocks, at the most; None where they can't be read or contradict each other."""
    there = omneo.at(now) if omneo else None
    if made.created_at is None or there is None:
        return None
    if made.date is not None and abs((made.date - made.created_at).total_seconds()) > 60:
        return None
    age = (there - made.created_at).total_seconds() + SECOND_S
    return age if age >= 0 else None


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
