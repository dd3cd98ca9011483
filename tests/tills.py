"""What tests of the journal share: documents as a till writes them, a shop with the program, a child that is killed."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

import journal
from journal import ingest, log
from journal.spool import Spool
from journal.verify import verify

ROOT = Path(journal.__file__).parents[1]
PROGRAM = [sys.executable, "-c", "from journal.cli import main; main()"]
LIMIT = 1024 * 1024


def sale(external_id: str = "S-1", **fields: Any) -> bytes:
    content = {
        "kind": "sale",
        "external_id": external_id,
        "total": 12.5,
        "transacted_at": "2025-06-15 14:32:00",
        "timezone": "Australia/Melbourne",
        "items": [{"name": "Belt", "quantity": 1, "price_sell": 12.5}],
    }
    return json.dumps(content | fields, ensure_ascii=False).encode()


def broken(external_id: str = "B-1", **fields: Any) -> bytes:
    """Whole JSON that breaks its schema: judged at once."""
    return sale(external_id, total="a lot", **fields)


def wait_until(true: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait for a condition. The limit is only there so that a broken program fails a test and does not hang it."""
    give_up = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.01)
    return value


def fork(act: Callable[[], object], die_at: tuple[int, str] = (0, "")) -> int:
    """
    A real child process without the cost of a new interpreter. Returns its wait status.

    `die_at=(3, "after")`: it is killed right after the third thing that it does to a file or a database. Not beside a
    thread of the test's own: what that one holds, a mutex of SQLite's say, the child would wait for for ever. (The
    sandbox's is a daemon, and idle.)
    """
    assert [thread for thread in threading.enumerate() if not thread.daemon] == [threading.main_thread()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the test runner's, which the child lacks
        child = os.fork()
    if child == 0:
        try:
            kill_at(*die_at)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def kill_at(step: int, when: str) -> None:
    """Let this process kill itself at a step, counted over everything that changes a file or a database."""
    steps = 0

    def hooked(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if (steps, when) == (step, "before"):
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **options)
            if (steps, when) == (step, "after"):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in ("mkdir", "link", "unlink", "rename", "replace", "chmod", "fsync"):
        setattr(os, name, hooked(getattr(os, name)))

    class Hooked(sqlite3.Connection):
        execute = hooked(sqlite3.Connection.execute)
        executemany = hooked(sqlite3.Connection.executemany)

    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **options: connect(*args, factory=Hooked, **options)  # type: ignore[assignment]


class Shop:
    """One shop's spool and journal."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.db = root / "journal.db"
        self.delivery = root / "delivery.db"
        self.spool = root / "spool"
        self.spool.mkdir(parents=True)
        log.create(self.db, "journal", {"journal": "a-test"})
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.book = log.open_book(self.db, "journal", write=True)
        self.files = self.new_spool()

    def new_spool(self) -> Spool:
        return Spool(self.spool, LIMIT, lambda path, why: self.say("passed_over", path=path, why=why))

    def say(self, event: str, **facts: Any) -> None:
        self.said.append((event, facts))

    def drop(self, name: str, body: bytes, age: float = 0) -> Path:
        """As the POS does: write, then rename. `age` in seconds, so that a test may say what came first."""
        path = self.spool / name
        path.parent.mkdir(exist_ok=True)
        draft = path.with_name(".draft")
        draft.write_bytes(body)
        if age:
            os.utime(draft, (time.time() - age, time.time() - age))
        return draft.rename(path)

    def sweep(self) -> ingest.Swept:
        return ingest.sweep(self.files, self.book, say=self.say)

    def once(self) -> bool:
        return ingest.once(self.files, self.book, say=self.say)

    def entries(self, *kinds: str) -> list[dict[str, Any]]:
        """Entries of these kinds (all, if none is given), facts unpacked."""
        with closing(log.open_book(self.db, "journal", write=False)) as db:
            rows = db.execute("SELECT seq, kind, about, external_id, facts FROM log ORDER BY seq").fetchall()
        names = ("seq", "kind", "about", "external_id")
        return [
            dict(zip(names, row[:4], strict=True)) | json.loads(row[4]) for row in rows if not kinds or row[1] in kinds
        ]

    def sales(self) -> list[str]:
        return [entry["external_id"] for entry in self.entries("sale")]

    def waiting(self) -> list[str]:
        """Everything that is left in the spool, `rejected/` aside."""
        found = [str(path.relative_to(self.spool)) for path in self.spool.rglob("*") if not path.is_dir()]
        return sorted(path for path in found if not path.startswith("rejected/"))

    def rejected(self) -> list[str]:
        below = self.spool / "rejected"
        return sorted(str(path.relative_to(below)) for path in below.rglob("*") if path.is_file())

    def problems(self) -> list[dict[str, Any]]:
        return verify(self.db, self.delivery)["problems"]

    def run(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """The program itself. `--db`, `--delivery` and `--spool` come from the environment."""
        return subprocess.run(
            [*PROGRAM, *args],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            **options,
        )

    def environment(self) -> dict[str, str]:
        ours = {"PYTHONPATH": str(ROOT), "OMNEO_JOURNAL_DB": str(self.db), "OMNEO_JOURNAL_SPOOL": str(self.spool)}
        return {name: value for name, value in os.environ.items() if not name.startswith("OMNEO_")} | ours

    def start(self, *args: str) -> "Daemon":
        return Daemon(self, *args)


class Daemon:
    """A running `omneo-journal ingest`, and every event that it has said so far."""

    def __init__(self, shop: Shop, *args: str) -> None:
        self.log = shop.root / f"ingest-{time.monotonic_ns()}.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen([*PROGRAM, "ingest", *args], env=shop.environment(), stderr=out, stdout=out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def ready(self) -> "Daemon":
        wait_until(lambda: self.events("ready"))
        return self

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
