"""Spending: rewards, points, credits and benefits really go down, and a row says so."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from forwarder.sandbox import profiles
from forwarder.sandbox.state import Row, Tenant, invalid, missing

# omneo-sdk src/types/profiles/redeem.ts: the order given is the order of consumption.
STRATEGIES = ("rewards", "points", "credits", "benefits")
DEFAULT_STRATEGIES = ("rewards", "points")
# What both spellings of the route keep; only the guides' takes a reference and a time of its own.
REFERENCES = ("meta", "transaction_external_id", "transaction_receipt_ref", "location_id")
GUIDE_REFERENCES = (*REFERENCES, "external_id", "issued_at", "timezone")
GUIDE_BENEFIT_REFERENCES = ("external_id", "issued_at", "timezone")

FILTERS = frozenset(
    [
        "id",
        "type",
        "location_id",
        "meta",
        "external_id",
        "redeem_at",
        "has_benefit",
        "has_reward",
        "has_point",
        "has_credit",
        "profile_id",
        "transaction_id",
        "transaction_external_id",
        "transaction_receipt_ref",
        "created_at",
        "updated_at",
        "linked_source_id",
        "linked_source_type",
    ]
)


@dataclass(frozen=True, slots=True)
class Take:
    """A part of a redemption: so much of this reward, credit or benefit, or of the points (no source)."""

    what: str
    value: Decimal
    source: Row | None = None
    count: int | None = None


def find(tenant: Tenant, redemption_id: int) -> Row:
    row = tenant.redemptions.get(redemption_id)
    if row is None:
        raise missing("Redemption", redemption_id)
    return row


def redeem(tenant: Tenant, profile_id: str, body: Row, kept: tuple[str, ...]) -> Row:
    """`POST /profiles/{id}/redeem`: as much of `amount` as there is (v1 filled in part too), unless `strict`."""
    profiles.find(tenant, profile_id)
    strategies = _strategies(body)
    takes = _wanted_benefits(tenant, profile_id, body) if "benefits" in strategies else []
    if not takes or body.get("amount") is not None:
        amount = positive(body, "amount")
        money = _plan(tenant, profile_id, strategies, amount)
        found = sum((take.value for take in money), Decimal(0))
        if found <= 0 or (found < amount and body.get("strict") is True):
            raise invalid({"amount": ["The balance is not sufficient to redeem this amount."]})
        takes += money
    return _spend(tenant, profile_id, takes, {name: body[name] for name in kept if body.get(name) is not None})


def redeem_benefit(tenant: Tenant, profile_id: str, benefit_id: int, body: Row, kept: tuple[str, ...]) -> Row:
    """A benefit, `count` times. The reference route keeps nothing else: two of one benefit look alike afterwards."""
    benefit = profiles.find_benefit(tenant, profile_id, benefit_id)
    take = _benefit_take(tenant, benefit, count_of(body, "count"))
    return _spend(tenant, profile_id, [take], {name: body[name] for name in kept if body.get(name) is not None})


def redeem_credit(tenant: Tenant, profile_id: str, credit_id: int, body: Row) -> Row:
    """`POST /profiles/{id}/credits/{cid}/redeem` (omneo-sdk, redeem-profile-credit.test.ts): this one credit."""
    profiles.find(tenant, profile_id)
    held = [each for each in tenant.wallets[profile_id].credits if each["id"] == credit_id]
    if not held:
        raise missing("Credit", credit_id)
    amount = positive(body, "amount")
    if held[0]["expires_at"] <= tenant.stamp() or held[0]["value_remaining"] < amount:
        raise invalid({"amount": ["The credit is not sufficient to redeem this amount."]})
    take = Take("credit", amount, held[0])
    return _spend(tenant, profile_id, [take], {name: body[name] for name in REFERENCES if body.get(name) is not None})


def present(tenant: Tenant, row: Row) -> Row:
    """A stored redemption (readme: reference/redemptions-1; omneo-sdk src/types/redemption.ts)."""
    sale = tenant.transactions.get(row["transaction_id"]) if row["transaction_id"] is not None else None
    return row | {
        "total": tenant.number(row["total"]),
        "total_localised": tenant.number(row["total_localised"]),
        "profile": profiles.summary(tenant, row["profile_id"]),
        "transaction": sale
        and {key: sale[key] for key in ("id", "external_id", "receipt_ref", "transacted_at", "total")},
    }


def successful(tenant: Tenant, row: Row) -> Row:
    """SuccessfulRedemption: the row and what the customer has left (api-reference/return-strategy)."""
    return present(tenant, row) | {"balances": profiles.balances(tenant, row["profile_id"])}


def record(
    tenant: Tenant, kind: str, profile_id: str, takes: list[Take], kept: Row, *, source: Row | None = None
) -> Row:
    """One row, whatever its type; `linked_source_id` is the redemption that a reversal or return is of."""
    now = tenant.now()
    total = sum((take.value for take in takes), Decimal(0))
    row = {
        "id": tenant.next_id("redemption"),
        "profile_id": profile_id,
        "type": kind,
        "total": total,
        "total_localised": total,
        "meta": None,
        "location_id": None,
        "location": None,
        "external_id": None,
        "transaction_id": None,
        "transaction_external_id": None,
        "transaction_receipt_ref": None,
        "items": [_item(tenant, take) for take in takes],
        "linked_source_id": None if source is None else source["id"],
        "linked_source_type": None if source is None else "redemption",
        "redeem_at": tenant.stamp(),
        "created_at": tenant.stamp(),
        "updated_at": tenant.stamp(),
        "currency": None,
        **{
            f"has_{what}": any(take.what == what for take in takes) for what in ("reward", "point", "credit", "benefit")
        },
        **kept,
    }
    tenant.redemptions[row["id"]] = row
    tenant.moments[row["id"]] = now
    tenant.counts[f"redemptions_{kind}"] += 1
    if source is not None:
        tenant.undone.setdefault(source["id"], []).append(row)
    return row


def positive(body: Row, name: str) -> Decimal:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or value <= 0:
        raise invalid({name: [f"The {name} must be greater than 0."]})
    return Decimal(value)


def count_of(body: Row, name: str) -> int:
    value = body.get(name)
    if value is None:
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise invalid({name: [f"The {name} must be at least 1."]})
    return value


def _strategies(body: Row) -> tuple[str, ...]:
    """`strategies`, or one of the older spellings: `strategy` as a list (omneo-php) or joined by `_` (v1)."""
    given: Any = body.get("strategies")
    if given is None:
        given = body.get("strategy")
    if given is None:
        return DEFAULT_STRATEGIES
    names = tuple(given.split("_")) if isinstance(given, str) else tuple(given) if isinstance(given, list) else ()
    if not names or any(name not in STRATEGIES for name in names):
        raise invalid({"strategies": ["The selected strategies is invalid."]})
    return names


def _plan(tenant: Tenant, profile_id: str, strategies: tuple[str, ...], amount: Decimal) -> list[Take]:
    """What would be taken from where, nothing touched yet."""
    wallet, now, takes, left = tenant.wallets[profile_id], tenant.stamp(), [], amount
    for strategy in dict.fromkeys(strategies):
        if strategy == "points":
            part = min(left, wallet.points / profiles.POINTS_A_DOLLAR)
            takes.append(Take("point", part))
            left -= part
            continue
        purse = {"rewards": wallet.rewards, "credits": wallet.credits}.get(strategy, [])
        for source in profiles.unexpired(purse, now):
            part = min(left, source["value_remaining"])
            takes.append(Take(strategy.removesuffix("s"), part, source))
            left -= part
    return [take for take in takes if take.value > 0]


def _wanted_benefits(tenant: Tenant, profile_id: str, body: Row) -> list[Take]:
    """`benefits: [{id, handle, quantity}]`: the one way to redeem a benefit that carries a reference."""
    takes = []
    for each in body.get("benefits") or []:
        if not isinstance(each, dict):
            raise invalid({"benefits": ["The benefits field must be an array of objects."]})
        held = tenant.wallets[profile_id].benefits
        fits = [one for one in held if each.get("id") == one["id"] or each.get("handle") == one["definition"]["handle"]]
        if not fits:
            raise invalid({"benefits": ["The selected benefits is invalid."]})
        takes.append(_benefit_take(tenant, fits[0], count_of(each, "quantity")))
    return takes


def _benefit_take(tenant: Tenant, benefit: Row, count: int) -> Take:
    """A benefit that expired while its redemption lay in a queue is refused all the same (omneo-sdk, benefits test)."""
    if benefit["expires_at"] <= tenant.stamp():
        raise invalid({"benefit": ["The benefit has expired."]})
    if benefit["redemptions_remaining"] < count:
        raise invalid({"benefit": ["The benefit has no redemptions remaining."]})
    return Take("benefit", Decimal(0), benefit, count)


def _spend(tenant: Tenant, profile_id: str, takes: list[Take], kept: Row) -> Row:
    for take in takes:
        if take.what == "point":
            tenant.wallets[profile_id].points -= take.value * profiles.POINTS_A_DOLLAR
        elif take.source is not None and take.count is not None:
            take.source["redemptions_remaining"] -= take.count
        elif take.source is not None:
            take.source["value_remaining"] -= take.value
    return record(tenant, "redeem", profile_id, takes, kept)


def _item(tenant: Tenant, take: Take) -> Row:
    return {
        "id": tenant.next_id("redemption_item"),
        "type": take.what,
        "value": take.value,
        "count": take.count,
        "type_attributes": dict(take.source) if take.source is not None else {},
    }
