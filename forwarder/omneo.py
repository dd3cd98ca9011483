"""
What Omneo understands: routes, bodies and the reading of its answers. Pure: builds requests, sends nothing.

Sources: the pages of Omneo's documentation named at each route; where they contradict each other, `--routes` chooses.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote

import msgspec

from forwarder import witness
from forwarder.outcome import Answer, moment
from journal.document import local_time

WORDS = 500  # characters of a refusal that are kept
OURS = frozenset({"kind", "terminal", "sequence", "redemption_external_id", "apply_redemption"})  # never sent

Request = tuple[str, str, bytes | None]  # method, path below the API base with its query, JSON body

_encode = msgspec.json.Encoder(decimal_format="number").encode  # numbers exactly as the till wrote them


def sale(
    content: dict[str, Any], system: str, redemption_id: str | None = None, mark: dict[str, Any] | None = None
) -> Request:
    """
    Upsert by external_id: `POST /transactions/update-create`, which makes a resend harmless.

    docs: reference/createupdatetransaction. Plain `POST /transactions` makes a second row. Unknown fields pass through.
    """
    body = _without_nulls({name: value for name, value in content.items() if name not in OURS})
    body["items"] = [_without_nulls(line) for line in body["items"]]
    body["transacted_at"] = local(body["transacted_at"], body["timezone"])
    body.setdefault("systems", [system])
    if redemption_id is not None:
        body["redemption_id"] = int(redemption_id) if redemption_id.isdigit() else redemption_id
    if mark is not None:
        body["meta"] = witness.beside(body.get("meta", {}), mark)
    return "POST", "/transactions/update-create", _encode(body)


def find_sale(external_id: str) -> Request:
    """`GET /transactions/external/{external_id}` (SDK: getByExternalID); by filter where an id makes no path."""
    if external_id.strip(".") and "/" not in external_id:
        return "GET", f"/transactions/external/{quote(external_id, safe='')}", None
    return "GET", f"/transactions?filter[external_id]={quote(external_id, safe='')}", None


def found_sale(answer: Answer, external_id: str) -> dict[str, Any] | None:
    """The transaction that carries this external_id, in either form of the look-up."""
    return next((row for row in [answer.data, *answer.rows] if echoes(row, external_id)), None)


ROUTES = {
    # reference: api-reference, omneo-sdk and the route list; guide: pos-integration-guide, working-with-benefits
    "reference": {
        "redeem": "/profiles/{profile}/redeem",
        "benefit": "/profiles/{profile}/benefits/{benefit}/redeem",
        "identity": "/profiles/search-id",
    },
    "guide": {
        "redeem": "/profiles/{profile}/redemptions",
        "benefit": "/profiles/{profile}/benefits/{benefit}/redemptions",
        "identity": "/identities/search",
    },
}
HIERARCHY = ("benefits", "rewards", "credits")  # glossary: what is used up first; points stay where the till put them


def redeem(content: dict[str, Any], profile: str, routes: str) -> Request:
    """
    Spend rewards, points or credits, or a benefit. Not idempotent at Omneo.

    Our external_id goes in `meta` (sdk: RequestRedeemStrategy), and as `external_id` where the guides' routes take one.
    """
    external_id = content["external_id"]
    names = {"profile": quote(profile, safe=""), "benefit": quote(str(content.get("benefit_id")), safe="")}
    timed = {
        "external_id": external_id,
        "issued_at": local(content["issued_at"], content["timezone"]),
        "timezone": content["timezone"],
    }
    if content.get("benefit_id") is not None:
        used = timed if routes == "guide" else {"count": int(content.get("count") or 1)}
        return "POST", ROUTES[routes]["benefit"].format(**names), _encode(used)
    body: dict[str, Any] = {"amount": content["amount"], "strategies": hierarchy(content["strategies"])}
    body |= {name: content[name] for name in REDEEM_FIELDS if content.get(name) is not None}
    body["meta"] = _meta(content)
    if routes == "guide":
        body |= timed
    return "POST", ROUTES[routes]["redeem"].format(**names), _encode(body)


REDEEM_FIELDS = ("currency", "location_id", "strict", "transaction_external_id", "transaction_receipt_ref")


def hierarchy(strategies: list[str]) -> list[str]:
    """Benefits before rewards before credits (glossary), whatever order the till gave; points keep their place."""
    ranked = iter(sorted((name for name in strategies if name in HIERARCHY), key=HIERARCHY.index))
    return [next(ranked) if name in HIERARCHY else name for name in strategies]


def reverse(content: dict[str, Any], redemption_id: str) -> Request:
    """`POST /redemptions/{id}/reversal`: the whole redemption, within the window (return-strategy pages)."""
    return "POST", f"/redemptions/{quote(redemption_id, safe='')}/reversal", _encode({"meta": _meta(content)})


def give_back(content: dict[str, Any], redemption_id: str, *, benefit: bool) -> Request:
    """`POST /redemptions/{id}/return`, or `/benefit/return` for a count of a benefit: value comes back as new value."""
    body: dict[str, Any] = {"meta": _meta(content)}
    for name in ("amount", "count", "transaction_external_id", "transaction_receipt_ref", "location_id", "currency"):
        if content.get(name) is not None:
            body[name] = content[name]
    path = "benefit/return" if benefit or content.get("count") is not None else "return"
    return "POST", f"/redemptions/{quote(redemption_id, safe='')}/{path}", _encode(body)


def _meta(content: dict[str, Any]) -> dict[str, Any]:
    own = content.get("meta")
    return {**(own if isinstance(own, dict) else {}), "external_id": content["external_id"]}


def read_redemption(redemption_id: str) -> Request:
    """`GET /redemptions/{id}`."""
    return "GET", f"/redemptions/{quote(redemption_id, safe='')}", None


def redemptions_of_sale(external_id: str, page: int) -> Request:
    """`GET /redemptions` of one sale (sdk: RequestQueryRedemption)."""
    return "GET", f"/redemptions?filter[transaction_external_id]={quote(external_id, safe='')}&{paged(page)}", None


def redemptions_of_customer(profile: str, page: int) -> Request:
    """`GET /profiles/{id}/redemptions`."""
    return "GET", f"/profiles/{quote(profile, safe='')}/redemptions?{paged(page)}", None


def undone(redemption_id: str, page: int) -> Request:
    """Reversals and returns of one redemption (sdk: `linked_source_id` of GET /redemptions)."""
    return "GET", f"/redemptions?filter[linked_source_id]={quote(redemption_id, safe='')}&{paged(page)}", None


def read_benefit(profile: str, benefit: str) -> Request:
    """`GET /profiles/{id}/benefits/{benefit}`."""
    return "GET", f"/profiles/{quote(profile, safe='')}/benefits/{quote(benefit, safe='')}", None


def paged(page: int) -> str:
    """Which page of a list, and of what size."""
    return f"page[size]=100&page[number]={page}"


def reference(row: dict[str, Any]) -> str | None:
    """The external_id that a redemption at Omneo carries of whoever made it, if it carries one."""
    meta = row.get("meta")
    given = meta.get("external_id") if isinstance(meta, dict) else None
    given = given if given is not None else row.get("external_id")
    return None if given is None else str(given)


def is_ours(row: dict[str, Any], external_id: str) -> bool:
    """Is this the redemption that we asked for? Some routes give no reference back, none gives another's."""
    return row.get("id") is not None and reference(row) in {None, external_id}


