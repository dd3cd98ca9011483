"""The schemas are the contract with POS vendors: they take what Omneo documents, and name what is missing."""

import json
from decimal import Decimal
from typing import Any

import jsonschema_rs
import pytest

import schemas
from journal import document

UUID = "92a7996b-abb6-4c9c-a845-9aaf8202fab6"
WHEN = {"transacted_at": "2025-06-15 14:32:00", "timezone": "Australia/Melbourne"}
LINE = {"name": "Belt", "quantity": 1, "price_current": 99.99, "price_sell": 89.99}
SHIRT = {
    "name": "Linen Shirt",
    "product_variant_id": 333729,
    "quantity": 1,
    "price_current": 149.95,
    "price_sell": 149.95,
    "price_original": 149.95,
    "is_void": False,
}
GUIDE = {
    "profile_id": "jane@example.com",
    "profile_id_handle": "email",
    "total": 149.95,
    **WHEN,
    "external_id": "ORDER-10333",
    "receipt_ref": "659",
    "location_id": 2,
    "staff_id": 1993,
    "payments": ["EFTPOS"],
    "items": [SHIRT],
}
VARIANT = {
    "product_id": 29259,
    "sku": "gh-test-action-item-1",
    "barcode": "GHT-0001",
    "title": "GH ACTION TEST ITEM 1",
    "brand": "Omneo",
    "category": "Testing",
    "price": 100,
}
UPSERT = {
    "profile_id": UUID,
    "external_id": "9999999",
    "receipt_ref": "D172009999999",
    "location_id": 1,
    "total": 100,
    "total_original": 100,
    "systems": ["CI"],
    "tags": ["ci", "test"],
    "items": [
        {
            "name": "GH ACTION TEST ITEM",
            "quantity": 1,
            "price_current": 100,
            "price_sell": 100,
            "price_tax": 10,
            "price_original": 100,
            "product_variant": VARIANT,
            "discounts": [],
        }
    ],
    "payments": [],
    "timezone": "Australia/Melbourne",
    "transacted_at": "2024-11-11 12:00:00",
    "meta": {"test": "test"},
}
NOTHING = dict.fromkeys(("type", "status", "order_number", "order_id", "external_order_id", "need_action"))
READ = {
    "id": 9999999,
    "external_id": "9999999",
    "redemption": None,
    "profile": {"email": "jane@example.com"},
    "location": {"id": 1, "external_id": "GH-ACTIONS", "name": None},
    "meta": {"web_order_number": None},
    "total": 100,
    "total_converted": 100,
    "systems": ["CI"],
    "rounding": None,
    "margin": 50,
    "is_void": False,
    "payments": [{"id": "110943824", "payment_code": "CASH", "paymenttype_id": "506", "tender_value": 69}],
    "receipt_is_email": False,
    "receipt_ref": "D17200109877",
    "staff": {"id": UUID, "full_name": None, "identities": [{"id": 1, "handle": "staff", "identifier": "73648"}]},
    "currency_id": 2,
    "currency_rate": 1,
    "currency": "AUD",
    **NOTHING,
    "custom_fields": [],
    "timezone": "Australia/Melbourne",
    "transacted_at": "2024-02-13 01:09:57",
    "created_at": "2024-02-13 04:07:46",
    "items": [LINE],
}
OLD_LINE = {"id": 55, "name": "test_prod", "sku": 1012310, "quantity": 1, "price_current": 99.99, "price_sell": 99.99}
OLD_READ = {
    "id": 43,
    "external_id": "60391123",
    "redemption": 3,
    "profile_id": UUID,
    "location": 3,
    "meta": None,
    "total": 99.99,
    "total_original": 110,
    "systems": [],
    "rounding": 10,
    "margin": 31,
    "is_void": False,
    "transacted_at": "2021-01-27 23:00:00",
    "timezone": "Australia/Melbourne",
    "tags": [],
    "items": [{**OLD_LINE, "price_tax": None, "discounts": None, "product_variant": None}],
    **dict.fromkeys(("payments", "receipt_ref", "receipt_is_email", "claimed_at", "staff", "currency")),
}
REDEEMED = {"profile_id": UUID, "total": 89.99, "total_original": 99.99, **WHEN, "redemption_id": 159, "items": [LINE]}
DOCUMENTED = {
    "create": GUIDE,
    "with a redemption": {**REDEEMED, "external_id": "ORDER-10334"},
    "upsert": UPSERT,
    "read": READ,
    "older read": OLD_READ,
    "batch entry": {**GUIDE, "id": 43, "transacted_at": "2025-06-15T04:32:00Z"},
    "goods that come back": {
        **GUIDE,
        "total": -149.95,
        "linked_receipt_ref": "659",
        "items": [{**SHIRT, "quantity": -1}],
    },
}
STAMP = {"external_id": "D-1", "issued_at": "2025-06-15 14:30:00", "timezone": "Australia/Melbourne"}
LEAST: dict[str, dict[str, Any]] = {
    "sale": {"external_id": "D-1", "total": 0, **WHEN, "items": []},
    "redemption": {**STAMP, "profile_id": UUID, "amount": 25.00, "strategies": ["rewards"]},
    "reversal": {**STAMP, "redemption_external_id": "R-1"},
    "return": {**STAMP, "redemption_external_id": "R-1"},
}


