"""Omneo's routes, in both spellings where the guides and the API reference differ, and what each does to the tenant."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from forwarder.sandbox import givebacks, profiles, redemptions, tokens, transactions
from forwarder.sandbox.exchange import Answer, Call, data
from forwarder.sandbox.listing import filters, page
from forwarder.sandbox.state import Row, Tenant, missing

Handler = Callable[[Tenant, Call], Answer]

PROFILE_FILTERS = frozenset({"id", "email", "first_name", "last_name", "full_name", "is_staff"})
IDENTITY_FILTERS = frozenset({"id", "profile_id", "handle", "identifier"})
BENEFIT_FILTERS = frozenset({"id", "benefit_definition_id", "status"})


# ── Transactions ──────────────────────────────────────────────────────────────────────────────────────────────────


def upsert_transaction(tenant: Tenant, call: Call) -> Answer:
    row, is_new = transactions.upsert(tenant, call.fields())
    return data(transactions.present(tenant, row), 201 if is_new else 200)


def create_transaction(tenant: Tenant, call: Call) -> Answer:
    return data(transactions.present(tenant, transactions.create(tenant, call.fields())), 201)


def read_external(tenant: Tenant, call: Call) -> Answer:
    return data(transactions.present(tenant, transactions.find_external(tenant, call.params["external_id"])))


def read_transaction(tenant: Tenant, call: Call) -> Answer:
    return data(transactions.present(tenant, transactions.find(tenant, call.params["id"])))


def change_transaction(tenant: Tenant, call: Call) -> Answer:
    row = transactions.change(tenant, transactions.find(tenant, call.params["id"]), call.fields())
    return data(transactions.present(tenant, row))


def delete_transaction(tenant: Tenant, call: Call) -> Answer:
    transactions.delete(tenant, transactions.find(tenant, call.params["id"]))
    return Answer(204)


def list_transactions(tenant: Tenant, call: Call) -> Answer:
    """A search by external id goes by the index: clients make it once a document."""
    rows = list(tenant.transactions.values())
    for wanted in filters(call):
        if (wanted.field, wanted.operator) == ("external_id", "eq"):
            rows = [tenant.transactions[each] for each in tenant.by_external.get(wanted.wanted, [])]
    return page(call, rows, transactions.FILTERS, partial(transactions.present, tenant))


def list_profile_transactions(tenant: Tenant, call: Call) -> Answer:
    owner = profiles.find(tenant, call.params["id"])["id"]
    rows = [row for row in tenant.transactions.values() if row["profile_id"] == owner]
    return page(call, rows, transactions.FILTERS, partial(transactions.present, tenant))


# ── Profiles, identities, balances, benefits ──────────────────────────────────────────────────────────────────────


def list_profiles(tenant: Tenant, call: Call) -> Answer:
    rows = list(tenant.profiles.values())
    for name, value in call.arguments():
        if name in {"search", "filter[search]"}:
            rows = profiles.search(tenant, value)
    by_email = [each.wanted for each in filters(call) if (each.field, each.operator) == ("email", "eq")]
    if by_email:
        # An e-mail of a profile that was merged away leads to the one that has it now.
        found = profiles.resolve(tenant, by_email[0], "email")
        rows, call = [found] if found else [], replace(call, query="")
    return page(call, rows, PROFILE_FILTERS | {"search"}, partial(profiles.present, tenant))


def read_profile(tenant: Tenant, call: Call) -> Answer:
    return data(profiles.present(tenant, profiles.find(tenant, call.params["id"])))


def search_profile_by_id(tenant: Tenant, call: Call) -> Answer:
    """`POST /profiles/search-id {"type": handle, "id": value}`: one at most (reference/searchbyid)."""
    fields = call.fields()
    found = profiles.resolve(tenant, fields.get("id"), fields.get("type"))
    if found is None:
        raise missing("Profile", fields.get("id"))
    return data(profiles.present(tenant, found))


def list_identities(tenant: Tenant, call: Call) -> Answer:
    return page(call, list(tenant.identities.values()), IDENTITY_FILTERS, dict)


def search_identity(tenant: Tenant, call: Call) -> Answer:
    """`GET /identities/search?handle=&identifier=` (pos-integration-guide): leads to the profile id."""
    asked = dict(call.arguments())
    identity = tenant.identities.get((asked.get("handle", ""), asked.get("identifier", "")))
    if identity is None:
        raise missing("Identity", asked.get("identifier"))
    return data(identity | {"profile": profiles.summary(tenant, identity["profile_id"])})


def search_identity_profile(tenant: Tenant, call: Call) -> Answer:
    return data(profiles.present(tenant, profiles.by_identifier(tenant, call.params["identifier"])))


def read_balances(tenant: Tenant, call: Call) -> Answer:
    return data(profiles.balances(tenant, profiles.find(tenant, call.params["id"])["id"]))


def list_benefits(tenant: Tenant, call: Call) -> Answer:
    """All active benefits (working-with-benefits): what is used up can still be seen, what has expired can not."""
    return _benefits(tenant, call, lambda benefit: not benefit["is_expired"])


def list_redeemable(tenant: Tenant, call: Call) -> Answer:
    return _benefits(tenant, call, lambda benefit: bool(benefit["is_redeemable"]))


def _benefits(tenant: Tenant, call: Call, shown: Callable[[Row], bool]) -> Answer:
    owner = profiles.find(tenant, call.params["id"])["id"]
    rows = [profiles.present_benefit(tenant, each) for each in tenant.wallets[owner].benefits]
    rows = [row | {"status": "active" if row["is_redeemable"] else "inactive"} for row in rows if shown(row)]
    return page(call, rows, BENEFIT_FILTERS, dict)


def read_benefit(tenant: Tenant, call: Call) -> Answer:
    benefit = profiles.find_benefit(tenant, call.params["id"], call.params["benefit"])
    return data(profiles.present_benefit(tenant, benefit))


def list_credits(tenant: Tenant, call: Call) -> Answer:
    owner = profiles.find(tenant, call.params["id"])["id"]
    return page(call, tenant.wallets[owner].credits, frozenset({"id"}), dict)


# ── Redemptions ───────────────────────────────────────────────────────────────────────────────────────────────────


def redeem(kept: tuple[str, ...], tenant: Tenant, call: Call) -> Answer:
    row = redemptions.redeem(tenant, call.params["id"], call.fields(), kept)
    return data(redemptions.successful(tenant, row), 201)


def redeem_benefit(kept: tuple[str, ...], tenant: Tenant, call: Call) -> Answer:
    row = redemptions.redeem_benefit(tenant, call.params["id"], call.params["benefit"], call.fields(), kept)
    return data(redemptions.successful(tenant, row), 201)


def redeem_credit(tenant: Tenant, call: Call) -> Answer:
    row = redemptions.redeem_credit(tenant, call.params["id"], call.params["credit"], call.fields())
    return data(redemptions.successful(tenant, row), 201)


def undo(how: Callable[[Tenant, Row, Row], Row], tenant: Tenant, call: Call) -> Answer:
    """A reversal or return is a redemption of its own: the answer's id is the new row's."""
    row = how(tenant, redemptions.find(tenant, call.params["id"]), call.fields())
    return data(redemptions.successful(tenant, row), 201)


def read_redemption(tenant: Tenant, call: Call) -> Answer:
    return data(redemptions.present(tenant, redemptions.find(tenant, call.params["id"])))


def list_redemptions(tenant: Tenant, call: Call) -> Answer:
    rows = tenant.visible(tenant.redemptions.values())
    return page(call, rows, redemptions.FILTERS, partial(redemptions.present, tenant))


def list_profile_redemptions(tenant: Tenant, call: Call) -> Answer:
    owner = profiles.find(tenant, call.params["id"])["id"]
    rows = tenant.visible(row for row in tenant.redemptions.values() if row["profile_id"] == owner)
    return page(call, rows, redemptions.FILTERS, partial(redemptions.present, tenant))


def read_profile_redemption(tenant: Tenant, call: Call) -> Answer:
    owner = profiles.find(tenant, call.params["id"])["id"]
    row = redemptions.find(tenant, call.params["redemption"])
    if row["profile_id"] != owner:
        raise missing("Redemption", row["id"])
    return data(redemptions.present(tenant, row))


# ── The table ─────────────────────────────────────────────────────────────────────────────────────────────────────

REFERENCE_ROUTE = partial(redeem, redemptions.REFERENCES)
GUIDE_ROUTE = partial(redeem, redemptions.GUIDE_REFERENCES)
REFERENCE_BENEFIT_ROUTE = partial(redeem_benefit, ())
GUIDE_BENEFIT_ROUTE = partial(redeem_benefit, redemptions.GUIDE_BENEFIT_REFERENCES)

# Busiest first: starlette asks them in turn.
ROUTES: dict[str, dict[str, Handler]] = {
    "/transactions/update-create": {"POST": upsert_transaction},
    "/transactions/external/{external_id:anything}": {"GET": read_external},
    "/transactions": {"POST": create_transaction, "GET": list_transactions},
    "/transactions/{id:int}": {"GET": read_transaction, "PUT": change_transaction, "DELETE": delete_transaction},
    "/profiles/{id}/redeem": {"POST": REFERENCE_ROUTE},
    "/profiles/{id}/redemptions": {"POST": GUIDE_ROUTE, "GET": list_profile_redemptions},
    "/profiles/{id}/redemptions/{redemption:int}": {"GET": read_profile_redemption},
    "/profiles/{id}/benefits/{benefit:int}/redeem": {"POST": REFERENCE_BENEFIT_ROUTE},
    "/profiles/{id}/benefits/{benefit:int}/redemptions": {"POST": GUIDE_BENEFIT_ROUTE},
    "/profiles/{id}/credits/{credit:int}/redeem": {"POST": redeem_credit},
    "/redemptions": {"GET": list_redemptions},
    "/redemptions/{id:int}": {"GET": read_redemption},
    "/redemptions/{id:int}/reversal": {"POST": partial(undo, givebacks.reverse)},
    "/redemptions/{id:int}/return": {"POST": partial(undo, givebacks.give_back)},
    "/redemptions/{id:int}/benefit/return": {"POST": partial(undo, givebacks.give_back_benefit)},
    "/auth/verify": {"GET": tokens.verify},
    "/profiles": {"GET": list_profiles},
    "/profiles/search-id": {"POST": search_profile_by_id},
    "/profiles/{id}": {"GET": read_profile},
    "/profiles/{id}/balances": {"GET": read_balances},
    "/profiles/{id}/benefits": {"GET": list_benefits},
    "/profiles/{id}/redeemable_benefits": {"GET": list_redeemable},
    "/profiles/{id}/benefits/{benefit:int}": {"GET": read_benefit},
    "/profiles/{id}/credits": {"GET": list_credits},
    "/profiles/{id}/transactions": {"GET": list_profile_transactions},
    "/identities": {"GET": list_identities},
    "/identities/search": {"GET": search_identity},
    "/identities/search-profile/{identifier:anything}": {"GET": search_identity_profile},
}
