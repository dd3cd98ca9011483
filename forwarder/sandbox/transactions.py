"""Sales as Omneo keeps them: create makes a row, update-create finds one first."""

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from forwarder.sandbox import profiles
from forwarder.sandbox.state import Row, Tenant, invalid, missing

# omneo-sdk src/types/transactions.ts, RequestCreateTransaction: these four, and these in each item.
REQUIRED = ("total", "transacted_at", "timezone", "items")
REQUIRED_IN_ITEM = ("name", "price_current", "price_sell", "quantity")
# "Omneo API bug cannot accept null" (omneo-sdk, transactions.updateCreate).
NEVER_NULL = ("is_void", "receipt_is_email")

# What an answer holds beside what was posted (omneo-sdk src/types/transaction.ts).
BLANK: Row = dict.fromkeys(
    [
        "external_id",
        "profile_id",
        "redemption_id",
        "location",
        "meta",
        "total",
        "total_original",
        "rounding",
        "margin",
        "receipt_ref",
        "linked_receipt_ref",
        "claimed_at",
        "receipt_email",
        "currency",
        "type",
        "status",
        "order_number",
        "order_id",
        "external_order_id",
        "need_action",
    ]
) | {"is_void": False, "receipt_is_email": False}
EMPTY = ("items", "payments", "systems", "tags", "custom_fields", "fees")

FILTERS = frozenset(
    [
        "id",
        "profile_id",
        "total",
        "rounding",
        "total_original",
        "margin",
        "external_id",
        "transacted_at",
        "timezone",
        "receipt_is_email",
        "receipt_ref",
        "linked_receipt_ref",
        "location_id",
        "systems",
        "systems.handle",
        "tags.handle",
        "type",
        "status",
        "order_number",
        "need_action",
        "redemption_id",
        "is_void",
        "created_at",
        "updated_at",
    ]
)


def find(tenant: Tenant, transaction_id: int) -> Row:
    row = tenant.transactions.get(transaction_id)
    if row is None:
        raise missing("Transaction", transaction_id)
    return row


def find_external(tenant: Tenant, external_id: str) -> Row:
    """The oldest row of that external id: plain creates can have made several."""
    ids = tenant.by_external.get(external_id)
    if not ids:
        raise missing("Transaction", external_id)
    return tenant.transactions[ids[0]]


def create(tenant: Tenant, body: Row, *, whole_items: bool = True) -> Row:
    """`POST /transactions`: always a new row. Nothing in Omneo's docs says that an external id is unique here."""
    _check(tenant, body, None, REQUIRED, whole_items=whole_items)
    transaction_id = tenant.next_id("transaction")
    now = tenant.stamp()
    row = BLANK | {name: [] for name in EMPTY} | {"id": transaction_id, "created_at": now}
    tenant.counts["transactions_created"] += 1
    return _write(tenant, row, body, now)


def upsert(tenant: Tenant, body: Row) -> tuple[Row, bool]:
    """`POST /transactions/update-create`: by external_id, else by id, else new (reference/createupdatetransaction)."""
    ids = tenant.by_external.get(str(body.get("external_id")))
    known = tenant.transactions[ids[0]] if ids else tenant.transactions.get(_integer(body.get("id")))
    if known is None:
        return create(tenant, body, whole_items=False), True
    return change(tenant, known, body), False


def change(tenant: Tenant, row: Row, body: Row) -> Row:
    """What is given replaces what was there, items as a whole; created_at stays."""
    _check(tenant, body, row, (), whole_items=False)
    tenant.counts["transactions_updated"] += 1
    return _write(tenant, row, body, tenant.stamp())


def delete(tenant: Tenant, row: Row) -> None:
    """Gone for good, and its redemption is free again."""
    _link(tenant, row, None)
    _index(tenant, row["id"], row["external_id"], None)
    del tenant.transactions[row["id"]], tenant.posted[row["id"]]
    tenant.counts["transactions_deleted"] += 1


def present(tenant: Tenant, row: Row) -> Row:
    redemption = tenant.redemptions.get(row["redemption_id"]) if row["redemption_id"] is not None else None
    staff = row.get("staff_id")
    person = (
        None if staff is None else profiles.resolve(tenant, staff, None) or profiles.resolve(tenant, staff, "staff")
    )
    return row | {
        "profile": profiles.summary(tenant, row["profile_id"]),
        "redemption": redemption
        and {key: redemption[key] for key in ("id", "type", "total", "total_localised", "location_id", "items")},
        "reversed_redemptions": [],
        "staff": person and profiles.summary(tenant, person["id"]),
        "total_converted": row["total"],
    }


def _write(tenant: Tenant, row: Row, body: Row, now: str) -> Row:
    transaction_id: int = row["id"]
    before = row["external_id"]
    posted = {key: value for key, value in body.items() if key not in {"id", "created_at", "delete_existing_items"}}
    if body.get("profile_id") is not None:
        person = profiles.resolve(tenant, body["profile_id"], body.get("profile_id_handle"))
        posted["profile_id"] = person and person["id"]
    if "redemption_id" in body:
        wanted = body["redemption_id"]
        posted["redemption_id"] = None if wanted is None else _integer(wanted)
        _link(tenant, row, posted["redemption_id"])
    if "items" in body:
        posted["items"] = [_item(tenant, transaction_id, each, now) for each in body["items"] or []]
    row.update(posted, updated_at=now)
    tenant.transactions[transaction_id] = row
    tenant.posted[transaction_id] = body
    _index(tenant, transaction_id, before, row["external_id"])
    return row


