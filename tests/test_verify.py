"""`verify` finds every alteration inside a book, names the entry, and never falls over what it finds."""

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tills import Shop, broken, sale

from journal import chain, log, standalone
from journal import verify as walking
from journal.log import Entry
from journal.verify import Courtesy, verify

SALES = (2, 3, 4)  # the entries of the shop below: 1 created, 2 to 4 sales, 5 invalid, 6 its flag, 7 opened


@pytest.fixture
def shop(shop: Shop) -> Shop:
    for number, age in ((1, 9), (2, 8), (3, 7)):
        shop.drop(f"{number}.json", sale(f"S-{number}"), age=age)
    shop.drop("bad.json", broken())
    shop.sweep()
    log.append(shop.book, [Entry("opened", facts={})])
    shop.book.close()
    return shop


def tamper(path: Path, *statements: str) -> None:
    """What anybody can do with a shell and the file: first the triggers and checks go, then the deed is done."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            db.execute(statement)
        for _, sql in triggers:
            db.execute(sql)


def found(shop: Shop, book: str = "journal") -> list[tuple[int, str]]:
    return [(problem["seq"], problem["what"]) for problem in shop.problems() if problem["book"] == book]


# -- sound books


def test_books_of_several_shapes_are_sound(tmp_path: Path, shop: Shop) -> None:
    new = Shop(tmp_path / "new")
    assert new.problems() == []
    new.book.close()
    assert shop.problems() == []
    told = verify(shop.db, shop.delivery)
    assert told["ok"]
    assert told["entries"] == 7
    assert told["delivery"] == {"entries": 0, "head": None}
    with closing(log.open_book(shop.db, "journal", write=False)) as db:
        assert told["head"] == log.head(db)[1].hex()


def test_a_body_that_was_redacted_is_no_finding(shop: Shop) -> None:
    with closing(log.open_book(shop.db, "journal", write=True)) as db, log.writing(db):
        log.append(db, [Entry("redaction", about=3, facts={"by": "a person"})])
        db.execute("DELETE FROM body WHERE seq = 3")
    assert shop.problems() == []


def test_a_book_of_many_pieces_is_sound_and_its_last_entry_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    log.create(path, "journal", {})
    with closing(log.open_book(path, "journal", write=True)) as db:
        log.append(db, [Entry("sale", None, f"S-{number}", {"n": number}, b"body") for number in range(4500)])
    assert verify(path, tmp_path / "none")["ok"]
    tamper(path, "UPDATE log SET facts = '{}' WHERE seq = 4500")
    assert verify(path, tmp_path / "none")["problems"][0]["seq"] == 4500


def test_a_book_that_somebody_analyzed_or_vacuumed_is_sound(shop: Shop) -> None:
    with closing(sqlite3.connect(shop.db, isolation_level=None)) as db:
        db.execute("ANALYZE")
        db.execute("VACUUM")
    assert shop.problems() == []


# -- altered entries

ALTERED = {
    "a moment": ("UPDATE log SET at = '2020-01-01T00:00:00.000Z' WHERE seq = 3", 3, "digest"),
    "a kind": ("UPDATE log SET kind = 'return' WHERE seq = 3", 3, "digest"),
    "an about": ("UPDATE log SET about = 2 WHERE seq = 6", 6, "digest"),
    "an about put in": ("UPDATE log SET about = 2 WHERE seq = 3", 3, "digest"),
    "an external_id": ("UPDATE log SET external_id = 'S-9' WHERE seq = 3", 3, "digest"),
    "an external_id taken out": ("UPDATE log SET external_id = NULL WHERE seq = 3", 3, "digest"),
    "facts": ("UPDATE log SET facts = replace(facts, '12.5', '99.5') WHERE seq = 3", 3, "digest"),
    "a body hash": ("UPDATE log SET body_hash = zeroblob(32) WHERE seq = 3", 3, "digest"),
    "a body hash taken out": ("UPDATE log SET body_hash = NULL WHERE seq = 3", 3, "digest"),
    "a digest": ("UPDATE log SET digest = zeroblob(32) WHERE seq = 3", 3, "digest"),
    "the last digest": ("UPDATE log SET digest = zeroblob(32) WHERE seq = 7", 7, "digest"),
    "the first entry": ("UPDATE log SET facts = '{}' WHERE seq = 1", 1, "digest"),
    "a text that is no UTF-8": ("UPDATE log SET external_id = CAST(x'ff' AS TEXT) WHERE seq = 3", 3, "column"),
    "facts that are no text": ("UPDATE log SET facts = CAST(facts AS BLOB) WHERE seq = 3", 3, "column"),
    "a moment that is a number": ("UPDATE log SET at = x'00' WHERE seq = 3", 3, "column"),
    "an about that is text": ("UPDATE log SET about = 'five' WHERE seq = 6", 6, "column"),
    "an about that is no whole number": ("UPDATE log SET about = 5.5 WHERE seq = 6", 6, "column"),
    "a hash that is text": ("UPDATE log SET body_hash = 'x' WHERE seq = 3", 3, "column"),
    "a digest that is text": ("UPDATE log SET digest = 'x' WHERE seq = 3", 3, "column"),
    "a long digest": ("UPDATE log SET digest = zeroblob(10000) WHERE seq = 3", 3, "digest"),
    "an entry taken out": ("DELETE FROM log WHERE seq = 3", 4, "entries 3 to 3 are missing"),
    "the first taken out": ("DELETE FROM log WHERE seq = 1", 2, "entries 1 to 1 are missing"),
    "several taken out": ("DELETE FROM log WHERE seq IN (3, 4)", 5, "entries 3 to 4 are missing"),
    "all taken out": ("DELETE FROM log", 0, "no entry in it"),
    "an entry put in before": ("INSERT INTO log SELECT -5, at, kind, about, NULL, facts, NULL, digest FROM log LIMIT 1",
                               -5, "number"),
    "two entries swapped": ("UPDATE log SET seq = CASE seq WHEN 3 THEN -4 ELSE -3 END WHERE seq IN (3, 4)", -4, ""),
    "the body's bytes": ("UPDATE body SET bytes = x'00' WHERE seq = 3", 3, "the body was altered"),
    "the body's salt": ("UPDATE body SET salt = zeroblob(16) WHERE seq = 3", 3, "the body was altered"),
    "a body that is text": ("UPDATE body SET bytes = 'x' WHERE seq = 3", 3, "the body is no bytes"),
    "a salt that is text": ("UPDATE body SET salt = 'x' WHERE seq = 3", 3, "the body is no bytes"),
    "a body taken out": ("DELETE FROM body WHERE seq = 3", 3, "the body is gone"),
    "a body for a flag": ("INSERT INTO body VALUES (6, zeroblob(16), x'00')", 6, "knows nothing of"),
    "a body without an entry": ("INSERT INTO body VALUES (99, zeroblob(16), x'00')", 99, "without an entry"),
    "a body before all": ("INSERT INTO body VALUES (-9, zeroblob(16), x'00')", -9, "without an entry"),
}  # fmt: skip


@pytest.mark.parametrize("how", ALTERED)
def test_an_alteration_is_found_at_its_entry(shop: Shop, how: str) -> None:
    statement, seq, words = ALTERED[how]
    tamper(shop.db, statement)
    problems = found(shop)
    assert problems[0][0] == seq
    assert words in problems[0][1]


@pytest.mark.parametrize("facts", ["x", "[" * 5000 + "]" * 5000, "[]", '{"other_book":[1]}'])
def test_facts_that_make_no_sense_are_found(shop: Shop, facts: str) -> None:
    with closing(sqlite3.connect(shop.db)) as db:
        indexes = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")]
    tamper(shop.db, *(f"DROP INDEX {name}" for name in indexes), f"UPDATE log SET facts = '{facts}' WHERE seq = 7")
    assert (7, "the digest does not fit: this entry was altered, or the one before it") in found(shop)


def test_two_swapped_bodies_are_found_at_both(shop: Shop) -> None:
    tamper(
        shop.db,
        "UPDATE body SET seq = -seq WHERE seq IN (2, 3)",
        "UPDATE body SET seq = seq + 5 WHERE seq IN (-2, -3)",
    )
    assert [seq for seq, _ in found(shop)] == [2, 3]


def test_a_recomputed_entry_is_found_at_the_next(shop: Shop) -> None:
    """Whoever knows the rule can mend one digest; the one after it covered the old one."""
    with closing(sqlite3.connect(shop.db)) as db:
        before = db.execute("SELECT digest FROM log WHERE seq = 2").fetchone()[0]
        row = chain.Row(*db.execute("SELECT * FROM log WHERE seq = 3").fetchone()[:7])._replace(external_id="S-9")
    digest = chain.link(before, row).hex()
    tamper(shop.db, f"UPDATE log SET external_id = 'S-9', digest = x'{digest}' WHERE seq = 3")
    assert [seq for seq, _ in found(shop)] == [4]


def test_a_second_beginning_is_found(shop: Shop) -> None:
    with closing(log.open_book(shop.db, "journal", write=True)) as db:
        log.append(db, [Entry("created")])
    assert found(shop) == [(8, "a book begins with the entry that created it, and has only one of that kind")]


def test_an_entry_put_in_with_plain_sql_is_found(shop: Shop) -> None:
    """The store lets in what looks like the next entry; only the chain shows that it is none."""
    with closing(sqlite3.connect(shop.db, isolation_level=None)) as db:
        db.execute("INSERT INTO log VALUES (8, '', 'sale', NULL, 'X', '{}', NULL, zeroblob(32))")
    assert [seq for seq, _ in found(shop)] == [8]


# -- altered tables

SCHEMA = {
    "a trigger gone": "DROP TRIGGER log_no_update",
    "an index gone": "DROP INDEX log_about",
    "a table more": "CREATE TABLE notes (text)",
    "a view more": "CREATE VIEW v AS SELECT 1",
    "a trigger more": "CREATE TRIGGER t AFTER INSERT ON log BEGIN SELECT 1; END",
    "a column more": "ALTER TABLE log ADD COLUMN note TEXT",
    "a table renamed": "ALTER TABLE body RENAME TO bodies",
    "the log gone": "DROP TABLE log",
    "the bodies gone": "DROP TABLE body",
}


@pytest.mark.parametrize("how", SCHEMA)
def test_a_changed_schema_is_found(shop: Shop, how: str) -> None:
    with closing(sqlite3.connect(shop.db, isolation_level=None)) as db:
        db.execute(SCHEMA[how])
    assert found(shop)[0][0] == 0


def test_a_trigger_that_only_looks_like_ours_is_found(shop: Shop) -> None:
    with closing(sqlite3.connect(shop.db, isolation_level=None)) as db:
        sql = db.execute("SELECT sql FROM sqlite_master WHERE name = 'log_no_update'").fetchone()[0]
        db.execute("DROP TRIGGER log_no_update")
        db.execute(sql.replace("ON log", "ON log WHEN 0"))
    assert found(shop) == [
        (0, "the trigger log_no_update is missing or altered"),
        (0, "the trigger log_no_update does not belong here as it is"),
    ]


ENDLESS = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS seq, '' AS at, '' AS kind,
NULL AS about, NULL AS external_id, '{}' AS facts, NULL AS body_hash, zeroblob(32) AS digest FROM n"""


