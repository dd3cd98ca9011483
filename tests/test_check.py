"""What a document means beside what the journal holds: new, a repeat, a conflict; and which flags it raises."""

import json
from typing import Any

import pytest
from tills import Shop, broken, sale

from journal.check import in_words, on_its_own, public

SECRET = "zoe.secret@example.com"


def come(shop: Shop, name: str, body: bytes, age: float = 0) -> str:
    """One file, swept. Returns what became of it."""
    shop.drop(name, body, age)
    swept = shop.sweep()
    assert shop.waiting() == []
    return "taken" if swept.taken else "repeated" if swept.repeated else "rejected"


def flags(shop: Shop) -> list[str]:
    return [entry["flag"] for entry in shop.entries("flag")]


def open_gaps(shop: Shop) -> list[tuple[int, int]]:
    closed = {entry["flag"] for entry in shop.entries("resolution")}
    return [
        (entry["from"], entry["to"])
        for entry in shop.entries("flag")
        if entry["flag"] == "sequence_gap" and f"J{entry['seq']}" not in closed
    ]


# -- repeats and conflicts


def test_the_same_content_again_is_a_repeat_however_it_is_written(shop: Shop) -> None:
    assert come(shop, "a.json", sale()) == "taken"
    entries = shop.entries()
    assert come(shop, "a.json", sale()) == "repeated"
    assert come(shop, "b.json", b" " + sale().replace(b"12.5", b"1.250e1") + b"\n") == "repeated"
    assert shop.entries() == entries
    assert shop.rejected() == []


def test_other_content_under_a_known_external_id_is_a_conflict(shop: Shop) -> None:
    come(shop, "a.json", sale())
    assert come(shop, "b.json", sale(total=12.51)) == "rejected"
    first, conflict, flag = shop.entries("sale", "invalid", "flag")
    assert (conflict["reason"], conflict["external_id"]) == ("conflict", "S-1")
    assert (flag["flag"], flag["about"], flag["claimed"]) == ("conflict", conflict["seq"], "sale")
    assert first["seq"] < conflict["seq"]
    assert shop.rejected() == ["b.json", "b.json.error.json"]
    words = json.loads((shop.spool / "rejected/b.json.error.json").read_text())
    message = "must be new: a document with other content had it first"
    assert words["reason"] == f"conflict: /external_id {message}"
    assert words["problems"] == [{"pointer": "/external_id", "message": message}]


def test_a_conflict_that_comes_again_just_goes(shop: Shop) -> None:
    come(shop, "a.json", sale())
    come(shop, "b.json", sale(total=13))
    entries = shop.entries()
    assert come(shop, "c.json", sale(total=13.0)) == "repeated"
    assert come(shop, "b.json", sale(total=13)) == "repeated"
    assert shop.entries() == entries
    assert shop.rejected() == ["b.json", "b.json.error.json"]


def test_a_second_conflict_is_another_one(shop: Shop) -> None:
    for number in range(3):
        come(shop, f"{number}.json", sale(total=number))
    assert flags(shop).count("conflict") == 2


def test_one_batch_is_judged_as_if_its_files_had_come_one_by_one(shop: Shop) -> None:
    shop.drop("1.json", sale(), age=4)
    shop.drop("2.json", sale(), age=3)
    shop.drop("3.json", sale(total=13), age=2)
    shop.drop("4.json", sale(total=13), age=1)
    swept = shop.sweep()
    assert (swept.taken, swept.repeated, swept.rejected) == (1, 2, 1)
    assert shop.rejected() == ["3.json", "3.json.error.json"]


def test_a_fixed_document_may_have_the_external_id_of_its_broken_self(shop: Shop) -> None:
    assert come(shop, "a.json", broken("S-1")) == "rejected"
    assert come(shop, "a.json", sale("S-1")) == "taken"
    assert shop.sales() == ["S-1"]
    assert "conflict" not in flags(shop)


def test_a_broken_file_that_comes_again_is_set_aside_again_but_entered_once(shop: Shop) -> None:
    for _ in range(2):
        assert come(shop, "a.json", broken()) == "rejected"
    shop.drop("b.json", broken(), age=1)
    shop.drop("c.json", broken())
    assert shop.sweep().rejected == 2
    assert len(shop.entries("invalid")) == 1
    assert flags(shop) == ["invalid"]
    seqs = {(shop.spool / "rejected" / f"{name}.json.error.json").read_text().split('"seq"')[1] for name in "abc"}
    assert len(seqs) == 1
    assert "a-2.json" in shop.rejected()


def test_a_stored_body_that_a_hand_has_spoilt_equals_nothing_and_stops_nothing(shop: Shop) -> None:
    come(shop, "a.json", sale())
    shop.book.execute("DROP TRIGGER body_no_update")
    shop.book.execute("UPDATE body SET bytes = x'00'")
    assert come(shop, "a.json", sale()) == "rejected"
    assert flags(shop) == ["conflict"]


# -- flags


def test_a_gap_is_flagged_on_the_document_after_it_and_closed_by_the_last_late_file(shop: Shop) -> None:
    come(shop, "1.json", sale("S-1", terminal="T1", sequence=1))
    come(shop, "4.json", sale("S-4", terminal="T1", sequence=4))
    assert open_gaps(shop) == [(2, 3)]
    assert shop.entries("flag")[0]["external_id"] == "S-4"
    come(shop, "3.json", sale("S-3", terminal="T1", sequence=3))
    assert open_gaps(shop) == [(2, 3)]
    come(shop, "2.json", sale("S-2", terminal="T1", sequence=2))
    assert open_gaps(shop) == []
    assert len(shop.entries("resolution")) == 1
    come(shop, "5.json", sale("S-5", terminal="T1", sequence=5))
    assert open_gaps(shop) == []


