"""
Both books in a browser on this machine: Datasette, read only. It can change nothing and keeps no writer waiting long.

Every connection is opened read only (never "immutable", which must not be used on a file that grows), a query ends
after a second, and no more than two run at once. Who may ask is decided at the door: this machine's browser, by a key
that is printed once, since every user of a machine may connect to its loopback.
"""

import secrets
import signal
import socket
import sqlite3
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Context, Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import uvicorn
from datasette.app import Datasette
from datasette.database import Database

from journal import log, story

HOST = "127.0.0.1"
NAME = "books"
SETTINGS = {
    "allow_download": False,  # a copy of a book in use is best made with .backup
    "default_cache_ttl": 0,
    "max_csv_mb": 0,
    "num_sql_threads": 2,
    "sql_time_limit_ms": 1000,  # a writer waits five times as long
    "suggest_facets": False,  # the useful ones are chosen
    "truncate_cells_html": 400,
}
EXACT = Context(prec=1000)


class CannotListenError(Exception):
    """The port can't be had: says what to do."""


class Pair(Database):  # type: ignore[misc]
    """Both books as one database of Datasette's: the journal's tables, and the views over both."""

    def __init__(self, datasette: Datasette, journal: Path, delivery: Path) -> None:
        super().__init__(datasette, path=str(journal))
        self._paths = journal, delivery

    def connect(self, write: bool = False) -> sqlite3.Connection:
        """One of the threads' connections. Raises Unusable, NotNow, and for whoever would write."""
        if write:
            raise log.Unusable("Both books are read only here.")
        db = story.connect(*self._paths)
        db.create_aggregate("exact_sum", 1, ExactSum)  # type: ignore[arg-type]
        db.execute("PRAGMA query_only = 1")
        return db

    async def view_names(self) -> list[str]:
        """The views belong to the connection and not to a file."""
        found = await self.execute("SELECT name FROM sqlite_temp_master WHERE type = 'view' ORDER BY name")
        return [row[0] for row in found.rows]

    async def attached_databases(self) -> list[Any]:
        """Nobody has to know how it is done."""
        return []

    async def get_table_definition(self, table: str, type_: str = "table") -> str | None:
        """The SQL of a table or view."""
        if type_ != "view":
            return str(said) if (said := await super().get_table_definition(table, type_)) else None
        query = "SELECT sql FROM sqlite_temp_master WHERE type = 'view' AND name = ?"
        row = (await self.execute(query, [table])).first()
        return f"{row[0]};" if row else None


class ExactSum:
    """`exact_sum(total)` in SQL: a sum of decimal texts, to the cent, where SQLite's own would round."""

    def __init__(self) -> None:
        self._total = Decimal(0)

    def step(self, value: object) -> None:
        """One row; what is no number counts nothing."""
        try:
            self._total = EXACT.add(self._total, Decimal(str(value)))
        except InvalidOperation:
            return

    def finalize(self) -> str:
        """The sum, as text."""
        return f"{self._total:f}"


def application(journal: Path, delivery: Path) -> Any:
    """Datasette on both books, as an ASGI application. Raises Unusable and NotNow."""
    story.connect(journal, delivery).close()
    from datasette import handle_exception  # not before datasette.app, which makes a plugin of it

    handle_exception.rich = None  # it would put each slip on stdout, at length, with the values of all its variables
    about = tomllib.loads((files("journal") / "browse.toml").read_text("utf-8"))
    datasette = Datasette([], metadata=about, settings=SETTINGS)
    datasette.add_database(Pair(datasette, journal, delivery), name=NAME)
    return datasette.app()


class Door:
    """Lets in who has the key, from this machine, to look: nothing else."""

    def __init__(self, inside: Any, port: int) -> None:
        self._inside = inside
        self._hosts = {f"{name}:{port}".encode() for name in (HOST, "localhost")}
        self._cookie = f"omneo-browse-{port}"
        self.key = secrets.token_urlsafe(24)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request (ASGI)."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if headers.get(b"host") not in self._hosts:  # a page elsewhere whose name was made to mean this machine
            await _answer(send, 403, "This address is for a browser on this machine.")
        elif scope["method"] not in {"GET", "HEAD"}:
            await _answer(send, 405, "Nothing can be changed here.")
        elif any(name == "key" and secrets.compare_digest(value, self.key) for name, value in asked):
            rest = urlencode([pair for pair in asked if pair[0] != "key"])
            cookie = f"{self._cookie}={self.key}; Path=/; HttpOnly; SameSite=Strict"
            where = scope["path"] + (f"?{rest}" if rest else "")
            await _answer(send, 303, "", (b"location", where.encode()), (b"set-cookie", cookie.encode()))
        elif self._has_key(headers.get(b"cookie", b"").decode("latin-1")):
            await self._inside(scope, receive, send)
        else:
            await _answer(send, 403, "Open the address that omneo-journal browse printed, with its key.")

    def _has_key(self, cookies: str) -> bool:
        pairs = (each.strip().partition("=") for each in cookies.split(";"))
        return any(name == self._cookie and secrets.compare_digest(value, self.key) for name, _, value in pairs)


async def _answer(send: Any, status: int, words: str, *headers: tuple[bytes, bytes]) -> None:
    said = [(b"content-type", b"text/plain; charset=utf-8"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": said})
    await send({"type": "http.response.body", "body": words.encode()})


class _Server(uvicorn.Server):
    """uvicorn, for which being told to stop is no failure."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def serve(journal: Path, delivery: Path, port: int, *, announce: Callable[[str], None]) -> None:
    """Until stopped. Raises CannotListenError, Unusable, NotNow."""
    inside = application(journal, delivery)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()  # before anybody is told of it
    except OSError as error:
        listener.close()
        words = f"Port {port} can't be had: {error.strerror}. Give another one with --port, or 0 for any."
        raise CannotListenError(words) from error
    port = listener.getsockname()[1]
    door = Door(inside, port)
    config = uvicorn.Config(
        door, lifespan="off", log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=2
    )
    announce(f"Open http://{HOST}:{port}/?key={door.key}")
    announce("Only this machine can, and nothing can be changed there. Ctrl-C ends it.")
    _Server(config).run(sockets=[listener])
