"""
The redemption machine: a shop's tills and its forwarder, and all that can befall them.

Clocks jump both ways, the box reboots, the power goes between any two steps, Omneo's time moves on, a person decides.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from shop_model import ModelShop, Templates
from shop_oracles import Judge, Watch, spent_once
from shop_tills import Tills
from shop_world import World, made_up_time

from forwarder.sandbox.customers import JANE, OMAR, WEI
from forwarder.sandbox.faults import Rule
from forwarder.sandbox.state import reference

STEPS = 25
WRITES = ("/redeem", "/redemptions", "/reversal", "/return", "update-create")
LATENCIES_S = [[(0.0, 0.0)], [(0.2, 0.2)], [(7.0, 7.0)], [(14.5, 0.0)]]  # there and back
LATENCIES_S += [[(0.0, 14.5), (14.5, 0.0)], [(0.0, 0.0), (14.5, 0.0), (14.5, 0.0)]]
FAULTS: list[dict[str, Any]] = [
    *({"mode": mode} for mode in ("refuse", "drop_before", "drop_after", "hang", "hang_after", "truncate")),
    *({"mode": mode} for mode in ("throttle", "forbidden", "unauthorized", "trickle")),
    *({"mode": "skew", "skew_s": seconds} for seconds in (-3600, 3600)),
    *(
        {"mode": mode, "apply": done}
        for mode in ("portal", "portal_json", "redirect", "garbage", "wrong_id")
        for done in (True, False)
    ),
    *({"mode": "status", "code": code, "apply": done} for code in (500, 503, 408) for done in (True, False)),
    *({"mode": "status", "code": code, "html": True} for code in (404, 502)),
    *({"mode": "status", "code": code} for code in (400, 405, 409, 422, 425)),
    # of a look-up it would be a lie, and we would believe it
    *({"mode": "status", "code": 404, "method": "POST", "path": path} for path in WRITES),
    *({"mode": "status", "code": 422, "method": "POST", "path": path, "apply": True} for path in WRITES),
]
LOST: list[dict[str, Any]] = [
    *({"mode": mode} for mode in ("drop_before", "drop_after", "drop_after", "hang_after", "truncate")),
    *({"mode": "status", "code": 500, "apply": done} for done in (True, False)),
    {"mode": "wrong_id", "apply": True},
]

here: dict[str, Any] = {}


@contextmanager
def one_world() -> Iterator[None]:
    """Every example of a session happens in the same one, which is cleared for it."""
    world, templates = World(), Templates()
    here.update(world=world, templates=templates)
    try:
        with made_up_time(world):
            yield
    finally:
        templates.close()


class Machine(Tills):
    """A shop with tills, its forwarder, and all that can befall them."""

    is_sound = True

    @initialize(
        lanes=st.sampled_from([0, 3]),
        rate=st.sampled_from([0, 10]),
        late_redemption=st.sampled_from(["send", "send", "hold"]),
        late_reversal=st.sampled_from(["flag", "return"]),
        routes=st.sampled_from(["reference", "guide"]),
        lag_s=st.sampled_from([0, 0, 1]),
        shows=st.booleans(),
        omneo_steps=st.booleans(),
    )
    def open_the_shop(
        self, lanes: int, rate: float, lag_s: float, *, shows: bool, omneo_steps: bool, **policy: Any
    ) -> None:
        self.world: World = here["world"]
        self.world.clear()
        self.watch = self.world.line.watch = Watch(self.world)
        self.world.line.omneo.lag = timedelta(seconds=lag_s)
        if shows:  # what others have redeemed, with references that Omneo gives back: ours must be among such
            for who in (WEI, OMAR, JANE):
                self.redeem_at_omneo(who, 1, meta={"external_id": f"theirs-{who}"})
        self.omneo_steps = omneo_steps
        self.shows = shows
        self.open_for_business()
        self.shop = ModelShop(self.world, here["templates"], lanes=lanes, rate=rate, poison_after=3, **policy)

    @rule(
        which=st.integers(0, 3),
        left_s=st.sampled_from([0, 10, 17, 18, 25, 32, 40, 60]),
        takes_s=st.sampled_from(LATENCIES_S),
        fault=st.sampled_from([None, {"mode": "unauthorized"}, {"mode": "unauthorized"}, *LOST[::3]]),
        by_path=st.booleans(),
        online=st.booleans(),
    )
    def reverse_at_the_last_moment(
        self,
        which: int,
        left_s: float,
        takes_s: list[tuple[float, float]],
        fault: dict[str, Any] | None,
        *,
        by_path: bool,
        online: bool,
    ) -> None:
        """So many seconds before its window closes, on a slow line that may do something else too."""
        self.forward(12, which)
        states = self.shop.states()
        made = {reference(row): row for row in self.world.line.omneo.redemptions.values() if row["type"] == "redeem"}
        fit = [name for name in self.unreversed if states[name] == "delivered" and name in made]
        omneo = self.world.line.omneo
        if online and self.online:
            name, number = "", self.online[which % len(self.online)][0]
        elif fit:
            name = fit[which % len(fit)]
            number = made[name]["id"]
        else:
            return
        self.world.passes(600 - left_s - (omneo.now() - omneo.moments[number]).total_seconds())
        if name:
            self.reverse(self.unreversed.index(name), "one")
        else:
            self.reverse(which, "online")
        self.requests_take(takes_s)
        if fault is not None:
            path = "/reversal" if by_path else ""
            self.world.line.desk.faults.add(Rule(**({"count": 1, "path": path} | fault)))
        self.forward(8, which)

    # ── The forwarder ──

    @rule(times=st.integers(1, 12), dice=st.integers(0, 7))
    def forward(self, times: int, dice: int) -> None:
        self.world.dice = Random(dice)
        self.is_sound = False  # until this is over without a finding
        self.shop.forward(times)
        spent_once(self.shop, self.world.line.omneo)
        self.is_sound = True

    @rule(times=st.integers(1, 12), moments=st.integers(0, 60))
    def forward_until_the_power_goes(self, times: int, moments: int) -> None:
        """Between any two steps: before and after each request and its effect, inside a commit."""
        self.world.power_left = moments
        self.forward(times, moments)

    @rule()
    def pause(self) -> None:
        self.shop.pause()

    @rule()
    def restart(self) -> None:
        self.shop.restart()

    @rule(kind=st.sampled_from(["released", "released", "abandoned"]), which=st.integers(0, 3))
    def a_person_decides(self, kind: str, which: int) -> None:
        held = [name for name, state in self.shop.states().items() if state == "held"]
        if held:
            self.shop.decides(kind, held[which % len(held)])

    # ── Time ──

    @rule(seconds=st.sampled_from([1, 20, 65, 300, 560, 585, 590, 900]))
    def time_passes(self, seconds: float) -> None:
        self.world.passes(seconds)

    @rule(seconds=st.sampled_from([-86400, -7200, -600, -130, 130, 600, 7200, 86400]))
    def our_clock_jumps(self, seconds: float) -> None:
        self.world.wall_ahead += timedelta(seconds=seconds)

    @rule(seconds=st.sampled_from([60, 300, 590, 900]))
    def omneos_clock_moves_on(self, seconds: float) -> None:
        """Without ours, so that only its `Date` can tell."""
        if self.omneo_steps:
            self.world.line.omneo.offset += timedelta(seconds=seconds)

    @rule(takes_s=st.sampled_from(LATENCIES_S))
    def requests_take(self, takes_s: list[tuple[float, float]]) -> None:
        self.world.takes_s = takes_s

    # ── The line ──

    @rule(fault=st.sampled_from(FAULTS), count=st.integers(1, 3), path=st.sampled_from(["", "", *WRITES, "GET"]))
    def go_wrong(self, fault: dict[str, Any], count: int, path: str) -> None:
        if self.world.line.omneo.lag and fault.get("code") == 422 and fault.get("apply"):
            return  # a no that is none, of something that isn't shown yet: nobody could tell
        if fault["mode"] == "skew" and self.omneo_steps:
            return
        where = {"method": "GET"} if path == "GET" else {"path": path, "method": "POST"} if path else {}
        self.world.line.desk.faults.add(Rule(**(where | {"count": count} | fault)))

    @rule(
        fault=st.sampled_from(LOST),
        count=st.integers(1, 4),
        skip=st.integers(0, 1),
        path=st.sampled_from(["/rede", "/reversal", "/return", ""]),
    )
    def answers_are_lost(self, fault: dict[str, Any], count: int, skip: int, path: str) -> None:
        rule_ = {"method": "POST", "path": path, "count": count, "skip": skip} | fault
        self.world.line.desk.faults.add(Rule(**rule_))

    @rule(down=st.booleans())
    def line_goes(self, *, down: bool) -> None:
        self.world.line.down = down

    # ── The end ──

    def teardown(self) -> None:
        if not hasattr(self, "shop"):
            return
        try:
            self.world.line.desk.faults.clear()
            self.world.line.down = False
            if self.is_sound:
                self.drain(self.shop)
                Judge(self.shop, self.world).all()
        finally:
            self.shop.close()

    def drain(self, shop: ModelShop) -> None:
        """All is well again: what waits goes, or waits for something that time brings."""
        for _ in range(12 + 3 * len(shop.documents)):
            for _ in range(12 + len(shop.documents)):
                if not shop.forward(40):
                    break
            shop.pause()
            if "waiting" not in shop.states().values():
                return
            self.world.passes(30)


def profile(examples: int, **more: Any) -> settings:
    unwell = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    more.setdefault("report_multiple_bugs", False)
    return settings(
        max_examples=examples, stateful_step_count=STEPS, deadline=None, suppress_health_check=unwell, **more
    )