def test_files_of_one_moment_may_come_in_any_order(shop: Shop) -> None:
    for number in (3, 1, 2, 5, 4):
        shop.drop(f"{9 - number}.json", sale(f"S-{number}", terminal="T1", sequence=number))
    shop.sweep()
    assert flags(shop) == []


def test_late_files_of_one_batch_close_a_gap_together(shop: Shop) -> None:
    come(shop, "1.json", sale("S-1", terminal="T1", sequence=1))
    come(shop, "4.json", sale("S-4", terminal="T1", sequence=4))
    shop.drop("2.json", sale("S-2", terminal="T1", sequence=2))
    shop.drop("3.json", sale("S-3", terminal="T1", sequence=3))
    shop.sweep()
    assert open_gaps(shop) == []


def test_each_terminal_counts_for_itself_and_starts_at_the_first_number_seen(shop: Shop) -> None:
    come(shop, "1.json", sale("S-1", terminal="T1", sequence=100))
    come(shop, "2.json", sale("S-2", terminal="T2", sequence=7))
    come(shop, "3.json", sale("S-3", terminal="T1", sequence=101.0))
    come(shop, "4.json", sale("S-4", terminal="T1"))
    come(shop, "5.json", sale("S-5", sequence=900))
    come(shop, "6.json", sale("S-6", terminal="T1", sequence=50))
    assert flags(shop) == []


def test_a_repeat_or_an_invalid_document_fills_no_gap(shop: Shop) -> None:
    come(shop, "1.json", sale("S-1", terminal="T1", sequence=1))
    come(shop, "3.json", sale("S-3", terminal="T1", sequence=3))
    come(shop, "2.json", broken("S-2", terminal="T1", sequence=2))
    come(shop, "1.json", sale("S-1", terminal="T1", sequence=1))
    assert open_gaps(shop) == [(2, 2)]


def test_the_redemption_that_a_sale_names_counts_for_its_total(shop: Shop) -> None:
    redemption = (
        b'{"kind":"redemption","external_id":"R-1","profile_id":"p","issued_at":"2025-06-15 14:00:00",'
        b'"timezone":"UTC","amount":2.5,"strategies":["points"]}'
    )
    come(shop, "r.json", redemption)
    come(shop, "s.json", sale("S-1", total=10, redemption_external_id="R-1"))
    assert flags(shop) == []
    come(shop, "t.json", sale("S-2", total=9, redemption_external_id="R-1"))
    assert flags(shop) == ["totals_mismatch"]


# -- nothing personal


@pytest.mark.parametrize(
    "body",
    [
        broken("S-9", profile_id=SECRET, meta={SECRET: SECRET}),
        sale("S-9", timezone=SECRET),
        sale("S-9", meta={SECRET: 1}).replace(b": 1}", b": NaN}"),
        sale("S-9", meta={"4111111111111111": 1}).replace(b": 1}", b": 1e999}"),
        sale("S-9").replace(b'"items"', b'"%s": 1, "%s": 2, "items"' % (SECRET.encode(), SECRET.encode())),
        sale("S-1", total=99, profile_id=SECRET, items=[{"name": SECRET, "price_sell": 1}]),
        sale("S-9", total=99, profile_id=SECRET, receipt_email=SECRET, items=[{"name": SECRET, "price_sell": 1}]),
        f'{{"kind": "{SECRET}"}}'.encode(),
    ],
)
def test_neither_entries_nor_the_log_say_anything_personal(shop: Shop, body: bytes) -> None:
    come(shop, "a.json", sale())
    come(shop, "b.json", body)
    reasons = [json.loads(path.read_text())["reason"] for path in shop.spool.glob("rejected/*.error.json")]
    told = f"{shop.entries()} {shop.said} {reasons}"
    assert SECRET not in told
    assert "secret" not in told
    assert "4111" not in told


def test_a_pointer_is_told_as_far_as_the_schemas_know_its_names() -> None:
    assert public("/items/3/price_sell") == "/items/3/price_sell"
    assert public("/meta/jane") == "/meta"
    assert public("/items/4111111111111111") == "/items"
    assert public("") == ""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (broken(), "breaks its schema: /total must be a number"),
        (sale(items=[{"quantity": "x"}]), "breaks its schema: /items/0/quantity must be a number"),
        (b'{"kind": "x"}', "of no known kind: /kind must be one of: sale, redemption, reversal, return"),
        (b"[]", "not one JSON object: the document must be one JSON object"),
        (b'{"jane@x": NaN}', "not strict JSON: something in it must be a number: NaN and Infinity are not JSON"),
        (b'{"meta": {"jane": NaN}}', "not strict JSON: something in /meta must be a number: NaN and"),
        (b"hello", "not JSON: the document is not JSON from line 1, column 1 on"),
        (b"\xff", "not UTF-8: the document must be UTF-8, which ends at byte 0"),
        (b"", "empty: the document must be one JSON object"),
        (None, "over the size limit"),
    ],
)
def test_a_reason_names_the_first_thing_that_is_wrong(body: Any, reason: str) -> None:
    assert in_words(on_its_own("a.json", body)[0]).startswith(reason)


# -- without a journal


@pytest.mark.parametrize(
    ("body", "kind", "flagged"),
    [
        (sale(), "sale", []),
        (sale(total=99), "sale", ["totals_mismatch"]),
        (broken(), "invalid", []),
        (b"", "invalid", []),
        (None, "invalid", []),
    ],
)
def test_a_file_on_its_own(body: Any, kind: str, flagged: list[str]) -> None:
    document, found = on_its_own("a.json", body)
    assert (document.kind, found) == (kind, flagged)
