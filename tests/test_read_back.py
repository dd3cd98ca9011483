"""What Omneo holds of the journal, read back: whatever is rewritten, cut off or put back here, Omneo knows better."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redeeming import AUTHORIZED
from standin import Listen, Omneo, Store, at_once, execute, http, sale, says

from forwarder import asking, read_back, witness
from forwarder.link import Credentials, Link, check_url
from forwarder.replay import Replay, step
from forwarder.wire import Wire
from journal import archive, backup, chain, log, redact, restore
from journal.day import Days
from journal.verify import verify

DATE = datetime.now(UTC).astimezone().date()
TODAY = Days(DATE - timedelta(days=1), DATE + timedelta(days=1), None)  # whatever midnight comes in between
Row = list[Any]


def sold(external_id: str, **fields: Any) -> dict[str, Any]:
    """A sale of today."""
    # Midnight in Melbourne: at whatever hour this runs, no till is ahead of us, which would be flagged.
    return sale(external_id, transacted_at=f"{DATE} 00:00:00", **fields)


def drain(run: Replay) -> None:
    for _ in range(1000):
        if step(run) is None:
            run.books.flush()
            return
    raise AssertionError("something still waits")


def seq_of(store: Store, name: str) -> int:
    with closing(log.open_book(store.db, "journal", write=False)) as db:
        return int(db.execute("SELECT seq FROM log WHERE external_id = ? AND kind = 'sale'", (name,)).fetchone()[0])


@pytest.fixture
def shop(store: Store, omneo: Omneo, token: Path) -> Store:
    """Twelve sales, all delivered: S-1 is entry 2."""
    deliver(store, omneo, token, *(f"S-{number}" for number in range(1, 13)))
    assert seq_of(store, "S-1") == 2
    return store


def deliver(store: Store, omneo: Omneo, token: Path, *names: str, **options: Any) -> None:
    with store.forwarding(omneo.url, token=token, **options) as run:
        store.take(*(sold(name) for name in names))
        drain(run)


Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(store: Store, omneo: Omneo, token: Path) -> Iterator[Ask]:
    """What Omneo says of this shop's journal."""
    wire = Wire(2.0)
    link = Link(check_url(omneo.url), Credentials(token), wire, rate=0, sleep=at_once)

    def ask(which: Days | int = 100, rest: Any = at_once) -> dict[str, Any]:
        return read_back.examine(store.db, store.delivery, link, which, dice=Random(7), rest=rest)

    yield ask
    wire.close()


def named(told: dict[str, Any]) -> list[tuple[int, str]]:
    return [(each["seq"], each["what"]) for each in told["problems"]]


# -- a forger who knows every rule


def rewrite(store: Store, change: Callable[[list[Row]], None]) -> None:
    """
    The journal is changed, and every digest after it computed anew; so are the delivery book's, which has to say what
    the forger wants of the journal. `verify` finds nothing.
    """
    journal = change_book(store.db, change)
    if store.delivery.exists():
        change_book(store.delivery, lambda rows: adapt(rows, journal))
    told = verify(store.db, store.delivery)
    assert told["problems"] == []


def change_book(path: Path, change: Callable[[list[Row]], None]) -> list[Row]:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        bodies = {seq: rest for seq, *rest in db.execute("SELECT seq, salt, bytes FROM body")}
        rows = [list(row) for row in db.execute("SELECT * FROM log ORDER BY seq")]
        before = {id(row): row[0] for row in rows}
        change(rows)
        digest = chain.ZERO
        for number, row in enumerate(rows, 1):
            row[0] = number
            row[7] = digest = chain.link(digest, chain.Row(*row[:7]))
        db.execute("DELETE FROM log")
        db.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.execute("DELETE FROM body")
        kept = [(row[0], *bodies[before[id(row)]]) for row in rows if before.get(id(row)) in bodies]
        db.executemany("INSERT INTO body VALUES (?, ?, ?)", kept)
        for _, sql in triggers:
            db.execute(sql)
    return rows