@pytest.mark.parametrize("select", [ENDLESS, "SELECT 1 AS one"])
def test_a_log_that_is_no_table_is_not_walked(shop: Shop, select: str) -> None:
    with closing(sqlite3.connect(shop.db, isolation_level=None)) as db:
        db.execute("DROP TABLE log")
        db.execute(f"CREATE VIEW log AS {select}")
    assert (0, "the view log does not belong here as it is") in found(shop)


def test_a_table_built_anew_without_its_rules_is_walked_all_the_same(shop: Shop) -> None:
    with closing(sqlite3.connect(shop.db, isolation_level=None)) as db:
        db.execute("DROP TRIGGER body_belongs")
        db.execute("DROP TRIGGER body_no_delete")
        db.execute("CREATE TABLE other AS SELECT * FROM log")
        db.execute("DROP TABLE log")
        db.execute("ALTER TABLE other RENAME TO log")
        db.execute("UPDATE log SET facts = 7, seq = 'three' WHERE seq = 3")
    assert any(what == "a column holds what no entry holds" for _, what in found(shop))


def test_an_index_that_hides_an_entry_is_found(shop: Shop) -> None:
    """Else the same sale would be taken for a new one."""
    with closing(sqlite3.connect(shop.db, isolation_level=None)) as db:
        sql = db.execute("SELECT sql FROM sqlite_master WHERE name = 'log_external_id'").fetchone()[0]
        db.execute("DROP INDEX log_external_id")
        db.execute(sql + " AND seq <> 3")
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'log_external_id'", (sql,))
    assert found(shop) == [(3, "an index does not hold this entry, so that our own programs overlook it")]


