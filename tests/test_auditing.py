"""docs/auditing.md, asked again: each command on a busy day, and what it is said to answer."""

import re
import shlex
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from busy_day import busy_day
from click.testing import CliRunner
from standin import Omneo, Store

from forwarder.cli import cli as forwarder_cli
from journal.cli import cli as journal_cli

PROGRAMS = {"omneo-journal": journal_cli, "omneo-forwarder": forwarder_cli}
HOME = Path(__file__).parents[1]
PAGE = (HOME / "docs/auditing.md").read_text("utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
MASKS = (r"[0-9a-f]{16}…", r"\d\d:\d\d:\d\d", r"\d+ min \d+ s", r"20\d\d-\d\d-\d\d(?= *$)")


def masked(line: str) -> str:
    """Without what is another one each time."""
    for mask in MASKS:
        line = re.sub(mask, "#", line)
    return line.rstrip()


@pytest.fixture
def busy(omneo: Omneo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    (tmp_path / "token").write_text("sandbox\n")
    store = busy_day(tmp_path, omneo, tmp_path / "token")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Australia/Melbourne")
    time.tzset()
    yield store
    monkeypatch.undo()
    time.tzset()


@pytest.mark.slow
def test_each_question_is_answered_as_the_page_says(busy: Store, omneo: Omneo) -> None:
    there = {"OMNEO_URL": omneo.url, "OMNEO_TOKEN_FILE": "token", "OMNEO_RATE": "0"}
    runner = CliRunner(env={"OMNEO_JOURNAL_DB": busy.db.name} | there)
    asked = 0
    for said in "".join(BLOCKS).split("$ ")[1:]:
        line, *lines = said.splitlines()
        program, *words = shlex.split(line)
        kept = Path(words.pop()) if words[-2:-1] == [">"] else None
        done = runner.invoke(PROGRAMS[program], words[:-1] if kept else words)
        assert done.exit_code == 0, (line, done.output, done.exception)
        if kept:
            kept.write_text(done.stdout)
        answered = list(map(masked, done.output.splitlines()))
        for expected in map(masked, lines):
            assert expected in {"…", *answered}, line
        asked += 1
    assert asked >= 15


def test_there_are_ten_questions_and_each_click_is_there() -> None:
    assert re.findall(r"^## (\d+)\. .*\?$", PAGE, re.MULTILINE) == [str(number) for number in range(1, 11)]
    queries = tomllib.loads((HOME / "journal/browse.toml").read_text("utf-8"))["databases"]["books"]["queries"]
    titles = {query["title"].partition(". ")[2] for query in queries.values()}
    clicks = {" ".join(click.split()) for click in re.findall(r"\*([A-Z][^*]+\?)\*", PAGE)}
    assert len(titles) == 10
    unknown = [click for click in clicks if not any(title.startswith(click[:-1]) for title in titles)]
    assert unknown == []
    assert [title for title in titles if not any(title.startswith(click[:-1]) for click in clicks)] == []
