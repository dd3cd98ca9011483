"""Docs that can't rot: what the code knows by name stands where people look for it, and nothing stale does."""

import ast
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import click
import msgspec
import pytest

import schemas
from forwarder import books, outcome
from forwarder.cli import cli as forwarder_cli
from forwarder.sandbox import customers
from forwarder.sandbox.control import CONTROL_ROUTES
from forwarder.sandbox.faults import Mode, Rule
from journal import book, check, document, known
from journal.cli import STATES
from journal.cli import cli as journal_cli

HOME = Path(__file__).parents[1]
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text("utf-8"))["project"]
README, DESIGN, OPERATING = "README.md", "docs/design.md", "docs/operating.md"
PAGES = (README, "CHANGELOG.md", *sorted(f"docs/{page.name}" for page in (HOME / "docs").glob("*.md")))
PROGRAMS: dict[str, click.Group] = {"omneo-journal": journal_cli, "omneo-forwarder": forwarder_cli}
COMMANDS = {f"{name} {verb}": command for name, group in PROGRAMS.items() for verb, command in group.commands.items()}
ROOMS = [path for top in ("journal", "forwarder") for path in sorted((HOME / top).rglob("*.py"))]
OPTIONS = {each.opts[0]: each for command in COMMANDS.values() for each in command.params if each.opts[0][0] == "-"}
OUTCOMES = {word for part in get_args(get_type_hints(outcome.Outcome)["kind"]) for word in get_args(part)}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SQL_KINDS = re.compile(r"\bkind (?:IN \([^)]*\)|(?:=|<>) '\w+')")

CONTROLS = {f"{verb} {path}" for path, acts in CONTROL_ROUTES.items() for verb in acts}
NET = ("forwarder/outcome", "forwarder/link")
Function = ast.FunctionDef | ast.AsyncFunctionDef


# -- what the code knows by name ------------------------------------------------------------------------------------


def text(node: ast.AST | None) -> str | None:
    """A string in the source; of an f-string what comes before its first value, and "…"."""
    if isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
        return str(node.values[0].value) + "…"
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return (node for node in nodes if ast.unparse(node.func).rpartition(".")[2] in names)


def texts(nodes: Iterable[ast.AST | None]) -> set[str]:
    return {found for node in nodes if (found := text(node))}


def events(tree: ast.AST) -> set[str]:
    """First arguments of `say`; one that is put together of a parameter, with whatever its function is called with."""
    found: set[str] = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, (Function, ast.Module))):
        for call in calls(function, "say", "_say"):
            said = text(call.args[0]) if call.args else None
            if said and said.endswith("…") and isinstance(function, Function):
                names = [each.arg for each in function.args.args if each.arg != "self"]
                at = names.index(call.args[0].values[1].value.id)  # type: ignore[attr-defined]
                found |= {said[:-1] + word for word in texts(use.args[at] for use in calls(tree, function.name))}
            elif said and not said.endswith("…"):
                found.add(said)
    return found


def flags(tree: ast.AST) -> set[str]:
    """`flag("name", …)` in the journal; in the forwarder, pairs of a name and a detail where flags are meant."""
    places: list[ast.AST] = []
    for node in ast.walk(tree):
        is_flags = isinstance(node, (ast.Assign, ast.AugAssign)) and "flag" in ast.unparse(node).partition("=")[0]
        appended = isinstance(node, ast.Call) and ast.unparse(node.func) == "flags.append"
        if is_flags or appended or (isinstance(node, ast.keyword) and node.arg == "flags"):
            places.append(node)
        if isinstance(node, Function) and node.name.endswith("flags"):
            places += [each for each in ast.walk(node) if isinstance(each, ast.Return)]
    pairs = [each.elts[0] for place in places for each in ast.walk(place) if isinstance(each, ast.Tuple) and each.elts]
    return texts(call.args[0] for call in calls(tree, "flag") if call.args) | texts(pairs)


def kinds(tree: ast.AST) -> set[str]:
    """What is written (`Entry("kind", …)`), and what is asked for in SQL."""
    asked = [listed for node in ast.walk(tree) for listed in SQL_KINDS.findall(text(node) or "")]
    return texts(call.args[0] for call in calls(tree, "Entry") if call.args) | set(re.findall(r"'(\w+)'", str(asked)))


def exit_codes(tree: ast.AST) -> set[str]:
    """The second argument of `fail`, what `sys.exit` gets, and what `verdict` and `demo` return."""
    places: list[ast.AST] = [arg for call in calls(tree, "fail") for arg in call.args[1:]]
    places += [arg for call in calls(tree, "exit") for arg in call.args if not isinstance(arg, ast.Call)]
    for function in ast.walk(tree):
        if isinstance(function, Function) and function.name in {"verdict", "demo"}:
            places += [each for each in ast.walk(function) if isinstance(each, ast.Return)]
    consts = [each.value for place in places for each in ast.walk(place) if isinstance(each, ast.Constant)]
    return {str(value) for value in consts if type(value) is int}