# -- damaged files


@pytest.mark.parametrize("keep", [1.0, 0.9, 0.6, 0.3, 0.1, 0.0])
def test_a_truncated_file_is_a_finding(shop: Shop, keep: float) -> None:
    with shop.db.open("r+b") as file:
        file.truncate(int(shop.db.stat().st_size * keep) - (16384 if keep == 1.0 else 0))
    assert found(shop)


def test_a_flipped_bit_in_what_was_written_is_found(shop: Shop, tmp_path: Path) -> None:
    raw = shop.db.read_bytes()
    with closing(sqlite3.connect(shop.db)) as db:
        texts = [row[0] for row in db.execute("SELECT bytes FROM body UNION ALL SELECT digest FROM log")]
    for text in texts:
        path = tmp_path / "flipped.db"
        at = raw.index(text) + len(text) // 2
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
        assert verify(path, tmp_path / "none")["problems"], f"nothing found in {text!r}"


def test_whatever_is_flipped_verify_does_not_fall_over(shop: Shop, tmp_path: Path) -> None:
    raw, dice = shop.db.read_bytes(), random.Random(7)
    for _ in range(300):
        spoilt = bytearray(raw)
        for _ in range(dice.choice([1, 1, 8, 200])):
            spoilt[dice.randrange(100, len(raw))] ^= 1 << dice.randrange(8)
        path = tmp_path / "spoilt.db"
        path.write_bytes(spoilt)
        json.dumps(verify(path, tmp_path / "none"))