def is_redemption(answer: Answer, redemption_id: str) -> bool:
    """Does the answer show this redemption?"""
    return answer.status is not None and answer.status < 300 and str(answer.data.get("id")) == redemption_id


def verify_token() -> Request:
    """`GET /auth/verify`: harmless, and says whether Omneo otherwise knows us."""
    return "GET", "/auth/verify", None


def read_profile(profile: str, handle: str | None, routes: str = "reference") -> Request:
    """One profile, by Omneo's UUID, by e-mail, or by any identity handle (omneo-api, section 8)."""
    if handle is None:
        return "GET", f"/profiles/{quote(profile, safe='')}", None
    if handle == "email":
        return "GET", f"/profiles?filter[email]={quote(profile, safe='')}", None
    if routes == "guide":
        return "GET", f"/identities/search?handle={quote(handle, safe='')}&identifier={quote(profile, safe='')}", None
    return "POST", "/profiles/search-id", _encode({"type": handle, "id": profile})


def profile_shown(answer: Answer) -> str | None:
    """Omneo's UUID of the one customer that an answer is about."""
    found = [row.get("profile_id") or row.get("id") for row in [answer.data, *answer.rows]]
    ids = {str(each) for each in found if each is not None}
    return ids.pop() if len(ids) == 1 else None


