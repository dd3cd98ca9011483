"""The drawing of docs/design.md, held: who may import whom, who may touch the network, who may write a book."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parent.parent
MODULE_LINES = 300
ALONE = "journal.standalone"  # a program of its own, in one file because auditors get it so: it opens books itself
ELSEWHERE = "forwarder.headoffice_schema"  # what it writes is head office's ledger, and no book
FUNCTION_LINES = 60

# Who may stand on whom: only on what is named in its line, which only names lines above it. A new module is one line.
JOURNAL = {
    "schemas": "",
    "chain": "",
    "book": "",
    "say": "",
    "notify": "",
    "strict": "",
    "totals": "",
    "rejected": "book",
    "log": "book chain",
    "migrate": "book log",
    "measure": "",
    "files": "",
    "leaving": "files rejected",
    "scan": "files rejected",
    "spool": "files leaving measure rejected scan",
    "document": "strict schemas",
    "known": "document log",
    "check": "document known log rejected totals schemas",
    "tree": "",
    "note": "book",
    "checkpoint": "log note say tree",
    "roots": "checkpoint note tree",
    "walk": "chain roots schemas",
    "verify": "checkpoint log migrate note roots walk",
    "evidence": "checkpoint log tree",
    "proof": "checkpoint evidence log note tree",
    "exhibit": "chain checkpoint evidence log note proof roots tree verify walk",
    "standalone": "",
    "story": "document known log",
    "packed": "chain log note",
    "archive": "chain checkpoint log note packed story",
    "redact": "archive checkpoint log note packed story",
    "person": "archive document log packed",
    "backup": "log verify",
    "restore": "archive backup checkpoint log verify schemas",
    "canary": "files log",
    "clock": "log",
    "gauges": "say",
    "metrics": "gauges log say spool",
    "reserve": "log",
    "hints": "say",
    "ingest": "canary check document files hints known leaving log notify rejected reserve say spool",
    "command": "log rejected",
    "words": "command",
    "day": "log",
    "curves": "day log",
    "export": "command day",
    "reconciled": "day words",
    "report": "curves day document known log reconciled story",
    "report_text": "day reconciled words",
    "pictures": "day words",
    "report_page": "day pictures reconciled report_text words",
    "browse": "log story",
    "cli_report": "browse command day export log report report_page report_text story",
    "outcomes": "command log say schemas story",
    "cli_proof": "archive checkpoint command evidence exhibit log note proof rejected say verify",
    "cli_keep": "archive backup checkpoint cli_proof command log person redact rejected restore story",
    "cli_ingest": "canary cli_proof clock command ingest log metrics migrate notify outcomes reserve say spool",
    "cli": "check cli_ingest cli_keep cli_proof cli_report command log rejected schemas story words",
}
FORWARDER = {
    "outcome": "",
    "wire": "",
    "ballast": "",
    "window": "",
    "apportion": "",
    "queues": "",
    "demo_screen": "",
    "demo_shop": "",
    "books": "journal.document journal.log",
    "known": "books window journal.document journal.log",
    "errand": "books known outcome window journal.document journal.log",
    "lane": "books journal.log",
    "by_customer": "books known queues",
    "line": "books outcome window journal.document journal.log journal.say",
    "canary": "books journal.log",
    "chores": "books canary",
    "witness": "journal.log",
    "omneo": "outcome witness journal.document",
    "link": "omneo outcome window journal.log",
    "lookup": "books errand known link omneo outcome witness journal.log",
    "redeem": "errand lookup omneo outcome window journal.document",
    "replay": "apportion books by_customer chores errand known lane line link lookup omneo outcome redeem journal.log"
    " journal.notify journal.say",
    "patience": "outcome replay journal.hints journal.log journal.say",
    "side_by_side": "books by_customer errand outcome patience queues replay journal.log",
    "plan": "books by_customer errand known lane outcome window journal.log",
    "decide": "books known journal.log",
    "status": "books journal.log journal.story",
    "exposure": "books journal.document journal.log",
    "standing": "books exposure status journal.log journal.reserve journal.story journal.rejected",
    "metrics": "standing journal.gauges journal.log journal.say journal.story",
    "standing_text": "journal.command journal.words",
    "asking": "link omneo outcome journal.log",
    "compare": "omneo outcome journal.document",
    "ours": "apportion books compare known witness journal.day journal.log",
    "customers": "asking compare lookup omneo ours outcome",
    "theirs": "asking compare omneo ours outcome witness journal.day",
    "reconcile": "asking books compare customers ours status theirs journal.day journal.log",
    "resend": "books compare known ours",
    "read_back": "asking link omneo witness journal.day journal.log journal.story journal.verify",
    "doctor_box": "books standing journal.book journal.chain journal.hints journal.log",
    "doctor": "doctor_box link omneo outcome status",
    "demo_stage": "demo_screen demo_shop status journal.log",
    "demo_rewards": "demo_stage",
    "demo": "demo_rewards demo_screen demo_stage",
    "options": "errand journal.command",
    "ledger": "journal.log",
    "ship": "exposure ledger journal.chain journal.document journal.log journal.rejected journal.say",
    "ship_loop": "ship journal.log journal.notify",
    "headoffice_schema": "journal.log",
    "headoffice_page": "journal.log",
    "cli_ledger": "headoffice_page headoffice_schema ledger options ship ship_loop journal.command journal.log"
    " journal.notify journal.say",
    "cli_look": "doctor options standing standing_text status wire journal.command journal.log",
    "cli_reconcile": "asking books compare decide link options reconcile resend wire journal.command journal.day"
    " journal.log journal.reconciled journal.rejected journal.story",
    "cli": "ballast books cli_ledger cli_look cli_reconcile decide demo doctor link metrics options patience plan"
    " read_back replay side_by_side status window wire journal.command journal.day journal.log journal.migrate"
    " journal.notify journal.rejected journal.say sandbox.serve",
}
# The stand-in Omneo is a house of its own: its rooms know each other, and nothing of ours.
SANDBOX = "forwarder.sandbox"

# Which libraries of others, and which doors of Python's own, a room may use besides what needs no asking.
LIBRARIES = {
    "click": "journal.cli journal.cli_ingest journal.cli_keep journal.cli_report journal.cli_proof journal.command"
    " forwarder.cli forwarder.cli_ledger forwarder.cli_look forwarder.cli_reconcile forwarder.options"
    " forwarder.standing_text",
    "cryptography": "journal.note",
    "datasette": "journal.browse",
    "httpx": "forwarder.doctor forwarder.link forwarder.outcome forwarder.wire forwarder.demo_stage",
    "jsonschema_rs": "journal.document",
    "msgspec": "journal.command journal.words forwarder.omneo forwarder.sandbox"
    " forwarder.demo forwarder.demo_shop forwarder.demo_stage",
    "prometheus_client": "journal.gauges forwarder.metrics",
    "psycopg": "forwarder.headoffice_page forwarder.headoffice_schema forwarder.ledger",
    "rich": "forwarder.demo_screen",
    "sqlite_utils": "journal.curves journal.export journal.person journal.reconciled journal.report journal.story",
    "starlette": "forwarder.sandbox",
    "structlog": "journal.say",
    "tenacity": "forwarder.patience forwarder.side_by_side",
    "uvicorn": "journal.browse forwarder.sandbox",
    "watchdog": "journal.hints",
    # the network
    "asyncio": "forwarder.sandbox",
    "http": "forwarder.sandbox forwarder.wire",
    "socket": "forwarder.doctor forwarder.ledger forwarder.sandbox forwarder.wire journal.browse journal.notify",
    "ssl": "forwarder.ledger forwarder.wire",
    "select": "forwarder.wire",
    **dict.fromkeys(("ftplib", "selectors", "smtplib", "socketserver", "urllib.request", "xmlrpc"), ""),
    # other programs
    "subprocess": "forwarder.demo_stage",
    "multiprocessing": "",
}


def module(path: Path) -> str:
    """`forwarder/wire.py` is forwarder.wire."""
    return ".".join(path.relative_to(HOUSE).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {
    module(path): path.read_text()
    for room in ("journal", "forwarder", "schemas")
    for path in (HOUSE / room).rglob("*.py")
}


def drawing() -> dict[str, set[str]]:
    """Both dictionaries as one, with whole names."""
    whole = {}
    for house, lines in (("journal", JOURNAL), ("forwarder", FORWARDER)):
        for room, arrows in lines.items():
            names = (arrow if arrow.startswith("journal.") else f"{house}.{arrow}" for arrow in arrows.split())
            whole[f"{house}.{room}"] = {name.replace("journal.schemas", "schemas") for name in names}
    whole["schemas"] = whole.pop("journal.schemas")
    return whole


def imports(source: str) -> Iterator[str]:
    """Whole names of the modules that a source imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield whole if whole in SOURCES else str(node.module)


