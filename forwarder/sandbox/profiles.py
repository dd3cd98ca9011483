"""Customers: who they are, what they can spend, and what becomes of two that turn out to be one."""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from forwarder.sandbox.state import Row, Tenant, Wallet, invalid, missing, stamp

POINTS_A_DOLLAR = 100
REWARD_LIFE = timedelta(days=90)
UUID_HANDLES = ("", "id", "profile_id")


def find(tenant: Tenant, profile_id: str) -> Row:
    """By Omneo's own id; a profile that was merged away is gone under its old one."""
    profile = tenant.profiles.get(profile_id)
    if profile is None:
        raise missing("Profile", profile_id)
    return profile


def resolve(tenant: Tenant, value: object, handle: object) -> Row | None:
    """`profile_id_handle`: none is the uuid, `email` an e-mail, any other an identity (api-reference/transaction)."""
    text = str(value)
    if handle is None or handle in UUID_HANDLES:
        return tenant.profiles.get(text)
    if handle == "email":
        owner = tenant.emails.get(text.lower())
    else:
        identity = tenant.identities.get((str(handle), text))
        owner = None if identity is None else identity["profile_id"]
    return None if owner is None else tenant.profiles[owner]


def by_identifier(tenant: Tenant, identifier: str) -> Row:
    """`GET /identities/search-profile/{identifier}` (omneo-sdk): any handle will do."""
    for (_, held), identity in tenant.identities.items():
        if held == identifier:
            return tenant.profiles[identity["profile_id"]]
    raise missing("Identity", identifier)


def search(tenant: Tenant, text: str) -> list[Row]:
    """`GET /profiles?search=`: part of an e-mail or a name (pos-integration-guide)."""
    needle = text.lower()
    owner = tenant.emails.get(needle)
    return [
        row
        for row in tenant.profiles.values()
        if row["id"] == owner or needle in row["email"].lower() or needle in row["full_name"].lower()
    ]


def present(tenant: Tenant, row: Row) -> Row:
    held = [identity for identity in tenant.identities.values() if identity["profile_id"] == row["id"]]
    return row | {"identities": held}


def summary(tenant: Tenant, profile_id: str | None) -> Row | None:
    row = None if profile_id is None else tenant.profiles.get(profile_id)
    return row and {key: row[key] for key in ("id", "first_name", "last_name", "full_name", "email")}


def balances(tenant: Tenant, profile_id: str) -> Row:
    """`GET /profiles/{id}/balances` (api-reference/profile-balance): combined is rewards and points, not credits."""
    wallet, now = tenant.wallets[profile_id], tenant.stamp()
    rewards = sum((each["value_remaining"] for each in unexpired(wallet.rewards, now)), Decimal(0))
    held = sum((each["value_remaining"] for each in unexpired(wallet.credits, now)), Decimal(0))
    dollars = wallet.points / POINTS_A_DOLLAR
    plain = {
        "reward_balance": tenant.number(rewards),
        "credit_balance": tenant.number(held),
        "point_balance": tenant.number(wallet.points),
        "point_balance_dollars": tenant.number(dollars),
        "benefit_balance": sum(1 for each in wallet.benefits if redeemable(each, now)),
        "combined_balance_dollars": tenant.number(rewards + dollars),
    }
    return plain | {"localised": dict(plain), "currency": {"id": 1, "from": "AUD", "to": "AUD", "rate": 1}}


def unexpired(rows: list[Row], now: str) -> list[Row]:
    """What can still be spent, nearest expiry first (concepts/incentives/rewards)."""
    return sorted(
        (each for each in rows if each["expires_at"] > now), key=lambda each: (each["expires_at"], each["id"])
    )


def redeemable(benefit: Row, now: str) -> bool:
    return bool(benefit["expires_at"] > now and benefit["redemptions_remaining"] > 0)


def present_benefit(tenant: Tenant, benefit: Row) -> Row:
    now = tenant.stamp()
    return benefit | {"is_expired": benefit["expires_at"] <= now, "is_redeemable": redeemable(benefit, now)}


def find_benefit(tenant: Tenant, profile_id: str, benefit_id: int) -> Row:
    find(tenant, profile_id)
    for benefit in tenant.wallets[profile_id].benefits:
        if benefit["id"] == benefit_id:
            return benefit
    raise missing("Benefit", benefit_id)


