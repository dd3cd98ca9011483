"""
What no client can do and time does: a row that is lost, comes twice or says something else, a balance that is wrong.

Nothing else follows from it, nobody is told, and `updated_at` stays: a reconciliation has to find it by itself.
"""

from decimal import Decimal
from typing import Any

from forwarder.sandbox.state import Refusal, Row, Tenant, Wallet, missing


def plant(tenant: Tenant, spec: Row) -> Row:
    """`{"what": "transaction" | "redemption", "id": N, "do": "lose" | "double" | "change", "fields": {…}}`."""
    what, fields = spec.get("what"), spec.get("fields") or {}
    match what, spec.get("do", "change"):
        case "transaction" | "redemption", "lose":
            return _lose(tenant, str(what), _row(tenant, str(what), spec.get("id")))
        case "transaction" | "redemption", "double":
            return _double(tenant, str(what), _row(tenant, str(what), spec.get("id")), fields)
        case "transaction" | "redemption" | "benefit", "change":
            row = _row(tenant, str(what), spec.get("id"))
            row.update(fields)
            return row
        case "balance", "change":
            wallet = tenant.wallets.get(str(spec.get("id")))
            if wallet is None:
                raise missing("Profile", spec.get("id"))
            _weigh(wallet, fields)
            return {"id": spec.get("id")} | fields
    raise Refusal(422, "Not something that can be planted.")


def _weigh(wallet: Wallet, fields: Row) -> None:
    """`{"points": …}`, `{"rewards": …}`: that much is left; of rewards, the first makes up the sum."""
    if not fields or not fields.keys() <= {"points", "rewards"} or ("rewards" in fields and not wallet.rewards):
        raise Refusal(422, "Not a balance that can be planted.")
    if "points" in fields:
        wallet.points = Decimal(str(fields["points"]))
    if "rewards" in fields:
        first, *others = wallet.rewards
        others_left = sum((each["value_remaining"] for each in others), Decimal(0))
        first["value_remaining"] = Decimal(str(fields["rewards"])) - others_left


def _row(tenant: Tenant, what: str, number: Any) -> Row:
    rows = {
        "transaction": tenant.transactions,
        "redemption": tenant.redemptions,
        "benefit": {each["id"]: each for wallet in tenant.wallets.values() for each in wallet.benefits},
    }[what]
    if number not in rows:
        raise missing(what.title(), number)
    return rows[number]


def _lose(tenant: Tenant, what: str, row: Row) -> Row:
    """What the row did to balances stays done."""
    if what == "transaction":
        tenant.by_external[str(row["external_id"])].remove(row["id"])
        del tenant.transactions[row["id"]], tenant.posted[row["id"]]
    else:
        del tenant.redemptions[row["id"]], tenant.moments[row["id"]]
        if row["linked_source_id"] is not None:
            tenant.undone[row["linked_source_id"]].remove(row)
    return row


def _double(tenant: Tenant, what: str, row: Row, fields: Row) -> Row:
    copy = row | {"id": tenant.next_id(what)} | fields
    if what == "transaction":
        tenant.transactions[copy["id"]], tenant.posted[copy["id"]] = copy, tenant.posted[row["id"]]
        tenant.by_external.setdefault(str(copy["external_id"]), []).append(copy["id"])
    else:
        copy["transaction_id"] = None
        tenant.redemptions[copy["id"]], tenant.moments[copy["id"]] = copy, tenant.moments[row["id"]]
        if row["linked_source_id"] is not None:
            tenant.undone[row["linked_source_id"]].append(copy)
    return copy