def second(*names: str, first: str | None = None) -> Callable[[ast.AST], set[str]]:
    """The texts that stand second in calls of these functions; with `first`, only where that stands first."""
    return lambda tree: texts(
        call.args[1] for call in calls(tree, *names) if call.args[1:] and first in {None, text(call.args[0])}
    )


passed_over, held, fates = second("tell", "_later"), second("Outcome", first="held"), second("Verdict")


def line_reasons(tree: ast.AST) -> set[str]:
    nodes: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "reason":
            nodes.append(node.value)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            nodes.append(node.value)
        if isinstance(node, Function) and node.name == "_unreachable":
            nodes += [each.value for each in ast.walk(node) if isinstance(each, ast.Return)]
    return {each for each in texts(nodes) if " " in each}


def of(collect: Callable[[ast.AST], set[str]], *under: str) -> set[str]:
    files = (path for path in ROOMS if str(path.relative_to(HOME)).startswith(under))
    return {name for path in files for name in collect(ast.parse(path.read_text("utf-8")))}


def entry_kinds() -> set[str]:
    scripts = ast.Module(
        [ast.Expr(ast.Constant(path.read_text("utf-8"))) for path in (HOME / "journal").glob("*.sql")], []
    )
    return of(kinds, "journal", "forwarder/") | kinds(scripts) | {*schemas.KINDS, *books.SETTLED}


def libraries() -> set[str]:
    lists = [
        PROJECT["dependencies"],
        *(PROJECT["optional-dependencies"][extra] for extra in ("sandbox", "demo", "browse", "ledger")),
    ]
    return {re.split(r"[^\w-]", each)[0] for wanted in lists for each in wanted} - {PROJECT["name"]}


# -- what the pages say ---------------------------------------------------------------------------------------------


def section(page: str, heading: str) -> str:
    """What stands under a heading, down to the next of its level."""
    _, found, after = re.split(rf"^(#+) {re.escape(heading)}$", read(page), maxsplit=1, flags=re.MULTILINE)
    return re.split(rf"^#{{1,{len(found)}}} ", FENCE.sub("", after), maxsplit=1, flags=re.MULTILINE)[0]


def read(page: str) -> str:
    return (HOME / page).read_text("utf-8")


def rows(said: str) -> list[list[str]]:
    lines = [line for line in said.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]


def names_on(said: str) -> set[str]:
    """Names in code marks (an option without its value), and the first cells of tables."""
    spans = re.findall(r"`([^`\n]+)`", said)
    return {*spans, *(span.split()[0] for span in spans), *(part for row in rows(said) for part in row[0].split(", "))}


def missing(names: set[str], said: str) -> set[str]:
    there = names_on(said)
    begun = {name for name in names if name.endswith("…") and any(each.startswith(name[:-1]) for each in there)}
    return names - there - begun


