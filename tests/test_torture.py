"""The runner of the fault campaign is strict about itself, and its second reader of JSON reads as the grammar says."""

from decimal import Decimal
from typing import Any

import pytest
from faults.__main__ import Result, discover
from faults.line import asked_before_resend
from faults.means import Figures, Means
from faults.mutants import HOUSE, MUTANTS, Mutant
from faults.reader import Refused, read


def result(skipped: str | None = None, **figures: Any) -> Result:
    means = Means("m", "m", "points", 1, 2, lambda: None, lambda _: Figures())
    return Result(means, 1, 1, Figures(**figures), skipped)


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"points": 1, "caught": {"bug": True}}, []),
        ({"points": 1, "caught": {"bug": True, "other": False}}, ["the planted bug other was NOT caught"]),
        ({"points": 1, "caught": {"bug": True}, "found": ["lost"]}, ["lost"]),
        ({"points": 0, "caught": {"bug": True}}, ["nothing was done"]),
        ({"points": 1}, ["no planted bug was tried: a means that can't find one proves nothing"]),
    ],
)
def test_what_proves_nothing_has_failed(figures: dict[str, Any], words: list[str]) -> None:
    assert result(**figures).wrong == words
    assert result("no root", **figures).wrong == []


def test_every_means_says_what_it_is() -> None:
    every = discover()
    assert {"clock", "kill", "line", "model", "parser", "soak", "spool"} <= every.keys()
    assert all(0 <= means.small <= means.full > 0 and means.unit and means.layer for means in every.values())


POST = {"method": "POST", "path": "/transactions", "external_id": "a", "status": 200}
LOOK = {"method": "GET", "path": "/transactions/external/a", "external_id": None, "status": 404, "answered": True}


@pytest.mark.parametrize(
    ("journal", "blind"),
    [
        ([POST], False),
        ([POST, POST], True),
        ([POST, LOOK, POST], False),
        ([LOOK, POST, POST], False),  # the first arrived late
        ([POST, LOOK | {"status": 200}, POST], True),
        ([POST, LOOK | {"answered": False}, POST], True),
        ([POST, LOOK, POST, POST], True),
        ([POST, LOOK | {"path": "/transactions/external/b"}, POST], True),
    ],
)
def test_look_ups_are_counted_on_a_bad_line(journal: list[dict[str, Any]], blind: bool) -> None:
    assert bool(asked_before_resend({"journal": journal})) is blind


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (' {"a" : [ ] , "b":{"c":1.50}} ', {"a": [], "b": {"c": Decimal("1.50")}}),
        ('"\\ud83d\\ude00\\n"', "\U0001f600\n"),
        ("[[],[true,null]]", [[], [True, None]]),
        ("-0", 0),
        ("[" * 64 + "]" * 64, None),
    ],
)
def test_the_second_reader_reads(text: str, value: Any) -> None:
    assert value is None or read(text.encode()) == value
    read(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        *("", "[1,]", '{"a":1,}', '{"a":1,"a":2}', "[}", '{"a":1]', "[[]", "{}x", '"\\ud800"', "01", "1e999", "1e-999"),
        *("NaN", "[1 2]", "nul", "'a'", '"\x01"', "+1", ".5", "1.", "[" * 65 + "]" * 65),
    ],
)
def test_the_second_reader_refuses(text: str) -> None:
    with pytest.raises(Refused):
        read(text.encode())


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_each_mutant_still_finds_its_place(mutant: Mutant) -> None:
    assert (HOUSE / mutant.file).read_text().count(mutant.was) == 1
