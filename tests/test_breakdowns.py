"""docs/operating.md leads from what is seen to what is wrong, in each of ten shops that are really broken."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import breakdowns
import pytest
from breakdowns import BREAKDOWNS, Box, prepared

PAGE = (Path(__file__).parents[1] / "docs/operating.md").read_text()
SIGNS = {
    "no_line": "no connection",
    "portal": "a captive portal or proxy answered",
    "token": "does not accept our credentials",
    "address": "Omneo has no such route",
    "clock": "this machine's clock is",
    "disk": "nearly full",
    "spool": "is not there, or this user can't see it",
    "intake": "omneo-journal ingest is not running",
    "hangs": "has not followed the journal",
    "till": "invalid",
}
NOTHING = re.compile(r"\b0 (refused, 0 held, 0 )?invalid")  # a count of none is no sign


def rows() -> dict[str, list[str]]:
    """The table of "Something is wrong", by what is seen."""
    section = PAGE.split("## Something is wrong\n")[1].split("\n## ")[0]
    found = [
        [cell.strip() for cell in line.strip("|").split(" |")] for line in section.splitlines() if line[:3] == "| `"
    ]
    return {cells[0].strip("`"): cells[1:] for cells in found}


def told(box: Box) -> dict[str, str]:
    """All that somebody has to go by, as the page names it."""
    return {
        "status": NOTHING.sub("", box.command("forwarder", "status")),
        "doctor": "\n".join(line for line in box.command("forwarder", "doctor").splitlines() if line[:1] != "✓"),
        "the ingest program's log": box.log("journal"),
        "the forwarder's log": box.log("forwarder"),
    }


def shop(breakdown: Callable[[Box], None], root: Path) -> Iterator[dict[str, str]]:
    with prepared(breakdown, root) as box:
        yield told(box)


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    yield from shop(breakdowns.nothing, tmp_path_factory.mktemp("well"))


def test_there_are_ten_and_the_page_has_a_row_for_each() -> None:
    assert len(BREAKDOWNS) == 10
    assert BREAKDOWNS.keys() == SIGNS.keys()
    assert rows().keys() == set(SIGNS.values())
    assert all(len(cells) == 3 and all(cells) for cells in rows().values())


@pytest.mark.parametrize("name", BREAKDOWNS)
def test_what_the_page_says_is_seen_where_it_says_and_not_in_a_shop_that_is_well(
    name: str, tmp_path: Path, well: dict[str, str]
) -> None:
    if name == "disk" and os.geteuid() != 0:
        pytest.skip("this user may not mount a file system")
    sign = SIGNS[name]
    places = re.sub(r";.*", "", rows()[sign][0]).split(", ")
    for found in shop(BREAKDOWNS[name], tmp_path):
        assert places
        for place in places:
            assert sign in found[place], f"{place}: {found[place]}"
        others = [other for key, other in SIGNS.items() if key != name]
        for other in others:  # nothing points somewhere else
            assert not any(other in said for said in found.values()), other
    assert not any(sign in said for said in well.values())