def read(kind: str, **fields: Any) -> document.Document:
    """The least document of a kind with some fields changed; `...` takes a field away."""
    content = {"kind": kind} | LEAST[kind] | fields
    return document.read("x.json", json.dumps({k: v for k, v in content.items() if v is not ...}).encode())


def pointers(found: document.Document) -> list[str]:
    return [problem.pointer for problem in found.problems]


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_each_schema_is_a_valid_schema_that_names_no_host(kind: str) -> None:
    schema = schemas.load(kind)
    jsonschema_rs.meta.validate(schema)
    assert schema["$schema"].endswith("draft/2020-12/schema")
    assert schema["$id"].startswith("urn:")


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_each_property_is_described(kind: str) -> None:
    schema = schemas.load(kind)
    lines = schema["properties"].get("items", {}).get("items", {}).get("properties", {})
    assert [name for name, rule in (schema["properties"] | lines).items() if not rule.get("description")] == []


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_each_example_is_a_valid_document(kind: str) -> None:
    examples = schemas.load(kind)["examples"]
    assert len(examples) >= 3
    for example in examples:
        found = document.read("x.json", json.dumps(example).encode())
        assert (found.kind, found.problems) == (kind, ())


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_the_rules_for_names_and_times_are_the_same_in_every_schema(kind: str) -> None:
    assert schemas.load(kind)["$defs"] == schemas.load("sale")["$defs"]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_what_omneo_documents_is_a_sale(name: str) -> None:
    found = document.read("x.json", json.dumps(DOCUMENTED[name] | {"kind": "sale"}).encode())
    assert (found.kind, found.problems) == ("sale", ())


def test_a_sale_of_two_hundred_lines_is_taken() -> None:
    assert read("sale", items=[SHIRT | {"external_id": f"line-{n}"} for n in range(200)]).kind == "sale"


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_the_least_document_of_each_kind_is_enough(kind: str) -> None:
    assert read(kind).kind == kind


REQUIRED = {
    "sale": ("external_id", "total", "transacted_at", "timezone", "items"),
    "redemption": ("external_id", "profile_id", "issued_at", "timezone"),
    "reversal": ("external_id", "issued_at", "timezone"),
    "return": ("external_id", "issued_at", "timezone"),
}


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, fields in REQUIRED.items() for field in fields])
def test_what_is_missing_is_named(kind: str, field: str) -> None:
    found = read(kind, **{field: ...})
    assert found.problems == (document.Problem(f"/{field}", "is required"),)
    assert read(kind, **{field: None}).problems[0].pointer == f"/{field}", "null is no value"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("redemption", {"amount": ...}),
        ("redemption", {"strategies": None}),
        ("redemption", {"benefit_id": 94}),
        ("redemption", {"benefit_id": 94, "strategies": ...}),
        ("reversal", {"redemption_external_id": ...}),
        ("reversal", {"redemption_id": 1, "redeemed_at": "2025-06-15 14:30:00"}),
        ("return", {"redemption_external_id": None}),
        ("return", {"redemption_id": 1}),
        ("return", {"amount": 1, "count": 1}),
        ("sale", {"redemption_id": 1, "redemption_external_id": "R-1"}),
    ],
)
def test_a_wrong_choice_is_answered_with_the_choices(kind: str, fields: dict[str, Any]) -> None:
    found = read(kind, **fields)
    assert pointers(found) == [""]
    assert found.problems[0].message.startswith("give ")


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("redemption", {"amount": ..., "strategies": None, "benefit_id": 94}),
        ("redemption", {"benefit_id": None}),
        ("redemption", {"strategies": ["points", "rewards", "credits", "benefits"]}),
        ("reversal", {"redemption_external_id": None, "redemption_id": 1, "redeemed_at": "2025-06-15T04:30:00Z"}),
        ("reversal", {"redemption_id": None}),
        ("return", {"redemption_external_id": ..., "redemption_id": 1, "count": 2}),
        ("return", {"amount": 0.01, "count": None}),
        ("sale", {"redemption_id": None, "redemption_external_id": "R-1", "apply_redemption": "proportional"}),
        ("sale", {"redemption_id": 159, "redemption_external_id": None, "apply_redemption": None}),
        ("sale", {"items": [{}, {"quantity": None, "price_sell": None, "anything": {"else": []}}]}),
        ("sale", {"terminal": "T-1", "sequence": 0}),
        ("sale", {"terminal": None, "sequence": None}),
        ("sale", {"external_id": " Ünïcode / 日本 #1 "}),
        ("sale", {"anything": {"else": None}, "payments": [{"payment_code": "CASH"}], "location": {"id": 1}}),
    ],
)
def test_what_may_be_said_may_be_said(kind: str, fields: dict[str, Any]) -> None:
    assert read(kind, **fields).problems == ()