def ours(name: str) -> bool:
    return name.partition(".")[0] in {"journal", "forwarder", "schemas"}


def inside(name: str, rooms: str) -> bool:
    """Is a module one of these rooms, or in one of them?"""
    return any(f"{name}.".startswith(f"{room}.") for room in rooms.split())


def departures(name: str, source: str) -> Iterator[str]:
    """What a module imports and may not."""
    allowed = drawing().get(name, set())
    for wanted in sorted(set(imports(source))):
        if ours(wanted):
            both = inside(name, SANDBOX) and inside(wanted, SANDBOX)
            if wanted not in allowed and not both:
                yield f"{name} imports {wanted}"
        else:
            for library, rooms in LIBRARIES.items():
                if inside(wanted, library) and not inside(name, rooms):
                    yield f"{name} imports {wanted}"


def writes(name: str, source: str) -> Iterator[str]:
    """Where a module opens a database file by itself, or says SQL that changes one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("sqlite3.connect", "Database")):
            first = ast.unparse(node.args[0])
            if first not in {"':memory:'", "db"}:  # `Database(db)`: a connection that is open already
                yield f"{name}:{node.lineno} opens {first}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            verb, blank, _ = node.value.lstrip().partition(" ")
            if blank and verb in {"INSERT", "UPDATE", "DELETE", "REPLACE", "DROP", "ALTER", "VACUUM"}:
                yield f"{name}:{node.lineno} says {node.value!r}"


def test_every_module_is_in_the_drawing() -> None:
    packages = {"journal", "forwarder"}
    assert {name for name in SOURCES if not inside(name, SANDBOX)} - packages == drawing().keys()


def test_arrows_point_down() -> None:
    above: set[str] = {f"{SANDBOX}.serve"}
    for name, arrows in sorted(drawing().items(), key=lambda line: line[0] != "schemas"):
        assert arrows <= above, f"{name} stands on something that is drawn below it"
        above.add(name)


@pytest.mark.parametrize("name", SOURCES)
def test_imports_are_those_of_the_drawing(name: str) -> None:
    assert list(departures(name, SOURCES[name])) == []


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("journal.log", "import forwarder.books"),
        ("journal.ingest", "from forwarder import status"),
        ("journal.cli", "def late():\n    import httpx"),
        ("journal.spool", "import urllib.request"),
        ("journal.chain", "from journal import log"),
        ("forwarder.lane", "from forwarder.replay import Replay"),
        ("forwarder.replay", "from socket import socket"),
        ("forwarder.books", "from journal.spool import Spool"),
        ("forwarder.sandbox.state", "from forwarder import omneo"),
        ("forwarder.sandbox.app", "from journal.log import stamp"),
        ("forwarder.newcomer", "from journal import log"),
    ],
)
def test_a_planted_import_is_found(name: str, planted: str) -> None:
    assert len(list(departures(name, planted))) == 1


@pytest.mark.parametrize("name", SOURCES)
def test_only_the_log_opens_a_book_and_writes_it(name: str) -> None:
    if name not in {"journal.log", "journal.book", "journal.migrate", ALONE, ELSEWHERE}:
        assert list(writes(name, SOURCES[name])) == []


@pytest.mark.parametrize(
    "planted",
    [
        'sqlite3.connect("x.db")',
        "sqlite_utils.Database(path)",
        'db.execute("INSERT INTO log VALUES (1)")',
        'db.execute(f"DELETE FROM {x}")',
    ],
)
def test_a_planted_write_is_found(planted: str) -> None:
    assert len(list(writes("forwarder.replay", planted))) == 1


@pytest.mark.parametrize("name", SOURCES)
def test_rooms_are_small(name: str) -> None:
    assert len(SOURCES[name].splitlines()) <= MODULE_LINES or name == ALONE
    for node in ast.walk(ast.parse(SOURCES[name])):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name


def test_the_forwarder_does_not_load_what_only_intake_needs() -> None:
    """Its memory is a figure of docs/performance.md, and the validator would be three megabytes of it."""
    code = "import sys; from forwarder import cli, metrics, replay, side_by_side, wire; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert {"httpx", "forwarder.replay"} <= set(done.stdout.split())
    assert not {"jsonschema_rs", "sqlite_utils"} & set(done.stdout.split())
