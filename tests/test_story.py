"""What the two books say, put together."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlite_utils import Database
from tills import Shop, broken, sale

from journal import log, story, words
from journal.log import Entry

NOON = datetime(2025, 6, 15, 12, tzinfo=UTC)


@contextmanager
def books(shop: Shop) -> Iterator[Database]:
    with story.both_books(shop.db, shop.delivery) as both:
        yield both


def deliver(shop: Shop, *entries: Entry, at: datetime = NOON) -> None:
    if not shop.delivery.exists():
        log.create(shop.delivery, "delivery", {}, lambda: at)
    with closing(log.open_book(shop.delivery, "delivery", write=True)) as db:
        log.append(db, entries, now=lambda: at)


@pytest.fixture
def shop(shop: Shop) -> Shop:
    """Entries 2, 3 and 4 are sales, 5 and 6 an invalid file and its flag."""
    for number, age in ((1, 9), (2, 8), (3, 7)):
        shop.drop(f"{number}.json", sale(f"S-{number}"), age=age)
    shop.drop("bad.json", broken())
    shop.sweep()
    return shop


@pytest.mark.parametrize(
    ("kinds", "state", "settled"),
    [
        ([], "waiting", False),
        (["attempt", "deferred"], "waiting", False),
        (["delivered"], "delivered", True),
        (["attempt", "refused"], "refused", True),
        (["held"], "held", True),
        (["cancelled"], "cancelled", True),
        (["held", "abandoned"], "abandoned", True),
        (["held", "released"], "waiting", False),
        (["held", "released", "delivered"], "delivered", True),
    ],
)
def test_a_state_is_the_last_word_of_the_delivery_book(shop: Shop, kinds: list[str], state: str, settled: bool) -> None:
    deliver(shop, *(Entry(kind, 3, "S-2", {"omneo_id": 77} if kind == "delivered" else {}) for kind in kinds))
    with books(shop) as both:
        rows = list(story.documents(both))
        assert [row["state"] for row in rows] == ["waiting", state, "waiting", "invalid"]
        assert (rows[1]["settled_at"] is not None) == settled
        assert rows[1]["omneo_id"] == (77 if state == "delivered" else None)
        assert [row["seq"] for row in story.documents(both, state=state, kind="sale")].count(3) == 1


def test_documents_are_listed_in_journal_order_across_pieces(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "PIECE", 2)
    with books(shop) as both:
        assert [row["seq"] for row in story.documents(both)] == [2, 3, 4, 5]
        assert [row["seq"] for row in story.documents(both, kind="invalid")] == [5]


def test_a_listing_that_nobody_reads_on_holds_no_book(shop: Shop) -> None:
    """`list | less` over night must not stop the tills."""
    with books(shop) as both:
        listing = story.documents(both)
        next(listing)
        shop.book.execute("PRAGMA busy_timeout = 20")
        log.append(shop.book, [Entry("opened")])


def test_an_external_id_goes_before_an_entry_number(shop: Shop) -> None:
    shop.drop("digits.json", sale("3"))
    shop.sweep()
    with books(shop) as both:
        assert story.find(both, "3")["external_id"] == "3"
        assert story.find(both, "2")["external_id"] == "S-1"
        assert story.find(both, "S-2")["seq"] == 3
        for name in ("6", "99", "", "٣", "9" * 30, "-1"):
            with pytest.raises(log.NoSuch):
                story.find(both, name)


def test_a_story_names_the_documents_that_came_under_its_external_id(shop: Shop) -> None:
    shop.drop("c.json", sale("S-2", total=13))
    shop.drop("d.json", broken("S-2"))
    shop.sweep()
    with books(shop) as both:
        told = story.show(both, "S-2")
    assert told["seq"] == 3
    assert told["body"]["total"] == Decimal("12.5")
    assert sorted(row["what"] for row in told["history"]) == ["conflicting", "invalid", "sale"]
    assert sorted(flag["flag"] for flag in told["flags"]) == ["conflict", "invalid"]


def test_a_story_keeps_each_books_order_when_the_clock_was_set_back(shop: Shop) -> None:
    deliver(shop, Entry("attempt", 3), at=NOON)
    deliver(shop, Entry("delivered", 3, facts={"omneo_id": 5}), at=NOON - timedelta(hours=1))
    with books(shop) as both:
        what = [row["what"] for row in story.show(both, "S-2")["history"]]
    assert what == ["attempt", "delivered", "sale"]


def test_a_story_in_words_says_how_a_delivery_went(shop: Shop) -> None:
    deliver(shop, Entry("attempt", 2), Entry("deferred", 2, facts={"status": 503}), Entry("attempt", 3))
    deliver(shop, Entry("delivered", 2, facts={"omneo_id": 7}))
    deliver(shop, Entry("delivered", 3, facts={"omneo_id": 8, "found": True}))
    deliver(shop, Entry("held", 4, facts={"reason": "it keeps failing"}), Entry("abandoned", 4, facts={"by": "Ana"}))

    def told(name: str) -> str:
        with books(shop) as both:
            return " ".join(" ".join(words.story(story.show(both, name))).split())

    assert told("S-1").startswith("sale S-1, entry 2: delivered Omneo knows it as 7.")
    for phrase in ("came from the till", "did not get through for now (status 503)", "delivered, "):
        assert phrase in told("S-1")
    assert words.FOUND in told("S-2")
    assert words.FOUND not in told("S-1")
    assert "held for a person to decide: it keeps failing" in told("S-3")
    assert "abandoned, it never goes, by Ana" in told("S-3")


def test_a_story_is_told_in_order_with_who_decided_and_why(shop: Shop) -> None:
    begin = datetime(2099, 6, 15, 12, tzinfo=UTC)

    def after(minutes: int, *entries: Entry) -> None:
        deliver(shop, *entries, at=begin + timedelta(minutes=minutes))

    kernel = {"boot": "b", "since_boot_s": 5.0}
    after(0, Entry("attempt", 3, "S-2", kernel))
    after(1, Entry("line", facts={"link": "down", "reason": "no connection", "since": log.stamp(begin)} | kernel))
    after(60, Entry("line", facts={"link": "up", "reason": ""} | kernel))
    after(61, Entry("held", 3, "S-2", {"reason": "a person must look"}), Entry("flag", 3, "S-2", {"flag": "poison"}))
    after(62, Entry("released", 3, "S-2", {"by": "Ben", "note": "it was the till"}))
    made = {"omneo_id": 5, "created_at": "2099-06-15T13:03:00+00:00", "late_s": 3780.0, "total": "20", "date": None}
    after(63, Entry("delivered", 3, "S-2", made))
    with books(shop) as both:
        log.append(
            shop.book, [story.resolution(both, "D6", "Ana", "looked at")], now=lambda: begin + timedelta(hours=2)
        )
        told = story.show(both, "S-2")
        lines = list(words.story(told))
    assert max(map(len, "\n".join(lines[: lines.index("")]).splitlines())) <= words.WIDTH
    tale = " ".join(" ".join(lines).split())
    phrases = (
        "came from the till",
        "may have left for Omneo",
        "the line was down: no connection",
        "it could go again",
        "held for a person to decide: a person must look",
        "flagged poison, D6",
        "released, it goes after all, by Ben: it was the till",
        "delivered, ",
        "1 h 3 min after the till (total 20)",
        "flag D6 resolved by Ana: looked at",
    )
    places = [tale.index(phrase) for phrase in phrases]
    assert places == sorted(places)
    assert "since_boot_s" not in tale
    assert [row["link"] for row in told["outages"]] == ["down"]


def test_only_outages_while_it_waited_are_told_and_not_all_of_many(shop: Shop) -> None:
    for minute in range(60):
        turn = {"link": "down" if minute % 2 else "up", "reason": "", "boot": "b", "since_boot_s": 1.0}
        deliver(shop, Entry("line", facts=turn), at=datetime(2099, 1, 1, 0, minute, tzinfo=UTC))
    deliver(shop, Entry("delivered", 2, facts={"omneo_id": 1}), at=datetime(2099, 1, 1, 0, 4, 30, tzinfo=UTC))
    with books(shop) as both:
        assert len(story.show(both, "S-1")["outages"]) == 2
        assert story.show(both, "5")["outages"] == [], "what never goes waits for nothing"
        tale = list(words.story(story.show(both, "S-2")))
    assert "  … and 10 more outages while it waited." in tale


def test_a_day_counts_what_was_released_and_held_long_ago(shop: Shop) -> None:
    deliver(shop, *(Entry("held", seq) for seq in (2, 3, 4)), Entry("released", 3), Entry("abandoned", 4))
    totals = {"delivered": 0, "refused": 0, "held": 1, "cancelled": 0, "abandoned": 1}
    deliver(shop, Entry("turn", facts={"settled": 4, "upto": 68, "totals": totals}))
    with books(shop) as both:
        assert story.settled(both) == 4
        assert story.close(both) == {"waiting": 1, "held": 1, "missing": 0, "open_flags": 1}


@pytest.mark.parametrize("at", ["nonsense", "", None, 5, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"])
def test_a_time_that_a_hand_has_spoilt_is_told_as_it_stands(at: Any) -> None:
    assert words.local(at)


@pytest.mark.parametrize("body", [b"not json \xff", b'{"kind": "sale", "total": 1e999}', b"[" * 3000])
def test_a_body_that_is_no_json_is_shown_as_text(shop: Shop, body: bytes) -> None:
    shop.book.close()
    with closing(log.open_book(shop.db, "journal", write=True)) as db:
        log.append(db, [Entry("invalid", None, None, {"reason": "x"}, body)])
    with books(shop) as both:
        assert story.show(both, "7")["body"] == body.decode("utf-8", "backslashreplace")


def test_flags_of_both_books_have_ids_of_their_own(shop: Shop) -> None:
    deliver(shop, *(Entry("flag", 3, "S-2", {"flag": "poison", "status": 500}) for _ in range(10)))
    with books(shop) as both:
        raised = list(story.flags(both))
    assert len({flag["id"] for flag in raised}) == 11
    assert [flag["id"] for flag in raised if flag["id"].startswith("D")] == [f"D{seq}" for seq in range(2, 12)]
    assert raised[0]["detail"] == {"status": 500}
    assert set(raised[0]) >= {"id", "flag", "external_id", "raised_at", "detail", "resolved"}


@pytest.mark.parametrize("flag_id", ["J6", "j6", "D2"])
def test_a_flag_of_either_book_is_resolved_once(shop: Shop, flag_id: str) -> None:
    deliver(shop, Entry("flag", 3, "S-2", {"flag": "poison"}))
    with books(shop) as both:
        entry = story.resolution(both, flag_id, "Ana", "fixed")
        with pytest.raises(log.NoSuch):
            story.resolution(both, "J99", "Ana", "fixed")
    log.append(shop.book, [entry])
    with books(shop) as both:
        assert flag_id.upper() not in [flag["id"] for flag in story.flags(both)]
        (resolved,) = [flag for flag in story.flags(both, every=True) if flag["id"] == flag_id.upper()]
        assert (resolved["resolved"]["by"], resolved["resolved"]["note"]) == ("Ana", "fixed")
        with pytest.raises(log.NoSuch, match="already"):
            story.resolution(both, flag_id, "Ben", "again")


def test_a_day_is_closed_when_nothing_waits_is_held_missing_or_flagged(shop: Shop) -> None:
    shop.drop("n1.json", sale("N-1", terminal="T", sequence=1))
    shop.sweep()
    shop.drop("n5.json", sale("N-5", terminal="T", sequence=5))
    shop.sweep()
    with books(shop) as both:
        assert story.close(both) == {"waiting": 5, "held": 0, "missing": 3, "open_flags": 2}
        seqs = [row["seq"] for row in story.documents(both, state="waiting")]
        closing_flags = [story.resolution(both, flag["id"], "Ana", "seen") for flag in story.flags(both)]
    deliver(shop, Entry("held", seqs[0]), *(Entry("delivered", seq) for seq in seqs[1:]))
    log.append(shop.book, closing_flags)
    with books(shop) as both:
        assert story.close(both) == {"waiting": 0, "held": 1, "missing": 0, "open_flags": 0}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM documents WHERE external_id = 'x'",
        "SELECT * FROM documents WHERE seq BETWEEN 1 AND 2000",
        "SELECT seq, at, kind, facts FROM main.log WHERE about = 5 ORDER BY seq",
    ],
)
def test_what_is_asked_often_is_found_by_an_index(shop: Shop, query: str) -> None:
    deliver(shop)
    with books(shop) as both:
        plan: list[Any] = both.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
    assert not [row[3] for row in plan if row[3].startswith("SCAN")]


def test_a_foreign_delivery_book_is_refused(shop: Shop) -> None:
    with closing(sqlite3.connect(shop.delivery)) as db:
        db.execute("CREATE TABLE log (seq)")
    with pytest.raises(log.Unusable, match="--delivery"), books(shop):
        pass
