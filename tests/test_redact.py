"""Redaction: the bytes are gone from every file, the entry and the chain stay, and no kill leaves it half done."""

import json
import os
import random
import re
import signal
import sqlite3
import time
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from standin import Omneo, Store
from tills import Shop, broken, fork, sale

from forwarder.replay import step
from forwarder.status import status
from journal import archive, log, redact, story
from journal.log import Entry


def marked(shop: Shop, number: int, size: int = 2000) -> bytes:
    """A sale that says its own mark again and again, so that any piece of it is found."""
    mark = f"MARK{number:06d}END "
    shop.drop(f"{number}.json", sale(f"S-{number}", meta={"note": mark * (size // len(mark))}), age=1000 - number)
    return mark.encode()


def settled(shop: Shop, *seqs: int, kind: str = "delivered") -> None:
    if not shop.delivery.exists():
        log.create(shop.delivery, "delivery", {"journal": "a-test", "unknown_upto": 0})
    with closing(log.open_book(shop.delivery, "delivery", write=True)) as db:
        log.append(db, [Entry(kind, seq, f"S-{seq}", {"omneo_id": 700 + seq}) for seq in seqs])


def do(shop: Shop, *seqs: int, **options: Any) -> redact.Redacted:
    return redact.redact(shop.db, shop.delivery, seqs, "Ann", "she asked", **options)


def raw(shop: Shop) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(shop.root.glob("journal.db*")))


def salts(shop: Shop) -> dict[int, bytes]:
    return dict(shop.book.execute("SELECT seq, salt FROM body").fetchall())


@pytest.fixture
def marks(shop: Shop) -> dict[int, bytes]:
    """Entries 2 to 9 are delivered sales of several sizes, with overflow pages and without."""
    sizes = (300, 2000, 2000, 9000, 16000, 17000, 60000, 400_000)
    found = {number + 2: marked(shop, number, size) for number, size in enumerate(sizes)}
    shop.sweep()
    settled(shop, *found)
    return found


# -- the bytes


def test_bytes_and_salt_are_in_no_file_and_the_rest_stands(shop: Shop, marks: dict[int, bytes]) -> None:
    before = salts(shop)
    for seq in (3, 8, 9, 2):
        assert marks[seq] in raw(shop)
        assert do(shop, seq).gone == [seq]
        assert marks[seq] not in raw(shop)
        assert before[seq] not in raw(shop)
    for seq in (4, 5, 6, 7):
        assert marks[seq] in raw(shop)
        assert before[seq] in raw(shop)
    assert shop.problems() == []
    assert [(each["about"], each["by"], each["reason"]) for each in shop.entries("redaction")] == [
        (seq, "Ann", "she asked") for seq in (3, 8, 9, 2)
    ]


def test_nothing_stays_behind_on_pages_that_were_rearranged(tmp_path: Path) -> None:
    """Bodies come and go in any order: no copy of one may be left where a page was rebuilt for its neighbour."""
    dice = random.Random(7)
    shop = Shop(tmp_path / "shop")
    marks = {number + 2: f"MARK{number:06d}END".encode() for number in range(400)}
    sizes = [9, 90, 140, 500, 2000]
    log.append(shop.book, [Entry("sale", None, None, {}, mark * dice.choice(sizes)) for mark in marks.values()])
    before = salts(shop)
    for seq in dice.sample(sorted(marks), 250):
        with log.writing(shop.book):
            log.append(shop.book, [Entry("redaction", seq)])
            assert log.erase(shop.book, seq)
        if dice.random() < 0.3:
            log.append(shop.book, [Entry("sale", None, None, {}, b"new" * dice.choice(sizes))])
        if dice.random() < 0.1:
            there = {int(number) + 2 for number in re.findall(rb"MARK(\d{6})END", raw(shop))}
            assert there == marks.keys() & salts(shop).keys()
    gone = marks.keys() - salts(shop).keys()
    assert len(gone) == 250
    whole = raw(shop)
    assert not [seq for seq in gone if marks[seq] in whole or before[seq] in whole]
    assert shop.problems() == []
    shop.book.close()


def test_the_bytes_are_gone_while_a_reader_has_the_book_open(shop: Shop, marks: dict[int, bytes]) -> None:
    with closing(log.open_book(shop.db, "journal", write=False)) as reader:
        reader.execute("SELECT * FROM body").fetchall()
        do(shop, 4)
        assert marks[4] not in raw(shop)
        assert reader.execute("SELECT count(*) FROM body WHERE seq = 4").fetchone() == (0,)


def test_a_reader_in_the_middle_of_the_book_makes_it_wait_and_nothing_is_half_done(
    shop: Shop, marks: dict[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("journal.book.BUSY_MS", 50)
    with closing(log.open_book(shop.db, "journal", write=False)) as reader:
        rows = reader.execute("SELECT * FROM body")
        rows.fetchone()
        with pytest.raises(log.NotNow):
            do(shop, 4)
        assert shop.entries("redaction") == []
        rows.close()
    do(shop, 4)
    assert marks[4] not in raw(shop)


# -- what is refused, what is said


def test_what_waits_is_refused_unless_it_is_meant(shop: Shop, marks: dict[int, bytes]) -> None:
    mark = marked(shop, 20)
    shop.sweep()
    (waiting,) = [each["seq"] for each in shop.entries("sale") if each["external_id"] == "S-20"]
    for seqs in ([waiting], [2, waiting]):
        with pytest.raises(log.NotNow, match="S-20"):
            do(shop, *seqs)
    assert shop.entries("redaction") == []
    assert do(shop, waiting, even_unsent=True).gone == [waiting]
    assert shop.entries("redaction")[0]["unsent"] is True
    assert mark not in raw(shop)
    assert marks[2] in raw(shop)


def test_a_held_document_is_refused_too(shop: Shop, marks: dict[int, bytes]) -> None:
    settled(shop, 5, kind="held")
    with pytest.raises(log.NotNow, match="held"):
        do(shop, 5)
    do(shop, 5, even_unsent=True)
    assert marks[5] not in raw(shop)


def test_twice_is_once(shop: Shop, marks: dict[int, bytes]) -> None:
    do(shop, 2)
    with pytest.raises(log.NoSuch, match="nothing left"):
        do(shop, 2)
    assert do(shop, 2, 3).gone == [3]
    assert [each["about"] for each in shop.entries("redaction")] == [2, 3]
    assert marks[3] not in raw(shop)


def test_what_is_no_document_is_not_redacted(shop: Shop) -> None:
    for seq in (1, 99):
        with pytest.raises(log.NoSuch):
            do(shop, seq)


def test_an_invalid_document_goes_and_its_file_is_named(shop: Shop) -> None:
    shop.drop("till/bad.json", broken(meta={"note": "MARKED"}))
    shop.sweep()
    (bad,) = shop.entries("invalid")
    done = do(shop, bad["seq"])
    assert done.rejected == ["till/bad.json"]
    assert b"MARKED" not in raw(shop)
    assert b"MARKED" in (shop.spool / "rejected/till/bad.json").read_bytes()
    assert shop.problems() == []


def test_the_command_says_what_was_done_and_verify_names_it(shop: Shop, marks: dict[int, bytes]) -> None:
    shop.book.close()
    done = shop.run("redact", "S-1", "--by", "Ann", "--reason", "she asked")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Redacted: 1 (entries 3)" in done.stdout
    assert marks[3] not in raw(shop)
    told = shop.run("verify").stdout
    assert "redacted by Ann on" in told
    assert "Nothing was altered." in told
    assert "Its bytes are not in the journal" in shop.run("show", "S-1").stdout
    assert shop.run("redact", "S-1", "--by", "Ann", "--reason", "again").returncode == 1
    assert shop.run("redact", "S-99", "--by", "Ann", "--reason", "why").returncode == 1
    assert shop.run("redact", "S-2", "--by", " ", "--reason", "why").returncode == 2
    assert shop.run("redact", "--by", "Ann", "--reason", "why").returncode == 2


def test_not_beside_an_archive_that_runs(shop: Shop, marks: dict[int, bytes]) -> None:
    with archive.keeping(shop.db), pytest.raises(log.NotNow):
        do(shop, min(marks))


def test_the_same_file_after_a_redaction_is_a_conflict_and_never_sent(shop: Shop, marks: dict[int, bytes]) -> None:
    body = json.loads(shop.book.execute("SELECT bytes FROM body WHERE seq = 2").fetchone()[0])
    do(shop, 2)
    shop.drop("again.json", json.dumps(body).encode())
    shop.sweep()
    assert shop.entries("invalid")[0]["reason"] == "conflict"
    assert marks[2] in raw(shop)  # and it has to be redacted again: docs/operating.md says so


# -- killed


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_leaves_it_done_or_not_begun(tmp_path: Path, when: str) -> None:
    for at in range(1 + (when == "after"), 100, 2):
        shop = Shop(tmp_path / str(at))
        mark = marked(shop, 1, 40_000)
        shop.sweep()
        shop.book.close()
        died = fork(lambda shop=shop: do(shop, 2, even_unsent=True), die_at=(at, when))
        with closing(log.open_book(shop.db, "journal", write=True)):
            pass  # whoever opens it next undoes what a killed commit has left
        assert shop.problems() == []
        assert (mark in raw(shop)) == (shop.entries("redaction") == [])
        if not shop.entries("redaction"):
            do(shop, 2, even_unsent=True)
        assert mark not in raw(shop)
        assert shop.problems() == []
        if died == 0:
            assert at > 10
            return
    pytest.fail("it never got through")


def test_a_kill_at_any_moment_leaves_it_done_or_not_begun(tmp_path: Path) -> None:
    """Not between two calls but in the midst of them, the commit's writes among them."""
    dice = random.Random(3)
    begun = done = 0
    for turn in range(40):
        shop = Shop(tmp_path / str(turn))
        mark = marked(shop, 1, 800_000)
        shop.sweep()
        shop.book.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                do(shop, 2, even_unsent=True)
            finally:
                os._exit(0)
        time.sleep(dice.uniform(0.002, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with closing(log.open_book(shop.db, "journal", write=True)):
            pass
        assert shop.problems() == []
        gone = shop.entries("redaction") != []
        assert (mark in raw(shop)) != gone
        begun, done = begun + (not gone), done + gone
    assert begun > 0


# -- the forwarder


def test_what_was_redacted_before_it_was_sent_is_settled_and_counts_as_nothing_that_waits(
    store: Store, omneo: Omneo, token: Path
) -> None:
    with store.forwarding(omneo.url, token=token) as run:
        store.take(*(sale(f"S-{number}") for number in range(1, 4)))
        assert run.lane.next_ready().seq == 2  # type: ignore[union-attr]  # it has read them all
        redact.redact(store.db, store.delivery, [2, 3], "Ann", "she asked", even_unsent=True)
        assert closing_states(store) == {"waiting": 3, "held": 0}
        while step(run) is not None:
            pass
    assert omneo.sales() == ["S-3"]
    assert store.states() == {"S-1": "cancelled", "S-2": "cancelled", "S-3": "delivered"}
    assert closing_states(store) == {"waiting": 0, "held": 0}
    assert status(store.db, store.delivery, log.utc_now())["waiting"] == 0
    store.verified()


def test_what_was_redacted_when_it_may_have_left_is_for_a_person(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"))
    with store.forwarding(omneo.url, token=token) as run:
        omneo.fault("drop_after", path="/transactions", method="POST", count=1)
        step(run)
    redact.redact(store.db, store.delivery, [2], "Ann", "she asked", even_unsent=True)
    with store.forwarding(omneo.url, token=token) as run:
        while step(run) is not None:
            pass
    assert store.states() == {"S-1": "held"}
    assert closing_states(store) == {"waiting": 0, "held": 1}


def closing_states(store: Store) -> dict[str, int]:
    with story.both_books(store.db, store.delivery) as books:
        counts = story.close(books)
    assert status(store.db, store.delivery, log.utc_now())["waiting"] == counts["waiting"]
    return {name: counts[name] for name in ("waiting", "held")}


def test_the_triggers_do_not_let_a_body_go_without_a_word(shop: Shop, marks: dict[int, bytes]) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        log.erase(shop.book, min(marks))
