import csv
import io
import json
import tracemalloc
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from standin import Store, sale

from journal import export, log, story
from journal.cli import cli
from journal.day import Days
from journal.log import Entry

NOON = datetime(2025, 6, 16, 12, tzinfo=UTC)


def exported(store: Store, *args: str, first: str = "2025-06-16", last: str = "2025-06-16") -> Any:
    common = ["export", "--db", str(store.db), "--from", first, "--to", last, "--timezone", "UTC"]
    return CliRunner(env={"OMNEO_DELIVERY_DB": None}).invoke(cli, [*common, *args])


def came(store: Store, at: datetime, *contents: dict[str, Any] | bytes) -> None:
    store.now = lambda: at
    store.take(*contents)


@pytest.fixture
def sold(store: Store) -> Store:
    """Three days, and a delivery book."""
    came(store, NOON - timedelta(days=1), sale("before"))
    came(
        store,
        NOON,
        sale("S-1", terminal="T", sequence=4, currency="AUD", total=Decimal("-19.950")),
        b'{"kind": "sale"}',
    )
    came(store, NOON + timedelta(days=1), sale("after"))
    log.create(store.delivery, "delivery", {}, lambda: NOON)
    with closing(log.open_book(store.delivery, "delivery", write=True)) as db:
        log.append(db, [Entry("delivered", 3, "S-1", {"omneo_id": 7})], now=lambda: NOON)
    return store


def test_a_period_is_exported_with_every_column(sold: Store) -> None:
    first, second = map(json.loads, exported(sold).output.splitlines())
    assert tuple(first) == tuple(second) == export.COLUMNS
    assert (first["external_id"], first["total"], first["state"], first["omneo_id"]) == (
        "S-1",
        "-19.950",
        "delivered",
        7,
    )
    assert (second["state"], second["flags"], second["open_flags"]) == ("invalid", "invalid", "J6")
    with closing(log.open_book(sold.db, "journal", write=False)) as db:
        assert first["digest"] == db.execute("SELECT lower(hex(digest)) FROM log WHERE seq = 3").fetchone()[0]


def test_the_last_day_is_included_and_no_other(sold: Store) -> None:
    lines = exported(sold, first="2025-06-15", last="2025-06-16").output.splitlines()
    assert [json.loads(line)["external_id"] for line in lines] == ["before", "S-1", None]
    assert exported(sold, first="2025-06-16", last="2025-06-15").exit_code == 2


def test_a_table_says_the_same(sold: Store, tmp_path: Path) -> None:
    out = tmp_path / "period.csv"
    assert exported(sold, "--format", "csv", "--out", str(out)).output == ""
    rows = list(csv.DictReader(io.StringIO(out.read_text("utf-8"), newline="")))
    assert [row["external_id"] for row in rows] == ["S-1", ""]
    assert (rows[0]["total"], rows[0]["sequence"], rows[0]["settled_at"]) == (
        "-19.950",
        "4",
        "2025-06-16T12:00:00.000Z",
    )


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\r=1", "\n=1", "'quoted", "=", "\uff1d1"]
)
def test_a_spreadsheet_is_not_tricked(text: str) -> None:
    assert export.cell(text) == "'" + text
    line = b"".join(export.csv_lines(["a", "b"], [{"a": text, "b": f'x"{text}'}])).decode()
    _, row = csv.reader(io.StringIO(line, newline=""))
    assert row[0].removeprefix("'") == text
    assert row[1] == f'x"{text}'


@pytest.mark.parametrize("text", ["-12.50", "-1", "12.50", "1E+2", "-0.05e-3", "S-1", "", "a=b"])
def test_numbers_and_plain_words_stay_as_they_are(text: str) -> None:
    assert export.cell(text) == text
    assert export.cell(None) == ""


def many(store: Store, count: int) -> None:
    """Documents without the cost of files."""
    facts = {"bytes": 2, "n": 1, "terminal": "T", "total": "1.00"}
    with closing(log.open_book(store.db, "journal", write=True)) as db:
        for start in range(0, count, 5000):
            entries = [Entry("sale", None, f"X-{start + n}", facts, b"{}") for n in range(5000)]
            log.append(db, entries, now=lambda: NOON)


def peak(store: Store) -> int:
    days = Days(date(2025, 6, 16), date(2025, 6, 16), None)
    tracemalloc.start()
    with story.both_books(store.db, store.delivery) as both:
        for _ in export.csv_lines(export.COLUMNS, export.rows(both, days)):
            pass
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.mark.slow
def test_memory_does_not_grow_with_the_period(store: Store) -> None:
    many(store, 5000)
    short = peak(store)
    many(store, 20000)
    assert peak(store) < short * 1.2
    assert short < 12_000_000


def test_whoever_reads_slowly_holds_no_book(sold: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journal.day.PIECE", 1)
    with story.both_books(sold.db, sold.delivery) as both:
        rows = export.rows(both, Days(date(2025, 6, 1), date(2025, 6, 30), None))
        next(rows)
        with closing(log.open_book(sold.db, "journal", write=True)) as book:
            book.execute("PRAGMA busy_timeout = 20")
            log.append(book, [Entry("opened")])
        assert len(list(rows)) == 3


def test_nothing_personal_is_exported(store: Store) -> None:
    came(store, NOON, sale("S", profile_id="zoe@example.org", profile_id_handle="email"))
    for form in ("jsonl", "csv"):
        assert "zoe" not in exported(store, "--format", form).output


def test_each_column_is_explained() -> None:
    page = (Path(__file__).parents[1] / "docs/auditing.md").read_text("utf-8")
    assert [name for name in export.COLUMNS if f"| `{name}` |" not in page] == []