def adapt(delivery: list[Row], journal: list[Row]) -> None:
    """It has never seen more of the journal than there is, and no other."""
    delivery[:] = [row for row in delivery if row[3] is None or row[3] <= len(journal)]
    for row in delivery:
        told = json.loads(row[5])
        if seen := told.get("other_book"):
            seen["entries"] = min(seen["entries"], len(journal))
            seen["head"] = journal[seen["entries"] - 1][7].hex()
            row[5] = log.as_json(told)


def cheaper(seq: int) -> Callable[[list[Row]], None]:
    """An entry says less."""

    def change(rows: list[Row]) -> None:
        rows[seq - 1][5] = log.as_json(json.loads(rows[seq - 1][5]) | {"total": "1.00"})

    return change


# -- nothing was altered


@pytest.mark.parametrize("which", [TODAY, 100, 3, 1])
def test_an_untouched_journal_agrees(shop: Store, ask: Ask, which: Days | int) -> None:
    told = ask(which)
    assert (told["ok"], told["problems"], told["differing"], told["missing"]) == (True, [], [], 0)
    assert told["agreeing"] == 12  # the list shows what was sold today, whatever was chosen
    assert (told["vouched"], told["listed"]) == (seq_of(shop, "S-12"), "yes")
    assert list(read_back.lines(told))[-1] == "Nothing was altered. Omneo vouches for the journal up to entry 13 of 13."


def test_it_changes_nothing_here_or_there(shop: Store, omneo: Omneo, ask: Ask) -> None:
    before, asked, rows = shop.db.read_bytes(), len(omneo.asked()), omneo.state()["transactions"]
    delivery = shop.delivery.read_bytes()
    ask(TODAY)
    assert (shop.db.read_bytes(), shop.delivery.read_bytes()) == (before, delivery)
    assert omneo.state()["transactions"] == rows
    assert {line.split()[0] for line in omneo.asked()[asked:]} == {"GET"}


def test_a_days_sales_are_listed_a_hundred_at_a_time_and_only_the_others_are_asked_for_one_by_one(
    store: Store, omneo: Omneo, token: Path, ask: Ask
) -> None:
    deliver(store, omneo, token, *(f"S-{number}" for number in range(130)))
    with store.forwarding(omneo.url, token=token) as run:
        store.take(sale("old", transacted_at="2020-02-02 10:00:00"))  # not in the list of today
        drain(run)
    before = len(omneo.asked())
    told = ask(TODAY)
    assert (told["ok"], told["agreeing"]) == (True, 131)
    paths = [line.partition("/transactions")[2].partition("?")[0] for line in omneo.asked()[before:]]
    assert sorted(paths) == ["", "", "", "/external/old"]  # one of them is the harmless question


def test_a_sample_of_a_journal_whose_sales_are_old_is_asked_for_one_by_one(
    store: Store, omneo: Omneo, token: Path, ask: Ask
) -> None:
    with store.forwarding(omneo.url, token=token) as run:
        store.take(*(sale(f"S-{number}") for number in range(40)))
        drain(run)
    told = ask(15)
    assert (told["ok"], told["agreeing"], told["vouched"]) == (True, 15, seq_of(store, "S-39"))


def test_what_waits_or_was_refused_is_not_missing(shop: Store, omneo: Omneo, token: Path, ask: Ask) -> None:
    with shop.forwarding(omneo.url, token=token) as run:
        shop.take(sold("bad", profile_id="nobody"))
        drain(run)
    shop.take(sold("later"))
    told = ask(TODAY)
    assert (told["ok"], told["agreeing"], told["not_delivered"]) == (True, 12, 2)


def test_a_sale_that_goes_out_meanwhile_is_not_missing(shop: Store, omneo: Omneo, token: Path, ask: Ask) -> None:
    shop.take(sale("S-13"))
    with shop.forwarding(omneo.url, token=token) as run:
        rested = []
        missing = read_back.delivered

        def delivered(db: sqlite3.Connection, absent: Any) -> dict[str, int]:
            drain(run)  # after Omneo has been asked, before the book is
            return missing(db, absent)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(read_back, "delivered", delivered)
            told = ask(TODAY, rest=rested.append)
    assert (told["ok"], told["agreeing"], rested) == (True, 13, [asking.SETTLE_S])


