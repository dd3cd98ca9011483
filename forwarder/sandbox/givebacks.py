"""Taking a redemption back: a reversal undoes it within ten minutes, a return gives its worth back as something new."""

from datetime import timedelta
from decimal import Decimal

from forwarder.sandbox import profiles
from forwarder.sandbox.redemptions import GUIDE_REFERENCES, Take, count_of, positive, record
from forwarder.sandbox.state import REVERSAL_WINDOW, Row, Tenant, invalid, stamp

RETURN_LIFE = timedelta(days=365)


def reverse(tenant: Tenant, original: Row, body: Row) -> Row:
    """`POST /redemptions/{id}/reversal`: all of it, once, by the server's own clock from created_at.

    What happens outside the window, twice or after a sale is undocumented: 422 is the strictest reading.
    """
    if original["type"] != "redeem":
        raise _no(f"A {original['type']} cannot be reversed.")
    done = tenant.undone.get(original["id"], [])
    if any(each["type"] == "reversal" for each in done):
        raise _no("The redemption has already been reversed.")
    if done:
        raise _no("The redemption has already been returned.")
    if original["transaction_id"] is not None:
        raise _no("The redemption is linked to a transaction.")
    if tenant.now() - tenant.moments[original["id"]] > REVERSAL_WINDOW:
        raise _no("The redemption was created more than 10 minutes ago.")
    for item in original["items"]:
        _restore(tenant, original["profile_id"], item)
    takes = [
        Take(item["type"], item["value"], item["type_attributes"] or None, item["count"]) for item in original["items"]
    ]
    return record(tenant, "reversal", original["profile_id"], takes, _kept(original, body), source=original)


def give_back(tenant: Tenant, original: Row, body: Row) -> Row:
    """`POST /redemptions/{id}/return`: no amount is all that is left (the SDK posts no body), never more than that.

    "A refund creates a new incentive object": a reward (pos-integration-guide).
    """
    _returnable(tenant, original)
    left = original["total"] - sum((each["total"] for each in tenant.undone.get(original["id"], [])), Decimal(0))
    amount = left if body.get("amount") is None else positive(body, "amount")
    if amount <= 0 or amount > left:
        raise invalid({"amount": [f"No more than {max(left, Decimal(0))} of this redemption can be returned."]})
    spec = {"value": amount, "name": "Return", "expires_at": stamp(tenant.now() + RETURN_LIFE)}
    reward = profiles.issue(tenant, "reward", spec)
    tenant.wallets[original["profile_id"]].rewards.append(reward)
    kept = _kept(original, body)
    return record(tenant, "return", original["profile_id"], [Take("reward", amount, reward)], kept, source=original)


def give_back_benefit(tenant: Tenant, original: Row, body: Row) -> Row:
    """`POST /redemptions/{id}/benefit/return`: `count` times (default 1), as a new benefit of its definition."""
    _returnable(tenant, original)
    used = [item for item in original["items"] if item["type"] == "benefit"]
    if not used:
        raise _no("The redemption holds no benefit.")
    back = tenant.undone.get(original["id"], [])
    left = sum(item["count"] for item in used) - sum(item["count"] or 0 for row in back for item in row["items"])
    count = count_of(body, "count")
    if count > left:
        raise invalid({"count": [f"No more than {left} of this redemption can be returned."]})
    spec = {"handle": used[0]["type_attributes"]["definition"]["handle"], "max_redemptions": count}
    benefit = profiles.grant(tenant, original["profile_id"], spec)
    takes = [Take("benefit", Decimal(0), benefit, count)]
    return record(tenant, "return", original["profile_id"], takes, _kept(original, body), source=original)


def _returnable(tenant: Tenant, original: Row) -> None:
    if original["type"] != "redeem":
        raise _no(f"A {original['type']} cannot be returned.")
    if any(each["type"] == "reversal" for each in tenant.undone.get(original["id"], [])):
        raise _no("The redemption has been reversed.")


def _kept(original: Row, body: Row) -> Row:
    """A reversal takes no body by the reference; what is posted all the same (meta, external ids) is kept."""
    sale = {name: original[name] for name in ("transaction_external_id", "transaction_receipt_ref")}
    return sale | {name: body[name] for name in GUIDE_REFERENCES if body.get(name) is not None}


def _restore(tenant: Tenant, profile_id: str, item: Row) -> None:
    wallet = tenant.wallets[profile_id]
    if item["type"] == "point":
        wallet.points += item["value"] * profiles.POINTS_A_DOLLAR
        return
    purse, name = {
        "reward": (wallet.rewards, "value_remaining"),
        "credit": (wallet.credits, "value_remaining"),
        "benefit": (wallet.benefits, "redemptions_remaining"),
    }[item["type"]]
    for source in purse:
        if source["id"] == item["type_attributes"]["id"]:
            source[name] += item["value"] if item["count"] is None else item["count"]


def _no(text: str) -> Exception:
    return invalid({"redemption": [text]})
