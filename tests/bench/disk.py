"""The raw commit of this disk: what everything that promises to be durable has to pay."""

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.bench.shop import sale
from tests.bench.turns import high, middle

FILES = 1000
MODES = {"wal_full": ("WAL", "FULL"), "delete_extra": ("DELETE", "EXTRA")}


def commits(times: int) -> dict[str, Any]:
    """
    An append of 2 KB with fdatasync; a row of 2 KB in SQLite, as N and I commit, and as we do: milliseconds. And to let
    go of a file of 2 KB, in either way, until the next fdatasync is over: microseconds.
    """
    found: dict[str, list[float]] = {name: [] for name in ("append", *MODES)}
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        handle = os.open(Path(root) / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for number in range(times):
            began = time.perf_counter()
            os.write(handle, sale(number))
            os.fdatasync(handle)
            found["append"].append((time.perf_counter() - began) * 1000)
        os.close(handle)
        for name, (journal, synchronous) in MODES.items():
            with closing(sqlite3.connect(Path(root) / f"{name}.db", isolation_level=None)) as db:
                db.execute("PRAGMA page_size = 16384")
                db.execute(f"PRAGMA journal_mode = {journal}")
                db.execute(f"PRAGMA synchronous = {synchronous}")
                db.execute("CREATE TABLE log (seq INTEGER PRIMARY KEY, body BLOB)")
                for number in range(times):
                    began = time.perf_counter()
                    db.execute("INSERT INTO log (body) VALUES (?)", (sale(number),))
                    found[name].append((time.perf_counter() - began) * 1000)
        figures: dict[str, Any] = {"times": times, **_let_go(Path(root), FILES)}
    for name, times_ms in found.items():
        figures |= {f"{name}_ms": middle(times_ms), f"{name}_p95_ms": high(times_ms)}
    return figures


def _let_go(root: Path, files: int) -> dict[str, float]:
    figures = {}
    ways: dict[str, Callable[[Path], object]] = {
        "rename": lambda path: path.rename(path.with_suffix(".taken")),
        "unlink": lambda path: path.unlink(),
    }
    with (root / "synced").open("wb", buffering=0) as log:
        for name, let_go in ways.items():
            paths = [root / f"{name}-{number}.json" for number in range(files)]
            for number, path in enumerate(paths):
                path.write_bytes(sale(number))
            os.sync()
            began = time.perf_counter()
            for path in paths:
                let_go(path)
            log.write(sale(0))
            os.fdatasync(log.fileno())
            figures[f"{name}_us"] = (time.perf_counter() - began) / files * 1e6
    return figures
