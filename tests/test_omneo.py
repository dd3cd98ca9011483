"""What Omneo is sent for a document, and how its answers are read. Exactly what the till wrote, in Omneo's form."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from standin import Omneo, Store, at_once, encode, sale

import schemas
from forwarder import omneo as routes
from forwarder import outcome
from forwarder.link import Credentials, Link, check_url
from forwarder.outcome import Answer
from forwarder.wire import Wire
from journal.document import parse, read


def sent(content: dict[str, Any] | bytes, system: str = "POS") -> dict[str, Any]:
    """The body that leaves for a document, read back with numbers as they stand there."""
    raw = content if isinstance(content, bytes) else encode(content)
    document = read("a.json", raw)
    assert document.kind == "sale", document.problems
    assert document.content is not None
    method, path, body = routes.sale(document.content, system)
    assert (method, path) == ("POST", "/transactions/update-create")
    assert body is not None
    return json.loads(body, parse_float=Decimal, parse_int=Decimal)


NUMBERS = [
    "0",
    "-0",
    "0.10",
    "149.95",
    "-49.95",
    "1e2",
    "1E-2",
    "1.0e+2",
    "100",
    "0.1000000000000000055511151231257827",
]
NUMBERS += [
    "123456789012345678901234567890.123",
    "9007199254740993",
    "79228162514264337593543950336",
    "0.30000000000000004",
]


@pytest.mark.parametrize("written", NUMBERS)
def test_numbers_leave_exactly_as_they_were_written(written: str) -> None:
    raw = encode(sale("S-1")).replace(b'"total":19.95', f'"total":{written}'.encode())
    assert written.encode() in raw
    body = sent(raw)
    assert body["total"] == Decimal(written)
    deep = encode(sale("S-1", meta={"deep": [{"n": "HERE"}]})).replace(b'"HERE"', written.encode())
    assert sent(deep)["meta"]["deep"][0]["n"] == Decimal(written)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**30), max_value=10**30))
@example(Decimal("0.10"))
def test_any_sum_of_money_survives(amount: Decimal) -> None:
    assert sent(sale("S-1", total=amount, rounding=amount))["rounding"] == amount


def test_money_is_a_number_not_a_text() -> None:
    _, _, body = routes.sale(parse(encode(sale("S-1"))), "POS")
    assert body is not None
    assert b'"total":19.95' in body


def test_our_own_fields_stay_here() -> None:
    ours = {"terminal": "T1", "sequence": 5, "redemption_external_id": "R-1"}
    assert not {"kind", "apply_redemption", *ours} & sent(sale("S-1", **ours)).keys()


def test_fields_that_we_do_not_know_pass_through() -> None:
    more = {
        "meta": {"kind": "odd", "sequence": 1},
        "tags": ["a", "ä"],
        "currency": "AUD",
        "x_new": {"y": [1, "2", False]},
    }
    body = sent(sale("S-1", **more))
    assert {name: body[name] for name in more} == more


def test_every_example_of_the_schema_leaves_whole() -> None:
    """Nothing but our own fields, nulls and the form of the time differs between what came and what leaves."""
    for given_ in schemas.load("sale")["examples"]:
        body = sent(encode(given_))
        ours = {"kind", "terminal", "sequence", "redemption_external_id", "apply_redemption", "transacted_at", "items"}
        kept = {name: value for name, value in given_.items() if name not in ours and value is not None}
        assert {name: body[name] for name in kept} == json.loads(encode(kept), parse_float=Decimal, parse_int=Decimal)
        assert len(body["items"]) == len(given_["items"])


def test_nulls_are_left_out() -> None:
    line = {"name": "Shirt", "quantity": 1, "price_sell": Decimal("19.95"), "is_void": None, "sku": None}
    body = sent(sale("S-1", is_void=None, receipt_is_email=None, profile_id=None, meta=None, items=[line]))
    assert not {"is_void", "receipt_is_email", "profile_id", "meta"} & body.keys()
    assert body["items"] == [{"name": "Shirt", "quantity": 1, "price_sell": Decimal("19.95")}]


def test_false_nothing_and_empty_are_not_null() -> None:
    body = sent(sale("S-1", is_void=False, receipt_ref="", tags=[], margin=0))
    assert (body["is_void"], body["receipt_ref"], body["tags"], body["margin"]) == (False, "", [], 0)


@pytest.mark.parametrize(
    ("own", "wanted"), [({}, ["SHOP"]), ({"systems": ["OTHER"]}, ["OTHER"]), ({"systems": None}, ["SHOP"])]
)
def test_a_sales_own_systems_win_over_the_option(own: dict[str, Any], wanted: list[str]) -> None:
    assert sent(sale("S-1", **own), "SHOP")["systems"] == wanted


TIMES = {
    "as the guides write them": ("2025-06-15 14:32:00", "Australia/Melbourne", "2025-06-15 14:32:00"),
    "UTC": ("2025-06-15T04:32:00Z", "Australia/Melbourne", "2025-06-15 14:32:00"),
    "lower case": ("2025-06-15t04:32:00z", "Australia/Melbourne", "2025-06-15 14:32:00"),
    "with fractions": ("2025-06-15T04:32:00.999Z", "Australia/Melbourne", "2025-06-15 14:32:00"),
    "another offset": ("2025-06-15T10:02:00+05:30", "Australia/Melbourne", "2025-06-15 14:32:00"),
    "into the next year": ("2024-12-31T23:30:00-05:00", "Pacific/Auckland", "2025-01-01 17:30:00"),
    "half an hour off": ("2025-06-15T04:32:00Z", "Asia/Kolkata", "2025-06-15 10:02:00"),
    "the hour that comes twice, first": ("2025-04-05T15:30:00Z", "Australia/Melbourne", "2025-04-06 02:30:00"),
    "the hour that comes twice, again": ("2025-04-05T16:30:00Z", "Australia/Melbourne", "2025-04-06 02:30:00"),
    "a local time that comes twice": ("2025-04-06 02:30:00", "Australia/Melbourne", "2025-04-06 02:30:00"),
    "a local time that never was": ("2025-10-05 02:30:00", "Australia/Melbourne", "2025-10-05 02:30:00"),
}


@pytest.mark.parametrize(("written", "zone", "wanted"), TIMES.values(), ids=TIMES.keys())
def test_times_leave_as_local_time_of_the_document(written: str, zone: str, wanted: str) -> None:
    body = sent(sale("S-1", transacted_at=written, timezone=zone))
    assert (body["transacted_at"], body["timezone"]) == (wanted, zone)


# ── The look-up ───────────────────────────────────────────────────────────────────────────────────────────────────

ODD_IDS = [
    "S-1",
    "a b",
    " a",
    "a/b",
    "/",
    "//",
    "..",
    ".",
    "../..",
    "a/../b",
    "%2F",
    "%",
    "100%",
    "a?b=c",
    "a#b",
    "a&b=c",
]
ODD_IDS += [
    "a+b",
    "ä",
    "日本",
    "🛒",
    "a\\b",
    "a;b",
    "a:b",
    "'",
    '"',
    "<a>",
    "[1]",
    "{x}",
    "a,b",
    "a/b,c",
    "0",
    "00017",
    "@",
    "~",
]
ODD_IDS += ["x" * 128, "ä" * 128, "/" * 128, "true", "null", "external"]


@pytest.mark.parametrize("external_id", ODD_IDS)
def test_a_sale_is_found_again_whatever_its_id(omneo: Omneo, token: Path, external_id: str) -> None:
    assert read("a.json", encode(sale(external_id))).kind == "sale"
    wire = Wire(5)
    link = Link(check_url(omneo.url), Credentials(token), wire, rate=0, sleep=at_once)
    assert routes.found_sale(link.ask(routes.find_sale(external_id)), external_id) is None
    other = link.ask(routes.sale(parse(encode(sale(external_id + "x" if len(external_id) < 128 else "x"))), "POS"))
    assert outcome.meaning(other) == "yes"
    missing = link.ask(routes.find_sale(external_id))
    assert outcome.meaning(missing) == "missing" or missing.content["data"] == []
    made = link.ask(routes.sale(parse(encode(sale(external_id))), "POS"))
    assert routes.echoes(made.data, external_id)
    found = routes.found_sale(link.ask(routes.find_sale(external_id)), external_id)
    assert found is not None
    assert found["id"] == made.data["id"] != other.data["id"]
    wire.close()


def answer(data: Any, date: datetime | None = None) -> Answer:
    return Answer(200, {"data": data}, left=True, reason="", date=date)


@pytest.mark.parametrize(
    ("row", "ours"),
    [
        ({"id": 1, "external_id": "17"}, True),
        ({"id": 1, "external_id": 17}, True),
        ({"id": 0, "external_id": "17"}, True),
        ({"id": None, "external_id": "17"}, False),
        ({"external_id": "17"}, False),
        ({"id": 1, "external_id": "017"}, False),
        ({"id": 1, "external_id": None}, False),
        ({"id": 1}, False),
        ({}, False),
    ],
)
def test_only_what_carries_our_id_is_ours(row: dict[str, Any], *, ours: bool) -> None:
    assert routes.echoes(row, "17") is ours
    assert (routes.found_sale(answer(row), "17") is not None) is ours
    assert (routes.found_sale(answer([{"id": 9, "external_id": "x"}, row]), "17") is not None) is ours


# ── Was it there before? ──────────────────────────────────────────────────────────────────────────────────────────

NOW = datetime(2025, 6, 15, 4, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S")


@pytest.mark.parametrize(
    ("created", "updated", "date", "older"),
    [
        pytest.param(0, 0, 0, False, id="just made"),
        pytest.param(-1, 0, 0, False, id="within the second"),
        pytest.param(-86400, 0, 0, True, id="made yesterday, replaced now"),
        pytest.param(-86400, -86400, 0, True, id="made yesterday, found now"),
        pytest.param(-86400, -86400, -86400, False, id="their clock is a day behind"),
        pytest.param(86400, 86400, 86400, False, id="their clock is a day ahead"),
        pytest.param(0, None, 0, False, id="no updated_at"),
        pytest.param(-86400, None, None, True, id="no updated_at and no Date"),
        pytest.param(None, None, 0, False, id="no created_at"),
    ],
)
def test_a_row_is_older_only_when_two_clocks_agree(
    created: float | None, updated: float | None, date: float | None, *, older: bool
) -> None:
    row = {
        "created_at": None if created is None else at(created),
        "updated_at": None if updated is None else at(updated),
    }
    told = answer(row, None if date is None else NOW + timedelta(seconds=date))
    assert routes.older_than(row, told, NOW, NOW) is older


def test_a_clock_that_was_set_back_makes_nothing_older() -> None:
    """Once: a sale that was sent once, just then, was flagged as a conflict when the box's clock had jumped back."""
    just_made = {"created_at": "2025-06-15 14:32:00", "updated_at": "2025-06-15 14:32:00"}
    assert not routes.older_than(just_made, answer(just_made, NOW), NOW, NOW - timedelta(hours=1))