def test_redacted_and_archived_sales_agree_as_ever(shop: Store, tmp_path: Path, ask: Ask) -> None:
    redact.redact(shop.db, shop.delivery, [seq_of(shop, "S-3")], "Ann", "the law")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert list(archive.archive(shop.db, shop.delivery, tomorrow, tmp_path / "packs"))
    told = ask(TODAY)
    assert (told["ok"], told["agreeing"]) == (True, 12)


def test_sales_without_a_witness_are_no_error(store: Store, omneo: Omneo, token: Path, ask: Ask) -> None:
    deliver(store, omneo, token, "S-1", "S-2", witness=False)
    told = ask()
    assert (told["ok"], told["agreeing"], told["without_witness"], told["vouched"]) == (True, 0, 2, 0)
    assert list(read_back.lines(told))[-1] == "Nothing is proven: none of these sales bears witness."
    deliver(store, omneo, token, "S-3")
    told = ask()
    assert (told["ok"], told["agreeing"], told["without_witness"]) == (True, 1, 2)


def test_what_a_till_has_put_there_is_no_witness(store: Store, omneo: Omneo, token: Path, ask: Ask) -> None:
    with store.forwarding(omneo.url, token=token) as run:
        store.take(sold("S-1", meta={"omneo_journal": "ours"}), sold("S-2", meta=["a"]), sold("S-3"))
        drain(run)
    told = ask()
    assert (told["ok"], told["agreeing"], told["without_witness"]) == (True, 1, 2)


