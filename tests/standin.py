"""What several tests stand on: a shop with real books, a stand-in Omneo, a server that says anything, real commands."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import journal
from forwarder.books import Books, create_delivery
from forwarder.link import Credentials, Link, check_url
from forwarder.replay import Policy, Replay
from forwarder.sandbox.serve import Running, running
from forwarder.wire import Wire
from journal import ingest, log, story
from journal.spool import Spool
from journal.verify import verify

CODE = Path(journal.__file__).parent.parent
exact = msgspec.json.Decoder(float_hook=Decimal)
encode = msgspec.json.Encoder(decimal_format="number").encode


def sale(external_id: str, **fields: Any) -> dict[str, Any]:
    """A small sale that adds up."""
    return {
        "kind": "sale",
        "external_id": external_id,
        "total": Decimal("19.95"),
        "transacted_at": "2025-06-15 14:32:00",
        "timezone": "Australia/Melbourne",
        "items": [{"name": "Shirt", "quantity": 1, "price_current": Decimal("19.95"), "price_sell": Decimal("19.95")}],
    } | fields


def quiet(event: str, **facts: Any) -> None:
    """A program that says nothing."""


def at_once(seconds: float) -> None:
    """Waiting without waiting."""


class Omneo:
    """The stand-in and its control desk."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.desk = httpx.Client(base_url=server.control, timeout=5)

    @property
    def url(self) -> str:
        return self.server.url

    def control(self, path: str, /, **fields: Any) -> None:
        answer = self.desk.post(path, json=fields)
        assert answer.is_success, answer.text

    def fault(self, mode: str, /, **fields: Any) -> None:
        self.control("/faults", mode=mode, **fields)

    def mend(self) -> None:
        """No more faults; if it was down, it listens again when this returns."""
        assert self.desk.delete("/faults").is_success
        for _ in range(100):
            with suppress(httpx.TransportError), httpx.Client(timeout=2) as client:
                client.get(self.server.control + "/counts")
                return
        raise AssertionError("the sandbox did not come up again")

    def state(self, since: int = 0) -> dict[str, Any]:
        return exact.decode(self.desk.get("/state", params={"since": str(since)}).content)

    def counts(self) -> dict[str, int]:
        return self.desk.get("/counts").json()["counts"]

    def sales(self) -> list[str]:
        """External ids in the order in which they came to be."""
        rows = sorted(self.state()["transactions"], key=lambda row: row["id"])
        return [row["external_id"] for row in rows]

    def asked(self) -> list[str]:
        """Every request so far, as `POST /path`."""
        return [f"{line['method']} {line['path']}" for line in self.state()["journal"]]