def test_a_damaged_page_is_named_and_what_stands_before_it_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    log.create(path, "journal", {})
    with closing(log.open_book(path, "journal", write=True)) as db:
        for number in range(300):
            log.append(db, [Entry("sale", None, f"S-{number}", {"n": number}, bytes(500))])
    raw = bytearray(path.read_bytes())
    at = raw.index(b'{"n":250}')
    page = at // 16384 * 16384
    raw[page : page + 8] = b"\xff" * 8
    path.write_bytes(raw)
    told = verify(path, tmp_path / "none")
    problem = told["problems"][-1]
    assert 2 < problem["seq"] <= 252
    assert told["entries"] == problem["seq"] - 1


# -- two books


@pytest.fixture
def pair(shop: Shop) -> Shop:
    """The delivery book as the forwarder writes it: bound to the journal, vouching for its head."""
    with closing(log.open_book(shop.db, "journal", write=False)) as db:
        begin_delivery(shop, log.head(db))
    with closing(log.open_book(shop.delivery, "delivery", write=True)) as delivery:
        log.append(delivery, [Entry("delivered", seq, f"S-{seq - 1}", {"omneo_id": seq}) for seq in SALES])
        seq, digest = log.head(delivery)
    with closing(log.open_book(shop.db, "journal", write=True)) as db:
        log.append(db, [Entry("opened", facts={"other_book": {"entries": seq, "head": digest.hex()}})])
    return shop


