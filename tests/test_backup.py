"""A backup is a pair of one moment that stands, whatever goes on meanwhile; the way back is never silent or half."""

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from standin import Omneo, Store
from tills import Shop, fork, sale

from forwarder.replay import step
from journal import archive, backup, checkpoint, log, note, redact, restore
from journal.log import Entry
from journal.verify import verify


def deliver(shop: Shop, *seqs: int) -> None:
    if not shop.delivery.exists():
        with closing(log.open_book(shop.db, "journal", write=False)) as db:
            seq, digest = log.head(db)
        facts = {"journal": "a-test", "unknown_upto": 0, "other_book": {"entries": seq, "head": digest.hex()}}
        log.create(shop.delivery, "delivery", facts)
    with closing(log.open_book(shop.delivery, "delivery", write=True)) as db:
        log.append(db, [Entry("delivered", seq, f"S-{seq}", {"omneo_id": seq}) for seq in seqs])


def take(shop: Shop, *numbers: int) -> None:
    for number in numbers:
        shop.drop(f"{number}.json", sale(f"S-{number}"), age=1000 - number)
    shop.sweep()


def rows(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM log").fetchall() + db.execute("SELECT * FROM body").fetchall()


def back(shop: Shop, source: Path, **options: Any) -> restore.Restored:
    return restore.restore(source, shop.db, shop.delivery, "Ann", "the disk died", **options)


def is_a_pair(source: Path) -> bool:
    return verify(source / "journal.db", source / "delivery.db")["ok"]


@pytest.fixture
def shop(shop: Shop) -> Iterator[Shop]:
    take(shop, 2, 3, 4)
    deliver(shop, 2, 3)
    return shop


# -- the copy


def test_a_backup_is_the_same_books(shop: Shop, tmp_path: Path) -> None:
    told = backup.backup(shop.db, shop.delivery, tmp_path / "b")
    assert told["ok"]
    assert rows(tmp_path / "b/journal.db") == rows(shop.db)
    assert rows(tmp_path / "b/delivery.db") == rows(shop.delivery)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["delivery.db", "journal.db"]
    assert (tmp_path / "b/journal.db").stat().st_mode & 0o137 == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_without_a_delivery_book(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    take(shop, 2)
    backup.backup(shop.db, shop.delivery, tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["journal.db"]
    shop.book.close()


def test_nothing_is_ever_written_over(shop: Shop, tmp_path: Path) -> None:
    backup.backup(shop.db, shop.delivery, tmp_path / "b")
    before = (tmp_path / "b/journal.db").read_bytes()
    take(shop, 5)
    with pytest.raises(log.Unusable, match="already"):
        backup.backup(shop.db, shop.delivery, tmp_path / "b")
    assert (tmp_path / "b/journal.db").read_bytes() == before


def test_what_was_erased_does_not_come_along(shop: Shop, tmp_path: Path) -> None:
    (salt,) = shop.book.execute("SELECT salt FROM body WHERE seq = 2").fetchone()
    redact.redact(shop.db, shop.delivery, [2], "Ann", "she asked")
    backup.backup(shop.db, shop.delivery, tmp_path / "b")
    assert salt not in (tmp_path / "b/journal.db").read_bytes()


def test_a_redaction_while_it_is_made_is_in_it(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, turns = log.copy, []

    def copy(*args: Any) -> None:
        real(*args)
        if not turns:
            turns.append(1)
            redact.redact(shop.db, shop.delivery, [2], "Ann", "she asked")

    (salt,) = shop.book.execute("SELECT salt FROM body WHERE seq = 2").fetchone()
    monkeypatch.setattr(log, "copy", copy)
    backup.backup(shop.db, shop.delivery, tmp_path / "b")
    assert salt not in (tmp_path / "b/journal.db").read_bytes()
    assert is_a_pair(tmp_path / "b")


def test_books_that_do_not_stand_are_copied_and_it_is_said(shop: Shop, tmp_path: Path) -> None:
    shop.book.close()
    with closing(sqlite3.connect(shop.db, isolation_level=None)) as db:
        (sql,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'log_no_update'").fetchone()
        db.execute("DROP TRIGGER log_no_update")
        db.execute("UPDATE log SET external_id = 'S-9' WHERE seq = 3")
        db.execute(sql)
    done = shop.run("backup", str(tmp_path / "b"))
    assert done.returncode == 1
    assert "journal entry 3" in done.stdout
    assert rows(tmp_path / "b/journal.db") == rows(shop.db)


def test_while_both_programs_write_it_is_a_pair_and_nobody_waits_long(shop: Shop, tmp_path: Path) -> None:
    """Each book's writer notes the other's head again and again, so that any pair of two moments would not stand."""
    shop.book.close()
    for path in (shop.db, shop.delivery):
        book = "journal" if path == shop.db else "delivery"
        with closing(log.open_book(path, book, write=True)) as db:
            log.append(db, [Entry("sale" if path == shop.db else "line", None, None, {}, None) for _ in range(20_000)])
    stop, waits = threading.Event(), [0.0]

    def write(path: Path, book: str, other: Path, others: str) -> None:
        with (
            closing(log.open_book(path, book, write=True)) as ours,
            closing(log.open_book(other, others, write=False)) as theirs,
        ):
            while not stop.wait(0.003):
                seq, digest = log.head(theirs)
                facts = {"other_book": {"entries": seq, "head": digest.hex()}}
                begun = time.monotonic()
                log.append(ours, [Entry("opened", facts=facts)])
                waits.append(time.monotonic() - begun)

    pair = [(shop.db, "journal", shop.delivery, "delivery"), (shop.delivery, "delivery", shop.db, "journal")]
    writers = [threading.Thread(target=write, args=each) for each in pair]
    for writer in writers:
        writer.start()
    try:
        for turn in range(3):
            assert backup.backup(shop.db, shop.delivery, tmp_path / f"b{turn}")["problems"] == []
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert max(waits) < 1.0
    assert len(waits) > 20


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_leaves_a_whole_backup_or_none(tmp_path: Path, when: str) -> None:
    shop = Shop(tmp_path / "shop")
    take(shop, 2, 3)
    deliver(shop, 2)
    shop.book.close()
    for at in range(1 + (when == "after"), 300, 3):
        dest = tmp_path / f"b{at}"
        died = fork(lambda dest=dest: backup.backup(shop.db, shop.delivery, dest), die_at=(at, when))
        assert not dest.exists() or is_a_pair(dest)
        assert shop.problems() == []
        if not dest.exists():
            backup.backup(shop.db, shop.delivery, dest)
        assert is_a_pair(dest)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
        if died == 0 and at > 60:
            return
    pytest.fail("it never got through")


# -- the way back


def test_onto_an_empty_disk(shop: Shop, tmp_path: Path) -> None:
    backup.backup(shop.db, shop.delivery, tmp_path / "b")
    before = rows(shop.db)
    shop.book.close()
    for path in shop.root.glob("*.db*"):
        path.unlink()
    done = back(shop, tmp_path / "b")
    assert (done.lost, done.aside) == ([], [])
    assert shop.problems() == []
    assert rows(shop.db)[: len(before) - 3] == before[: len(before) - 3]
    (entry,) = shop.entries("restored")
    assert (entry["by"], entry["reason"], entry["lost"]) == ("Ann", "the disk died", [])
    with closing(log.open_book(shop.delivery, "delivery", write=False)) as db:
        assert db.execute("SELECT kind FROM log ORDER BY seq DESC LIMIT 1").fetchone() == ("restored",)


def test_over_the_same_books_it_loses_nothing_and_keeps_them(shop: Shop, tmp_path: Path) -> None:
    backup.backup(shop.db, shop.delivery, tmp_path / "b")
    shop.book.close()
    before = shop.db.read_bytes()
    done = back(shop, tmp_path / "b")
    assert done.lost == []
    assert [path.name.partition(".replaced")[0] for path in done.aside] == ["journal.db", "delivery.db"]
    assert done.aside[0].read_bytes() == before
    assert shop.problems() == []


def older(shop: Shop) -> None:
    take(shop, 5, 6)


def further(shop: Shop) -> None:
    deliver(shop, 4)


def journal_lost(shop: Shop) -> None:
    take(shop, 5)
    deliver(shop, 6)
    shop.db.unlink()


def journal_lost_after_a_reconciliation(shop: Shop) -> None:
    take(shop, 5)
    seq, digest = log.head(shop.book)
    with closing(log.open_book(shop.delivery, "delivery", write=True)) as db:
        log.append(db, [Entry("reconciled", facts={"other_book": {"entries": seq, "head": digest.hex()}})])
    shop.db.unlink()


def damaged(shop: Shop) -> None:
    shop.db.write_bytes(b"\0" * 500)


def another_way(shop: Shop) -> None:
    early = shop.root.parent / "early"
    shutil.copytree(early, shop.root / "early")
    (shop.root / "early/journal.db").replace(shop.db)
    (shop.root / "early/delivery.db").replace(shop.delivery)
    with closing(log.open_book(shop.db, "journal", write=True)) as db:
        log.append(db, [Entry("opened") for _ in range(5)])


def another_journal(shop: Shop) -> None:
    shop.db.unlink()
    log.create(shop.db, "journal", {"journal": "another"})


GOING_BACK: dict[str, tuple[Callable[[Shop], None], str]] = {
    "older": (older, "has 2 entries more than the backup, 2 documents among them"),
    "the delivery book went further": (further, "The delivery book here has 1 entries more"),
    "only the delivery book knows": (journal_lost, "has seen the journal at entry 6"),
    "only a reconciliation knows": (journal_lost_after_a_reconciliation, "has seen the journal at entry 6"),
    "damaged": (damaged, "can't be read"),
    "another way": (another_way, "went another way"),
    "another journal": (another_journal, "not the one that the backup was made of"),
}


@pytest.mark.parametrize("case", GOING_BACK)
def test_going_back_is_refused_and_can_be_done_anyway(shop: Shop, tmp_path: Path, case: str) -> None:
    change, words = GOING_BACK[case]
    backup.backup(shop.db, shop.delivery, tmp_path / "early")
    log.append(shop.book, [Entry("opened")])
    backup.backup(shop.db, shop.delivery, tmp_path / "b")
    change(shop)
    shop.book.close()
    before = {path.name: path.read_bytes() for path in shop.root.glob("*.db")}
    with pytest.raises(log.Unusable, match="--anyway") as refused:
        back(shop, tmp_path / "b")
    assert words in str(refused.value)
    assert {path.name: path.read_bytes() for path in shop.root.glob("*.db")} == before
    done = back(shop, tmp_path / "b", anyway=True)
    assert words in " ".join(done.lost)
    assert shop.entries("restored")[0]["lost"] == done.lost
    assert shop.problems() == []
    assert {path.name.partition(".replaced")[0]: path.read_bytes() for path in done.aside} == before


def test_what_was_erased_since_the_backup_does_not_come_back(shop: Shop, tmp_path: Path) -> None:
    backup.backup(shop.db, shop.delivery, tmp_path / "b")
    salts = dict(shop.book.execute("SELECT seq, salt FROM body").fetchall())
    redact.redact(shop.db, shop.delivery, [2], "Eve", "she asked")
    packs = tmp_path / "packs"
    (facts,) = archive.archive(shop.db, shop.delivery, log.utc_now(), packs)
    assert facts["first"] == 3
    shop.book.close()
    back(shop, tmp_path / "b", anyway=True)
    assert salts[2] not in shop.db.read_bytes()
    assert salts[3] in shop.db.read_bytes()
    (entry,) = shop.entries("redaction")
    assert (entry["about"], entry["by"], entry["reason"], entry["again"]) == (2, "Eve", "she asked", True)
    assert shop.problems() == []
    assert redact.look(shop.db, shop.delivery, [3])[0].packs == [facts["pack"]]
    assert archive.check(shop.db, packs / facts["pack"]) == []
    assert [each["pack"] for each in archive.archive(shop.db, shop.delivery, log.utc_now(), packs)] == [facts["pack"]]
    assert salts[3] not in shop.db.read_bytes()
    assert archive.check(shop.db, packs / facts["pack"]) == []


def test_a_pack_of_documents_that_a_restore_lost_takes_no_others_with_it(shop: Shop, tmp_path: Path) -> None:
    """After a restore, numbers are given anew; a pack that knows other documents under them must not be let go by."""
    backup.backup(shop.db, shop.delivery, tmp_path / "b")
    take(shop, 5, 6, 7, 8, 9)
    deliver(shop, 5, 6, 7, 8, 9)
    (facts,) = archive.archive(shop.db, shop.delivery, log.utc_now(), tmp_path / "packs")
    shop.book.close()
    back(shop, tmp_path / "b", anyway=True)
    shop.book = log.open_book(shop.db, "journal", write=True)
    take(shop, 17, 18, 19)
    with closing(log.open_book(shop.db, "journal", write=False)) as db:
        new = {seq for (seq,) in db.execute("SELECT seq FROM body WHERE seq >= 5")}
    list(archive.archive(shop.db, shop.delivery, log.utc_now(), tmp_path / "packs"))
    with closing(log.open_book(shop.db, "journal", write=False)) as db:
        assert new <= {seq for (seq,) in db.execute("SELECT seq FROM body")}
    assert facts["last"] >= 5
    assert shop.problems() == []


def test_a_checkpoint_that_saw_more_is_said(shop: Shop, tmp_path: Path) -> None:
    backup.backup(shop.db, shop.delivery, tmp_path / "b")
    with closing(log.open_book(shop.db, "journal", write=True)) as db:
        _, said, _ = checkpoint.make(db, None, None)
        _, said, _ = checkpoint.make(db, None, None)
    note.to_file(tmp_path / "c.txt", said.text())
    shop.book.close()
    for path in shop.root.glob("*.db*"):
        path.unlink()
    kept = [checkpoint.taken(tmp_path / "c.txt")]
    with pytest.raises(log.Unusable, match="over 5 entries"):
        back(shop, tmp_path / "b", taken=kept)
    assert not shop.db.exists()
    assert "c.txt" in back(shop, tmp_path / "b", taken=kept, anyway=True).lost[0]


def test_a_backup_that_does_not_stand_is_refused(shop: Shop, tmp_path: Path) -> None:
    backup.backup(shop.db, shop.delivery, tmp_path / "b")
    shop.book.close()
    with closing(sqlite3.connect(tmp_path / "b/journal.db")) as db:
        db.execute("DROP TRIGGER body_no_delete")
        db.execute("DELETE FROM body WHERE seq = 3")
        db.commit()
    with pytest.raises(log.Unusable, match="does not stand"):
        back(shop, tmp_path / "b")


def test_the_programs_have_to_be_stopped(shop: Shop, tmp_path: Path) -> None:
    backup.backup(shop.db, shop.delivery, tmp_path / "b")
    for path, program in ((shop.db, "ingest"), (shop.delivery, "run")):
        with log.only_instance(path, program), pytest.raises(log.NotNow, match="stop it first"):
            back(shop, tmp_path / "b")
    with archive.keeping(shop.db), pytest.raises(log.NotNow):
        back(shop, tmp_path / "b")


def test_what_a_killed_writer_left_is_not_taken_for_the_restored_books(shop: Shop, tmp_path: Path) -> None:
    backup.backup(shop.db, shop.delivery, tmp_path / "b")
    shop.book.close()
    shop.db.unlink()
    remains = shop.db.with_name("journal.db-journal")
    remains.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(1000))
    back(shop, tmp_path / "b", anyway=True)
    assert not remains.exists()
    assert shop.problems() == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_leaves_the_old_pair_the_new_pair_or_no_journal(tmp_path: Path, when: str) -> None:
    origin = Shop(tmp_path / "origin")
    take(origin, 2, 3)
    deliver(origin, 2)
    backup.backup(origin.db, origin.delivery, tmp_path / "b")
    take(origin, 4)
    deliver(origin, 4)
    origin.book.close()
    for at in range(1 + (when == "after"), 400, 5):
        root = tmp_path / str(at)
        root.mkdir()
        shop = Shop.__new__(Shop)
        shop.root, shop.db, shop.delivery = root, root / "journal.db", root / "delivery.db"
        shutil.copyfile(origin.db, shop.db)
        shutil.copyfile(origin.delivery, shop.delivery)
        died = fork(lambda shop=shop: back(shop, tmp_path / "b", anyway=True), die_at=(at, when))
        if shop.db.exists():
            assert shop.problems() == []
            assert len(shop.entries("sale")) == (2 if shop.entries("restored") else 3)
        if not shop.db.exists() or not shop.entries("restored"):
            with pytest.raises(log.Unusable):  # it still knows what would be lost
                back(shop, tmp_path / "b")
            done = back(shop, tmp_path / "b", anyway=True)
            assert "1 documents among them" in done.lost[0]
        assert shop.problems() == []
        assert len(shop.entries("sale")) == 2
        kept = [path for path in root.glob("journal.db.replaced-*") if not path.name.endswith("-journal")]
        assert any(path.read_bytes() == origin.db.read_bytes() for path in kept)
        assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []
        if died == 0 and at > 80:
            return
    pytest.fail("it never got through")


def test_the_command(shop: Shop, tmp_path: Path) -> None:
    shop.book.close()
    assert shop.run("backup", str(tmp_path / "b")).returncode == 0
    assert shop.run("backup", str(tmp_path / "b")).returncode == 78
    assert shop.run("restore", str(tmp_path / "none"), "--by", "Ann", "--reason", "x").returncode == 78
    done = shop.run("restore", str(tmp_path / "b"), "--by", "Ann", "--reason", "the disk died")
    assert done.returncode == 0, done.stderr
    assert "What was here is kept" in done.stdout
    assert shop.run("verify").returncode == 0


# -- the forwarder


def test_after_a_restore_whatever_waits_is_looked_up_before_it_is_sent(
    store: Store, omneo: Omneo, token: Path, tmp_path: Path
) -> None:
    """The backup knows them as never sent. A sale that Omneo has is found, and nothing goes there twice."""
    with store.forwarding(omneo.url, token=token) as run:
        store.take(*(sale(f"S-{number}") for number in range(3)))
        backup.backup(store.db, store.delivery, tmp_path / "b")
        while step(run) is not None:
            pass
    posted = [name for name in omneo.asked() if name.startswith("POST")]
    restore.restore(tmp_path / "b", store.db, store.delivery, "Ann", "why", anyway=True)
    with store.forwarding(omneo.url, token=token) as run:
        assert run.books.unknown_upto >= 4
        while step(run) is not None:
            pass
    assert [name for name in omneo.asked() if name.startswith("POST")] == posted
    assert set(store.states().values()) == {"delivered"}
    assert store.flags() == []
    store.verified()


def test_a_restored_redemption_is_taken_for_one_that_may_have_left(store: Store, tmp_path: Path) -> None:
    """Sent twice, it would take the customer's points twice."""
    from forwarder.books import Books, create_delivery

    create_delivery(store.db, store.delivery)
    store.take(sale("S-1"))
    backup.backup(store.db, store.delivery, tmp_path / "b")
    restore.restore(tmp_path / "b", store.db, store.delivery, "Ann", "why")
    books = Books(store.db, store.delivery)
    assert [books.lost(document) for document in books.documents(0, 9)] == [True]
    books.close()
