"""The stand-in Omneo, seen over real HTTP: what the other tests and POS vendors rely on."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest

from forwarder.sandbox.customers import JANE, OMAR, PRIYA, SAM, WEI
from forwarder.sandbox.faults import ALL_MODES
from forwarder.sandbox.serve import CannotListenError, Running, running, serve

SALE = {
    "external_id": "S1-T1-000017",
    "total": 19.95,
    "transacted_at": "2025-06-15 14:32:00",
    "timezone": "Australia/Melbourne",
    "items": [{"name": "Shirt", "quantity": 1, "price_current": 19.95, "price_sell": 19.95}],
}
exact = msgspec.json.Decoder(float_hook=Decimal)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as sandbox:
        yield sandbox


class Api:
    """A client with the token, and the control desk beside it."""

    def __init__(self, server: Running) -> None:
        self.server = server
        bearer = {"Authorization": f"Bearer {server.token}"}
        self.omneo = httpx.Client(base_url=server.url, headers=bearer, timeout=5)
        self.desk = httpx.Client(base_url=server.control, timeout=5)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.omneo, name)

    def control(self, path: str, /, **fields: Any) -> httpx.Response:
        answer = self.desk.post(path, json=fields)
        assert answer.is_success, answer.text
        return answer

    def fault(self, mode: str, /, **fields: Any) -> None:
        self.control("/faults", mode=mode, **fields)

    def sell(self, **fields: Any) -> httpx.Response:
        return self.omneo.post("/transactions/update-create", json=SALE | fields)

    def redeem(self, profile: str = JANE, **fields: Any) -> dict[str, Any]:
        body = {"amount": 10, "strategies": ["rewards"]} | fields
        answer = self.omneo.post(f"/profiles/{profile}/redeem", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["data"]

    def balances(self, profile: str = JANE) -> tuple[float, float, float]:
        found = self.omneo.get(f"/profiles/{profile}/balances").json()["data"]
        return found["reward_balance"], found["point_balance"], found["credit_balance"]

    def counts(self) -> dict[str, Any]:
        return self.desk.get("/counts").json()

    def journal(self) -> list[dict[str, Any]]:
        return self.desk.get("/state").json()["journal"]


@pytest.fixture
def api(server: Running) -> Iterator[Api]:
    client = Api(server)
    with client.omneo, client.desk:
        client.control("/reset")
        yield client


# ── Who may come in ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic sandbox"}])
def test_only_the_right_bearer_token_is_let_in(api: Api, header: dict[str, str]) -> None:
    answer = httpx.get(api.server.url + "/auth/verify", headers=header)
    assert (answer.status_code, answer.json()) == (401, {"message": "Unauthenticated."})
    assert api.get("/auth/verify").status_code == 200


@pytest.mark.parametrize("grant", ["client_credentials", "password"])
def test_the_token_endpoint_hands_out_a_token_that_works_expires_and_is_refreshed(api: Api, grant: str) -> None:
    form = {"grant_type": grant, "client_id": "sandbox", "client_secret": "sandbox", "username": "u", "password": "p"}
    got = httpx.post(api.server.url + "/auth/token", data=form).json()
    assert set(got) == {"token_type", "expires_in", "access_token", "refresh_token"}

    def verify(token: str) -> int:
        return httpx.get(api.server.url + "/auth/verify", headers={"Authorization": f"Bearer {token}"}).status_code

    assert verify(got["access_token"]) == 200
    api.control("/clock", offset_s=got["expires_in"])
    assert verify(got["access_token"]) == 401
    refresh = {"refresh_token": got["refresh_token"]}
    again = httpx.post(api.server.url + "/auth/token/refresh", data=refresh).json()
    assert verify(again["access_token"]) == 200
    assert httpx.post(api.server.url + "/auth/token/refresh", json=refresh).status_code == 401


def test_a_wrong_client_gets_no_token(api: Api) -> None:
    form = {"grant_type": "client_credentials", "client_id": "sandbox", "client_secret": "guess"}
    assert httpx.post(api.server.url + "/auth/token", data=form).status_code == 401


def test_tokens_can_be_revoked_and_others_accepted_in_their_place(api: Api) -> None:
    api.control("/revoke")
    assert api.get("/auth/verify").status_code == 401
    api.control("/tokens", accept="renewed")
    assert api.get("/auth/verify", headers={"Authorization": "Bearer renewed"}).status_code == 200


# ── Transactions ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_upsert_finds_the_sale_it_made_and_a_plain_create_makes_another(api: Api) -> None:
    first = api.sell()
    api.control("/clock", offset_s=5)
    second = api.sell(total=200, items=[])
    assert (first.status_code, second.status_code) == (201, 200)
    before, after = first.json()["data"], second.json()["data"]
    assert (after["id"], after["created_at"]) == (before["id"], before["created_at"])
    assert (after["total"], after["items"], after["updated_at"] > before["updated_at"]) == (200, [], True)
    assert api.counts()["counts"] == {"transactions_created": 1, "transactions_updated": 1}
    assert api.post("/transactions", json=SALE).json()["data"]["id"] != before["id"]
    assert api.counts()["counts"]["transactions_created"] == 2
    assert api.get(f"/transactions/external/{SALE['external_id']}").json()["data"]["id"] == before["id"]


def test_an_upsert_without_a_known_external_id_goes_by_id(api: Api) -> None:
    made = api.sell().json()["data"]["id"]
    moved = api.sell(id=made, external_id="S1-T1-000018")
    assert (moved.status_code, moved.json()["data"]["id"]) == (200, made)
    assert api.get(f"/transactions/external/{SALE['external_id']}").status_code == 404


def test_money_comes_back_digit_by_digit(api: Api) -> None:
    figures = ["123456789012345678901234567890.123", "19.90", "-0.01", "123456789012345678901234567890123"]
    for index, figure in enumerate(figures):
        body = f'{{"external_id":"exact-{index}","total":{figure},"transacted_at":"2025-06-15 14:32:00",'
        body += f'"timezone":"Australia/Melbourne","items":[{{"price_sell":{figure}}}],"meta":{{"deep":[{figure}]}}}}'
        api.post("/transactions/update-create", content=body.encode())
        held = exact.decode(api.get(f"/transactions/external/exact-{index}").content)["data"]
        wanted = Decimal(figure)
        assert (held["total"], held["items"][0]["price_sell"], held["meta"]) == (wanted, wanted, {"deep": [wanted]})


@pytest.mark.parametrize("name", ["a/b", "a b", "100%", "ü?#&=", "..hidden", "x/", "a+b", "a%2Fb", "line\nend"])
def test_an_external_id_may_hold_any_character(api: Api, name: str) -> None:
    made = api.sell(external_id=name).json()["data"]["id"]
    assert api.get("/transactions/external/" + quote(name, safe="")).json()["data"]["id"] == made
    found = api.get("/transactions", params={"filter[external_id]": name}).json()["data"]
    assert [row["id"] for row in found] == [made]


def test_what_was_posted_is_echoed_with_what_omneo_adds(api: Api) -> None:
    extra = {
        "receipt_ref": "659",
        "payments": ["EFTPOS"],
        "tags": ["a"],
        "systems": ["POS"],
        "our_own": {"x": [1, None]},
    }
    row = api.sell(profile_id="jane@example.com", profile_id_handle="email", staff_id=1993, **extra).json()["data"]
    assert {key: row[key] for key in extra} == extra
    assert (row["profile_id"], row["profile"]["email"], row["staff"]["id"]) == (JANE, "jane@example.com", SAM)
    assert row["items"][0] | SALE["items"][0] == row["items"][0]
    assert datetime.fromisoformat(row["created_at"]).replace(tzinfo=UTC) > datetime.now(UTC) - timedelta(minutes=1)
    assert api.desk.get("/state").json()["transactions"][0]["posted"]["profile_id"] == "jane@example.com"
    assert len(api.get(f"/profiles/{JANE}/transactions").json()["data"]) == 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"total": None}, "total"),
        ({"total": "much"}, "total"),
        ({"transacted_at": None}, "transacted_at"),
        ({"transacted_at": "yesterday"}, "transacted_at"),
        ({"timezone": None}, "timezone"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"items": "none"}, "items"),
        ({"items": [5]}, "items.0"),
        ({"is_void": None}, "is_void"),
        ({"receipt_is_email": None}, "receipt_is_email"),
        ({"redemption_id": 1}, "redemption_id"),
        ({"profile_id": "nobody"}, "profile_id"),
        ({"profile_id": "6000000001", "profile_id_handle": "member"}, "profile_id"),
    ],
)
def test_a_sale_that_is_not_right_is_refused_by_field(api: Api, fields: dict[str, Any], field: str) -> None:
    for route in ("/transactions", "/transactions/update-create"):
        answer = api.post(route, json=SALE | fields)
        assert answer.status_code == 422, answer.text
        assert list(answer.json()["errors"]) == [field]
    assert api.counts()["transactions"] == 0


@pytest.mark.parametrize("field", ["total", "transacted_at", "timezone", "items"])
def test_a_sale_needs_four_fields(api: Api, field: str) -> None:
    body = {key: value for key, value in SALE.items() if key != field}
    answer = api.post("/transactions/update-create", json=body)
    assert (answer.status_code, list(answer.json()["errors"])) == (422, [field])


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"nonsense"])
def test_a_body_that_is_no_object_is_refused(api: Api, body: bytes) -> None:
    answer = api.post("/transactions/update-create", content=body)
    assert answer.status_code in (400, 422)
    assert "message" in answer.json()


def test_a_sale_can_be_read_edited_and_deleted(api: Api) -> None:
    made = api.sell().json()["data"]["id"]
    assert api.put(f"/transactions/{made}", json={"is_void": True}).json()["data"]["is_void"] is True
    assert api.put(f"/transactions/{made}", json={"total": None}).status_code == 422
    assert api.get(f"/transactions/{made}").json()["data"]["total"] == 19.95
    deleted = api.delete(f"/transactions/{made}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert api.get(f"/transactions/{made}").status_code == 404
    assert api.sell().json()["data"]["id"] > made


def test_lists_come_in_laravels_envelope_fifteen_at_a_time(api: Api) -> None:
    for number in range(17):
        api.sell(external_id=f"p-{number}", total=number)
    first = api.get("/transactions").json()
    assert (len(first["data"]), first["meta"]["total"], first["meta"]["last_page"]) == (15, 17, 2)
    assert first["links"]["prev"] is None
    second = api.get(first["links"]["next"]).json()
    assert [row["external_id"] for row in second["data"]] == ["p-15", "p-16"]
    assert (second["meta"]["from"], second["meta"]["to"], second["links"]["next"]) == (16, 17, None)
    asked = {"page[size]": 2, "page[number]": 2, "sort": "-id", "filter[total][gte]": 10}
    assert [row["external_id"] for row in api.get("/transactions", params=asked).json()["data"]] == ["p-14", "p-13"]
    assert api.get("/transactions", params={"page[number]": 9}).json()["data"] == []
    assert api.get("/transactions", params={"filter[colour]": "red"}).status_code == 400


def test_unknown_ids_routes_and_methods_are_answered_in_json(api: Api) -> None:
    for path in ("/transactions/1", "/profiles/none", "/redemptions/1", "/nowhere", f"/profiles/{JANE}/benefits/1"):
        answer = api.get(path)
        assert (answer.status_code, list(answer.json())) == (404, ["message"])
    answer = api.delete("/transactions")
    assert (answer.status_code, list(answer.json())) == (405, ["message"])


# ── Profiles ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_customer_is_found_by_id_email_name_and_card(api: Api) -> None:
    assert api.get(f"/profiles/{JANE}").json()["data"]["email"] == "jane@example.com"
    for params in ({"filter[email]": "JANE@example.com"}, {"search": "jane exa"}):
        assert [row["id"] for row in api.get("/profiles", params=params).json()["data"]] == [JANE]
    card = {"handle": "loyalty-card", "identifier": "6000000001"}
    assert api.get("/identities/search", params=card).json()["data"]["profile_id"] == JANE
    assert api.get("/identities/search-profile/6000000001").json()["data"]["id"] == JANE
    by_filter = {f"filter[{key}]": value for key, value in card.items()}
    assert [row["profile_id"] for row in api.get("/identities", params=by_filter).json()["data"]] == [JANE]
    by_post = api.post("/profiles/search-id", json={"type": "loyalty-card", "id": "6000000001"})
    assert by_post.json()["data"]["id"] == JANE
    assert api.post("/profiles/search-id", json={"type": "loyalty-card", "id": "1"}).status_code == 404


def test_balances_are_those_of_the_guide(api: Api) -> None:
    found = api.get(f"/profiles/{JANE}/balances").json()["data"]
    assert (found["reward_balance"], found["point_balance"], found["point_balance_dollars"]) == (25, 1500, 15)
    assert (found["combined_balance_dollars"], found["credit_balance"]) == (40, 50)


def test_a_merged_profile_is_gone_and_all_it_had_is_the_other_ones(api: Api) -> None:
    sale = api.sell(profile_id=JANE).json()["data"]["id"]
    api.control("/merge", **{"from": JANE, "to": OMAR})
    assert api.get(f"/profiles/{JANE}").status_code == 404
    assert api.post(f"/profiles/{JANE}/redeem", json={"amount": 1}).status_code == 404
    assert api.sell(external_id="late", profile_id=JANE).status_code == 422
    assert api.get("/identities/search-profile/6000000001").json()["data"]["id"] == OMAR
    assert [row["id"] for row in api.get("/profiles?filter[email]=jane@example.com").json()["data"]] == [OMAR]
    assert api.get(f"/transactions/{sale}").json()["data"]["profile_id"] == OMAR
    assert api.balances(OMAR) == (50, 1750, 50)
    by_card = api.sell(external_id="card", profile_id="6000000001", profile_id_handle="loyalty-card")
    assert by_card.json()["data"]["profile_id"] == OMAR


def test_more_customers_can_be_made(api: Api) -> None:
    spec = {
        "id": "11111111-1111-4111-8111-111111111111",
        "email": "new@example.com",
        "identities": [{"handle": "loyalty-card", "identifier": "77"}],
        "rewards": [{"value": 5, "expires_at": "2099-01-01 00:00:00"}],
        "points": 100,
        "benefits": [{"handle": "coffee", "max_redemptions": 2}],
    }
    made = api.control("/profiles", **spec).json()["data"]
    assert (made["balances"]["combined_balance_dollars"], made["benefits"][0]["redemptions_remaining"]) == (6, 2)
    assert api.balances(spec["id"]) == (5, 100, 0)


# ── Redemptions ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_redemption_takes_what_the_strategies_say_in_their_order(api: Api) -> None:
    row = api.redeem(amount=30, strategies=["points", "rewards"])
    assert (row["total"], [(each["type"], each["value"]) for each in row["items"]]) == (
        30,
        [("point", 15), ("reward", 15)],
    )
    assert api.balances() == (10, 0, 50)
    assert row["balances"]["reward_balance"] == 10


def test_the_reward_that_expires_first_goes_first(api: Api) -> None:
    row = api.redeem(OMAR, amount=12)
    assert [each["value"] for each in row["items"]] == [10, 2]


def test_a_short_balance_is_part_filled_unless_strict_and_none_is_refused(api: Api) -> None:
    strict = {"amount": 40, "strategies": ["rewards"], "strict": True}
    assert api.post(f"/profiles/{JANE}/redeem", json=strict).status_code == 422
    assert api.redeem(amount=40)["total"] == 25
    answer = api.post(f"/profiles/{JANE}/redeem", json={"amount": 1, "strategies": ["rewards"]})
    assert (answer.status_code, list(answer.json()["errors"])) == (422, ["amount"])
    assert api.counts()["counts"] == {"redemptions_redeem": 1}


@pytest.mark.parametrize("body", [{}, {"amount": 0}, {"amount": True}, {"amount": 5, "strategies": ["luck"]}])
def test_a_redemption_that_is_not_right_is_refused(api: Api, body: dict[str, Any]) -> None:
    assert api.post(f"/profiles/{JANE}/redeem", json=body).status_code == 422


def test_both_spellings_redeem_but_only_the_guides_keeps_our_id(api: Api) -> None:
    body = {
        "amount": 5,
        "strategies": ["rewards"],
        "meta": {"external_id": "R-1"},
        "transaction_external_id": "S-1",
        "external_id": "R-1",
        "issued_at": "2025-06-15 14:30:00",
        "timezone": "Australia/Melbourne",
    }
    by_reference = api.post(f"/profiles/{JANE}/redeem", json=body).json()["data"]
    by_guide = api.post(f"/profiles/{JANE}/redemptions", json=body).json()["data"]
    assert (by_reference["external_id"], by_guide["external_id"]) == (None, "R-1")
    found = api.get("/redemptions", params={"filter[transaction_external_id]": "S-1"}).json()["data"]
    assert [(row["id"], row["meta"]) for row in found] == [
        (by_reference["id"], {"external_id": "R-1"}),
        (by_guide["id"], {"external_id": "R-1"}),
    ]
    found = api.get("/redemptions", params={"filter[external_id]": "R-1"}).json()["data"]
    assert [(row["id"], row["issued_at"]) for row in found] == [(by_guide["id"], "2025-06-15 14:30:00")]


def test_benefits_run_out_expire_and_are_told_apart_by_the_guides_route_only(api: Api) -> None:
    held = {each["definition"]["handle"]: each for each in api.get(f"/profiles/{JANE}/benefits").json()["data"]}
    path = f"/profiles/{JANE}/benefits/{held['alterations']['id']}"
    plain = api.post(path + "/redeem", json={"external_id": "lost", "meta": {"external_id": "lost"}}).json()["data"]
    named = api.post(path + "/redemptions", json={"external_id": "B-1", "timezone": "UTC"}).json()["data"]
    assert (plain["external_id"], plain["meta"], named["external_id"]) == (None, None, "B-1")
    assert api.get(path).json()["data"]["redemptions_remaining"] == 1
    assert api.post(path + "/redeem", json={"count": 2}).status_code == 422
    assert api.post(path + "/redeem").status_code == 201
    assert api.post(path + "/redeem").status_code == 422
    left = [each["definition"]["handle"] for each in api.get(f"/profiles/{JANE}/redeemable_benefits").json()["data"]]
    assert left == ["first-spend"]
    api.control("/clock", offset_s=8 * 86400)
    assert api.post(f"/profiles/{JANE}/benefits/{held['first-spend']['id']}/redeem").status_code == 422
    assert api.get(f"/profiles/{PRIYA}/benefits").json()["data"] == []


def test_a_benefit_redeemed_by_strategy_carries_a_reference(api: Api) -> None:
    body = {"amount": None, "strategies": ["benefits"], "benefits": [{"handle": "alterations", "quantity": 2}]}
    row = api.redeem(**body, transaction_external_id="S-9")
    assert (row["total"], row["items"][0]["count"], row["transaction_external_id"]) == (0, 2, "S-9")


def test_a_credit_is_redeemed_by_its_own_route_and_by_strategy(api: Api) -> None:
    credit = api.get(f"/profiles/{JANE}/credits").json()["data"][0]["id"]
    row = api.post(f"/profiles/{JANE}/credits/{credit}/redeem", json={"amount": 20, "security_code": "1113"})
    assert (row.json()["data"]["total"], row.json()["data"]["items"][0]["type"]) == (20, "credit")
    assert api.redeem(amount=10, strategies=["credits"])["total"] == 10
    assert api.post(f"/profiles/{JANE}/credits/{credit}/redeem", json={"amount": 21}).status_code == 422
    assert api.balances() == (25, 1500, 20)


def test_a_reversal_puts_everything_back_and_is_a_row_of_its_own(api: Api) -> None:
    made = api.redeem(amount=90, strategies=["rewards", "points", "credits"], transaction_external_id="S-1")
    assert api.balances() == (0, 0, 0)
    undone = api.post(f"/redemptions/{made['id']}/reversal").json()["data"]
    assert api.balances() == (25, 1500, 50)
    assert (undone["type"], undone["linked_source_id"], undone["total"]) == ("reversal", made["id"], 90)
    found = api.get("/redemptions", params={"filter[type]": "reversal", "filter[linked_source_id]": made["id"]})
    assert [row["id"] for row in found.json()["data"]] == [undone["id"]]
    assert api.post(f"/redemptions/{made['id']}/reversal").status_code == 422
    assert api.post(f"/redemptions/{undone['id']}/reversal").status_code == 422
    assert api.sell(redemption_id=made["id"]).status_code == 422
    assert api.post(f"/redemptions/{made['id']}/return").status_code == 422


def test_a_reversal_of_a_benefit_gives_the_use_back_and_keeps_what_was_posted(api: Api) -> None:
    benefit = api.get(f"/profiles/{JANE}/redeemable_benefits").json()["data"][0]["id"]
    made = api.post(f"/profiles/{JANE}/benefits/{benefit}/redeem").json()["data"]["id"]
    body = {"meta": {"external_id": "V-1"}, "external_id": "V-1"}
    undone = api.post(f"/redemptions/{made}/reversal", json=body).json()["data"]
    assert (undone["meta"], undone["external_id"]) == ({"external_id": "V-1"}, "V-1")
    assert api.get(f"/profiles/{JANE}/benefits/{benefit}").json()["data"]["redemptions_remaining"] == 1


def test_ten_minutes_are_counted_by_the_servers_own_clock(api: Api) -> None:
    api.control("/clock", offset_s=-86400)
    kept, lost = api.redeem(amount=1)["id"], api.redeem(amount=1)["id"]
    api.control("/clock", offset_s=-86400 + 595)
    assert api.post(f"/redemptions/{kept}/reversal").status_code == 201
    api.control("/clock", offset_s=-86400 + 601)
    assert api.post(f"/redemptions/{lost}/reversal").status_code == 422
    assert api.balances() == (24, 1500, 50)


def test_a_sale_takes_its_redemption_for_good(api: Api) -> None:
    made = api.redeem()["id"]
    sale = api.sell(redemption_id=made).json()["data"]
    assert (sale["redemption"]["id"], sale["redemption"]["total"]) == (made, 10)
    assert api.get(f"/redemptions/{made}").json()["data"]["transaction"]["external_id"] == SALE["external_id"]
    assert api.sell(redemption_id=made).status_code == 200
    assert api.sell(external_id="another", redemption_id=made).status_code == 422
    assert api.post(f"/redemptions/{made}/reversal").status_code == 422
    api.delete(f"/transactions/{sale['id']}")
    assert api.post(f"/redemptions/{made}/reversal").status_code == 201


def test_returns_give_value_back_as_new_rewards_but_never_more_than_is_left(api: Api) -> None:
    made = api.redeem(amount=20, strategies=["points", "rewards"])["id"]
    body = {"amount": 12.5, "transaction_external_id": "S-2", "meta": {"external_id": "T-1"}}
    first = api.post(f"/redemptions/{made}/return", json=body).json()["data"]
    assert (first["type"], first["total"], first["linked_source_id"]) == ("return", 12.5, made)
    assert (first["meta"], first["transaction_external_id"]) == ({"external_id": "T-1"}, "S-2")
    assert api.balances() == (20 + 12.5, 0, 50)
    assert api.post(f"/redemptions/{made}/return", json={"amount": 7.51}).status_code == 422
    assert api.post(f"/redemptions/{made}/return").json()["data"]["total"] == 7.5
    assert api.post(f"/redemptions/{made}/return").status_code == 422
    assert api.post(f"/redemptions/{made}/reversal").status_code == 422
    kinds = [row["type"] for row in api.get(f"/profiles/{JANE}/redemptions").json()["data"]]
    assert kinds == ["redeem", "return", "return"]


def test_a_benefit_is_returned_as_a_new_one(api: Api) -> None:
    benefit = api.get(f"/profiles/{WEI}/benefits").json()["data"][0]["id"]
    made = api.post(f"/profiles/{WEI}/benefits/{benefit}/redeem", json={"count": 3}).json()["data"]["id"]
    assert api.post(f"/redemptions/{made}/benefit/return", json={"count": 2}).status_code == 201
    assert api.post(f"/redemptions/{made}/benefit/return", json={"count": 2}).status_code == 422
    remaining = [each["redemptions_remaining"] for each in api.get(f"/profiles/{WEI}/benefits").json()["data"]]
    assert remaining == [9997, 2]


def test_new_redemptions_can_be_slow_to_appear_in_lists(api: Api) -> None:
    api.control("/lag", seconds=30)
    made = api.redeem()["id"]
    assert api.get(f"/profiles/{JANE}/redemptions").json()["data"] == []
    assert api.get(f"/redemptions/{made}").status_code == 200
    api.control("/clock", offset_s=31)
    assert len(api.get("/redemptions").json()["data"]) == 1


def test_numbers_can_come_as_strings(api: Api) -> None:
    assert api.redeem(amount=2.5)["total"] == 2.5
    api.control("/numbers", strings=True)
    row = api.redeem(amount=2.5)
    assert (row["total"], row["balances"]["reward_balance"]) == ("2.5", "20.0")


# ── Faults ────────────────────────────────────────────────────────────────────────────────────────────────────────


def applied(api: Api) -> int:
    return api.counts()["transactions"]


@pytest.mark.parametrize(
    ("fault", "error", "made"),
    [
        ({"mode": "refuse"}, httpx.TransportError, 0),
        ({"mode": "drop_before"}, httpx.RemoteProtocolError, 0),
        ({"mode": "drop_before", "reset": True}, httpx.ReadError, 0),
        ({"mode": "drop_after"}, httpx.RemoteProtocolError, 1),
        ({"mode": "drop_after", "reset": True}, httpx.ReadError, 1),
        ({"mode": "hang"}, httpx.ReadTimeout, 0),
        ({"mode": "hang_after"}, httpx.ReadTimeout, 1),
        ({"mode": "hang", "seconds": 0.05}, httpx.RemoteProtocolError, 0),
        ({"mode": "truncate"}, httpx.RemoteProtocolError, 1),
    ],
)
def test_a_broken_line_looks_as_it_does_from_a_shop(
    api: Api, fault: dict[str, Any], error: type[Exception], made: int
) -> None:
    api.control("/faults", **fault, count=1)
    with pytest.raises(error):
        api.post("/transactions/update-create", json=SALE, timeout=0.3)
    assert applied(api) == made
    assert api.sell().status_code == (200 if made else 201)
    first, second = api.journal()
    assert (first["fault"], first["applied"], first["answered"]) == (fault["mode"], bool(made), False)
    assert (second["fault"], second["applied"], second["answered"]) == (None, True, True)


def test_a_refusal_resets_the_connection_before_the_body_is_read(api: Api) -> None:
    api.fault("refuse", count=1)
    with socket.create_connection(("127.0.0.1", httpx.URL(api.server.url).port or 0), timeout=5) as line:
        line.sendall(b"POST /api/v3/transactions/update-create HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            line.recv(1)


@pytest.mark.parametrize(
    ("fault", "status", "holds"),
    [
        ({"mode": "status", "code": 500}, 500, '{"message":"Server Error"}'),
        ({"mode": "status", "code": 502, "html": True}, 502, "<html>"),
        ({"mode": "status", "code": 503}, 503, "Service Unavailable"),
        ({"mode": "status", "code": 522}, 522, "message"),
        ({"mode": "status", "code": 408}, 408, "message"),
        ({"mode": "throttle"}, 429, "Too Many"),
        ({"mode": "unauthorized"}, 401, "Unauthenticated."),
        ({"mode": "forbidden"}, 403, "message"),
        ({"mode": "portal"}, 200, "<!DOCTYPE html>"),
        ({"mode": "portal_json"}, 200, "login_required"),
        ({"mode": "redirect"}, 302, "sign in"),
        ({"mode": "garbage"}, 200, '{"data": {"id": 4711'),
        ({"mode": "wrong_id"}, 201, "SOMEBODY-ELSES"),
    ],
)
@pytest.mark.parametrize("apply", [False, True])
def test_a_false_answer_stands_in_for_omneos(
    api: Api, fault: dict[str, Any], status: int, holds: str, *, apply: bool
) -> None:
    api.control("/faults", **fault, count=1, apply=apply)
    answer = api.sell()
    assert (answer.status_code, holds in answer.text) == (status, True)
    assert "date" in answer.headers
    never = {"throttle", "unauthorized", "forbidden"}
    assert applied(api) == int(apply and fault["mode"] not in never)


def test_a_redirect_leads_to_a_page_that_is_not_omneo(api: Api) -> None:
    api.fault("redirect", count=1)
    location = api.sell().headers["location"]
    page = api.get(httpx.URL(api.server.url).join(location))
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_throttling_says_when_to_come_back_in_both_forms(api: Api) -> None:
    api.control("/clock", offset_s=3600)
    api.fault("throttle", count=1, retry_after=7)
    api.fault("throttle", count=1, retry_after=7, as_date=True)
    assert api.sell().headers["retry-after"] == "7"
    answer = api.sell()
    wait = parsedate_to_datetime(answer.headers["retry-after"]) - parsedate_to_datetime(answer.headers["date"])
    assert wait == timedelta(seconds=7)
    assert api.sell().status_code == 201


def test_a_trickle_beats_a_timeout_between_bytes(api: Api) -> None:
    api.fault("trickle", count=1, interval=0.001)
    began = time.monotonic()
    answer = api.post("/transactions/update-create", json=SALE, timeout=0.3)
    assert answer.json()["data"]["external_id"] == SALE["external_id"]
    assert time.monotonic() - began > 0.5
    assert api.journal()[0]["answered"] is True


def test_down_means_that_nothing_listens_until_it_is_over(api: Api) -> None:
    api.sell()
    api.fault("down", seconds=0.3)
    with httpx.Client() as fresh, pytest.raises(httpx.ConnectError):
        fresh.get(api.server.url + "/auth/verify")
    with pytest.raises(httpx.TransportError):
        api.get("/auth/verify")
    time.sleep(0.5)
    assert api.get("/auth/verify").status_code == 200
    api.fault("down", seconds=60)
    assert api.desk.delete("/faults").status_code == 204
    time.sleep(0.1)
    assert api.get("/auth/verify").status_code == 200


def test_the_servers_clock_and_its_date_header_can_be_wrong_each_by_itself(api: Api) -> None:
    def skew(answer: httpx.Response) -> int:
        return round((parsedate_to_datetime(answer.headers["date"]) - datetime.now(UTC)).total_seconds() / 60)

    api.fault("skew", count=1, skew_s=-600)
    assert [skew(api.get("/auth/verify")) for _ in range(2)] == [-10, 0]
    api.control("/date", skew_s=1200)
    answer = api.sell()
    assert (skew(answer), datetime.fromisoformat(answer.json()["data"]["created_at"]).hour) == (
        20,
        datetime.now(UTC).hour,
    )
    api.control("/clock", offset_s=3600)
    assert skew(api.get("/auth/verify")) == 80


def test_latency_delays_every_answer(api: Api) -> None:
    api.control("/latency", ms=120)
    began = time.monotonic()
    assert api.get("/auth/verify").status_code == 200
    assert time.monotonic() - began >= 0.12


def test_a_fault_hits_only_whom_it_is_meant_for(api: Api) -> None:
    api.fault("status", path="/redeem", method="POST")
    api.fault("status", contains="S1-T9-")
    api.fault("status", path="/auth", skip=1, count=1)
    assert api.sell().status_code == 201
    assert api.sell(external_id="S1-T9-1").status_code == 503
    assert api.post(f"/profiles/{JANE}/redeem", json={"amount": 1}).status_code == 503
    assert [api.get("/auth/verify").status_code for _ in range(3)] == [200, 503, 200]
    assert [rule["fired"] for rule in api.desk.get("/faults").json()["data"]] == [1, 1, 1]
    api.desk.delete("/faults")
    assert api.sell(external_id="S1-T9-1").status_code == 201


@pytest.mark.parametrize(
    "rule", [{"mode": "gremlins"}, {"mode": "status", "coed": 500}, {}, {"mode": "status", "code": 7}]
)
def test_an_unknown_fault_is_refused(api: Api, rule: dict[str, Any]) -> None:
    assert api.desk.post("/faults", json=rule).status_code == 422


def test_the_same_seed_breaks_the_same_requests(api: Api) -> None:
    modes = [mode for mode in ALL_MODES if mode not in {"hang", "hang_after"}]

    def story() -> list[str | None]:
        api.control("/reset")
        api.fault("any", share=0.4, seed=11, modes=modes, interval=0)
        for number in range(40):
            try:
                api.sell(external_id=f"any-{number}")
            except httpx.TransportError:
                continue
        return [entry["fault"] for entry in api.journal()]

    first = story()
    assert story() == first
    assert first.count(None) in range(15, 35)
    assert len(set(first)) > 6


# ── The server itself ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_journal_tells_every_request_in_order(api: Api) -> None:
    api.sell()
    api.redeem(meta={"external_id": "R-1"})
    api.get("/transactions/1")
    told = [(line["n"], line["method"], line["route"], line["external_id"], line["status"]) for line in api.journal()]
    assert told == [
        (1, "POST", "/transactions/update-create", SALE["external_id"], 201),
        (2, "POST", "/profiles/{id}/redeem", "R-1", 201),
        (3, "GET", "/transactions/{id:int}", None, 404),
    ]
    assert [line["n"] for line in api.desk.get("/state?since=2").json()["journal"]] == [3]


def test_it_answers_while_another_request_hangs_and_stops_in_spite_of_it() -> None:
    with (
        running() as sandbox,
        httpx.Client(base_url=sandbox.url, headers={"Authorization": "Bearer sandbox"}) as client,
    ):
        httpx.post(sandbox.control + "/faults", json={"mode": "hang", "count": 1})
        with socket.create_connection(("127.0.0.1", httpx.URL(sandbox.url).port or 0)) as line:
            line.sendall(b"GET /api/v3/auth/verify HTTP/1.1\r\nHost: x\r\n\r\n")
            while not sandbox.state.journal:
                time.sleep(0.01)
            assert client.get("/auth/verify").status_code == 200
            began = time.monotonic()
    assert time.monotonic() - began < 2


def test_the_clock_is_an_argument() -> None:
    with running(lambda: datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)) as sandbox:
        answer = httpx.get(sandbox.url + "/auth/verify")
    assert answer.headers["date"] == "Wed, 02 Jan 2030 03:04:05 GMT"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_announces_itself_and_ends_in_good_order(number: signal.Signals) -> None:
    code = "from forwarder.sandbox.serve import serve; serve(0, announce=lambda url: print(url, flush=True))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        url = program.stdout.readline().strip()
        assert httpx.get(url.removesuffix("/v3") + "/health").status_code == 200
        program.send_signal(number)
        assert program.wait(5) == 0
        assert (program.stdout.read(), program.stderr.read()) == ("", "")


@pytest.mark.parametrize("holder", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_in_use_is_one_sentence_and_a_matter_of_configuration(holder: str) -> None:
    with socket.create_server((holder, 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-c", "from forwarder.cli import main; main()", "sandbox", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 78
    told = f"Port {port} is in use by another program; stop that one, or give another port with --port (0: any free).\n"
    assert (done.stdout, done.stderr) == ("", told)


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EACCES, "for root only"), (errno.EADDRNOTAVAIL, "Cannot assign requested address")]
)
def test_a_port_that_can_not_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(CannotListenError, match=f"{words}.*--port"):
        serve(80, announce=lambda _: None)


# ── Planted differences ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_planted_is_a_row_of_its_own_or_none(api: Api) -> None:
    first = api.post("/transactions", json=SALE).json()["data"]
    copy = api.control("/plant", what="transaction", id=first["id"], do="double").json()["data"]
    listed = f"/transactions?filter[external_id]={SALE['external_id']}"
    assert [row["id"] for row in api.get(listed).json()["data"]] == [first["id"], copy["id"]]
    api.control("/plant", what="transaction", id=first["id"], do="lose")
    api.control("/plant", what="transaction", id=copy["id"], fields={"total": 1})
    (row,) = api.get(listed).json()["data"]
    assert (row["id"], row["total"], row["updated_at"]) == (copy["id"], 1, first["updated_at"])
    spent = api.post(f"/profiles/{JANE}/redeem", json={"amount": 5, "strategies": ["rewards"]}).json()["data"]
    api.control("/plant", what="redemption", id=spent["id"], do="lose")
    assert api.get(f"/redemptions/{spent['id']}").status_code == 404
    api.control("/plant", what="balance", id=JANE, fields={"points": -5})
    assert api.get(f"/profiles/{JANE}/balances").json()["data"]["point_balance"] == -5


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"what": "transaction", "id": 1, "do": "lose"}, 404),
        ({"what": "balance", "id": "nobody", "fields": {"points": 1}}, 404),
        ({"what": "balance", "id": JANE}, 422),
        ({"what": "profile", "id": JANE}, 422),
        ({"what": "transaction", "id": [], "do": "lose"}, 422),
    ],
)
def test_what_can_not_be_planted_is_refused(api: Api, spec: dict[str, Any], status: int) -> None:
    assert api.desk.post("/plant", json=spec).status_code == status
