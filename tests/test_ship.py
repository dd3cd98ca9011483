"""The ledger at head office, on a real PostgreSQL: all of both books, once, verified there; nothing else is allowed."""

import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cluster
import psycopg
import pytest
from busy_day import busy_day
from psycopg.rows import dict_row
from standin import Omneo, Store, execute, sale
from tills import wait_until

from forwarder import headoffice_page, headoffice_schema, ledger, ship_loop
from forwarder.ship import Shipper, hashed
from journal import archive, backup, chain, checkpoint, log, redact, restore, story
from journal.log import NotNow, Unusable
from journal.notify import Pulse

pytestmark = pytest.mark.skipif(cluster.binaries() is None, reason="PostgreSQL's server is not here")
KEY = b"k" * 32


@pytest.fixture(scope="module")
def server() -> Iterator[cluster.Cluster]:
    with cluster.running() as running:
        running.ledger("template")
        yield running


class Office:
    """One ledger, its stores, and what stands in it."""

    def __init__(self, server: cluster.Cluster, root: Path) -> None:
        self.server, self.root, self.name = server, root, f"l{uuid.uuid4().hex[:12]}"
        self.owner = server.ledger(self.name, "template")
        self.do("SELECT ledger.guard()")
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.lines: list[ledger.Ledger] = []

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.owner, row_factory=dict_row) as db:
            return db.execute(query, values).fetchall()

    def one(self, query: str, *values: Any) -> Any:
        return next(iter(self.rows(query, *values)[0].values()))

    def do(self, query: str, *values: Any) -> None:
        with psycopg.connect(self.owner) as db:
            db.execute(query, values)

    def role(self, name: str, region: str = "east") -> str:
        cluster.enrol(self.owner, role := f"{self.name}_{name}", name, region)
        return self.server.url(role, self.name)

    def shipper(self, store: Store, name: str = "s1", **options: Any) -> Shipper:
        line = ledger.Ledger(ledger.check_url(self.role(name)), 30)
        self.lines.append(line)
        say = lambda event, **facts: self.said.append((event, facts))  # noqa: E731
        return Shipper(store.db, store.delivery, line, say, **options)

    def found(self) -> set[tuple[str, str, int]]:
        return {(row["book"], row["what"], row["seq"]) for row in self.rows("SELECT * FROM ledger.findings_open")}

    def events(self) -> list[str]:
        return [event for event, _ in self.said]


@pytest.fixture
def office(server: cluster.Cluster, tmp_path: Path) -> Iterator[Office]:
    made = Office(server, tmp_path)
    yield made
    for line in made.lines:
        line.close()


def write(store: Store, *entries: log.Entry, book: str = "journal") -> None:
    path = store.db if book == "journal" else store.delivery
    if not path.exists():
        log.create(path, "delivery", {"journal": identity(store), "unknown_upto": 0})
    with closing(log.open_book(path, book, write=True)) as db:
        log.append(db, entries)


def identity(store: Store) -> str:
    with closing(log.open_book(store.db, "journal", write=False)) as db:
        return str(db.execute("SELECT json_extract(facts, '$.journal') FROM log WHERE seq = 1").fetchone()[0])


def sales(store: Store, *names: str) -> None:
    store.take(*(sale(name) for name in names))