def create(tenant: Tenant, spec: Row) -> Row:
    """A customer with whatever the test asks for; every field of `spec` is optional."""
    profile_id = str(spec.get("id") or uuid4())
    email = str(spec.get("email") or f"{profile_id[:8]}@example.com")
    first, last = str(spec.get("first_name") or "Some"), str(spec.get("last_name") or "Customer")
    now = tenant.stamp()
    if profile_id in tenant.profiles or email.lower() in tenant.emails:
        raise invalid({"email": ["The profile exists already."]})
    tenant.profiles[profile_id] = {
        "id": profile_id,
        "first_name": first,
        "last_name": last,
        "full_name": f"{first} {last}",
        "email": email,
        "is_staff": bool(spec.get("staff")),
        "statuses": [],
        "tags": [],
        "created_at": now,
        "updated_at": now,
    }
    tenant.emails[email.lower()] = profile_id
    wallet = tenant.wallets[profile_id] = Wallet(points=Decimal(str(spec.get("points") or 0)))
    for identity in spec.get("identities") or []:
        identify(tenant, profile_id, str(identity["handle"]), str(identity["identifier"]))
    for name, purse in (("reward", wallet.rewards), ("credit", wallet.credits)):
        purse.extend(issue(tenant, name, each) for each in _each(spec.get(f"{name}s")))
    for benefit in spec.get("benefits") or []:
        grant(tenant, profile_id, benefit)
    return tenant.profiles[profile_id]


def _each(value: Any) -> list[Row]:
    """`25` and `[{"value": 25, "expires_at": …}]` are both ways to say it."""
    if value is None:
        return []
    return [
        each if isinstance(each, dict) else {"value": each} for each in (value if isinstance(value, list) else [value])
    ]


def identify(tenant: Tenant, profile_id: str, handle: str, identifier: str) -> Row:
    """Handle and identifier together are unique in the tenant; a second one is an error (guides, glossary)."""
    if (handle, identifier) in tenant.identities:
        raise invalid({"identifier": ["The identifier has already been taken."]})
    identity = {
        "id": tenant.next_id("identity"),
        "profile_id": profile_id,
        "handle": handle,
        "identifier": identifier,
        "is_primary": False,
        "is_active": True,
        "merged_from": None,
    }
    tenant.identities[handle, identifier] = identity
    return identity


def issue(tenant: Tenant, what: str, spec: Row) -> Row:
    """A reward or a credit, worth `value` until `expires_at` (default: ninety days from now)."""
    value = Decimal(str(spec["value"]))
    return {
        "id": tenant.next_id(what),
        "name": spec.get("name") or f"{what.title()} of {value}",
        "value_initial": value,
        "value_remaining": value,
        "issued_at": tenant.stamp(),
        "expires_at": spec.get("expires_at") or stamp(tenant.now() + REWARD_LIFE),
        "timezone": "Australia/Melbourne",
    }


def grant(tenant: Tenant, profile_id: str, spec: Row) -> Row:
    """A benefit, and a definition that all benefits of its handle share (dev-guides: working-with-benefits)."""
    handle = str(spec.get("handle") or "benefit")
    most = int(spec.get("max_redemptions") or 1)
    definition = tenant.definitions.get(handle)
    if definition is None:
        name = spec.get("name") or handle.replace("-", " ").title()
        definition = {"id": tenant.next_id("definition"), "handle": handle, "name": name, "max_redemptions": most}
        tenant.definitions[handle] = definition
    benefit = {
        "id": tenant.next_id("benefit"),
        "profile_id": profile_id,
        "benefit_definition_id": definition["id"],
        "definition": definition,
        "max_redemptions": most,
        "redemptions_remaining": most,
        "issued_at": tenant.stamp(),
        "expires_at": spec.get("expires_at") or stamp(tenant.now() + REWARD_LIFE),
        "timezone": "Australia/Melbourne",
    }
    tenant.wallets[profile_id].benefits.append(benefit)
    return benefit


def merge(tenant: Tenant, old: str, new: str) -> Row:
    """`profiles/merge`: the old id is gone, and what it had (identities, e-mail, money, sales) is the new one's."""
    gone, kept = find(tenant, old), find(tenant, new)
    if gone is kept:
        raise invalid({"to": ["A profile cannot be merged with itself."]})
    purse, other = tenant.wallets[new], tenant.wallets.pop(old)
    purse.points += other.points
    purse.rewards += other.rewards
    purse.credits += other.credits
    purse.benefits += [benefit | {"profile_id": new} for benefit in other.benefits]
    tenant.emails = {email: new if owner == old else owner for email, owner in tenant.emails.items()}
    for identity in tenant.identities.values():
        if identity["profile_id"] == old:
            identity.update(profile_id=new, merged_from=old)
    for row in [*tenant.transactions.values(), *tenant.redemptions.values()]:
        if row["profile_id"] == old:
            row["profile_id"] = new
    del tenant.profiles[old]
    tenant.merged[old] = new
    return kept
