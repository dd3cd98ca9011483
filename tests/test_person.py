"""One customer's documents: found by any handle, however the till wrote it, and nobody else's."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tills import Shop, broken, sale

from journal import log, person, redact, story
from journal.person import Needle, Search

CARD, MAIL, UUID = "6000000001", "anna@example.org", "92a7996b-abb6-4c9c-a845-9aaf8202fab6"


def redemption(external_id: str, **fields: Any) -> bytes:
    content = {
        "kind": "redemption",
        "external_id": external_id,
        "profile_id": CARD,
        "issued_at": "2025-06-15 14:30:00",
        "timezone": "Australia/Melbourne",
        "amount": 10,
        "strategies": ["rewards"],
    }
    return json.dumps(content | fields).encode()


def reversal(external_id: str, **fields: Any) -> bytes:
    times = {"issued_at": "2025-06-15 14:33:00", "timezone": "Australia/Melbourne"}
    return json.dumps({"kind": "reversal", "external_id": external_id} | times | fields).encode()


def found(shop: Shop, handle: str, **options: Any) -> dict[str, str]:
    with story.both_books(shop.db, shop.delivery) as books:
        search = Search(books.conn, **options)
        search.run(handle)
        return {row["external_id"] or f"entry {row['seq']}": row["why"] for row in person.told(books, search)}


def drop(shop: Shop, *bodies: bytes) -> None:
    for number, body in enumerate(bodies):
        shop.drop(f"{number:04d}.json", body, age=1000 - number)
    shop.sweep()


# -- one body

BODIES = {
    "as it is": (sale(profile_id=MAIL), "/profile_id is it"),
    "in capitals": (sale(profile_id="Anna@Example.ORG"), "/profile_id is it"),
    "with escapes": (json.dumps({"kind": "x", "a": MAIL}).replace("@", "\\u0040").encode(), "/a is it"),
    "deep inside": (sale(meta={"gift": [{"to": MAIL}]}), "/meta/gift/0/to is it"),
    "in a sentence": (sale(meta={"note": f"Send it to {MAIL}, please"}), "/meta/note mentions it"),
    "in no JSON": (b"<mail>anna@example.org</mail>", "its text holds it"),
    "in no JSON, with escapes": (b'{"a": "anna\\u0040example.org"', "its text holds it"),
    "in UTF-16": (f'{{"a": "{MAIL}"}}'.encode("utf-16"), "its text holds it"),
    "beside NaN": (b'{"a": NaN, "mail": "anna@example.org"}', "/mail is it"),
    "after a byte-order mark": (b"\xef\xbb\xbf" + sale(profile_id=MAIL), "/profile_id is it"),
    "in a longer one": (sale(profile_id="joanna@example.org"), None),
    "before a longer one": (sale(profile_id="anna@example.organic"), None),
    "as the name of a member": (sale(meta={MAIL: 1}), None),
    "nowhere": (sale(), None),
}


@pytest.mark.parametrize("body", BODIES)
def test_where_a_handle_stands(body: str) -> None:
    raw, where = BODIES[body]
    found = Needle(MAIL).find(raw)
    assert (found[0] if found else None) == where
    if where and where.endswith("is it") and b"\\" not in raw and b"\xff\xfe" not in raw:
        assert Needle(MAIL).may_be_in(raw.lower())


NUMBERS = {
    "a profile_id": (sale(profile_id=int(CARD)), True),
    "a card as a number": (sale(meta={"card": int(CARD)}), True),
    "the id of a thing": (sale(receipt_ref=CARD, items=[{"name": "x", "sku": CARD}]), False),
    "a small number": (sale(profile_id="31", items=[{"name": "x", "quantity": 31}]), True),
    "a small number that is something else": (sale(items=[{"name": "x", "quantity": 31}]), False),
}


@pytest.mark.parametrize("body", NUMBERS)
def test_a_number_is_a_handle_only_where_it_can_be_one(body: str) -> None:
    raw, expected = NUMBERS[body]
    assert any(Needle(value).find(raw) is not None for value in (CARD, "31")) == expected


def test_a_handle_in_other_letters_is_found() -> None:
    body = sale(profile_id="JÖRG@example.org")
    assert Needle("jörg@example.org").may_be_in(body.lower())
    assert Needle("jörg@example.org").find(body) == ("/profile_id is it", True)


def test_leaves_are_texts_and_numbers_with_their_place() -> None:
    value = {"a": [{"b": "x"}, 5, True, None], "c": Decimal("1.5")}
    assert list(person.leaves(value)) == [("/a/0/b", "b", "x"), ("/a/1", "a", 5), ("/c", "c", Decimal("1.5"))]


# -- a journal


def test_one_handle_leads_to_the_others_and_to_nobody_else(shop: Shop) -> None:
    drop(
        shop,
        sale("S-1", profile_id=CARD, redemption_external_id="R-1"),
        redemption("R-1", profile_id=UUID, transaction_external_id="S-1"),
        sale("S-2", profile_id=MAIL, receipt_email=MAIL),
        sale("S-3", profile_id=UUID),
        sale("S-4", profile_id="other@example.org"),
        sale("S-5"),
        reversal("V-1", redemption_external_id="R-1"),
        sale("S-6", redemption_id=159, profile_id=UUID),
        reversal("V-2", redemption_id=159, redeemed_at="2025-06-15 14:30:00"),
        redemption("R-2", profile_id=UUID, transaction_external_id="S-2"),
    )
    everything = {"S-1", "R-1", "S-2", "S-3", "V-1", "S-6", "V-2", "R-2"}
    for handle in (CARD, MAIL.upper(), UUID):
        assert set(found(shop, handle)) == everything
    assert set(found(shop, CARD, exact=True)) == {"S-1"}
    assert set(found(shop, "other@example.org")) == {"S-4"}
    why = found(shop, CARD)
    assert why["S-1"] == "/profile_id is it"
    assert why["R-1"] == "belongs to entry 2"


def test_a_mention_brings_in_the_document_and_not_its_customer(shop: Shop) -> None:
    drop(shop, sale("S-1", profile_id=CARD, meta={"note": f"a gift for {MAIL}"}), sale("S-2", profile_id=CARD))
    assert set(found(shop, MAIL)) == {"S-1"}


def test_broken_and_conflicting_documents_are_found(shop: Shop) -> None:
    drop(
        shop,
        sale("S-1", profile_id=MAIL),
        sale("S-1", total=99, note="no customer"),  # came under the id of hers, and names nobody
        sale("S-1", total=77, profile_id="other@example.org"),  # another's
        broken("B-1", profile_id=MAIL),
        b'{"half": "' + MAIL.encode(),
    )
    with story.both_books(shop.db, shop.delivery) as books:
        search = Search(books.conn)
        search.run(MAIL)
        bodies = [json.dumps(row["body"], default=str) for row in person.told(books, search)]
    assert len(bodies) == 3 + (len(shop.waiting()) == 0)
    assert not any("other@example.org" in body for body in bodies)
    assert any("no customer" in body for body in bodies)


def test_a_search_goes_on_over_pieces(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(person, "PIECE", 2)
    drop(shop, *(sale(f"S-{number}", profile_id=MAIL if number % 3 else CARD) for number in range(12)))
    assert set(found(shop, MAIL)) == {f"S-{number}" for number in range(12) if number % 3}


@pytest.mark.parametrize("handle", ["nobody@example.org", "", "ab", "  a "])
def test_what_is_not_there_or_too_short_is_said(shop: Shop, handle: str) -> None:
    drop(shop, sale("S-1", profile_id=MAIL))
    with pytest.raises(log.NoSuch):
        found(shop, handle)


def test_a_long_chain_of_documents_is_no_trouble(shop: Shop) -> None:
    pairs = [
        body
        for number in range(1200)
        for body in (
            redemption(f"R-{number}", profile_id=f"card-{number}", transaction_external_id=f"S-{number}"),
            sale(f"S-{number}", redemption_external_id=f"R-{number + 1}"),
        )
    ]
    log.append(
        shop.book,
        [
            log.Entry(
                json.loads(body)["kind"],
                None,
                json.loads(body)["external_id"],
                {"names": f"external:{json.loads(body)['redemption_external_id']}"} if b'"sale"' in body else {},
                body,
            )
            for body in pairs
        ],
    )
    assert len(found(shop, "card-0")) == 2400


# -- the commands


def test_the_command_lists_exports_and_says_which_handles(shop: Shop, tmp_path: Path) -> None:
    drop(
        shop,
        sale("S-1", profile_id=MAIL, redemption_external_id="R-1"),
        redemption("R-1", profile_id=UUID),
        sale("S-9"),
        broken(profile_id=MAIL),
    )
    shop.book.close()
    done = shop.run("person", MAIL)
    assert done.returncode == 0
    assert [line.split()[2:4] for line in done.stdout.splitlines()] == [
        ["sale", "S-1"],
        ["redemption", "R-1"],
        ["invalid", "B-1"],
    ]
    assert "S-9" not in done.stdout
    assert f"Handle {UUID}: is the profile_id of entry 3." in done.stderr
    assert "rejected/0003.json" in done.stderr
    rows = [json.loads(line) for line in shop.run("person", UUID, "--json").stdout.splitlines()]
    assert [row["external_id"] for row in rows] == ["S-1", "R-1", "B-1"]
    assert rows[0]["body"]["profile_id"] == MAIL
    assert rows[0]["state"] == "waiting"
    out = tmp_path / "hers.json"
    assert shop.run("person", MAIL, "--out", str(out)).returncode == 0
    assert [row["external_id"] for row in json.loads(out.read_bytes())] == ["S-1", "R-1", "B-1"]
    assert out.stat().st_mode & 0o777 == 0o600
    assert shop.run("person", MAIL, "--out", str(out)).returncode == 78
    assert shop.run("person", "nobody@example.org").returncode == 1
    assert shop.run("person", "-", input=f"{MAIL}\n").stdout == done.stdout


def test_redaction_by_person_lists_first_and_then_takes_everything(shop: Shop) -> None:
    drop(
        shop,
        sale("S-1", profile_id=MAIL, redemption_external_id="R-1"),
        redemption("R-1", profile_id=UUID),
        broken("B-1", profile_id=MAIL),
        sale("S-9", profile_id=CARD),
    )
    shop.book.close()
    words = ("redact", "--person", MAIL, "--by", "Ann", "--reason", "she asked")
    listed = shop.run(*words)
    assert listed.returncode == 0
    assert "3 documents would go" in listed.stdout
    assert "add --yes" in listed.stdout
    assert shop.entries("redaction") == []
    assert shop.run(*words, "--yes").returncode == 75  # they wait to be sent
    assert shop.entries("redaction") == []
    done = shop.run(*words, "--yes", "--even-unsent")
    assert done.returncode == 0
    assert "If 0002.json still lies in rejected/" in done.stdout
    whole = b"".join(path.read_bytes() for path in shop.root.glob("journal.db*"))
    for trace in (MAIL, UUID):
        assert trace.encode() not in whole
    assert CARD.encode() in whole
    assert shop.problems() == []
    assert shop.run("person", MAIL).returncode == 1


def test_nothing_personal_is_in_the_log_of_a_redacted_person(shop: Shop) -> None:
    """Facts, flags, reasons and pointers too, of documents of every kind."""
    drop(
        shop,
        sale("S-1", profile_id=MAIL, total=3, receipt_email=MAIL),
        sale("S-1", profile_id=MAIL, total=4),
        broken("B-1", profile_id=MAIL, **{MAIL: MAIL}),
        b'{"half": "' + MAIL.encode() + b'", "half": 3}',
        redemption("R-1", profile_id=MAIL, meta={"name": MAIL}),
    )
    with story.both_books(shop.db, shop.delivery) as books:
        search = Search(books.conn)
        search.run(MAIL)
    redact.redact(shop.db, shop.delivery, sorted(search.found), "Ann", "she asked", even_unsent=True)
    whole = b"".join(path.read_bytes() for path in shop.root.glob("journal.db*"))
    assert MAIL.encode() not in whole
