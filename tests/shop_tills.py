"""The tills of the redemption machine, and what customers do elsewhere: every kind of document, in every order."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from shop_model import ModelShop
from shop_oracles import Watch
from shop_world import World
from standin import encode

from forwarder.sandbox.customers import JANE, OMAR, WEI

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
LINES = [
    {"name": "Coat", "quantity": 1, "price_sell": Decimal(70), "price_original": Decimal(80)},
    {"name": "Socks", "quantity": 2, "price_sell": Decimal(15)},
]


def customer(who: Customer | None) -> dict[str, Any]:
    if who is None:
        return {}
    value, handle = who
    return {"profile_id": value} | ({"profile_id_handle": handle} if handle else {})


class Tills(RuleBasedStateMachine):
    """What happens in the shop. The machine proper adds the forwarder, the line and the clocks."""

    shop: ModelShop
    world: World
    watch: Watch
    shows: bool  # does Omneo give references back?
    omneo_steps: bool  # may its clock be set?

    def open_for_business(self) -> None:
        self.made = {"S": 0, "R": 0, "V": 0, "T": 0}
        self.unreversed: list[str] = []  # redemptions of the till that no reversal names yet
        self.unsold: list[str] = []  # … and no sale
        self.named_before: dict[str, set[str]] = {"sale": set(), "reversal": set()}  # … that have not come yet
        self.online: list[tuple[int, str]] = []

    def forward(self, times: int, dice: int) -> None:
        raise NotImplementedError

    def name(self, letter: str) -> str:
        self.made[letter] += 1
        return f"{letter}-{self.made[letter] - 1}"

    def at(self, clock_s: float) -> str:
        return (self.world.truly() + timedelta(seconds=clock_s)).strftime("%Y-%m-%d %H:%M:%S")

    def take(self, kind: str, letter: str, **fields: Any) -> str:
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

    @rule(which=st.integers(0, 5), amount=st.sampled_from([Decimal(1), Decimal(4)]))
    def give_back(self, which: int, amount: Decimal) -> None:
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
        reversals = [
            each
            for each, content in self.shop.documents.items()
            if content["kind"] == "reversal" and content.get("redemption_external_id") == name
        ]
        both = [name, *reversals] if name in self.shop.documents else []
        if len(both) > 1 and not self.shop.attempted(name) and all(map(self.shop.waits, both)):
            self.watch.never.add(name)
