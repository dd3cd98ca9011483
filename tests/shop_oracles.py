"""
What must never be found, judged by Omneo's own state and by both books alone.

`Watch` looks at each request as it arrives at Omneo; `judge` looks at what it all came to, once everything is well.
"""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from shop_model import SETTLED, ModelShop
from shop_world import WINDOW_S, World

from forwarder.sandbox.state import Row, Tenant, reference
from journal.document import local_time
from journal.verify import verify

SECOND_S = 1.0  # Omneo writes whole seconds


class Watch:
    """Looks at every request that has an effect, the moment before it has it."""

    def __init__(self, world: World) -> None:
        self.omneo = world.line.omneo
        self.never: set[str] = set()  # redemptions that met their reversal at home, untried

    def __call__(self, method: str, path: str, body: Row) -> None:
        if method != "POST":
            return
        if path.endswith("/reversal"):
            made = self.omneo.moments[int(path.split("/")[2])]
            age_s = (self.omneo.now() - made).total_seconds()
            assert age_s <= WINDOW_S, f"a reversal came {age_s:.1f} s after Omneo made its redemption"
        elif path == "/transactions/update-create" and body.get("redemption_id") is not None:
            undone = self.omneo.undone.get(int(body["redemption_id"]), [])
            reversed_ = [row for row in undone if row["type"] == "reversal"]
            assert not reversed_, f"{body['external_id']} is linked to a redemption that was reversed"
        elif path.startswith("/profiles/") and path.endswith(("/redeem", "/redemptions")):
            assert reference(body) not in self.never, f"{reference(body)} left, though its reversal had met it here"


def of(omneo: Tenant, name: str, *types: str) -> list[Row]:
    """Rows that carry a document's reference."""
    return [row for row in omneo.redemptions.values() if row["type"] in types and reference(row) == name]


def spent_once(shop: ModelShop, omneo: Tenant) -> None:
    """At any time: nothing is spent twice, nor given back twice; no sale is there twice."""
    seen: set[tuple[bool, str]] = set()
    for row in omneo.redemptions.values():
        name = reference(row)
        if name is not None:
            assert (row["type"] == "redeem", name) not in seen, f"twice at Omneo: {row['type']} {name}"
            seen.add((row["type"] == "redeem", name))
    assert len({row["external_id"] for row in omneo.transactions.values()}) == len(omneo.transactions)
    assert omneo.counts["transactions_updated"] == 0, "a sale was sent again without a look-up"
    unnamed = [row for row in omneo.redemptions.values() if row["type"] == "redeem" and row["has_benefit"]]
    unnamed = [row for row in unnamed if reference(row) is None]
    if unnamed:
        tried = [name for name in shop.documents if shop.documents[name].get("benefit_id") and shop.attempted(name)]
        for benefit in {row["items"][0]["type_attributes"]["id"] for row in unnamed}:
            used = [row for row in unnamed if row["items"][0]["type_attributes"]["id"] == benefit]
            asked = [name for name in tried if shop.documents[name]["benefit_id"] == benefit]
            assert len(used) <= len(asked), f"benefit {benefit} was used {len(used)} times for {asked}"