def _item(tenant: Tenant, transaction_id: int, posted: Row, now: str) -> Row:
    """`is_return` is in no request schema (omneo-sdk types): Omneo works it out, presumably from the quantity."""
    quantity = posted.get("quantity")
    computed = {
        "transaction_id": transaction_id,
        "is_void": False,
        "is_return": isinstance(quantity, int | Decimal) and quantity < 0,
        "created_at": now,
        "updated_at": now,
    }
    return computed | posted | {"id": posted.get("id") or tenant.next_id("item")}


def _index(tenant: Tenant, transaction_id: int, before: object, after: object) -> None:
    if before is not None and str(before) != str(after):
        tenant.by_external[str(before)].remove(transaction_id)
    if after is not None:
        ids = tenant.by_external.setdefault(str(after), [])
        if transaction_id not in ids:
            ids.append(transaction_id)


def _link(tenant: Tenant, row: Row, redemption_id: int | None) -> None:
    """One redemption a transaction, and one transaction a redemption."""
    if row["redemption_id"] in tenant.redemptions:  # else it was planted that it is lost
        tenant.redemptions[row["redemption_id"]]["transaction_id"] = None
    if redemption_id is not None:
        tenant.redemptions[redemption_id]["transaction_id"] = row["id"]


def _check(tenant: Tenant, body: Row, row: Row | None, required: tuple[str, ...], *, whole_items: bool) -> None:
    errors: dict[str, list[str]] = {}

    def complain(name: str, text: str) -> None:
        errors.setdefault(name, []).append(text)

    for name in REQUIRED:
        if (name in required and name not in body) or (name != "items" and name in body and body[name] is None):
            complain(name, f"The {name.replace('_', ' ')} field is required.")
    for name in NEVER_NULL:
        if name in body and not isinstance(body[name], bool):
            complain(name, f"The {name.replace('_', ' ')} field must be true or false.")
    for name, fits, text in _FORMS:
        if body.get(name) is not None and not fits(body[name]):
            complain(name, f"The {name.replace('_', ' ')} {text}.")
    for name, text in _item_errors(body.get("items"), whole=whole_items):
        complain(name, text)
    who = body.get("profile_id")
    if who is not None and profiles.resolve(tenant, who, body.get("profile_id_handle")) is None:
        complain("profile_id", "The selected profile id is invalid.")
    refusal = None if body.get("redemption_id") is None else _redemption_error(tenant, body["redemption_id"], row)
    if refusal is not None:
        complain("redemption_id", refusal)
    if errors:
        raise invalid(errors)


def _item_errors(items: Any, *, whole: bool) -> list[tuple[str, str]]:
    if items is None:
        return []
    if not isinstance(items, list):
        return [("items", "The items field must be an array.")]
    found = []
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            found.append((f"items.{index}", f"The items.{index} field must be an array."))
        elif whole:
            names = [f"items.{index}.{name}" for name in REQUIRED_IN_ITEM if item.get(name) is None]
            found += [(name, f"The {name} field is required.") for name in names]
    return found


def _redemption_error(tenant: Tenant, wanted: Any, row: Row | None) -> str | None:
    redemption = tenant.redemptions.get(_integer(wanted))
    if redemption is None or redemption["type"] != "redeem":
        return "The selected redemption id is invalid."
    if any(each["type"] == "reversal" for each in tenant.undone.get(redemption["id"], [])):
        return "The redemption has been reversed."
    if redemption["transaction_id"] not in {None, row and row["id"]}:
        return "The redemption is already linked to another transaction."
    return None


def _integer(value: Any) -> int:
    """An id, however it is written; one that is none matches nothing."""
    try:
        return int(str(value))
    except ValueError:
        return -1


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and Decimal(str(value)).is_finite()
    except InvalidOperation:
        return False


def _is_time(value: Any) -> bool:
    """`date_format:Y-m-d H:i:s` (the v1 rules, and every example since)."""
    try:
        return datetime.strptime(value, "%Y-%m-%d %H:%M:%S") is not None  # noqa: DTZ007 - local time, its zone beside it
    except (TypeError, ValueError):
        return False


def _is_zone(value: Any) -> bool:
    try:
        return ZoneInfo(value) is not None
    except (KeyError, OSError, TypeError, ValueError):
        return False


_FORMS = (
    ("total", _is_number, "field must be a number"),
    ("total_original", _is_number, "field must be a number"),
    ("transacted_at", _is_time, "field must match the format Y-m-d H:i:s"),
    ("timezone", _is_zone, "field must be a valid timezone"),
    ("external_id", lambda value: isinstance(value, str | int) and value != "", "field must be a string"),
)