@pytest.mark.usefixtures("shop")
def test_sales_of_other_stores_are_none_of_our_business(omneo: Omneo, token: Path, tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "other").mkdir()
    deliver(Store(tmp_path / "other"), omneo, token, "X-1", "X-2")
    told = ask(TODAY)
    assert (told["ok"], told["agreeing"], told["of_other_journals"]) == (True, 12, 2)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.floats(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["omneo_journal", "seq", "digest", "journal"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
@example({"omneo_journal": {"seq": 10**30, "digest": "ab" * 32, "journal": "a"}})
@example({"omneo_journal": {"seq": "²", "digest": "ab" * 32}})
@example({"omneo_journal": {"seq": True, "digest": "ab" * 32}})
@example({"omneo_journal": {"seq": 1, "digest": " " * 64}})
def test_whatever_stands_there_is_read_or_is_no_witness(meta: Any) -> None:
    assert witness.seen({"external_id": "S-1", "meta": meta}) is None


def test_a_number_that_comes_back_as_text_is_read() -> None:
    meta = {"omneo_journal": {"seq": "12", "digest": "ab" * 32, "journal": "a"}}
    wanted = witness.Seen("7", "a", 12, bytes.fromhex("ab" * 32))
    assert witness.seen({"external_id": 7, "meta": meta}) == wanted


# -- what verify alone can't find


@pytest.mark.parametrize("which", [TODAY, 2])
@pytest.mark.parametrize("lost", [False, True])
def test_a_rewritten_journal_is_found_and_the_place_is_named(
    shop: Store, ask: Ask, which: Days | int, lost: bool
) -> None:
    if lost:  # nothing is known of what was delivered
        shop.delivery.unlink()
    rewrite(shop, cheaper(seq_of(shop, "S-7")))
    told = ask(which)
    assert [seq for seq, _ in named(told)] == [seq_of(shop, "S-7")]
    assert (told["ok"], told["vouched"]) == (False, seq_of(shop, "S-6"))
    assert "the journal was rewritten at or before this entry" in named(told)[0][1]
    assert f"they agree up to {seq_of(shop, 'S-6')}" in named(told)[0][1]
    assert len(told["differing"]) == 6


def test_the_place_is_found_between_two_sales_even_from_a_sample_of_old_ones(
    store: Store, omneo: Omneo, token: Path, ask: Ask
) -> None:
    with store.forwarding(omneo.url, token=token) as run:
        store.take(*(sale(f"S-{number}") for number in range(200)))
        drain(run)
    rewrite(store, cheaper(seq_of(store, "S-101")))
    before = len(omneo.asked())
    told = ask(12)
    assert [seq for seq, _ in named(told)] == [seq_of(store, "S-101")]
    assert told["vouched"] == seq_of(store, "S-100")
    assert len(omneo.asked()) - before < 2 + 12 + 10


def test_an_entry_that_is_no_sale_is_found_at_the_next_sale(store: Store, omneo: Omneo, token: Path, ask: Ask) -> None:
    """A forged flag, resolution or redaction is no sale, but every later sale vouches for it."""
    with store.forwarding(omneo.url, token=token) as run:
        store.take(sold("S-1"), sold("S-2", total=Decimal(5)), b"{", sold("S-3"))
        drain(run)
    with closing(log.open_book(store.db, "journal", write=False)) as db:
        kinds = dict(db.execute("SELECT seq, kind FROM log").fetchall())
    flag = next(seq for seq, kind in kinds.items() if kind == "flag" and seq < seq_of(store, "S-3"))

    def change(rows: list[Row]) -> None:
        rows[flag - 1][2], rows[flag - 1][5] = "resolution", log.as_json({"flag": "J9", "by": "Ann", "note": "fine"})

    rewrite(store, change)
    assert [seq for seq, _ in named(ask())] == [seq_of(store, "S-3")]


def test_a_sale_that_was_taken_out_is_found(shop: Store, ask: Ask) -> None:
    shop.delivery.unlink()
    gone = seq_of(shop, "S-5")
    rewrite(shop, lambda rows: rows.__delitem__(gone - 1))
    told = ask(TODAY)
    assert [seq for seq, _ in named(told)] == [gone]
    assert told["vouched"] == gone - 1


def test_a_sale_that_was_slipped_in_is_found(shop: Store, ask: Ask) -> None:
    shop.delivery.unlink()
    place = seq_of(shop, "S-5")

    def change(rows: list[Row]) -> None:
        slipped = list(rows[place - 1])
        slipped[2], slipped[4], slipped[6] = "resolution", None, None
        rows.insert(place - 1, slipped)

    rewrite(shop, change)
    told = ask(TODAY)
    assert [seq for seq, _ in named(told)] == [place]


@pytest.mark.parametrize("which", [TODAY, 5])
def test_a_journal_whose_end_was_cut_off_with_its_delivery_book_is_found(
    shop: Store, ask: Ask, which: Days | int
) -> None:
    keep, lost = seq_of(shop, "S-9"), seq_of(shop, "S-10")
    rewrite(shop, lambda rows: rows.__delitem__(slice(keep, None)))
    told = ask(which)
    assert [seq for seq, _ in named(told)] == [lost]
    assert f"the journal ends at {keep}" in named(told)[0][1]
    assert (told["ok"], told["vouched"], len(told["differing"])) == (False, keep, 3)


def test_an_older_copy_that_went_on_is_found(shop: Store, omneo: Omneo, token: Path, tmp_path: Path, ask: Ask) -> None:
    """Both books are put back by hand, and the shop goes on with them: a history of its own."""
    for path in (shop.db, shop.delivery):
        shutil.copy(path, tmp_path / f"{path.name}.old")
    deliver(shop, omneo, token, "S-13", "S-14", "S-15")
    lost = seq_of(shop, "S-13")
    for path in (shop.db, shop.delivery):
        shutil.copy(tmp_path / f"{path.name}.old", path)
    deliver(shop, omneo, token, "N-1", "N-2")
    shop.verified()
    told = ask()
    (fork, why), (end, cut) = named(told)
    assert (fork, end) == (lost, lost + 2)
    assert why.startswith("Omneo's S-13 (and 1 more) left from another copy of this journal")
    assert cut.startswith(f"the journal ends at {lost + 1}")


def test_a_backup_that_was_restored_is_found_and_what_it_says_of_itself_is_named(
    shop: Store, omneo: Omneo, token: Path, tmp_path: Path, ask: Ask
) -> None:
    backup.backup(shop.db, shop.delivery, tmp_path / "backup")
    deliver(shop, omneo, token, "S-13", "S-14")
    restore.restore(tmp_path / "backup", shop.db, shop.delivery, "Ann", "the disk died", anyway=True)
    told = ask()
    assert named(told)[0][0] == 14
    assert "entry 14 tells of a backup that was restored" in named(told)[0][1]


def test_a_journal_that_calls_itself_another_is_found(shop: Store, ask: Ask) -> None:
    with closing(sqlite3.connect(shop.db)) as db:
        was = witness.identity(db)
    shop.delivery.unlink()

    def change(rows: list[Row]) -> None:
        rows[0][5] = log.as_json(json.loads(rows[0][5]) | {"journal": "0e5d8a9c-6f0d-4f58-9a5f-2f6c3b1d7e40"})

    rewrite(shop, change)
    told = ask(TODAY)
    assert [seq for seq, _ in named(told)] == [0]
    assert f"from another journal than this one: {was}" in named(told)[0][1]
    assert told["agreeing"] == 0


def test_what_verify_finds_is_told_too(shop: Store, ask: Ask) -> None:
    """Digests that Omneo knows, over an entry that they do not fit."""
    with closing(sqlite3.connect(shop.db, isolation_level=None)) as db:
        db.execute("DROP TRIGGER log_no_update")
        db.execute("UPDATE log SET facts = json_set(facts, '$.total', '1.00') WHERE external_id = 'S-4'")
    told = ask(TODAY)
    assert told["ok"] is False
    assert seq_of(shop, "S-4") in [seq for seq, _ in named(told)]


# -- what happens at Omneo


def at_omneo(omneo: Omneo, method: str, name: str, **fields: Any) -> None:
    row = next(row for row in omneo.state()["transactions"] if row["external_id"] == name)
    answer = httpx.request(method, f"{omneo.url}/transactions/{row['id']}", json=fields or None, headers=AUTHORIZED)
    assert answer.is_success, answer.text


def test_a_delivered_sale_that_omneo_does_not_have_is_told(shop: Store, omneo: Omneo, ask: Ask) -> None:
    at_omneo(omneo, "DELETE", "S-6")
    told = ask(TODAY)
    assert (told["ok"], told["missing"], told["agreeing"]) == (False, 1, 11)
    assert named(told) == [(seq_of(shop, "S-6"), "Omneo does not have the sale S-6, though the delivery book says so")]


def test_what_was_altered_at_omneo_is_not_laid_at_the_journals_door(shop: Store, omneo: Omneo, ask: Ask) -> None:
    borne = next(row for row in omneo.state()["transactions"] if row["external_id"] == "S-4")["meta"]["omneo_journal"]
    at_omneo(omneo, "PUT", "S-4", meta={"omneo_journal": borne | {"digest": "00" * 32}})
    told = ask(TODAY)
    assert [seq for seq, _ in named(told)] == [borne["seq"]]
    assert "was altered at Omneo" in named(told)[0][1]
    assert "rewritten" not in named(told)[0][1]
    assert told["vouched"] == seq_of(shop, "S-12")


def test_a_sale_that_bears_anothers_witness_is_told(shop: Store, omneo: Omneo, ask: Ask) -> None:
    borne = next(row for row in omneo.state()["transactions"] if row["external_id"] == "S-4")["meta"]
    at_omneo(omneo, "PUT", "S-5", meta=borne)
    told = ask(TODAY)
    assert [seq for seq, _ in named(told)] == [seq_of(shop, "S-4")]
    assert "which is another document" in named(told)[0][1]


@pytest.mark.usefixtures("shop")
def test_other_changes_at_omneo_do_not_matter(omneo: Omneo, ask: Ask) -> None:
    at_omneo(omneo, "PUT", "S-5", total=1, tags=["checked"])
    assert ask(TODAY)["ok"]


# -- the way there


@pytest.mark.usefixtures("shop")
def test_a_passing_failure_is_tried_again(omneo: Omneo, ask: Ask) -> None:
    omneo.fault("status", code=503, count=3)
    assert ask(TODAY)["ok"]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("fault", "words"), [({"mode": "drop_before"}, "before an answer"), ({"mode": "portal"}, "portal")]
)
def test_a_line_that_is_down_proves_nothing(omneo: Omneo, ask: Ask, fault: dict[str, Any], words: str) -> None:
    omneo.control("/faults", **fault)
    rested: list[float] = []
    with pytest.raises(log.NotNow, match=words):
        ask(TODAY, rest=rested.append)
    assert rested == [1.0, 2.0, 4.0]


@pytest.mark.usefixtures("shop")
def test_who_does_not_know_our_token_is_not_believed_that_a_sale_is_missing(omneo: Omneo, ask: Ask) -> None:
    omneo.fault("status", code=404)
    with pytest.raises(log.Unusable, match="no such route"):
        ask(TODAY)


@pytest.mark.usefixtures("shop")
def test_a_portal_that_speaks_json_is_not_omneo(omneo: Omneo, ask: Ask) -> None:
    omneo.control("/faults", mode="portal_json", path="external")
    at_omneo(omneo, "PUT", "S-4", transacted_at="2020-02-02 10:00:00")  # not in its list of today
    with pytest.raises(log.NotNow):
        ask(TODAY)


def test_without_its_list_omneo_is_asked_one_by_one_and_that_is_said(shop: Store, omneo: Omneo, ask: Ask) -> None:
    rewrite(shop, lambda rows: rows.__delitem__(slice(seq_of(shop, "S-9"), None)))
    omneo.fault("status", code=400, path="/transactions", count=1)
    told = ask(TODAY)
    assert (told["agreeing"], told["listed"]) == (9, "no")
    assert any("a sale that the journal has lost can't be noticed" in line for line in read_back.lines(told))


@pytest.mark.usefixtures("shop")
def test_a_list_without_an_end_is_not_gone_through_for_ever(ask: Ask) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "PAGES", 0)
        told = ask(TODAY)
    assert (told["ok"], told["agreeing"], told["listed"]) == (True, 12, "beginning")
    assert any("all of its list" in line for line in read_back.lines(told))


