"""
Redemptions, reversals, returns and their sales, in either order, on a line that does what it likes.

Clocks jump both ways, the box reboots, the power goes between any two steps, Omneo's time moves on, a person decides.
Never: value spent twice, or for something cancelled; a reversal sent outside the window; a sale linked to a reversed
redemption; a customer's documents out of order; a late redemption without its flag; a document that is lost.

`make machine EXAMPLES=20000 SEED=1` is the long run.
"""

import os
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from shop_model import ModelShop, Templates
from shop_oracles import Judge, Watch, spent_once
from shop_world import World, made_up_time
from standin import encode

from forwarder.sandbox.customers import JANE, OMAR, WEI
from forwarder.sandbox.faults import Rule
from forwarder.sandbox.state import reference

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "400"))
STEPS = 25

Customer = tuple[str, str | None]
PEOPLE: list[Customer] = [
    (WEI, None),
    ("wei@example.com", "email"),
    ("6000000004", "loyalty-card"),
    (OMAR, None),
    ("omar@example.com", "email"),
    (JANE, None),
    ("nobody@example.com", "email"),
]
VALUES: list[dict[str, Any]] = [
    {"amount": Decimal(10), "strategies": ["rewards"]},
    {"amount": Decimal("30.05"), "strategies": ["rewards", "points"]},
    {"amount": Decimal(5), "strategies": ["credits", "rewards"]},
]
BENEFIT = {WEI: 404, JANE: 402}
TILLS_CLOCK_S = [0, 0, 0, 0, 0, -30, -580, -700, -7200, 3600]
WRITES = ("/redeem", "/redemptions", "/reversal", "/return", "update-create")
LATENCIES_S = [[(0.0, 0.0)], [(0.2, 0.2)], [(7.0, 7.0)], [(14.5, 0.0)], [(0.0, 14.5), (14.5, 0.0)]]  # there and back
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


@pytest.fixture(scope="module", autouse=True)
def _one_world() -> Iterator[None]:
    world, templates = World(), Templates()
    here.update(world=world, templates=templates)
    with made_up_time(world):
        yield
    templates.close()


LINES = [
    {"name": "Coat", "quantity": 1, "price_sell": Decimal(70), "price_original": Decimal(80)},
    {"name": "Socks", "quantity": 2, "price_sell": Decimal(15)},
]


def customer(who: Customer | None) -> dict[str, Any]:
    if who is None:
        return {}
    value, handle = who
    return {"profile_id": value} | ({"profile_id_handle": handle} if handle else {})