def tamper(path: Path, *statements: str, anew: bool = False) -> None:
    """Behind the program's back; `anew`: with every digest computed again, as one who knows the rule would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for (trigger,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            db.execute(statement)
        digest = chain.ZERO
        for row in db.execute("SELECT * FROM log ORDER BY seq").fetchall() if anew else ():
            digest = chain.link(digest, chain.Row(*row[:7]))
            db.execute("UPDATE log SET digest = ? WHERE seq = ?", (digest, row[0]))


def local(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(
            "SELECT seq, at, kind, about, external_id, facts, body_hash, digest FROM log ORDER BY seq"
        ).fetchall()


def remote(office: Office, book: str) -> list[tuple[Any, ...]]:
    query = """SELECT seq, ledger.stamp(at) AS at, kind, about, external_id, facts, body_hash, digest
               FROM ledger.log WHERE book = %s ORDER BY seq"""
    return [tuple(row.values()) for row in office.rows(query, book)]


def derived(office: Office, table: str) -> list[str]:
    return [row["said"] for row in office.rows(f"SELECT t::text AS said FROM ledger.{table} AS t ORDER BY 1")]


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
        for statement in ("SELECT * FROM ledger.body", "DELETE FROM ledger.finding", "SELECT ledger.guard()"):
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


# -- what a store's role may do ---------------------------------------------------------------------------------------


FORBIDDEN = [
    "SELECT * FROM ledger.entry",
    "SELECT * FROM ledger.stores",
    "SELECT * FROM ledger.chain",
    "INSERT INTO ledger.entry VALUES (1, 9, now(), now(), NULL, 'sale', NULL, '', NULL, '')",
    "COPY ledger.entry FROM STDIN",
    "UPDATE ledger.chain SET seq = 0",
    "DELETE FROM ledger.entry",
    "TRUNCATE ledger.entry",
    "SELECT ledger.accept_fork('x', 'journal', 0, '', '')",
    "SELECT ledger.enrol('x', 'x', 'x')",
    "SELECT ledger.found(1, 'journal', 'x', 1, 'x')",
    "SELECT ledger.root(1, 1)",
    "SELECT ledger.mailbox()",
    "SELECT * FROM pg_temp.mail",
    "DELETE FROM pg_temp.mail",
    "CREATE TEMP TABLE mine (x int)",
    "CREATE TABLE public.mine (x int)",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TRIGGER t BEFORE INSERT ON pg_temp.mail EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "SET ROLE owner",
    "SELECT * FROM public.ledger_migration",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT lo_creat(-1)",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'junk')",
]


def test_a_stores_role_may_call_one_function_and_nothing_else(office: Office, store: Store) -> None:
    sales(store, "A")
    assert office.shipper(store).go()
    with psycopg.connect(office.role("s1"), autocommit=True) as db:
        db.execute("SELECT * FROM ledger.ship('x', 'journal', 0, 0, '', now())")  # makes the mailbox
        for statement in FORBIDDEN:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(statement)
    query = """SELECT p.proname FROM pg_proc AS p WHERE p.pronamespace = 'ledger'::regnamespace
               AND has_function_privilege('omneo_store', p.oid, 'EXECUTE')"""
    assert office.rows(query) == [{"proname": "ship"}]
    assert office.rows("SELECT ledger.loose()") == []
    office.do(f"GRANT TEMP ON DATABASE {office.name} TO PUBLIC")
    office.do("GRANT EXECUTE ON FUNCTION ledger.found TO omneo_store")
    office.do("GRANT SELECT ON ledger.day TO PUBLIC")
    assert len(office.rows("SELECT ledger.loose()")) == 3


def test_who_lays_the_schema_without_all_rights_is_told_what_is_left(server: cluster.Cluster, store: Store) -> None:
    name = f"l{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.url(), autocommit=True) as db:
        db.execute(f"CREATE ROLE {name} LOGIN CREATEROLE")
        db.execute(f"CREATE DATABASE {name} OWNER {name}")
    laid = execute("forwarder", "ledger", "--to", server.url(name, name))
    assert (laid.code, "004_views.sql was run" in laid.out) == (1, True)
    assert "can make large objects" in laid.err
    sales(store, "A")
    cluster.enrol(server.url(name, name), role := f"{name}_s1")
    with closing(ledger.Ledger(server.url(role, name), 30)) as line:
        assert Shipper(store.db, store.delivery, line, lambda *_, **__: None).go()
    assert execute("forwarder", "ledger", "--to", server.url(database=name)).code == 0
    with psycopg.connect(server.url(), autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}_1 ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(Unusable, match="LATIN1"):
        headoffice_schema.lay(server.url(database=f"{name}_1"))


def test_a_month_that_got_no_partition_in_time_stays_where_it_is(office: Office, store: Store) -> None:
    this = f"ledger.entry_{office.one('SELECT now()').astimezone(UTC):%Y_%m}"
    office.do(f"DROP TABLE {this}")
    sales(store, "A")
    assert office.shipper(store).go()
    assert headoffice_schema.lay(office.owner, months=5) == ([], [])
    assert office.one("SELECT count(*) FROM ledger.entry_other") == len(local(store.db))
    assert office.one("SELECT ledger.make_room(6)") == 2
    sales(store, "B")
    assert office.shipper(store).go()
    assert remote(office, "journal") == local(store.db)


def test_the_password_comes_from_systemd_whatever_its_files_mode(office: Office, store: Store) -> None:
    url = office.role("s1")
    office.do(f"ALTER ROLE {office.name}_s1 PASSWORD 'a word'")
    rules = office.server.data / "pg_hba.conf"
    rules.write_text(f"local all {office.name}_s1 scram-sha-256\n{rules.read_text()}")
    office.do("SELECT pg_reload_conf()")
    wait_until(lambda: not lets_in(url))
    credential = office.root / "omneo-ledger-password"
    around = {"OMNEO_LEDGER": url, "OMNEO_JOURNAL_DB": str(store.db), "CREDENTIALS_DIRECTORY": str(office.root)}
    for word, code in (("another", 78), ("a word\n", 0)):
        credential.write_text(word)
        credential.chmod(0o440)
        shipped = execute("forwarder", "ship", "--once", **around)
        assert shipped.code == code, shipped.err
        assert word.strip() not in shipped.err


def lets_in(url: str) -> bool:
    with suppress(psycopg.OperationalError):
        psycopg.connect(url).close()
        return True
    return False


def test_a_role_that_is_no_stores_is_told_so(office: Office, store: Store) -> None:
    office.do(f"CREATE ROLE {office.name}_nobody LOGIN")
    office.do(f"GRANT CONNECT ON DATABASE {office.name} TO {office.name}_nobody")
    for role, words in ((f"{office.name}_nobody", "enrol"), ("nobody_at_all", "let us in")):
        with closing(ledger.Ledger(office.server.url(role, office.name), 5)) as line:
            stranger = Shipper(store.db, store.delivery, line, lambda *_, **__: None)
            with pytest.raises(Unusable, match=words):
                stranger.go()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://s1:secret@db.example/ledger", "password"),
        ("postgresql://s1@db.example/ledger?password=secret", "password"),
        ("postgresql://s1@db.example/ledger?sslmode=require", "verify-full"),
        ("mysql://s1@db.example/ledger", "postgresql://"),
        ("postgresql://s1@db.example/ledger?nonsense=1", "can't be read"),
    ],
)
def test_an_address_that_would_give_something_away_is_refused(url: str, words: str) -> None:
    with pytest.raises(Unusable, match=words) as refused:
        ledger.check_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "where", ["db.example/ledger", "/ledger?hostaddr=192.0.2.1", "localhost,db.example/ledger", "/l?host=/tmp,db"]
)
def test_a_line_to_another_machine_is_verified_by_default(where: str) -> None:
    assert "sslmode=verify-full" in ledger.check_url(f"postgresql://s1@{where}")


def test_a_line_that_stays_on_the_machine_needs_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in ("localhost/ledger", "/ledger", "/ledger?host=/run/postgresql", "localhost/ledger?hostaddr=127.0.0.1"):
        assert "sslmode" not in ledger.check_url(f"postgresql://s1@{where}")
    monkeypatch.setenv("PGHOST", "db.example")
    assert "sslmode=verify-full" in ledger.check_url("postgresql://s1@/ledger")


# -- lines that fail --------------------------------------------------------------------------------------------------


def test_it_goes_on_by_itself_after_an_outage(store: Store, tmp_path: Path) -> None:
    with cluster.running() as server:
        office = Office(server, tmp_path) if server.ledger("template") else None
        assert office is not None
        shipper = office.shipper(store)
        stop = threading.Event()
        loop = threading.Thread(
            target=ship_loop.run_until, args=(shipper, stop, Pulse({}), 0.05, lambda most: min(most, 0.05))
        )
        loop.start()
        try:
            sales(store, "A")
            wait_until(lambda: office.one("SELECT count(*) FROM ledger.waiting") == 1)
            server.crash()
            sales(store, "B")
            wait_until(lambda: "ledger_down" in office.events())
            server.start()
            wait_until(lambda: "ledger_up" in office.events())
            wait_until(lambda: office.one("SELECT count(*) FROM ledger.waiting") == 2)
        finally:
            stop.set()
            loop.join()
        for line in office.lines:
            line.close()
        assert remote(office, "journal") == local(store.db)
        assert list(dict.fromkeys(office.events())) == ["ready", "ledger_down", "ledger_up", "stopped"]


@pytest.mark.skipif(cluster.pooler() is None, reason="PgBouncer is not here")
def test_stores_that_share_one_connection_of_a_pooler_take_turns(office: Office, tmp_path: Path) -> None:
    names = ("north", "south", "west")
    roles = [urlsplit(office.role(name)).username or "" for name in names]
    with cluster.pooled(office.server, roles, 1) as front:
        shippers = []
        for name, role in zip(names, roles, strict=True):
            (tmp_path / name).mkdir()
            line = ledger.Ledger(ledger.check_url(f"postgresql://{role}@/{office.name}?host={front}"), 30)
            store = Store(tmp_path / name)
            shippers.append((store, Shipper(store.db, store.delivery, line, lambda *_, **__: None, batch=2)))
            office.lines.append(line)
        for turn in range(3):
            for store, shipper in shippers:
                sales(store, *(f"S-{store.root.name}-{turn}-{each}" for each in range(5)))
                wait_until(lambda shipper=shipper: went(shipper))
        for line in office.lines:
            line.close()
    for name, (store, _) in zip(names, shippers, strict=True):
        there = office.rows("SELECT seq, digest FROM ledger.log WHERE name = %s ORDER BY seq", name)
        assert [(row["seq"], row["digest"]) for row in there] == [(row[0], row[7]) for row in local(store.db)]


def went(shipper: Shipper) -> bool:
    with suppress(NotNow):
        return shipper.go()
    return False


def test_a_server_that_says_nothing_is_hung_up_on(office: Office, store: Store) -> None:
    sales(store, "A")
    shipper = office.shipper(store)
    shipper.ledger._timeout_s = 0.3
    with psycopg.connect(office.owner) as holder:
        holder.execute("LOCK ledger.store IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(NotNow):
            shipper.go()
    shipper.ledger._timeout_s = 30
    assert shipper.go()
    assert remote(office, "journal") == local(store.db)


# -- the commands -----------------------------------------------------------------------------------------------------


def test_the_commands(office: Office, store: Store) -> None:
    sales(store, "A")
    around = {"OMNEO_LEDGER": office.role("s1"), "OMNEO_JOURNAL_DB": str(store.db)}
    assert execute("forwarder", "ship", "--once", **around).code == 0
    assert remote(office, "journal") == local(store.db)
    tamper(store.db, "UPDATE log SET facts = '{}' WHERE seq = 2", anew=True)
    refused = execute("forwarder", "ship", "--once", **around)
    assert (refused.code, "refuses the journal: fork" in refused.err) == (1, True)
    gone = {**around, "OMNEO_LEDGER": "postgresql://s1@/x?host=/nowhere"}
    assert execute("forwarder", "ship", "--once", **gone).code == 75
    assert execute("forwarder", "ship", "--once", "--every", 300, **around).code == 2
    secret = execute("forwarder", "ship", "--once", "--to", "postgresql://a:b@/x", OMNEO_JOURNAL_DB=str(store.db))
    assert secret.code == 78
    laid = execute("forwarder", "ledger", "--to", office.owner)
    assert (laid.code, laid.out, laid.err) == (0, "The schema is up to date.\n", "")
    page = store.root / "chain.html"
    assert execute("forwarder", "ledger", "--to", office.owner, "--page", page).code == 0
    assert "<td>s1</td>" in page.read_text()
    assert "<td>fork</td>" in page.read_text()
    short = store.root / "key"
    short.write_text("short")
    assert execute("forwarder", "ship", "--once", "--customer-key", short, **around).code == 78
    with suppress(FileNotFoundError):
        short.unlink()
