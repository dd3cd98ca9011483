import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import pytest
from busy_day import PERSONAL, busy_day
from click.testing import CliRunner
from sqlite_utils import Database
from standin import Omneo, Store, sale

from forwarder.sandbox.customers import WEI
from journal import log, pictures, report, report_page, report_text, story
from journal.cli import cli
from journal.day import Days, before, between
from journal.log import Entry
from journal.verify import verify
from journal.words import span

ZONE = ZoneInfo("Australia/Melbourne")
DAY = date(2025, 6, 16)
FORMATS = ("text", "json", "csv", "html")


@pytest.fixture(scope="module")
def busy(sandbox: Omneo, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A day of about a hundred sales, made through both programs."""
    root = tmp_path_factory.mktemp("busy")
    (root / "token").write_text("sandbox\n")
    sandbox.control("/reset")
    return busy_day(root, sandbox, root / "token", sales=110)


@contextmanager
def books(store: Store) -> Iterator[Database]:
    with story.both_books(store.db, store.delivery) as both:
        yield both


def told(store: Store, day: date = DAY, terminal: str | None = None, zone: ZoneInfo | None = ZONE) -> dict[str, Any]:
    with books(store) as both:
        return report.report(both, Days(day, day, zone), terminal)


def printed(store: Store, *args: str, **environment: str) -> Any:
    common = ["report", "--db", str(store.db), "--timezone", ZONE.key]
    return CliRunner(env={"OMNEO_DELIVERY_DB": None, **environment}).invoke(cli, [*common, *args])


def deliver(store: Store, *entries: Entry, at: datetime) -> None:
    if not store.delivery.exists():
        log.create(store.delivery, "delivery", {}, lambda: at)
    with closing(log.open_book(store.delivery, "delivery", write=True)) as db:
        log.append(db, entries, now=lambda: at)


def came(store: Store, at: datetime, *contents: dict[str, Any]) -> None:
    store.now = lambda: at
    store.take(*contents)


# ── The figures of a busy day ───────────────────────────────────────────────────────────────────────────────────────


def test_counts_and_sums_are_those_of_the_files(busy: Store) -> None:
    expected: dict[tuple[Any, ...], list[Decimal]] = defaultdict(list)
    with books(busy) as both:
        for row in list(story.documents(both)):
            if row["kind"] != "invalid":
                body = story.show(both, str(row["external_id"]))["body"]
                money = body.get("total", body.get("amount", 0))
                expected[body["terminal"], body["kind"], body.get("currency")].append(Decimal(money))
    found = {
        (row["terminal"], row["kind"], row["currency"]): (row["count"], row["sum"])
        for row in told(busy)["takings"]
        if row["kind"] != "invalid"
    }
    assert found == {group: (len(each), sum(each)) for group, each in expected.items()}
    assert len(found) > 6


def test_states_heads_and_what_is_left_agree_with_the_other_commands(busy: Store) -> None:
    day = told(busy)
    with books(busy) as both:
        rows = list(story.documents(both))
        assert day["close"] == story.close(both)
        assert [row["id"] for row in day["flags"]] == [row["id"] for row in story.flags(both, every=True)]
    assert day["documents"] == len(rows)
    assert {state: count for state, count in day["states"].items() if count} == {
        state: sum(row["state"] == state for row in rows) for state in {row["state"] for row in rows}
    }
    proven = verify(busy.db, busy.delivery)
    assert (day["heads"]["journal"]["entries"], day["heads"]["journal"]["head"]) == (proven["entries"], proven["head"])
    assert day["heads"]["delivery"]["at_the_days_end"]["head"] == proven["delivery"]["head"]
    assert day["backlog"][-1][1] == day["states"]["waiting"] == 3
    assert max(waiting for _, waiting in day["backlog"]) > 5


def test_the_line_the_gaps_and_what_was_set_aside(busy: Store) -> None:
    day = told(busy)
    assert [row["link"] for row in day["outages"]] == ["down", "paused"]
    assert day["outages"][0]["seconds"] == pytest.approx(42 * 60, abs=10 * 60)
    assert [(gap["terminal"], gap["to"] - gap["from"], bool(gap["resolved"])) for gap in day["gaps"]] in (
        [("till-2", 1, False), (day["gaps"][-1]["terminal"], 0, True)],
        [(day["gaps"][0]["terminal"], 0, True), ("till-2", 1, False)],
    )
    assert (day["conflicts"], len(day["set_aside"])) == (1, 2)
    assert day["settled"]["refused"] == 3
    assert day["age"]["median_s"] < 60 < day["age"]["max_s"]


def test_redemptions_have_both_their_clocks(busy: Store) -> None:
    rows = {row["external_id"]: row for row in told(busy)["redemptions"]}
    in_time = [row for row in rows.values() if row["reversed_after_s"] is not None]
    assert [140 < row["reversed_after_s"] < 150 for row in in_time] == [True, True]
    assert (rows["R-9001"]["state"], rows["R-9001"]["late_s"], rows["R-9001"]["reversal"]) == (
        "cancelled",
        None,
        "V-9001",
    )
    late = [row for row in rows.values() if row["late_s"] is not None and row["late_s"] > 600]
    assert len(late) >= 2
    assert all(row["issued_at"] < log.stamp(datetime.fromisoformat(row["created_at"])) for row in late)
    assert {row["external_id"]: row["state"] for row in told(busy)["undone"]}["V-9958"] == "held"


def test_one_terminal_is_its_own_figures_and_the_whole_shops_line(busy: Store) -> None:
    whole, one = told(busy), told(busy, terminal="till-2")
    assert {row["terminal"] for row in one["takings"]} == {"till-2"}
    assert [row for row in whole["takings"] if row["terminal"] == "till-2"] == one["takings"]
    assert (one["outages"], one["backlog"]) == (whole["outages"], whole["backlog"])
    assert told(busy, terminal="nowhere")["documents"] == 0


# ── Days, clocks, sums ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2025, 6, 16), 24), (date(2025, 4, 6), 25), (date(2025, 10, 5), 23)], ids=str
)
def test_a_day_is_the_shops_own_whatever_its_length(store: Store, day: date, hours: int) -> None:
    begin = datetime(day.year, day.month, day.day, tzinfo=ZONE).astimezone(UTC)
    end = begin + timedelta(hours=hours)
    for name, moment in (
        ("A", begin - timedelta(milliseconds=1)),
        ("B", begin),
        ("C", end - timedelta(milliseconds=1)),
    ):
        came(store, moment, sale(name))
    came(store, end, sale("D"))
    assert [told(store, day)[which]["external_id"] for which in ("first", "last")] == ["B", "C"]
    assert told(store, day + timedelta(days=1))["first"]["external_id"] == "D"
    for form in FORMATS:
        assert printed(store, "--day", day.isoformat(), "--format", form).exit_code == 0


def test_a_clock_that_was_set_back_hides_nothing(store: Store) -> None:
    noon = datetime(2025, 6, 16, 12, tzinfo=ZONE)
    came(store, noon + timedelta(days=9), sale("later"))
    came(store, noon, sale("back"))
    came(store, noon + timedelta(days=9), sale("again"))
    assert (told(store)["documents"], told(store)["first"]["external_id"]) == (1, "back")


def test_an_outage_is_as_long_as_the_kernel_says_even_when_the_clock_jumped(store: Store) -> None:
    noon = datetime(2025, 6, 16, 12, tzinfo=ZONE)
    came(store, noon, sale("S"))
    since = log.stamp(noon - timedelta(seconds=5))
    down = {"link": "down", "reason": "no connection", "since": since, "boot": "b", "since_boot_s": 100.0}
    deliver(store, Entry("line", facts=down), at=noon)
    deliver(store, Entry("line", facts=down | {"reason": "another", "since_boot_s": 130.0}), at=noon)
    up = {"link": "up", "reason": "", "boot": "b", "since_boot_s": 400.0}
    deliver(store, Entry("line", facts=up), at=noon - timedelta(hours=3))
    deliver(store, Entry("line", facts=down | {"link": "paused", "boot": "c"}), at=noon + timedelta(hours=1))
    rows = told(store)["outages"]
    assert [(row["link"], row["seconds"], row["reason"]) for row in rows] == [
        ("down", 305.0, "no connection"),
        ("paused", None, "no connection"),
    ]
    assert "and still is" in printed(store, "--day", "2025-06-16").output
    deliver(store, Entry("line", facts=up | {"boot": "d"}), at=noon + timedelta(hours=2))
    assert told(store)["outages"][1]["seconds"] == pytest.approx(7205, abs=0.2)


def test_what_waited_before_the_day_is_in_its_backlog(store: Store) -> None:
    eve, noon = datetime(2025, 6, 15, 12, tzinfo=ZONE), datetime(2025, 6, 16, 12, tzinfo=ZONE)
    came(store, eve, *(sale(f"S-{n}") for n in range(5)))
    totals = {"delivered": 1, "refused": 0, "held": 1, "cancelled": 0, "abandoned": 0}
    deliver(store, Entry("delivered", 2), Entry("held", 3), at=eve)
    deliver(store, Entry("turn", facts={"settled": 3, "upto": 67, "totals": totals}), Entry("delivered", 4), at=eve)
    deliver(store, Entry("released", 3), Entry("delivered", 3), Entry("held", 5), Entry("abandoned", 5), at=noon)
    assert [waiting for _, waiting in told(store)["backlog"]] == [2, 1]
    with books(store) as both:
        assert story.close(both)["waiting"] == 1


@pytest.mark.parametrize(
    ("texts", "total", "words"),
    [
        (["0.1", "0.2"], "0.3", "0.30"),
        (["1E+2", "-0.05"], "99.95", "99.95"),
        (["1234567.895"], "1234567.895", "1,234,567.895"),
        (["1e200", "0.01"], f"1{'0' * 200}.01", "1.000000e+200"),
        ([], "0", "0.00"),
    ],
)
def test_sums_are_exact(texts: list[str], total: str, words: str) -> None:
    rows = [{"kind": "sale", "state": "waiting", "terminal": "T", "currency": None, "total": each} for each in texts]
    sums = [row["sum"] for row in report.takings(rows)] or [Decimal(0)]
    assert (str(sums[0]), report_text.amount(sums[0])) == (total, words)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (90000, "1 d 1 h"),
        (-70, "-1 min 10 s"),
    ],
)
def test_a_length_of_time_in_words(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_entries_of_a_period_come_in_short_pieces(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    came(store, datetime(2025, 6, 16, 12, tzinfo=ZONE), *(sale(f"S-{n}") for n in range(9)))
    monkeypatch.setattr("journal.day.PIECE", 2)
    monkeypatch.setattr("journal.day.LOOK", 5)
    days = Days(DAY, DAY, ZONE)
    with books(store) as both:
        pieces = list(between(both.conn, "main", days.begin, days.end))
        assert [seq for low, high in pieces for seq in range(low, high + 1)] == list(range(2, 11))
        assert max(high - low for low, high in pieces) == 1
        assert before(both.conn, "delivery", days.begin) == 0


# ── As text, table, JSON and page ───────────────────────────────────────────────────────────────────────────────────


def test_text_fits_a_terminal(busy: Store) -> None:
    lines = printed(busy, "--day", "2025-06-16").output.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line != line.rstrip()]
    for phrase in ("Monday, 2025-06-16", "The line was down", "Delivery was paused", "late", "Missing of till-2"):
        assert phrase in "\n".join(lines)


def test_json_has_every_figure_and_exact_money(busy: Store) -> None:
    found = json.loads(printed(busy, "--day", "2025-06-16", "--format", "json").output, parse_float=Decimal)
    assert set(found) == set(told(busy))
    assert found["takings"][-1]["sum"] == told(busy)["takings"][-1]["sum"]


def test_a_table_for_a_spreadsheet(busy: Store) -> None:
    head, *rows = printed(busy, "--day", "2025-06-16", "--format", "csv").output.splitlines()
    assert head == ",".join(report_text.COLUMNS)
    assert len(rows) == len(told(busy)["takings"])


class Tags(HTMLParser):
    """What a page is made of; every tag has to be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone(busy: Store) -> None:
    text = report_page.page(told(busy))
    page = Tags(text)
    assert page.open == []
    assert {tag for tag, _ in page.seen}.isdisjoint({"script", "link", "img", "iframe", "object", "a", "form"})
    assert not {name for _, attributes in page.seen for name in attributes} & {"src", "href", "onload", "onclick"}
    assert re.findall(r"url\([^)]*\)", text) == ["url(#hatch)"]
    assert not re.search(r"https?:|@import|expression\(", text)
    for name in re.findall(r"var\((--[\w-]+)\)", text):
        assert text.count(f"{name}:") == 3, f"{name}: light, dark and paper"


def test_pictures_are_whole_and_nothing_is_drawn_outside(busy: Store) -> None:
    days = Days(DAY, DAY, ZONE)
    drawn = "".join(
        draw(told(busy), days) for draw in (pictures.flow, pictures.backlog, pictures.ages, pictures.redemptions)
    )
    for svg in ET.fromstring(f"<all>{drawn}</all>"):
        _, _, width, height = map(float, svg.attrib["viewBox"].split())
        for each in svg.iter():
            for name in ("x", "x1", "x2", "cx"):
                assert 0 <= float(each.attrib.get(name, 0)) <= width, each.attrib
            for name in ("y", "y1", "y2", "cy"):
                assert 0 <= float(each.attrib.get(name, 0)) <= height, each.attrib
            assert float(each.attrib.get("width", 0)) >= 0 <= float(each.attrib.get("height", 0))
            if each.tag == "text" and each.text:
                wide, x = len(each.text) * pictures.LETTER, float(each.attrib["x"])
                left = {"end": x - wide, "middle": x - wide / 2}.get(each.attrib.get("text-anchor", ""), x)
                assert -3 <= left <= left + wide <= width + 8, (each.text, left)


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_personal_is_in_a_report(busy: Store, form: str) -> None:
    said = printed(busy, "--day", "2025-06-16", "--format", form).output
    with books(busy) as both:
        bodies = [row[0] for row in both.execute("SELECT bytes FROM body").fetchall()]
    for secret in PERSONAL.values():
        assert secret not in said
    assert PERSONAL["name"].encode() in b"".join(bodies), "the files do hold it"
    assert WEI not in said


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_day_and_an_empty_shop(store: Store, form: str) -> None:
    done = printed(store, "--day", "2030-01-01", "--format", form)
    assert (done.exit_code, done.exception) == (0, None)
    assert done.output


def test_names_that_a_page_or_a_terminal_would_obey_are_only_shown(store: Store) -> None:
    evil = "<script>alert(1)</script>\"'&"
    came(store, datetime(2025, 6, 16, 12, tzinfo=ZONE), sale(evil, terminal=evil, sequence=1, currency="<b>"))
    came(store, datetime(2025, 6, 16, 12, tzinfo=ZONE), sale("x" * 128, terminal="t" * 80, sequence=9))
    came(store, datetime(2025, 6, 16, 12, tzinfo=ZONE), sale("=1+1", terminal="=cmd()", sequence=9))
    page = Tags(report_page.page(told(store)))
    assert "script" not in {tag for tag, _ in page.seen}
    assert max(map(len, printed(store, "--day", "2025-06-16").output.splitlines())) <= 80
    assert "'=cmd()" in printed(store, "--day", "2025-06-16", "--format", "csv").output


# ── The command ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "args", [["--timezone", "Mars/Olympus"], ["--timezone", "../etc"], ["--day", "tomorrow"], ["--format", "pdf"]]
)
def test_wrong_usage_is_told(store: Store, args: list[str]) -> None:
    assert printed(store, *args).exit_code == 2


def test_a_file_is_whole_or_not_there(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "day.html"
    assert printed(store, "--format", "html", "--out", str(out)).exit_code == 0
    assert out.read_text().startswith("<!doctype html>")
    again = printed(store, "--out", str(out))
    assert isinstance(again.exception, log.Unusable), "nothing is ever overwritten"
    assert out.read_text().startswith("<!doctype html>")
    missing = tmp_path / "nowhere" / "day.html"
    assert isinstance(printed(store, "--out", str(missing)).exception, OSError)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".new")] == []


def test_today_is_the_default(store: Store) -> None:
    came(store, log.utc_now(), sale("S"))
    assert json.loads(printed(store, "--format", "json").output)["documents"] == 1


def test_what_a_hand_has_put_into_a_book_is_for_verify(store: Store) -> None:
    came(store, datetime(2025, 6, 16, 12, tzinfo=ZONE), sale("S"))
    with closing(log.open_book(store.db, "journal", write=True)) as db:
        db.execute("DROP TRIGGER log_no_update")
        db.execute("UPDATE log SET at = '2025-06-16T00garbage' WHERE seq = 2")
    done = printed(store, "--day", "2025-06-16")
    assert isinstance(done.exception, log.Unusable)
    assert "verify" in str(done.exception)