@dataclass
class Store:
    """A journal, a delivery book and a spool in one directory."""

    root: Path
    now: Callable[[], datetime] = log.utc_now
    made: int = 0

    def __post_init__(self) -> None:
        self.db, self.delivery, self.spool = self.root / "journal.db", self.root / "delivery.db", self.root / "spool"
        self.spool.mkdir()
        log.create(self.db, "journal", {"journal": str(uuid.uuid4())} | log.boot_facts())

    def drop(self, *contents: dict[str, Any] | bytes) -> None:
        """Files into the spool, in this order."""
        for content in contents:
            self.made += 1
            body = content if isinstance(content, bytes) else encode(content)
            draft = self.spool / ".draft"
            draft.write_bytes(body)
            os.utime(draft, (self.made, self.made))
            draft.rename(self.spool / f"{self.made:06d}.json")

    def sweep(self) -> None:
        """What waits in the spool goes into the journal."""
        book = log.open_book(self.db, "journal", write=True)
        try:
            ingest.sweep(Spool(self.spool, 1024 * 1024, lambda *_: None), book, say=quiet, now=self.now)
        finally:
            book.close()

    def take(self, *contents: dict[str, Any] | bytes) -> None:
        """Documents into the journal."""
        self.drop(*contents)
        self.sweep()

    def verified(self) -> None:
        found = verify(self.db, self.delivery)
        assert found["problems"] == []

    def states(self) -> dict[str, str]:
        with story.both_books(self.db, self.delivery) as books:
            return {row["external_id"]: row["state"] for row in story.documents(books) if row["state"] != "invalid"}

    def show(self, name: str) -> dict[str, Any]:
        with story.both_books(self.db, self.delivery) as books:
            return story.show(books, name)

    def flags(self) -> list[tuple[str, str | None]]:
        with story.both_books(self.db, self.delivery) as books:
            return [(row["flag"], row["external_id"]) for row in story.flags(books)]

    @contextmanager
    def forwarding(self, url: str, **options: Any) -> Iterator[Replay]:
        """A forwarder of this shop, as `omneo-forwarder run` puts it together. Closed in good order at the end."""
        run = self.open(url, **options)
        try:
            yield run
        finally:
            self.wire.close()
            run.books.close()

    def crash(self, run: Replay) -> None:
        """What only the running program knew is gone; what was on disk is there."""
        run.books.journal.close()
        run.books.delivery.close()
        self.wire.close()

    def open(self, url: str, *, token: Path, timeout: float = 2.0, **options: Any) -> Replay:
        if not self.delivery.exists():
            create_delivery(self.db, self.delivery)
        now = options.pop("now", self.now)
        say = options.pop("say", quiet)
        books = Books(self.db, self.delivery, now=now)
        books.opened()

        def sent() -> None:
            run.meanwhile()

        wire = options.pop("wire", lambda timeout: Wire(timeout, sent=sent))
        self.wire = wire(timeout)
        clocks = {"now": now, "instant": options.pop("instant", None)}
        link = Link(check_url(url), Credentials(token), self.wire, rate=0, sleep=at_once, **clocks)
        run = Replay(books, link, Policy(**options), say, now=now)
        return run


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Omneo]:
    """One stand-in for all tests of a session; `omneo` resets it."""
    with running() as server:
        omneo = Omneo(server)
        with omneo.desk:
            yield omneo


@pytest.fixture
def omneo(sandbox: Omneo) -> Iterator[Omneo]:
    """The stand-in as it is at its start."""
    sandbox.control("/reset")
    yield sandbox
    sandbox.mend()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A shop whose till has sold nothing yet."""
    return Store(tmp_path)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A token file that the stand-in accepts."""
    file = tmp_path / "token"
    file.write_text("sandbox\n")
    return file


@dataclass
class Speaker:
    """A server on a raw socket. For each connection it calls `talk(connection)`, and hangs up when that returns."""

    talk: Callable[[socket.socket], None]
    buffer: int | None = None
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if self.buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api/v3"
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self.threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(10)
            self.talk(connection)

    def hear(self, connection: socket.socket) -> bytes:
        """One whole request: its head and as much body as it promised. Empty when the client has gone."""
        heard = b""
        while b"\r\n\r\n" not in heard:
            piece = connection.recv(65536)
            if not piece:
                return b""
            heard += piece
        head, _, body = heard.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        while lengths and len(body) < int(lengths[0]):
            body += connection.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]

    def close(self) -> None:
        self.over.set()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


Listen = Callable[..., Speaker]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Start servers that say what a stand-in can't."""
    with ExitStack() as stack:

        def start(talk: Callable[[Speaker, socket.socket], None], buffer: int | None = None) -> Speaker:
            speaker = Speaker(lambda connection: talk(speaker, connection), buffer)
            stack.callback(speaker.close)
            return speaker

        yield start


def says(raw: bytes) -> Callable[[Speaker, socket.socket], None]:
    """Answer every request of a connection with the same bytes."""

    def talk(speaker: Speaker, connection: socket.socket) -> None:
        while speaker.hear(connection):
            connection.sendall(raw)

    return talk


def http(status: str, body: bytes = b"", **headers: str) -> bytes:
    """An answer as bytes; a header's underscores are hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status}"] + [f"{name}: {value}" for name, value in named.items()]
    lines += [f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("OMNEO_")} | {
    "PYTHONPATH": str(CODE)
}


def command(program: str, *arguments: object) -> list[str]:
    """A command line that runs one of the two programs in this very environment."""
    code = f"from {program}.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def execute(program: str, *arguments: object, timeout: float = 60, **environment: str) -> Done:
    """Run `journal` or `forwarder` as a real process, to its end."""
    environ = ENVIRONMENT | environment
    done = subprocess.run(
        command(program, *arguments), capture_output=True, text=True, timeout=timeout, env=environ, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every user of this machine may enter: pytest's own are closed to others."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)