def begin_delivery(shop: Shop, head: tuple[int, bytes]) -> None:
    other = {"entries": head[0], "head": head[1].hex()}
    log.create(shop.delivery, "delivery", {"journal": "a-test", "other_book": other, "unknown_upto": head[0]})


def rewrite(path: Path, change: Callable[[list[Any]], None], keep: int = 2**31) -> None:
    """What a patient forger does: alters entries, cuts the end off, and recomputes every digest."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        rows = [list(row) for row in db.execute("SELECT * FROM log ORDER BY seq")][:keep]
    tamper(path, "DELETE FROM log", "DELETE FROM body" if keep < len(rows) else "SELECT 1")
    before = chain.ZERO
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for row in rows:
            change(row)
            before = row[7] = chain.link(before, chain.Row(*row[:7]))
            db.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def test_two_sound_books_vouch_for_each_other(pair: Shop) -> None:
    told = verify(pair.db, pair.delivery)
    assert told["problems"] == []
    assert told["delivery"]["entries"] == 4


def test_what_the_second_book_says_of_the_first_is_compared_a_piece_at_a_time(
    pair: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: all of it was kept to the end, which was a third of what a walk over ten years held."""
    compared: list[int] = []
    agrees = walking._agrees

    def counted(book: walking.Book, db: sqlite3.Connection, claims: list[tuple[int, int, str]]) -> None:
        compared.append(len(claims))
        agrees(book, db, claims)

    with closing(log.open_book(pair.db, "journal", write=False)) as db:
        seq, digest = log.head(db)
    other = {"other_book": {"entries": seq, "head": digest.hex()}}
    false = {"other_book": {"entries": seq, "head": "00" * 32}}
    with closing(log.open_book(pair.delivery, "delivery", write=True)) as db:
        log.append(db, [Entry("turn", facts=other) for _ in range(30)])
    monkeypatch.setattr(walking, "PIECE", 8)
    monkeypatch.setattr(walking, "CLAIMS", 10)
    monkeypatch.setattr(walking, "_agrees", counted)
    assert found(pair) == found(pair, "delivery") == []
    assert len(compared) > 4
    assert max(compared) <= 10 + 8
    with closing(log.open_book(pair.delivery, "delivery", write=True)) as db:
        log.append(db, [Entry("turn", facts=false) for _ in range(30)])
    assert len(found(pair)) == 1  # the first difference says it all
    assert found(pair)[0][0] == seq


def test_an_alteration_of_the_second_book_is_found(pair: Shop) -> None:
    tamper(pair.delivery, """UPDATE log SET facts = '{"omneo_id":9}' WHERE seq = 3""")
    assert found(pair, "delivery")[0][0] == 3
    assert found(pair) == []


def test_a_delivery_book_that_was_recomputed_is_found(pair: Shop) -> None:
    def forge(row: list[Any]) -> None:
        if row[0] == 3:
            row[5] = '{"omneo_id":999}'

    rewrite(pair.delivery, forge)
    assert found(pair, "delivery") == [
        (4, "entry 8 of the other book saw another one here: it was rewritten, or the end was cut off")
    ]


def test_a_delivery_book_whose_end_was_cut_off_is_found(pair: Shop) -> None:
    rewrite(pair.delivery, lambda row: None, keep=3)  # noqa: ARG005
    assert [seq for seq, _ in found(pair, "delivery")] == [4]


def test_a_journal_whose_end_was_cut_off_is_found(pair: Shop) -> None:
    tamper(pair.db, "DELETE FROM log WHERE seq > 3", "DELETE FROM body WHERE seq > 3")
    assert [seq for seq, _ in found(pair)] == [7]
    assert found(pair, "delivery") == [(4, "speaks of entry 4, which is no document of this journal")]


def test_a_delivery_book_that_was_lost_and_begun_anew_is_no_finding(pair: Shop) -> None:
    """What the journal said of the lost one says nothing of this one."""
    pair.delivery.unlink()
    with closing(log.open_book(pair.db, "journal", write=False)) as db:
        begin_delivery(pair, log.head(db))
    assert pair.problems() == []


