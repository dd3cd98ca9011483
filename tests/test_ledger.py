"""The ledger at head office: all of both books, once, verified there; what is made of them, and what is refused."""

import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import cluster
import psycopg
import pytest
from busy_day import busy_day
from office import KEY, Office, derived, identity, local, remote, sales, tamper, write
from standin import Omneo, Store, sale

from forwarder import headoffice_page, ledger, ship
from forwarder.ship import hashed
from journal import archive, backup, checkpoint, log, redact, restore, story
from journal.log import NotNow

pytestmark = pytest.mark.skipif(cluster.binaries() is None, reason="PostgreSQL's server is not here")


# -- what comes, and what is made of it -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_busy_day_is_there_as_it_is_here(office: Office, omneo: Omneo, token: Path, tmp_path: Path) -> None:
    store = busy_day(tmp_path, omneo, token)
    shipper = office.shipper(store, key=KEY, batch=37)
    assert shipper.go()
    assert remote(office, "journal") == local(store.db)
    assert remote(office, "delivery") == local(store.delivery)
    with story.both_books(store.db, store.delivery) as books:
        there = office.rows(
            "SELECT seq, kind, external_id, state, omneo_id, terminal, reason FROM ledger.documents ORDER BY seq"
        )
        here = books.query(
            "SELECT seq, kind, external_id, state, omneo_id, terminal, reason FROM documents ORDER BY seq"
        )
        plain = lambda row: {name: None if value is None else str(value) for name, value in row.items()}  # noqa: E731
        assert [plain(row) for row in there] == [plain(row) for row in here]
        waiting = "SELECT seq, state FROM {} WHERE state IN ('waiting', 'held') ORDER BY seq"
        assert office.rows(waiting.format("ledger.waiting")) == list(books.query(waiting.format("documents")))
        flags = "SELECT id, flag, about, {} AS resolved FROM {} ORDER BY about, id"
        assert office.rows(flags.format("resolved_at IS NOT NULL", "ledger.flags")) == [
            row | {"resolved": bool(row["resolved"])}
            for row in books.query(flags.format("resolved_at IS NOT NULL", "flags"))
        ]
        for view in ("outages", "missing_numbers", "decisions", "starts", "sales", "redemptions", "history"):
            count = f"SELECT count(*) AS n FROM {{}}{view}"
            assert office.one(count.format("ledger.")) == next(iter(books.query(count.format(""))))["n"], view
    day = office.rows("SELECT sum(sales) AS sales, sum(total) AS total FROM ledger.day")[0]
    assert day["sales"] == len([row for row in local(store.db) if row[2] == "sale"]) > 100
    assert office.found() == set()
    for book in ("journal", "delivery"):
        assert office.rows("SELECT ledger.recheck(%s, %s)", f"{office.name}_s1", book) == []
    beside = {name: derived(office, name) for name in ("waiting", "flag", "resolution", "day")}
    assert all(beside.values())
    office.do("SELECT ledger.recount(1)")  # in pieces of another size, all at one moment
    assert beside == {name: derived(office, name) for name in beside}
    office.do("UPDATE ledger.entry SET facts = facts || ' ' WHERE chain = 1 AND seq = 9")
    office.do("DELETE FROM ledger.entry WHERE chain = 1 AND seq = 15")
    assert [*office.rows("SELECT ledger.recheck(%s, 'journal') AS seq", f"{office.name}_s1")] == [
        {"seq": 9},
        {"seq": 16},
    ]


def test_one_store_that_says_nonsense_blinds_nobody(office: Office, store: Store) -> None:
    for number, total in enumerate(("much", "1E+308", "NaN", "-1e5", "12.5")):
        write(store, log.Entry("sale", external_id=f"S-{number}", facts={"total": total, "currency": "AUD"}))
    write(
        store,
        log.Entry("flag", 2, "S-0", {"flag": "sequence_gap", "from": "many", "to": 10**40}),
        log.Entry("flag", 2, "S-0", {"flag": "reversal_window_exceeded", "seconds": "long"}),
    )
    write(store, log.Entry("line", facts={"link": "down", "since": "whenever"}), book="delivery")
    assert office.shipper(store).go()
    assert office.rows("SELECT amount FROM ledger.waiting WHERE amount IS NOT NULL ORDER BY seq") == [
        {"amount": -100000},
        {"amount": Decimal("12.5")},
    ]
    with psycopg.connect(office.role("s1")) as db:
        for upto in (2**63 - 1, -(2**63)):
            for book in ("journal", "delivery"):
                told = (identity(store), book, upto, b"x")
                db.execute("SELECT ledger.ship(%s::text, %s::text, %s::bigint, 0, %s::bytea, now())", told)
            db.commit()
            for panel in headoffice_page.panels():
                office.rows(panel["sql"])
    for view in ("documents", "outages", "missing_numbers", "late_redemptions", "turnover", "days", "stores"):
        office.rows(f"SELECT * FROM ledger.{view}")