def profile_of(content: dict[str, Any]) -> tuple[str, str | None] | None:
    """The customer that a document names: (value, handle; None for Omneo's own UUID), or None for an anonymous one."""
    if content.get("profile_id") is None:
        return None
    return str(content["profile_id"]), content.get("profile_id_handle")


def words(answer: Answer, content: dict[str, Any]) -> str:
    """What Omneo said when it refused, without what the document says of a person: the words are kept for good."""
    said = answer.content if isinstance(answer.content, dict) else {}
    texts = [str(said.get("message", ""))]
    errors = said.get("errors")
    if isinstance(errors, dict):
        texts += [
            f"{name}: {text}"
            for name, list_ in errors.items()
            for text in (list_ if isinstance(list_, list) else [list_])
        ]
    told = " | ".join(text for text in texts if text)
    for value in sorted(_texts(content), key=len, reverse=True):
        told = re.sub(re.escape(value), "…", told, flags=re.IGNORECASE)
    return told.encode("utf-8", "replace").decode()[:WORDS]


def _texts(value: Any) -> set[str]:
    """Every text in a document that is long enough to mean somebody."""
    if isinstance(value, str):
        return {value} if len(value) > 3 else set()
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*(_texts(child) for child in children))


def echoes(row: dict[str, Any], external_id: str) -> bool:
    """Is this ours? Omneo gave an external_id back as a number in old samples: compared as text."""
    return row.get("id") is not None and str(row.get("external_id")) == external_id


def id_of(row: dict[str, Any]) -> int | str:
    """Omneo's id as the book keeps it: a whole number, else text."""
    found = row["id"]
    return found if isinstance(found, int) else str(found).encode("utf-8", "replace").decode()


def older_than(
    row: dict[str, Any], answer: Answer, first_attempt: datetime, sent: datetime, set_back_s: float = 0.0
) -> bool:
    """
    Was this transaction there before we first sent ours?

    Only when two clocks agree on it: Omneo's own (from `created_at` to `updated_at` or `Date`, against the time since
    our first attempt) and this machine's. One of them may be years off. Moments have whole seconds. By so much as this
    machine's clock is known to have been set back meanwhile, the time since our first attempt is longer than it says.
    """
    created = moment(row.get("created_at"))
    if created is None:
        return False
    ours = sent - first_attempt
    if ours < timedelta():  # this machine's clock was set back meanwhile, and tells nothing
        return False
    slack = timedelta(seconds=1 + set_back_s)
    updated = moment(row.get("updated_at"))
    if updated is not None and updated - created > ours + slack:
        return True
    there = (answer.date or sent.astimezone(UTC)) - created
    return there > ours + slack and first_attempt.astimezone(UTC) - created > slack


def is_unlinked(row: dict[str, Any]) -> bool:
    """Does Omneo show that this sale has no redemption?"""
    return "redemption" in row and row["redemption"] is None and row.get("redemption_id") is None


def differs(row: dict[str, Any], content: dict[str, Any]) -> bool:
    """Does what Omneo has under our external_id have another total?"""
    try:
        return Decimal(str(row.get("total"))) != Decimal(str(content["total"]))
    except InvalidOperation:
        return False  # Omneo doesn't say


def money(value: Any) -> Decimal | None:
    """An amount, as number or text."""
    try:
        return None if value is None else Decimal(str(value))
    except InvalidOperation:
        return None


def local(value: str, timezone: str) -> str:
    """A document's time as Omneo's guides write it: local wall time in the document's own zone."""
    return local_time(value, timezone).strftime("%Y-%m-%d %H:%M:%S")


def _without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    """Omneo rejects null for some fields (`is_void`, `receipt_is_email`): left out, everywhere on this level."""
    return {name: value for name, value in fields.items() if value is not None}