class Judge:
    """The end of an example: all is well again, and nothing is left to do."""

    def __init__(self, shop: ModelShop, world: World) -> None:
        self.shop, self.omneo, self.made = shop, world.line.omneo, world.line.made
        self.documents = shop.documents
        self.states = shop.states()
        self.facts: dict[str, dict[str, Any]] = {}
        self.flags: dict[str, set[str]] = {name: set() for name in shop.documents}
        self.kinds: dict[str, list[str]] = {name: [] for name in shop.documents}
        names = {seq: name for name, seq in shop.seqs.items()}
        for _, kind, about, facts in shop.entries():
            name = names[about]
            self.kinds[name].append(kind)
            if kind in SETTLED:
                self.facts[name] = json.loads(facts)
            if kind == "flag":
                self.flags[name].add(json.loads(facts)["flag"])

    def all(self) -> None:
        found = verify(self.shop.db, self.shop.delivery)
        assert found["problems"] == []
        spent_once(self.shop, self.omneo)
        for name, content in self.documents.items():
            state = self.states[name]
            assert state in SETTLED, f"{name} is {state} for good"
            assert state != "held" or self.facts[name].get("reason"), f"{name} is held without a reason"
            getattr(self, content["kind"].replace("return", "give_back"))(name, content, state)
        self.order()

    # ── Each kind ──

    def redemption(self, name: str, content: dict[str, Any], state: str) -> None:
        rows = of(self.omneo, name, "redeem")
        if state in {"cancelled", "refused"}:
            assert not rows, f"value spent for {name}, which is {state}"
        assert state != "refused" or "redemption_refused" in self.flags[name]
        if state != "delivered":
            return
        row = self.omneo.redemptions.get(self.facts[name]["omneo_id"])
        assert row is not None, f"{name} is delivered, but Omneo never made it"
        assert row["type"] == "redeem"
        shows = any((reference(each) or "").startswith("theirs") for each in self.omneo.redemptions.values())
        could_be = reference(row) is None and (content.get("benefit_id") or not shows)
        assert reference(row) == name or could_be, f"{name} took somebody else's redemption for its own"
        late_s = (created(row) - local_time(content["issued_at"], content["timezone"])).total_seconds()
        if late_s > WINDOW_S + SECOND_S:
            assert "reversal_window_exceeded" in self.flags[name], f"{name} came {late_s} s late without its flag"
        if content.get("amount") is not None and row["total"] < content["amount"]:
            assert "redemption_short" in self.flags[name]

    def reversal(self, name: str, content: dict[str, Any], state: str) -> None:
        of_whom = self.redemption_of(content)
        if state == "delivered":
            row = self.omneo.redemptions[self.facts[name]["omneo_id"]]
            assert row["linked_source_id"] == of_whom
            assert row["type"] in {"reversal", "return"}
            assert row["type"] == "reversal" or "reversal_too_late" in self.flags[name]
        elif state == "cancelled":
            other = content["redemption_external_id"]
            assert self.states[other] in {"cancelled", "refused", "abandoned", "held"}
            assert self.states[other] == "abandoned" or not of(self.omneo, other, "redeem"), (
                f"{name} was dropped, but {other} is spent"
            )
        elif state in {"held", "refused"}:
            told = {"reversal_too_late", "redemption_missing", "doubtful", "poison"} & self.flags[name]
            assert told or "until" in self.facts[name], f"{name} was lost without a word: {self.facts[name]}"
            row_made = of(self.omneo, name, "reversal", "return")
            assert state == "held" or not row_made, f"{name} is refused, but Omneo did it"

    def give_back(self, name: str, content: dict[str, Any], state: str) -> None:
        if state == "delivered":
            row = self.omneo.redemptions[self.facts[name]["omneo_id"]]
            assert row["type"] == "return"
            assert row["linked_source_id"] == self.redemption_of(content)
        elif state == "refused":
            assert not of(self.omneo, name, "return"), f"{name} is refused, but Omneo did it"

    def sale(self, name: str, content: dict[str, Any], state: str) -> None:
        rows = [row for row in self.omneo.transactions.values() if row["external_id"] == name]
        if state == "delivered":
            assert rows, f"{name} is delivered, but Omneo never got it"
            assert rows[0]["id"] == self.facts[name]["omneo_id"]
            linked = rows[0]["redemption_id"]
            if content.get("redemption_external_id") is not None and linked is None:
                assert "redemption_missing" in self.flags[name], f"{name} lost its redemption without a flag"
            elif linked is not None:
                assert linked == self.redemption_of(content), f"{name} is linked to another redemption"
                if content.get("apply_redemption") == "proportional":
                    self.net(content, rows[0], self.omneo.redemptions[linked])
        elif state in {"refused", "cancelled"}:
            assert not rows, f"{name} is {state}, but Omneo has it"
            assert "sale_refused" in self.flags[name]

    def net(self, content: dict[str, Any], row: Row, redemption: Row) -> None:
        paid, gross = (
            sum(Decimal(line["price_sell"]) * line["quantity"] for line in each["items"]) for each in (row, content)
        )
        assert abs(gross - paid - min(gross, redemption["total"])) < Decimal("0.0001"), (
            f"{gross} − {redemption['total']} is {paid}"
        )

    def redemption_of(self, content: dict[str, Any]) -> int | None:
        """Omneo's id of the redemption that a document names."""
        if content.get("redemption_id") is not None:
            return int(content["redemption_id"])
        other = content.get("redemption_external_id")
        return self.facts[other]["omneo_id"] if self.states.get(other) == "delivered" else None

    # ── The order ──

    def order(self) -> None:
        """What two documents have in common they share in order: the whole line (strict), or a lane."""
        place = self.places()
        named_early = self.named_early()
        names = [name for name in self.documents if name in place]
        for i, first in enumerate(names):
            if {"held", "released"} & set(self.kinds[first]):
                continue
            for second in names[i + 1 :]:
                if second in named_early or {"held", "released"} & set(self.kinds[second]):
                    continue
                if not self.shop.lanes or lanes_of(self.documents[first]) & lanes_of(self.documents[second]):
                    assert place[first] < place[second], f"{second} was at Omneo before {first}"

    def places(self) -> dict[str, int]:
        """When each document's own effect came to be at Omneo."""
        owner = {("transaction", row["id"]): row["external_id"] for row in self.omneo.transactions.values()}
        for name, facts in self.facts.items():
            if self.states[name] == "delivered" and self.documents[name]["kind"] != "sale":
                owner["redemption", facts["omneo_id"]] = name
        found = {owner[each]: place for place, each in enumerate(self.made) if each in owner}
        return {name: place for name, place in found.items() if name in self.documents}

    def named_early(self) -> set[str]:
        """Redemptions that something names which stands earlier: they go before it."""
        seen: set[str] = set()
        for content in self.documents.values():
            if content.get("redemption_external_id") is not None:
                seen.add(content["redemption_external_id"])
        order = {name: i for i, name in enumerate(self.documents)}
        early = set()
        for name, content in self.documents.items():
            other = content.get("redemption_external_id")
            if other in order and order[other] > order[name]:
                early.add(other)
        return early & seen


def lanes_of(content: dict[str, Any]) -> set[tuple[Any, ...]]:
    """What keeps documents in order under `customer` (contract, section 5)."""
    found: set[tuple[Any, ...]] = set()
    if content.get("profile_id") is not None:
        found.add(("customer", content["profile_id"], content.get("profile_id_handle")))
    found |= {("receipt", content[each]) for each in ("receipt_ref", "linked_receipt_ref") if content.get(each)}
    named = content["external_id"] if content["kind"] == "redemption" else content.get("redemption_external_id")
    if named is not None:
        found.add(("redemption", named))
    if content.get("redemption_id") is not None:
        found.add(("online", content["redemption_id"]))
    return found


def created(row: Row) -> datetime:
    return datetime.fromisoformat(row["created_at"]).replace(tzinfo=UTC)