def test_a_reversal_of_an_online_redemption_needs_its_time() -> None:
    found = read("reversal", redemption_external_id=..., redemption_id=159)
    assert found.problems == (document.Problem("/redeemed_at", "is required"),)


@pytest.mark.parametrize(
    ("kind", "field", "value", "pointer"),
    [
        ("sale", "external_id", "", "/external_id"),
        ("sale", "external_id", "x" * 129, "/external_id"),
        ("sale", "external_id", 17, "/external_id"),
        ("sale", "external_id", "a\nb", "/external_id"),
        ("sale", "external_id", "a\n", "/external_id"),
        ("sale", "external_id", "a\u202eb", "/external_id"),
        ("sale", "terminal", "x" * 65, "/terminal"),
        ("sale", "sequence", -1, "/sequence"),
        ("sale", "sequence", 1.5, "/sequence"),
        ("sale", "sequence", 2**53 + 1, "/sequence"),
        ("sale", "sequence", "1", "/sequence"),
        ("sale", "total", "12.00", "/total"),
        ("sale", "total", True, "/total"),
        ("sale", "items", {}, "/items"),
        ("sale", "items", [LINE, 1], "/items/1"),
        ("sale", "items", [LINE, {"price_sell": "1"}], "/items/1/price_sell"),
        ("sale", "items", [{"quantity": "1"}], "/items/0/quantity"),
        ("sale", "redemption_id", "159", "/redemption_id"),
        ("sale", "apply_redemption", "equal", "/apply_redemption"),
        ("sale", "transacted_at", "2025-06-15", "/transacted_at"),
        ("sale", "transacted_at", "2025-06-15T14:32:00", "/transacted_at"),
        ("sale", "transacted_at", "2026-02-30 10:00:00", "/transacted_at"),
        ("sale", "transacted_at", "2025-06-15 24:00:00", "/transacted_at"),
        ("sale", "transacted_at", "2025-06-15T14:32:00+25:00", "/transacted_at"),
        ("sale", "timezone", "Australia/Atlantis", "/timezone"),
        ("sale", "timezone", "../etc/passwd", "/timezone"),
        ("sale", "timezone", "", "/timezone"),
        ("redemption", "amount", 0, "/amount"),
        ("redemption", "amount", "25.00", "/amount"),
        ("redemption", "strategies", [], "/strategies"),
        ("redemption", "strategies", ["cash"], "/strategies/0"),
        ("redemption", "profile_id", "", "/profile_id"),
        ("reversal", "issued_at", "yesterday", "/issued_at"),
        ("return", "amount", -1, "/amount"),
        ("return", "count", 0, "/count"),
    ],
)
def test_what_is_wrong_is_pointed_at(kind: str, field: str, value: Any, pointer: str) -> None:
    found = read(kind, **{field: value})
    assert pointers(found) == [pointer]
    assert found.kind == "invalid"


def test_the_examples_show_what_shops_meet() -> None:
    """Anonymous, by e-mail, by card, goods back, three decimals, a redemption made online and one made offline."""
    sales = schemas.load("sale")["examples"]
    assert any("profile_id" not in sale for sale in sales)
    assert {"email", "loyalty-card"} <= {sale.get("profile_id_handle") for sale in sales}
    assert any("linked_receipt_ref" in sale and sale["items"][0]["quantity"] < 0 for sale in sales)
    assert any(round(Decimal(str(line["quantity"])), 2) != line["quantity"] for sale in sales for line in sale["items"])
    assert any("redemption_id" in sale for sale in sales)
    assert any("redemption_external_id" in sale for sale in sales)