@pytest.mark.parametrize(
    "written", ["soon", "", 5, None, [], "2025-06-15", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"]
)
def test_no_created_at_makes_it_raise(written: Any) -> None:
    row = {"created_at": written, "updated_at": written}
    assert routes.older_than(row, answer(row, NOW), NOW, NOW) in {True, False}


@pytest.mark.parametrize("total", ["19.95", Decimal("19.950"), 19, None, "much", [], {}, "NaN", True, Decimal("NaN")])
def test_no_total_makes_it_raise(total: Any) -> None:
    assert routes.differs({"total": total}, sale("S-1")) in {True, False}
    assert routes.differs({"total": "sNaN"}, sale("S-1")) in {True, False}


# ── What is kept of a refusal ─────────────────────────────────────────────────────────────────────────────────────

JANE = "jane.example@example.com"


def refusal(message: Any, errors: Any = None) -> Answer:
    return Answer(422, {"message": message} | ({} if errors is None else {"errors": errors}), left=True, reason="")


def test_the_words_of_a_refusal_are_kept() -> None:
    told = routes.words(
        refusal("The given data was invalid.", {"items.0.name": ["is required", "is odd"]}), sale("S-1")
    )
    assert told == "The given data was invalid. | items.0.name: is required | items.0.name: is odd"


def test_nothing_that_the_document_says_of_a_person_is_kept() -> None:
    content = sale(
        "S-1", profile_id=JANE, profile_id_handle="email", meta={"phone": "0400 000 000", "who": ["Jane Doe"]}
    )
    errors = {"profile_id": [f"{JANE} is not known.", "0400 000 000 is taken by Jane Doe."]}
    told = routes.words(refusal(f"No query results for model [Profile] {JANE}", errors), content)
    assert not [word for word in (JANE, "0400", "Jane") if word in told]


def test_nothing_personal_is_left_where_the_words_are_cut_off() -> None:
    """Once: the words are cut to length first and searched for names afterwards: half a name is not found."""
    told = routes.words(refusal("x" * (routes.WORDS - 12) + JANE), sale("S-1", profile_id=JANE))
    assert "jane" not in told


def test_a_name_is_found_however_omneo_writes_it() -> None:
    """Once: Omneo lower-cases e-mails; the document's is replaced only letter by letter."""
    told = routes.words(refusal(f"No query results for model [Profile] {JANE}"), sale("S-1", profile_id=JANE.upper()))
    assert "jane" not in told.lower()


@pytest.mark.parametrize("message", [None, 5, [], {}, {"a": JANE}, "\ud800"])
@pytest.mark.parametrize("errors", [None, [], "no", {"a": None}, {"a": [1, None, {}]}, {"a": {"b": "c"}}])
def test_no_refusal_makes_it_raise(message: Any, errors: Any) -> None:
    told = routes.words(refusal(message, errors), sale("S-1", profile_id=JANE))
    assert JANE not in told
    assert len(told) <= routes.WORDS


def test_the_customer_is_named_with_the_handle() -> None:
    assert routes.profile_of(sale("S-1")) is None
    assert routes.profile_of(sale("S-1", profile_id=None)) is None
    assert routes.profile_of(sale("S-1", profile_id="p")) == ("p", None)
    assert routes.profile_of(sale("S-1", profile_id=JANE, profile_id_handle="email")) == (JANE, "email")


def test_what_a_store_takes_is_what_leaves(store: Store, omneo: Omneo, token: Path) -> None:
    """The whole way: file, journal, line, Omneo. Numbers are compared as numbers with all their digits."""
    from forwarder.replay import step

    raw = encode(sale("S-1", meta={"n": "HERE"})).replace(b'"HERE"', b"123456789012345678901234567890.123")
    store.take(raw.replace(b"19.95", b"1.995e1"))
    with store.forwarding(omneo.url, token=token) as run:
        result = step(run)
    assert result is not None
    assert result.kind == "delivered"
    (row,) = omneo.state()["transactions"]
    assert row["posted"]["meta"]["n"] == Decimal("123456789012345678901234567890.123")
    assert row["posted"]["total"] == Decimal("19.95")
    assert row["posted"]["systems"] == ["POS"]
