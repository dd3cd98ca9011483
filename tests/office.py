"""One head office with its ledger, on a real PostgreSQL, and what is done to a store's books behind its back."""

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cluster
import psycopg
import pytest
from psycopg.rows import dict_row
from standin import Store, sale

from forwarder import ledger
from forwarder.ship import Shipper
from journal import chain, log

KEY = b"k" * 32


@pytest.fixture(scope="module")
def postgres() -> Iterator[cluster.Cluster]:
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
def office(postgres: cluster.Cluster, tmp_path: Path) -> Iterator[Office]:
    made = Office(postgres, tmp_path)
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