def test_a_delivery_book_that_speaks_of_no_document_is_found(pair: Shop) -> None:
    with closing(log.open_book(pair.delivery, "delivery", write=True)) as db:
        log.append(db, [Entry("refused", 6), Entry("refused", 99), Entry("refused", 5)])
    assert [seq for seq, _ in found(pair, "delivery")] == [5, 6]


def test_what_only_a_reconciliation_has_seen_of_the_journal_is_missed_when_it_is_cut_off(pair: Shop) -> None:
    """By both programs that verify: what the one takes for a word on the other book, the other does too."""
    with closing(log.open_book(pair.db, "journal", write=False)) as db:
        seq, digest = log.head(db)
    with closing(log.open_book(pair.delivery, "delivery", write=True)) as db:
        log.append(db, [Entry("reconciled", facts={"other_book": {"entries": seq, "head": digest.hex()}})])
    assert pair.problems() == []
    tamper(pair.db, f"DELETE FROM log WHERE seq = {seq}")
    assert [seq for seq, _ in found(pair)] == [seq]
    alone = standalone.examine([pair.db, pair.delivery], {}, "")
    assert [(book, at) for each in alone for book, at, _ in each.problems] == [("journal", seq)]


@pytest.mark.parametrize(
    "other", ["7", '{"entries":"x"}', '{"entries":99999999999999999999,"head":""}', '{"entries":2}']
)
def test_a_claim_that_makes_no_sense_is_not_followed(pair: Shop, other: str) -> None:
    with closing(log.open_book(pair.delivery, "delivery", write=True)) as db:
        log.append(db, [Entry("turn", facts={"other_book": json.loads(other)})])
    json.dumps(verify(pair.db, pair.delivery))


@pytest.mark.parametrize("how", ["empty", "cut", "no log"])
def test_a_spoilt_second_book_is_a_finding_of_its_own(pair: Shop, how: str) -> None:
    if how == "no log":
        tamper(pair.delivery, "SELECT 1")
        with closing(sqlite3.connect(pair.delivery)) as db:
            db.execute("DROP TABLE log")
    else:
        with pair.delivery.open("r+b") as file:
            file.truncate(0 if how == "empty" else 20_000)
    assert found(pair, "delivery")
    assert found(pair) == []


# -- not now


def test_a_book_that_is_held_this_moment_is_no_finding(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journal.book.BUSY_MS", 20)
    with closing(sqlite3.connect(shop.db, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(log.NotNow):
            shop.problems()


def test_a_copy_of_a_book_elsewhere_is_verified_too(shop: Shop, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(shop.db, copy)
    copy.chmod(0o400)
    assert verify(copy, tmp_path / "none")["ok"]


def test_a_book_that_could_not_be_walked_is_asked_no_more(shop: Shop) -> None:
    """What the journal says of an earlier delivery book would be held against it: when it was begun is not known."""
    with closing(log.open_book(shop.db, "journal", write=True)) as db:
        log.append(db, [Entry("vouched", facts={"other_book": {"entries": 1, "head": "ab" * 32}})])
        begin_delivery(shop, log.head(db))
    assert verify(shop.db, shop.delivery)["ok"]
    with closing(sqlite3.connect(shop.delivery)) as delivery:
        delivery.execute("DROP TABLE body")
    assert {(each["book"], each["seq"]) for each in verify(shop.db, shop.delivery)["problems"]} == {("delivery", 0)}


def test_a_walk_rests_between_its_pieces_while_somebody_writes_and_a_second_longer(tmp_path: Path) -> None:
    book, missing = tmp_path / "journal.db", tmp_path / "delivery.db"
    book.write_bytes(b"")
    now, rests = [100.0], list[float]()
    courtesy = Courtesy(book, missing, clock=lambda: now[0], sleep=rests.append)
    for took_s, somebody_wrote in ((0.01, False), (0.01, True), (0.5, False), (2.0, False)):
        if somebody_wrote:
            os.utime(book, ns=(1, 1))
        now[0] += took_s
        courtesy()
    assert rests == pytest.approx([0.06, 3.0])