# -- the command


Command = Callable[..., Any]


@pytest.fixture
def command(store: Store, omneo: Omneo, token: Path) -> Command:
    given_ = ["--db", store.db, "--url", omneo.url, "--token-file", token, "--rate", 0, "--timeout", 2]
    return lambda *options, **environment: execute("forwarder", "witness", *given_, *options, **environment)


def test_the_command(shop: Store, command: Command) -> None:
    done = command()
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "12 sales at Omneo bear witness: 12 agree, 0 differ.",
        "Nothing was altered. Omneo vouches for the journal up to entry 13 of 13.",
    ]
    done = command("--day", f"{DATE}", "--json")
    assert (done.code, done.json["ok"], done.json["vouched"]) == (0, True, 13)
    rewrite(shop, cheaper(seq_of(shop, "S-7")))
    done = command("--sample", 3)
    assert done.code == 1
    assert done.out.startswith("journal entry 8: the journal was rewritten at or before this entry.")
    assert done.out.endswith("1 problems.\n")
    assert command("--json").code == 1


def test_its_exit_codes(shop: Store, token: Path, command: Command, listen: Listen) -> None:
    assert command("--day", f"{DATE}", "--sample", 3).code == 2
    assert command("--sample", 0).code == 2
    assert command("--db", shop.root / "nothing.db").code == 78
    token.write_text("wrong")
    done = command()
    assert (done.code, "credentials" in done.err) == (78, True)
    speaker = listen(says(http("404 Not Found", b"nothing here")))
    done = command("--url", speaker.url)
    assert (done.code, "no such route" in done.err) == (78, True)
