"""The measurements' own arithmetic, and the page that is made of them; what they measure is `make bench`."""

import argparse
import json
import re
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench import goals, page, turns
from tests.bench.page import HOUSE

CHOSEN = argparse.Namespace(slice=True, long=False, rounds=1, entries=None, room=Path())
TOLD = {
    "machine": {"processors": 2},
    "when": {},
    "figures": {"week": {"documents": 5, "rows_a_day": 60.0}, "idle": {"ingest_wakes": 0.5, "forwarder_wakes": 0.5}},
}


def test_every_goal_is_of_something_that_is_measured() -> None:
    assert {goal.section for goal in goals.GOALS} <= bench.measurements(CHOSEN).keys()
    assert {*bench.SLICE.split(","), *bench.LONG.split(",")} <= bench.measurements(CHOSEN).keys()


def test_the_slice_forgives_half_but_for_what_the_machine_does_not_change() -> None:
    fast = goals.Goal("x", "x", goals.AT_LEAST, 0.6, "")
    slow = goals.Goal("x", "x", goals.AT_MOST, 10.0, "")
    steady = goals.Goal("x", "x", goals.AT_MOST, 10.0, "", steady=True)
    assert [fast.met(value, 2.0) for value in (0.29, 0.3, 0.6)] == [False, True, True]
    assert [fast.met(value) for value in (0.3, 0.6)] == [False, True]
    assert [slow.met(value, 2.0) for value in (20.0, 20.1)] == [True, False]
    assert not steady.met(10.1, 2.0)


def test_turns_are_taken_and_ratios_are_of_one_round() -> None:
    order: list[str] = []
    found = turns.in_turns(3, {name: (lambda name=name: order.append(name) or len(order)) for name in "abc"})
    assert "".join(order) == "abcbcacab"
    assert found["a"] == [1, 6, 8]
    assert turns.ratio([10.0, 100.0, 30.0], [10.0, 10.0, 10.0]) == 3.0


def test_the_page_shows_what_was_asked_reached_and_missed() -> None:
    told = TOLD | {"figures": {"week": TOLD["figures"]["week"]}}
    written = page.whole(f"before\n{page.BEGIN}\nold\n{page.END}\nafter", told)
    assert written.startswith("before\n")
    assert written.endswith("\nafter")
    assert "old" not in written
    assert "| a week offline: rows a day in the delivery book | ≤ 50 | 60 | **missed** |" in written
    assert "not measured yet" in written
    assert 'class="missed"' in page.plots(told)["goals.svg"]


def test_no_figure_of_the_page_is_written_by_hand() -> None:
    before, _, rest = page.PAGE.read_text("utf-8").partition(page.BEGIN)
    assert re.findall(r"[\d.]+ ?(?:µs|MB|GB|%|files/s|times)", before + rest.partition(page.END)[2]) == []


def test_what_the_prose_names_is_measured() -> None:
    """`a_figure_us` and the like, in the sections that it sends the reader to."""
    prose = page.PAGE.read_text("utf-8").partition(page.BEGIN)[0]
    made = "".join((HOUSE / "tests/bench" / name).read_text("utf-8") for name in ("parts.py", "disk.py", "single.py"))
    named = re.findall(r"`(\w+)_(us|ms)`", prose)
    assert named
    assert [name for name, _ in named if f'"{name}' not in made] == []


def test_the_page_as_it_stands_is_made_of_the_figures_as_they_stand() -> None:
    if not page.FIGURES.exists():
        pytest.skip("nothing was measured yet")
    told = json.loads(page.FIGURES.read_text("utf-8"))
    assert page.whole(page.PAGE.read_text("utf-8"), told) == page.PAGE.read_text("utf-8")
    for name, picture in page.plots(told).items():
        assert (page.PLOTS / name).read_text("utf-8") == picture + "\n"
