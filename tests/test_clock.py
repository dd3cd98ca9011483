"""When the wall clock is set, that is an entry; order and everything else go on as if nothing had happened."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standin import Omneo, Store, sale

from forwarder.replay import step
from journal import log
from journal.clock import Clock

YEAR = timedelta(days=365)


class Wall:
    """A wall clock that is set by hand, and runs on."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return log.utc_now() + self.ahead


class Box:
    """A shop's journal, its wall clock, and the machine's boot."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.wall, self._patch = store, Wall(), monkeypatch
        store.now = self.wall
        self.book = log.open_book(store.db, "journal", write=True)

    def start(self) -> Clock:
        clock = Clock(self.book, now=self.wall)
        clock._told_at = -1000
        facts = {"program": "omneo-journal", **log.boot_facts()}
        log.append(self.book, [log.Entry("opened", facts=facts)], now=self.wall)
        return clock

    def reboots(self, days_off: float = 0) -> None:
        """Another boot, whose seconds begin anew; the wall clock went on, or as the test says."""
        real = log.boot_facts()
        facts = {"boot": f"boot-{days_off}-{real['since_boot_s']}", "since_boot_s": 7.0}
        self._patch.setattr(log, "boot_facts", lambda: facts)
        self.wall.ahead += timedelta(days=days_off)

    @property
    def jumps(self) -> list[float]:
        rows = self.book.execute("SELECT facts FROM log WHERE kind = 'clock' ORDER BY seq").fetchall()
        return [round(json.loads(facts)["seconds"]) for (facts,) in rows]


@pytest.fixture
def box(store: Store, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Box(store, monkeypatch)
    yield made
    made.book.close()


def test_a_clock_that_runs_is_no_entry(box: Box) -> None:
    clock = box.start()
    for _ in range(5):
        clock()
    box.wall.ahead = timedelta(seconds=9)
    clock()
    assert box.jumps == []


@pytest.mark.parametrize("years", [-55, -1, 1, 30])
def test_a_jump_is_one_entry_with_what_the_clock_would_have_shown(box: Box, years: int) -> None:
    clock = box.start()
    clock()
    box.wall.ahead = years * YEAR
    for _ in range(3):
        clock()
    assert box.jumps == [years * 365 * 86400]
    at, facts = box.book.execute("SELECT at, facts FROM log WHERE kind = 'clock'").fetchone()
    assert abs(datetime.fromisoformat(json.loads(facts)["was"]) - log.utc_now()) < timedelta(seconds=60)
    assert abs(datetime.fromisoformat(at) - box.wall()) < timedelta(seconds=60)
    box.store.verified()


def test_there_and_back_are_two_and_no_more_than_one_a_minute(box: Box) -> None:
    clock = box.start()
    clock()
    box.wall.ahead = YEAR
    clock()
    box.wall.ahead = timedelta()
    for _ in range(3):
        clock()
    assert len(box.jumps) == 1
    clock._told_at = -1000  # a minute later
    clock()
    assert box.jumps == [365 * 86400, -365 * 86400]


def test_what_was_set_while_only_the_program_was_off_is_found_at_its_start(box: Box) -> None:
    box.start()()
    box.wall.ahead = timedelta(hours=-3)
    box.start()()
    assert box.jumps == [-3 * 3600]


def test_a_dead_clock_at_boot_is_an_entry_and_its_mending_another(box: Box) -> None:
    """1970 after the power cut, and right again when time synchronisation gets through."""
    box.start()()
    today = log.utc_now()
    box.reboots()
    box.wall.ahead = datetime(1970, 1, 1, 0, 0, 30, tzinfo=UTC) - today
    clock = box.start()
    clock()
    box.wall.ahead = timedelta()
    clock._told_at = -1000
    clock()
    back, forth = box.jumps
    assert back == -forth
    assert forth > 50 * 365 * 86400
    box.store.verified()


def test_days_that_passed_while_the_machine_was_off_are_no_jump(box: Box) -> None:
    box.start()()
    box.reboots(days_off=12)
    box.start()()
    assert box.jumps == []


def test_a_journal_without_any_entry_of_a_start_is_begun_quietly(box: Box) -> None:
    Clock(box.book, now=box.wall)()
    assert box.jumps == []


@pytest.mark.parametrize(
    "moments", [["2026-11-21", "1970-01-01", "2026-11-21"], ["2000-02-29", "2099-01-01", "2024-02-29"]]
)
def test_order_does_not_depend_on_any_clock(store: Store, omneo: Omneo, token: Path, moments: list[str]) -> None:
    """The journal's order, the way to Omneo, and what is verified, on a box that is thrown through the years."""
    wall = Wall()
    store.now = wall
    sold = []
    with store.forwarding(omneo.url, token=token) as run:
        for number, day in enumerate(moments):
            wall.ahead = datetime.fromisoformat(f"{day}T23:59:30+00:00") - log.utc_now()
            sold.append(f"S-{number}")
            store.take(sale(sold[-1]))
            assert step(run) is not None
    assert omneo.sales() == sold
    assert set(store.states().values()) == {"delivered"}
    store.verified()