def test_a_large_ledger_may_be_read_by_parallel_workers(office: Office, store: Store) -> None:
    sales(store, "A")
    assert office.shipper(store).go()
    with psycopg.connect(office.owner) as db:
        forced = "debug_parallel_query" if db.info.server_version >= 160000 else "force_parallel_mode"
        db.execute(f"SET {forced} = on")
        for view in ("documents", "outages", "decisions", "starts", "stores", "days"):
            db.execute(f"SELECT * FROM ledger.{view}")


def test_a_reader_sees_the_page_and_no_body(office: Office, store: Store) -> None:
    sales(store, "A")
    assert office.shipper(store, bodies=True).go()
    office.do(f"CREATE ROLE {office.name}_reader LOGIN IN ROLE omneo_reader")
    reader = office.server.url(f"{office.name}_reader", office.name)
    headoffice_page.write(reader, store.root / "page.html")
    assert "<td>s1</td>" in (store.root / "page.html").read_text()
    with psycopg.connect(reader, autocommit=True) as db:
        parts = "SELECT inhrelid::regclass::text AS part FROM pg_inherits WHERE inhparent = 'ledger.body'::regclass"
        bodies = ["ledger.body", *(row["part"] for row in office.rows(parts))]
        assert len(bodies) > 3
        forbidden = [f"SELECT * FROM {body}" for body in bodies]
        for statement in (*forbidden, "DELETE FROM ledger.finding", "SELECT ledger.guard()"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(statement)


def test_nothing_is_there_twice_however_often_it_is_shipped(office: Office, store: Store) -> None:
    for name in ("A", "B", "C"):
        sales(store, name)
        assert office.shipper(store).go()
        assert office.shipper(store, batch=1).go()
    assert remote(office, "journal") == local(store.db)
    assert office.one("SELECT count(*) FROM ledger.waiting") == 3
    assert office.one("SELECT sum(sales)::int FROM ledger.day") == 3


def test_two_who_ship_one_book_come_one_by_one(office: Office, store: Store) -> None:
    sales(store, *(f"S-{n}" for n in range(60)))
    both = [threading.Thread(target=office.shipper(store, batch=2).go) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert remote(office, "journal") == local(store.db)
    assert office.found() == set()


def test_documents_settle_and_flags_close_whichever_book_comes_first(office: Office, store: Store) -> None:
    sales(store, "A", "B", "C")
    write(
        store,
        log.Entry("delivered", 2, "A", {"omneo_id": 1}),
        log.Entry("held", 3, "B", {"reason": "doubtful"}),
        book="delivery",
    )
    write(store, log.Entry("flag", 3, "B", {"flag": "doubtful"}), book="delivery")
    write(store, log.Entry("resolution", 3, None, {"flag": "D4", "by": "Ann", "note": "seen"}))
    shipper = office.shipper(store)
    assert shipper.go()
    assert office.rows("SELECT external_id, state, reason FROM ledger.waiting ORDER BY seq") == [
        {"external_id": "B", "state": "held", "reason": "doubtful"},
        {"external_id": "C", "state": "waiting", "reason": None},
    ]
    assert office.rows("SELECT id, resolved_by, note FROM ledger.flags") == [
        {"id": "D4", "resolved_by": "Ann", "note": "seen"}
    ]
    write(store, log.Entry("released", 3, "B"), log.Entry("flag", 4, "C", {"flag": "sale_refused"}), book="delivery")
    assert shipper.go()
    assert office.rows("SELECT waiting, held, open_flags, not_here FROM ledger.stores") == [
        {"waiting": 2, "held": 0, "open_flags": 1, "not_here": 0}
    ]
    write(store, log.Entry("resolution", 4, None, {"flag": "D6", "by": "Ann", "note": "typed in"}))
    write(
        store,
        log.Entry("delivered", 3, "B", {"omneo_id": 2}),
        log.Entry("refused", 4, "C", {"status": 422}),
        book="delivery",
    )
    assert shipper.go()
    assert office.rows("SELECT waiting, held, open_flags FROM ledger.stores") == [
        {"waiting": 0, "held": 0, "open_flags": 0}
    ]


def test_personal_data_stays_in_the_store_unless_it_is_asked_for(office: Office, store: Store) -> None:
    store.take(sale("A", profile_id="zelda@example.com", meta={"note": "Quillfeather"}))
    assert office.shipper(store, key=KEY).go()
    everything = [str(office.rows(f"SELECT t::text FROM {name} AS t")) for name in tables(office)]
    assert len(everything) > 10
    assert not [said for said in everything if "zelda" in said or "Quillfeather" in said]
    assert office.one("SELECT count(*) FROM ledger.body") == 0


def tables(office: Office) -> list[str]:
    query = "SELECT schemaname || '.' || tablename AS name FROM pg_tables WHERE schemaname IN ('ledger', 'public')"
    return [row["name"] for row in office.rows(query)]


def test_bodies_come_when_they_are_asked_for_and_go_when_they_go_in_the_store(office: Office, store: Store) -> None:
    sales(store, "A", "B", "C")
    shipper = office.shipper(store, bodies=True)
    assert shipper.go()
    assert [bytes(row["bytes"])[:1] for row in office.rows("SELECT bytes FROM ledger.body")] == [b"{"] * 3
    write(store, *(log.Entry("delivered", seq, None, {"omneo_id": seq}) for seq in (2, 3, 4)), book="delivery")
    redact.redact(store.db, store.delivery, [2], "Ann", "she asked")
    assert shipper.go()
    assert [row["seq"] for row in office.rows("SELECT seq FROM ledger.body ORDER BY seq")] == [3, 4]
    (store.root / "packs").mkdir()
    assert (
        len(list(archive.archive(store.db, store.delivery, datetime(2999, 1, 1, tzinfo=UTC), store.root / "packs")))
        == 1
    )
    assert shipper.go()
    assert office.one("SELECT count(*) FROM ledger.body") == 0
    assert office.found() == set()


@pytest.mark.parametrize("deed", ["bytes = 5", "bytes = 'text'", "salt = 1.5", "salt = 'x'"])
def test_a_body_that_was_altered_is_refused_whatever_it_is_now(office: Office, store: Store, deed: str) -> None:
    told = {"kind": "redemption", "external_id": "R", "profile_id": "P", "issued_at": "2025-06-15 14:32:00"}
    store.take(told | {"timezone": "UTC", "amount": 20, "strategies": ["rewards"]})
    tamper(store.db, "PRAGMA ignore_check_constraints = ON", f"UPDATE body SET {deed}")
    assert not office.shipper(store, bodies=True, key=KEY).go()
    assert office.found() == {("journal", "body", 2)}


def test_a_redaction_spares_what_the_store_has_forgotten(office: Office, store: Store) -> None:
    sales(store, "A")
    backup.backup(store.db, store.delivery, old := store.root / "old")
    sales(store, "B", "C")
    assert office.shipper(store, bodies=True).go()
    restore.restore(old, store.db, store.delivery, "Ann", "the disk died", anyway=True)
    sales(store, "D")  # has the number that C had
    assert not office.shipper(store, bodies=True).go()
    office.do("SELECT ledger.accept_fork(%s, 'journal', 2, 'Bea', 'disk replaced')", f"{office.name}_s1")
    assert office.shipper(store, bodies=True).go()
    bodies = "SELECT chain, seq FROM ledger.body ORDER BY chain, seq"
    assert [tuple(row.values()) for row in office.rows(bodies)] == [(1, 2), (1, 3), (1, 4), (2, 4)]
    write(store, log.Entry("delivered", 4, "D", {"omneo_id": 1}), book="delivery")
    redact.redact(store.db, store.delivery, [4], "Ann", "she asked")
    assert office.shipper(store).go()
    assert [tuple(row.values()) for row in office.rows(bodies)] == [(1, 2), (1, 3), (1, 4)]


def test_one_customer_in_two_shops_is_seen_and_not_known(office: Office, tmp_path: Path) -> None:
    stores = []
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        stores.append(Store(tmp_path / name))
    for number, store in enumerate(stores):
        told = {"kind": "redemption", "profile_id": "P-77", "issued_at": "2025-06-15 14:32:00", "timezone": "UTC"}
        worth = {"amount": 20, "strategies": ["rewards"], "currency": "AUD"}
        store.take(
            told | worth | {"external_id": f"R-{number}"},
            told | worth | {"external_id": f"X-{number}", "profile_id": f"P-{number}"},
        )
        assert office.shipper(store, store.root.name, key=KEY).go()
    across = office.rows("SELECT customer, what, redemptions, value, shops FROM ledger.exposure_across_stores")
    customer = hashed(KEY, b'{"profile_id": "P-77"}')
    assert customer is not None
    assert across == [
        {"customer": customer.hex()[:12], "what": "rewards", "redemptions": 2, "value": 40, "shops": "north, south"}
    ]
    assert office.rows("SELECT redemptions, value, stores FROM ledger.exposure") == [
        {"redemptions": 4, "value": 80, "stores": 2}
    ]
    # Once one of them is settled nothing is at stake twice; a reversal takes the other back.
    write(stores[0], log.Entry("delivered", 2, "R-0", {"omneo_id": 1}), book="delivery")
    assert office.shipper(stores[0], "north", key=KEY).go()
    assert office.rows("SELECT * FROM ledger.exposure_across_stores") == []


def test_checkpoints_are_computed_again_there(office: Office, store: Store) -> None:
    shipper = office.shipper(store, batch=3)
    for number in range(9):
        sales(store, *(f"S-{number}-{each}" for each in range(number)))
        with closing(log.open_book(store.db, "journal", write=True)) as db:
            checkpoint.make(db, None, None)
        assert shipper.go()
    assert office.rows("SELECT count(*) AS n, bool_and(stands) AS stand FROM ledger.checkpoint") == [
        {"n": 9, "stand": True}
    ]
    last = office.rows("SELECT * FROM ledger.checkpoint ORDER BY seq DESC LIMIT 1")[0]
    assert office.one("SELECT ledger.root(chain, %s) FROM ledger.current", last["size"]) == last["root"]
    head = office.rows("SELECT seq, checkpoint, since_checkpoint, stands FROM ledger.heads WHERE book = 'journal'")[0]
    assert head == {"seq": last["seq"], "checkpoint": last["size"], "since_checkpoint": 1, "stands": True}
    wrong = {"size": last["seq"], "root": "00" * 32, "range": []}
    write(store, log.Entry("checkpoint", facts=wrong))
    assert shipper.go()
    assert office.found() == {("journal", "checkpoint", last["seq"] + 1)}


def test_a_checkpoint_stands_on_under_a_fork(office: Office, store: Store) -> None:
    sales(store, "A")
    with closing(log.open_book(store.db, "journal", write=True)) as db:
        checkpoint.make(db, None, None)
    backup.backup(store.db, store.delivery, old := store.root / "old")
    sales(store, "B")
    assert office.shipper(store).go()
    restore.restore(old, store.db, store.delivery, "Ann", "the disk died", anyway=True)
    sales(store, "C")
    assert not office.shipper(store).go()
    office.do("SELECT ledger.accept_fork(%s, 'journal', 3, 'Bea', 'disk replaced')", f"{office.name}_s1")
    assert office.shipper(store).go()
    heads = "SELECT checkpoint, since_checkpoint, stands FROM ledger.heads WHERE book = 'journal'"
    assert [tuple(row.values()) for row in office.rows(heads)] == [(2, 3, True)]
    with closing(log.open_book(store.db, "journal", write=True)) as db:
        checkpoint.make(db, None, None)
    assert office.shipper(store).go()
    assert [tuple(row.values()) for row in office.rows(heads)] == [(5, 1, True)]
    assert office.one("SELECT ledger.root(chain, 5) FROM ledger.current WHERE book = 'journal'") == office.one(
        "SELECT root FROM ledger.checkpoint WHERE size = 5"
    )


def test_a_day_is_closed_when_it_is_all_here_and_nothing_of_it_is_open(office: Office, store: Store) -> None:
    shipper = office.shipper(store)
    office.do("UPDATE ledger.store SET enrolled_at = now() - interval '3 days'")
    sales(store, "A")
    assert shipper.go()
    days = "SELECT state, sales::int AS sales FROM ledger.days ORDER BY day DESC LIMIT 2"
    assert [tuple(row.values()) for row in office.rows(days)] == [("not over", 1), ("closed", 0)]
    office.do("UPDATE ledger.waiting SET at = at - interval '1 day'")
    assert office.rows(days)[1]["state"] == "something waits"
    office.do("UPDATE ledger.chain SET complete_at = now() - interval '2 days'")
    assert office.rows(days)[1]["state"] == "not all here"


# -- books that are not what they were --------------------------------------------------------------------------------


def test_a_store_restored_from_a_backup_is_found_and_goes_on_once_head_office_says_so(
    office: Office, store: Store
) -> None:
    sales(store, "A", "B")
    write(store, log.Entry("delivered", 2, "A", {"omneo_id": 1}), book="delivery")
    backup.backup(store.db, store.delivery, old := store.root / "old")
    sales(store, "C", "D")
    write(store, log.Entry("delivered", 3, "B", {"omneo_id": 2}), book="delivery")
    shipper = office.shipper(store)
    assert shipper.go()
    assert office.one("SELECT count(*) FROM ledger.waiting") == 2
    restore.restore(old, store.db, store.delivery, "Ann", "the disk died", anyway=True)
    sales(store, "E")
    shipper = office.shipper(store)
    assert not shipper.go()
    # Where the restored ones go another way.
    assert office.found() == {("journal", "fork", 4)}
    assert ("ledger_refuses", 4) in [(event, facts.get("parted")) for event, facts in office.said]
    assert office.one("SELECT count(*) FROM ledger.log WHERE external_id = 'E'") == 0

    office.do("SELECT ledger.accept_fork(%s, 'journal', 3, 'Bea', 'disk replaced')", f"{office.name}_s1")
    assert not office.shipper(store).go()  # now the delivery book's
    assert office.found() == {("delivery", "fork", 3)}
    office.do("SELECT ledger.accept_fork(%s, 'delivery', 2, 'Bea', 'disk replaced')", f"{office.name}_s1")
    assert office.shipper(store).go()
    assert remote(office, "journal") == local(store.db)
    assert remote(office, "delivery") == local(store.delivery)
    lost = office.rows("SELECT external_id FROM ledger.given_up WHERE kind = 'sale' ORDER BY seq")
    assert [row["external_id"] for row in lost] == ["C", "D"]
    assert sorted(row["external_id"] for row in office.rows("SELECT external_id FROM ledger.sales")) == ["A", "B", "E"]
    assert office.found() == set()


def test_after_a_fork_head_office_counts_what_the_store_counts(office: Office, store: Store) -> None:
    sales(store, "A", "B")
    write(store, log.Entry("flag", 2, "A", {"flag": "totals_mismatch"}))
    write(store, log.Entry("held", 2, "A", {"reason": "poison"}), book="delivery")
    backup.backup(store.db, store.delivery, old := store.root / "old")
    write(store, log.Entry("resolution", 2, None, {"flag": "J4", "by": "Ann", "note": "seen"}))
    sales(store, "C")
    write(store, *(log.Entry("delivered", seq, None, {"omneo_id": seq}) for seq in (2, 3)), book="delivery")
    shipper = office.shipper(store)
    assert shipper.go()
    counted = (
        "SELECT waiting, held, open_flags, (SELECT sum(sales)::int FROM ledger.turnover) AS sales FROM ledger.stores"
    )
    assert [tuple(row.values()) for row in office.rows(counted)] == [(1, 0, 0, 3)]
    restore.restore(old, store.db, store.delivery, "Ann", "the disk died", anyway=True)
    for book in ("journal", "delivery"):
        shipper._alive_at = -1e9  # a minute later
        assert not shipper.go()
        ((found, _, seq),) = office.found()
        assert found == book
        office.do("SELECT ledger.accept_fork(%s, %s, %s, 'Bea', '')", f"{office.name}_s1", book, seq - 1)
    shipper._alive_at = -1e9
    assert shipper.go()
    assert [tuple(row.values()) for row in office.rows(counted)] == [(2, 1, 1, 2)]
    there = "SELECT external_id, state FROM ledger.{} WHERE state IN ('waiting', 'held') ORDER BY seq"
    assert office.rows(there.format("waiting")) == office.rows(there.format("documents"))


def test_a_finding_that_was_closed_but_not_decided_comes_again_and_as_exact(office: Office, store: Store) -> None:
    sales(store, *(f"S-{number}" for number in range(9)))
    shipper = office.shipper(store)
    assert shipper.go()
    tamper(store.db, "UPDATE log SET facts = replace(facts, '19.95', '9.95') WHERE seq = 4", anew=True)
    for name in ("more", "and more"):
        assert not shipper.go()
        assert office.found() == {("journal", "fork", 4)}
        office.do("SELECT ledger.close_finding(id, 'Bea', 'seen') FROM ledger.findings_open")
        sales(store, name)


def test_a_book_that_was_replaced_on_the_way_is_looked_at_again_later(office: Office, store: Store) -> None:
    sales(store, "A")
    shipper = office.shipper(store)
    turns = iter(range(9))
    shipper.goes_on = lambda: next(turns, None) is not None
    head = shipper.heads()[0]
    assert shipper._bring(replace(head, seq=head.seq + 5))
    assert remote(office, "journal") == local(store.db)


def test_a_long_shipment_ends_when_it_is_asked_to_and_goes_on_there(office: Office, store: Store) -> None:
    sales(store, *(f"S-{number}" for number in range(9)))
    shipper = office.shipper(store, batch=2)
    turns = iter(range(3))
    shipper.goes_on = lambda: next(turns, None) is not None
    shipper.go()
    assert remote(office, "journal") == local(store.db)[:6]
    assert office.shipper(store).go()
    assert remote(office, "journal") == local(store.db)


def test_an_old_file_put_back_is_found_before_and_after_it_has_grown(office: Office, store: Store) -> None:
    sales(store, "A")
    old = store.db.read_bytes()
    sales(store, "B", "C", "D")
    assert office.shipper(store).go()
    store.db.write_bytes(old)
    assert not office.shipper(store).go()
    assert office.found() == {("journal", "shorter", 2)}
    sales(store, *(f"E-{number}" for number in range(9)))
    assert not office.shipper(store).go()
    assert office.found() == {("journal", "shorter", 2), ("journal", "fork", 3)}
    assert remote(office, "journal")[-1][4] == "D"


def test_a_rewritten_journal_is_found_at_the_entry_where_it_begins(office: Office, store: Store) -> None:
    sales(store, *(f"S-{number}" for number in range(20)))
    assert office.shipper(store).go()
    tamper(store.db, """UPDATE log SET facts = replace(facts, '19.95', '9.95') WHERE seq = 7""", anew=True)
    assert not office.shipper(store).go()
    assert office.found() == {("journal", "fork", 7)}
    sales(store, "more")
    assert not office.shipper(store).go()
    assert len(remote(office, "journal")) == 21


def test_an_entry_altered_long_after_it_was_shipped_is_found_by_the_walk(office: Office, store: Store) -> None:
    sales(store, *(f"S-{number}" for number in range(20)))
    assert office.shipper(store).go()
    tamper(store.db, """UPDATE log SET facts = replace(facts, '19.95', '9.95') WHERE seq = 7""")
    shipper = office.shipper(store)
    assert not shipper.go()
    assert shipper.altered == {"journal": 7}
    assert office.found() == {("journal", "fork", 7)}
    tamper(store.db, "UPDATE log SET facts = replace(facts, '9.95', '19.95') WHERE seq = 7")
    shipper._alive_at = -1e9  # a minute later
    assert shipper.go()


def test_the_walk_comes_by_again_however_fast_the_book_grows(office: Office, store: Store) -> None:
    sales(store, "A", "B", "C")
    shipper = office.shipper(store)
    assert shipper.go()
    for number in range(3):
        sales(store, f"D-{number}")
        shipper._alive_at = -1e9  # a minute later
        assert shipper.go()
    tamper(store.db, "UPDATE log SET facts = replace(facts, '19.95', '9.95') WHERE seq = 3")
    sales(store, "E")
    shipper._alive_at = -1e9
    assert not shipper.go()
    assert shipper.altered == {"journal": 3}


@pytest.mark.parametrize(
    ("deed", "what", "seq"),
    [
        ("UPDATE log SET facts = replace(facts, '19.95', '9.95') WHERE seq = 3", "broken", 3),
        ("UPDATE log SET digest = randomblob(32) WHERE seq = 4", "broken", 4),
        ("UPDATE log SET external_id = NULL WHERE seq = 2", "broken", 2),
        ("DELETE FROM log WHERE seq = 3", "gap", 4),
        ("UPDATE log SET at = 'yesterday' WHERE seq = 3", "broken", 3),
    ],
)
def test_an_entry_altered_before_it_was_shipped_is_refused(
    office: Office, store: Store, deed: str, what: str, seq: int
) -> None:
    sales(store, "A", "B", "C")
    tamper(store.db, deed)
    assert not office.shipper(store).go()
    assert ("journal", what, seq) in office.found()
    assert remote(office, "journal") == []


@pytest.mark.parametrize(
    ("deed", "found"),
    [
        ("UPDATE log SET at = 'yesterday' WHERE seq = 3", {("journal", "unreadable", 1)}),
        ("UPDATE log SET at = '2025-02-30T00:00:00.000Z' WHERE seq = 3", {("journal", "unreadable", 1)}),
        ("UPDATE log SET at = 'infinity' WHERE seq = 3", {("journal", "unreadable", 1)}),
        ("UPDATE log SET at = '12025-02-03T00:00:00.000Z' WHERE seq = 3", {("journal", "unreadable", 1)}),
        ("UPDATE log SET kind = 'a' || char(0) || 'b' WHERE seq = 3", {("journal", "unreadable", 1)}),
        ("UPDATE log SET facts = json_set(facts, '$.total', 'much') WHERE seq = 3", set()),
        ("""UPDATE log SET facts = '{"note":"\\u0000","flag":"x"}', kind = 'flag', about = 2 WHERE seq = 3""", set()),
        ("""UPDATE log SET facts = '[]', kind = 'checkpoint' WHERE seq = 3""", {("journal", "checkpoint", 3)}),
        (
            """UPDATE log SET facts = '{"range":["zz"],"size":2,"root":"00"}', kind = 'checkpoint' WHERE seq = 3""",
            {("journal", "unreadable", 1)},
        ),
    ],
)
def test_a_chain_that_stands_but_that_no_program_of_ours_wrote(
    office: Office, store: Store, deed: str, found: Any
) -> None:
    sales(store, "A", "B", "C")
    tamper(store.db, deed, anew=True)
    office.shipper(store).go()
    assert office.found() == found


def test_a_store_speaks_for_one_journal_and_for_no_other_stores(office: Office, store: Store, tmp_path: Path) -> None:
    sales(store, "A")
    assert office.shipper(store).go()
    assert not office.shipper(store, "s2").go()
    assert office.found() == {("journal", "other journal", 0)}
    assert office.rows("SELECT name FROM ledger.findings") == [{"name": "s2"}]
    (tmp_path / "new").mkdir()
    other = Store(tmp_path / "new")
    sales(other, "B")
    assert not office.shipper(other).go()
    office.do("SELECT ledger.accept_journal(%s, %s, 'Bea', 'new box')", f"{office.name}_s1", identity(other))
    assert office.shipper(other).go()
    assert [row["external_id"] for row in office.rows("SELECT external_id FROM ledger.sales")] == ["B"]


def test_what_a_store_had_before_its_new_journal_counts_on_until_it_is_seen_to(
    office: Office, store: Store, tmp_path: Path
) -> None:
    sales(store, "A", "B")
    write(store, log.Entry("flag", 2, "A", {"flag": "doubtful"}), log.Entry("flag", 3, "B", {"flag": "doubtful"}))
    write(store, log.Entry("delivered", 2, "A", {"omneo_id": 1}), book="delivery")
    assert office.shipper(store, bodies=True).go()
    (tmp_path / "new").mkdir()
    other = Store(tmp_path / "new")
    sales(other, "C")
    role = f"{office.name}_s1"
    office.do("SELECT ledger.accept_journal(%s, %s, 'Bea', 'new box')", role, identity(other))
    write(other, log.Entry("flag", 2, "C", {"flag": "doubtful"}))
    write(other, log.Entry("resolution", 2, None, {"flag": "J3", "by": "Cy"}))
    shipper = office.shipper(other)
    assert shipper.go()
    figures = "SELECT (SELECT sum(sales)::int FROM ledger.turnover) AS sales, waiting, open_flags FROM ledger.stores"
    counted = [{"sales": 3, "waiting": 2, "open_flags": 2}]  # its own J3 is closed, the one before is not
    assert office.rows(figures) == counted
    office.do("SELECT ledger.recount(1)")
    assert office.rows(figures) == counted
    left = office.rows("SELECT kind, external_id, number FROM ledger.left_open ORDER BY kind, number")
    assert [tuple(row.values()) for row in left] == [("flag", "A", "J4"), ("flag", "B", "J5"), ("sale", "B", "3")]
    assert office.one("SELECT count(*) FROM ledger.former WHERE kind = 'sale'") == 2
    assert office.rows("SELECT * FROM ledger.given_up") == []
    assert office.one("SELECT ledger.close_former(%s, 'Bea', 'sold by hand')", role) == 3
    office.do("SELECT ledger.recount(1)")
    assert office.rows("SELECT * FROM ledger.left_open") == []
    assert office.rows(figures) == [{"sales": 3, "waiting": 1, "open_flags": 0}]
    (body, *_) = office.rows("SELECT chain, seq FROM ledger.body ORDER BY seq")
    office.do("SELECT ledger.erase(%s, %s)", body["chain"], body["seq"])
    assert office.one("SELECT count(*) FROM ledger.body") == 1
    with pytest.raises(psycopg.errors.RaiseException, match="no body"):
        office.do("SELECT ledger.erase(%s, %s)", body["chain"], body["seq"])


def test_what_omneo_lost_and_is_sent_again_waits_again(office: Office, store: Store) -> None:
    sales(store, "A", "B")
    gone = [log.Entry("delivered", seq, name, {"omneo_id": seq}) for seq, name in ((2, "A"), (3, "B"))]
    write(store, *gone, book="delivery")
    shipper = office.shipper(store)
    assert shipper.go()
    assert office.rows("SELECT * FROM ledger.waiting") == []
    write(store, log.Entry("released", 2, "A", {"by": "Ann", "was": "delivered"}), book="delivery")
    assert shipper.go()
    total = Decimal(office.one("SELECT total FROM ledger.sales WHERE external_id = 'A'"))
    told = [{"external_id": "A", "state": "waiting", "amount": total}]
    query = "SELECT external_id, state, amount FROM ledger.waiting"
    assert office.rows(query) == told
    office.do("SELECT ledger.recount(1)")
    assert office.rows(query) == told
    assert office.one("SELECT waiting FROM ledger.stores") == 1
    write(store, log.Entry("delivered", 2, "A", {"omneo_id": 9}), book="delivery")
    assert shipper.go()
    assert office.rows("SELECT * FROM ledger.waiting") == []


def test_a_partition_that_was_taken_away_accuses_nobody(office: Office, store: Store) -> None:
    sales(store, *(f"S-{number}" for number in range(5)))
    shipper = office.shipper(store)
    assert shipper.go()
    office.do("DELETE FROM ledger.entry WHERE seq < 4")
    sales(store, "later")
    shipper._alive_at = -1e9
    assert shipper.go()
    assert office.found() == set()
    assert office.one("SELECT max(seq) FROM ledger.entry") == local(store.db)[-1][0]


def test_a_store_opens_no_findings_of_its_own_wording(office: Office, store: Store) -> None:
    notices: list[str] = []
    with psycopg.connect(office.role("s1"), autocommit=True) as db:
        db.add_notice_handler(lambda said: notices.append(str(said.message_primary)))
        db.execute("SET client_min_messages = debug1")
        for book in ("AAAA", "journal of store 2", None):
            with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification):
                db.execute("SELECT ledger.ship('x', %s, 0, 0, '', now())", (book,))
        sales(store, "A")
        assert office.shipper(store).go()
        notices.clear()
        asked = "SELECT verdict FROM ledger.ship('another', 'journal', 0, 0, '', now())"
        assert db.execute(asked).fetchone() == ("other journal",)
    assert office.found() == {("journal", "other journal", 0)}
    assert not [said for said in notices if "ledger: store" in said]


def test_the_walk_keeps_its_place_while_head_office_is_away(
    office: Office, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "WALK", 10)
    sales(store, *(f"S-{number}" for number in range(30)))
    shipper = office.shipper(store)
    assert shipper.go()
    assert shipper._steps["journal"].seq == 10
    tell = shipper.ledger.tell

    def away(_: ledger.Claim) -> ledger.Word:
        raise NotNow("away")

    monkeypatch.setattr(shipper.ledger, "tell", away)
    shipper._alive_at = -1e9
    with pytest.raises(NotNow):
        shipper.go()
    assert shipper._steps["journal"].seq == 20
    monkeypatch.setattr(shipper.ledger, "tell", tell)
    tamper(store.db, "UPDATE log SET facts = '{}' WHERE seq = 25")
    for _ in range(2):
        shipper._alive_at = -1e9
        shipper.go()
    assert (shipper.altered, office.found()) == ({"journal": 25}, {("journal", "fork", 25)})
