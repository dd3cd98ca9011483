"""The page on reliability: every fault once, what it names exists, and its figures are those of the last full run."""

import ast
import re
from pathlib import Path

import pytest
from faults import page

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs" / "reliability.md").read_text("utf-8")
FAULTS = {"P": 14, "D": 17, "F": 16, "C": 9, "N": 12, "S": 12, "O": 13, "H": 10, "X": 14, "A": 9}
ROW = re.compile(r"^\| ([A-Z]\d+) \| (.+?) \| (.+) \|$", re.MULTILINE)
NAMED = re.compile(r"`(means \w+|test_\w+\.py(?:::test_\w+)?)`")
ROWS: list[tuple[str, str, str]] = ROW.findall(PAGE)


def exists(name: str) -> bool:
    if name.startswith("means "):
        return (HERE / "faults" / f"{name.removeprefix('means ')}.py").is_file()
    file, _, test = name.partition("::")
    if not (HERE / file).is_file():
        return False
    tree = ast.parse((HERE / file).read_text("utf-8"))
    return not test or any(isinstance(node, ast.FunctionDef) and node.name == test for node in ast.walk(tree))


def wrong(fault: str, covered: str) -> list[str]:
    """What a row names and isn't there; a row that names nothing has to say why."""
    named = NAMED.findall(covered)
    gone = [f"{fault}: {name} does not exist" for name in named if not exists(name)]
    return gone if named or covered.startswith("Out of scope:") else [f"{fault}: nothing covers it"]


def test_every_fault_stands_here_once() -> None:
    wanted = [f"{letter}{number + 1}" for letter, count in FAULTS.items() for number in range(count)]
    assert len(wanted) == 126
    assert [fault for fault, _, _ in ROWS] == wanted


@pytest.mark.parametrize(("fault", "what", "covered"), ROWS, ids=[fault for fault, _, _ in ROWS])
def test_what_covers_a_fault_exists(fault: str, what: str, covered: str) -> None:
    assert what
    assert wrong(fault, covered) == []


@pytest.mark.parametrize(
    "covered", ["", "`means magic`", "`test_wire.py::test_nothing_at_all`", "`test_nothing.py`", "some test"]
)
def test_what_covers_nothing_is_found(covered: str) -> None:
    assert wrong("P1", covered)


def test_its_figures_are_those_of_the_last_full_run() -> None:
    assert page.whole(PAGE, page.load()) == PAGE, "python -m tests.faults --page writes them"