class Machine(RuleBasedStateMachine):
    """A shop with tills, its forwarder, and all that can befall them."""

    shop: ModelShop | None = None
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
        self.made = {"S": 0, "R": 0, "V": 0, "T": 0}
        self.unreversed: list[str] = []  # redemptions of the till that no reversal names yet
        self.unsold: list[str] = []  # … and no sale
        self.named_before: dict[str, set[str]] = {"sale": set(), "reversal": set()}  # … that have not come yet
        self.online: list[tuple[int, str]] = []
        self.shop = ModelShop(self.world, here["templates"], lanes=lanes, rate=rate, poison_after=3, **policy)

    def name(self, letter: str) -> str:
        self.made[letter] += 1
        return f"{letter}-{self.made[letter] - 1}"

    def at(self, clock_s: float) -> str:
        return (self.world.truly() + timedelta(seconds=clock_s)).strftime("%Y-%m-%d %H:%M:%S")

    def take(self, kind: str, letter: str, **fields: Any) -> str:
        assert self.shop is not None
        name = self.name(letter)
        given = {field: value for field, value in fields.items() if value is not None}
        self.shop.take({"kind": kind, "external_id": name, "timezone": "UTC"} | given)
        return name

    # ── The tills ──

    @rule(
        who=st.sampled_from(PEOPLE),
        value=st.sampled_from([*VALUES, None]),
        clock_s=st.sampled_from(TILLS_CLOCK_S),
        for_a_sale=st.booleans(),
    )
    def redeem(self, who: Customer, value: dict[str, Any] | None, clock_s: float, *, for_a_sale: bool) -> None:
        assert self.shop is not None
        if who[0] not in BENEFIT or (self.omneo_steps and self.shop.policy.routes == "reference"):
            value = value or VALUES[0]  # by that route a benefit bears no name, only the moment by Omneo's clock
        used = value or {"benefit_id": BENEFIT[who[0]]}
        sale = f"S-{self.made['S']}" if for_a_sale else None
        issued_at = self.at(clock_s)
        name = self.take("redemption", "R", issued_at=issued_at, transaction_external_id=sale, **customer(who), **used)
        if name not in self.named_before["reversal"]:
            self.unreversed.append(name)
        if name not in self.named_before["sale"]:
            self.unsold.append(name)
        self.met_at_home(name)

    @rule(
        who=st.sampled_from([None, *PEOPLE]),
        names=st.sampled_from(["none", "one", "one", "one", "one", "next", "never", "online", "online"]),
        which=st.integers(0, 3),
        receipt=st.sampled_from([None, None, "A", "B"]),
        net=st.booleans(),
    )
    def sell(self, who: Customer | None, names: str, which: int, receipt: str | None, *, net: bool) -> None:
        fields = customer(who) | {"apply_redemption": "proportional" if net else None}
        if names == "one" and self.unsold:
            fields["redemption_external_id"] = self.unsold.pop(which % len(self.unsold))
        elif names == "next" and self.next_redemption not in self.named_before["sale"]:
            fields["redemption_external_id"] = self.next_redemption
            self.named_before["sale"].add(self.next_redemption)
        elif names == "never":
            fields["redemption_external_id"] = "R-that-never-comes"
        elif names == "online" and self.online:
            fields["redemption_id"], _ = self.online[which % len(self.online)]
        at = self.at(0)
        reference = {"linked_receipt_ref" if which == 3 else "receipt_ref": receipt}
        self.take("sale", "S", total=Decimal(100), transacted_at=at, items=LINES, **reference, **fields)

    @rule(which=st.integers(0, 3), names=st.sampled_from([*["one"] * 6, "next", "never", "online", "online"]))
    def reverse(self, which: int, names: str) -> None:
        """Once for each redemption: a till that does it twice is not in this shop."""
        fields: dict[str, Any] = {"issued_at": self.at(0), "reason": "payment declined"}
        name = None
        if names == "online" and self.online:
            fields["redemption_id"], fields["redeemed_at"] = self.online.pop(which % len(self.online))
        elif names == "next" and self.next_redemption not in self.named_before["reversal"]:
            name = self.next_redemption
            self.named_before["reversal"].add(name)
        elif names == "never":
            name = "R-that-never-comes"
        elif self.unreversed:
            name = self.unreversed.pop(which % len(self.unreversed))
        else:
            return
        self.take("reversal", "V", redemption_external_id=name, **fields)
        if name is not None:
            self.met_at_home(name)

    @rule(
        who=st.sampled_from(PEOPLE),
        value=st.sampled_from([*VALUES, None]),
        meanwhile=st.integers(0, 8),
        then=st.sampled_from(["", "S", "V", "V", "SV", "VS", "ST", "T", "TV"]),
    )
    def checkout(self, who: Customer, value: dict[str, Any] | None, meanwhile: int, then: str) -> None:
        """A redemption and what follows from it, with some time for the forwarder in between."""
        name = f"R-{self.made['R']}"
        self.redeem(who, value, 0, for_a_sale="S" in then)
        for each in then:
            self.forward(meanwhile, meanwhile)
            if each == "S" and name in self.unsold:
                self.sell(who, "one", self.unsold.index(name), None, net=True)
            if each == "V" and name in self.unreversed:
                self.reverse(self.unreversed.index(name), "one")
            if each == "T":
                self.give_back(int(name[2:]), Decimal(1))

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
        assert self.shop is not None
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

    @rule(which=st.integers(0, 5), amount=st.sampled_from([Decimal(1), Decimal(4)]))
    def give_back(self, which: int, amount: Decimal) -> None:
        assert self.shop is not None
        redemptions = [name for name in self.shop.documents if name.startswith("R-")]
        names: dict[str, Any] = {}
        if redemptions:
            names["redemption_external_id"] = redemptions[which % len(redemptions)]
        elif self.online:
            names["redemption_id"] = self.online[which % len(self.online)][0]
        else:
            return
        of_a_benefit = self.shop.documents.get(str(names.get("redemption_external_id")), {}).get("benefit_id")
        worth: dict[str, Any] = {"count": 1} if of_a_benefit else {"amount": amount}
        self.take("return", "T", issued_at=self.at(0), **names, **worth)

    @rule(clock_s=st.sampled_from([0, 0, 300, -300, 3600]), amount=st.sampled_from([3, 20]))
    def redeem_online(self, clock_s: float, amount: int) -> None:
        """
        Clienteling, or a till that still has its line: not through us.

        Where Omneo shows no references, nobody could tell it from one of ours whose answer was lost.
        """
        if self.shows and self.redeem_at_omneo(WEI, amount):
            self.online.append((max(self.world.line.omneo.redemptions), self.at(clock_s)))

    def redeem_at_omneo(self, who: str, amount: int, **more: Any) -> bool:
        body = encode({"amount": amount, "strategies": ["rewards"], **more})
        return self.world.line.ask("POST", f"/api/v3/profiles/{who}/redeem", body).status == 201

    @property
    def next_redemption(self) -> str:
        return f"R-{self.made['R']}"

    def met_at_home(self, name: str) -> None:
        """A redemption and its reversal are both here, and not one byte of it has left: it never may."""
        assert self.shop is not None
        reversals = [
            each
            for each, content in self.shop.documents.items()
            if content["kind"] == "reversal" and content.get("redemption_external_id") == name
        ]
        both = [name, *reversals] if name in self.shop.documents else []
        if len(both) > 1 and not self.shop.attempted(name) and all(map(self.shop.waits, both)):
            self.watch.never.add(name)

    # ── The forwarder ──

    @rule(times=st.integers(1, 12), dice=st.integers(0, 7))
    def forward(self, times: int, dice: int) -> None:
        assert self.shop is not None
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
        assert self.shop is not None
        self.shop.pause()

    @rule()
    def restart(self) -> None:
        assert self.shop is not None
        self.shop.restart()

    @rule(kind=st.sampled_from(["released", "released", "abandoned"]), which=st.integers(0, 3))
    def a_person_decides(self, kind: str, which: int) -> None:
        assert self.shop is not None
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
        if self.shop is None:
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


TestRedemptions = Machine.TestCase
TestRedemptions.settings = profile(EXAMPLES, print_blob=True)