CLAIMS: dict[str, tuple[str, str, set[str]]] = {
    "options": (OPERATING, "Options", set(OPTIONS)),
    "environment": (OPERATING, "Options", {str(each.envvar) for each in OPTIONS.values() if each.envvar}),
    "exit codes": (OPERATING, "Exit codes", of(exit_codes, "journal/c", "forwarder/cli", "forwarder/demo.py") | {"2"}),
    "exit codes on the first page": (README, "Store", of(exit_codes, "journal/c", "forwarder/cli") | {"2"}),
    "states": (OPERATING, "States", set(STATES)),
    "states by design": (DESIGN, "States", {*STATES, *OUTCOMES}),
    "fates of a file": (DESIGN, "Kinds of entry", of(fates, "journal/check")),
    "kinds": (DESIGN, "Kinds of entry", entry_kinds()),
    "kinds in the books' form": ("docs/format.md", "The form of the two books", entry_kinds()),
    "flags": (OPERATING, "Flags", of(flags, "journal", "forwarder/")),
    "journal events": (OPERATING, "Events of the ingest program", of(events, "journal")),
    "forwarder events": (OPERATING, "Events of the forwarder", of(events, "forwarder/")),
    "reasons to pass over": (OPERATING, "What is passed over", of(passed_over, "journal/spool")),
    "reasons to hold": (OPERATING, "Why a document is held", of(held, "forwarder/")),
    "reasons of the line": (OPERATING, "Why the line is down, or delivery paused", of(line_reasons, *NET)),
    "reasons to reject": (OPERATING, "Why a file is rejected", {*document.REASONS, check.TOO_LARGE, known.CONFLICT}),
    "rooms": (DESIGN, "Rooms", {str(path.relative_to(HOME)) for path in ROOMS if path.name != "__init__.py"}),
    "libraries": ("docs/decisions.md", "Libraries", libraries()),
    "faults": (README, "Faults", {*get_args(Mode), *(each.name for each in msgspec.structs.fields(Rule)[1:])}),
    "control routes": (README, "Control routes", CONTROLS),
    "customers": (README, "The sandbox", {id_ for name, id_ in vars(customers).items() if name.isupper()}),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_every_name_stands_on_its_page(what: str) -> None:
    page, heading, names = CLAIMS[what]
    assert names, "the collector finds nothing"
    assert missing(names, section(page, heading)) == set()


@pytest.mark.parametrize("what", CLAIMS)
def test_a_name_that_is_taken_off_its_page_is_missed(what: str) -> None:
    page, heading, names = CLAIMS[what]
    for name in names:
        without = re.sub(rf"(?<![\w-]){re.escape(name.removesuffix('…'))}", "gone", section(page, heading))
        assert name in missing(names, without), name


def test_a_new_name_in_the_source_is_found() -> None:
    source = """
def turn(self, link): say(f"line_{link}")
def go(): self.turn("up"); say("begun"); self.tell(path, f"is odd: {why}"); fail("no", 76)
def judge(): return [Entry("lent", 1), flag("late", entry)], Outcome("held", "a reason")
def old_flags(): return [("stale", {"by": 1})]
def ask(): return "WHERE kind IN ('sale', 'swap') OR kind = 'hello'"
def no(): return Answer(None, reason="nobody there")
"""
    tree = ast.parse(source)
    assert events(tree) == {"line_up", "begun"}
    assert (flags(tree), kinds(tree)) == ({"late", "stale"}, {"lent", "sale", "swap", "hello"})
    assert (exit_codes(tree), passed_over(tree)) == ({"76"}, {"is odd: …"})
    assert (held(tree), line_reasons(tree)) == ({"a reason"}, {"nobody there"})


TABLES = ("options", "states", "flags", "journal events", "forwarder events", "rooms", "libraries")


@pytest.mark.parametrize("what", TABLES)
def test_nothing_stale_stands_in_a_table(what: str) -> None:
    page, heading, names = CLAIMS[what]
    allowed = names | {"schemas", "hypothesis"}  # a room that is no module; a library that only tests use
    for row in rows(section(page, heading))[1:]:
        for name in re.findall(r"`([^`]+)`", row[0]) or row[0].split(", "):
            assert name.split()[0].rstrip("/") in allowed, name


def test_each_command_is_shown_with_exactly_its_options() -> None:
    lines = [re.sub(r"[`\[\]]", "", row[0]).split() for row in rows(section(OPERATING, "Commands"))]
    shown = {
        " ".join(words[:2]): {word for word in words if word[:2] == "--"} for words in lines if words[0] in PROGRAMS
    }
    given = {name: {each.opts[0] for each in command.params} & set(OPTIONS) for name, command in COMMANDS.items()}
    assert shown == given


def test_options_are_shown_with_their_environment_and_default() -> None:
    shown = {row[0].strip("`").split()[0]: row for row in rows(section(OPERATING, "Options"))}
    for name, option in OPTIONS.items():
        assert not option.envvar or f"`{option.envvar}`" in shown[name][1], name
        assert not getattr(option, "show_default", None) or shown[name][2] == str(option.default), name


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", FENCE.sub("", read(page))):
        target = (HOME / page).parent / path if path else HOME / page
        assert target.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.*)$", FENCE.sub("", target.read_text("utf-8")).lower(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", each).replace(" ", "-") for each in headings], f"{path}#{anchor}"


SHELL = [body for language, body in FENCE.findall(read(README)) if language == "sh"]


@pytest.mark.parametrize("script", SHELL)
def test_a_shell_example_is_shell_and_its_commands_are_ours(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "systemctl" in script:  # on a box with the package commands are told this file
        for line in read("systemd/omneo.env").splitlines():
            if line.startswith("OMNEO_"):
                monkeypatch.setenv(*line.split("=", 1))
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    for line in re.sub(r"<<'EOF'\n.*?^EOF$", "", script, flags=re.DOTALL | re.MULTILINE).splitlines():
        program, *words = shlex.split(line, comments=True)
        if program in PROGRAMS:
            COMMANDS[f"{program} {words[0]}"].make_context(words[0], words[1:])  # raises what the user would be told
        elif program == "make":
            assert re.search(rf"^{words[0]}:", read("Makefile"), re.MULTILINE)
        else:
            assert program in {"apt", "cat", "chmod", "curl", "install", "mkdir", "mv", "sqlite3", "systemctl"}


def test_the_documents_of_the_first_page_are_valid_and_there_is_one_of_each_kind(tmp_path: Path) -> None:
    for script in SHELL:
        if "<<'EOF'" in script:
            subprocess.run(["bash", "-e"], input=script, text=True, check=True, cwd=tmp_path)
    found = [check.on_its_own(path.name, path.read_bytes()) for path in sorted(tmp_path.rglob("*.json"))]
    assert sorted(each.kind for each, _ in found) == sorted(schemas.KINDS)
    assert [(each.problems, raised) for each, raised in found] == [((), [])] * len(found)
    assert list(tmp_path.rglob("*.tmp")) == []


def test_the_first_page_names_the_oldest_versions() -> None:
    said = section(README, "Supported versions")
    assert f"Python {PROJECT['requires-python'].removeprefix('>=')} " in said
    assert f"SQLite {'.'.join(map(str, book.SQLITE_OLDEST))} " in said
