"""What an operator waits for: `verify` beside a bare loop of SHA-256 over the same rows, and the start of a command."""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from journal.verify import examine
from tests.bench.shop import shop
from tests.bench.turns import in_turns, middle, ratio
from tests.bench.walk import fill

# What `verify` does, by itself on so many processors: seconds.
ALONE = """
import os, sys, time
from pathlib import Path
from journal.verify import verify
os.sched_setaffinity(0, map(int, sys.argv[3:]))
began = time.perf_counter()
assert verify(Path(sys.argv[1]), Path(sys.argv[2]))["ok"]
print(time.perf_counter() - began)
"""
ROWS = "SELECT at, kind, facts, body_hash, salt, bytes FROM log LEFT JOIN body ON body.seq = log.seq ORDER BY log.seq"


def verify(documents: int, rounds: int) -> dict[str, Any]:
    """Both books of so many sales, with their deliveries; of a tenth of them too, for what it holds in memory."""
    figures = {"growth_mb": held_mb(documents) - held_mb(documents // 10)}
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        journal, delivery, public = fill(Path(root), documents)
        entries = 0

        def walked(second: Path) -> tuple[float, float]:
            nonlocal entries
            began, used = time.perf_counter(), time.process_time()
            told = examine(journal, second, [public]).told
            if not told["ok"]:
                raise RuntimeError(told["problems"])
            entries = max(entries, told["entries"] + told["delivery"]["entries"])
            return time.perf_counter() - began, time.process_time() - used

        def bare() -> tuple[float, float]:
            began, used = time.perf_counter(), time.process_time()
            hashed(journal)
            hashed(delivery)
            return time.perf_counter() - began, time.process_time() - used

        def alone(processors: list[int]) -> float:
            command = [sys.executable, "-c", ALONE, str(journal), str(delivery), *map(str, processors)]
            return float(subprocess.run(command, check=True, capture_output=True).stdout)

        none = delivery.with_name("none.db")
        found = in_turns(rounds, {"bare": bare, "ours": lambda: walked(delivery), "journal": lambda: walked(none)})
        walls = {name: [wall for wall, _ in rows] for name, rows in found.items()}
        figures["journal_share"] = ratio(walls["journal"], walls["ours"])
        many = sorted(os.sched_getaffinity(0))
        on = in_turns(rounds, {"one": lambda: alone(many[:1]), "all": lambda: alone(many)})
    figures["times_one_processor"] = ratio(on["one"], on["all"])
    return figures | {
        "entries": entries,
        "ours_a_second": entries / middle(walls["ours"]),
        "bare_a_second": entries / middle(walls["bare"]),
        "of_bare": ratio(walls["bare"], walls["ours"]),
        "of_bare_cpu": ratio(*([cpu for _, cpu in found[name]] for name in ("bare", "ours"))),
    }


def held_mb(documents: int) -> float:
    """The most that the command held in memory over the books of so many sales."""
    with shop() as place:
        place.journal.unlink()
        fill(place.journal.parent, documents)
        return place.spend(place.command("journal", "verify")).most_mb


def hashed(path: Path) -> bytes:
    """Every row read and hashed as a chain has to be, body and entry, and nothing compared."""
    digest = bytes(32)
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        for at, kind, facts, body_hash, salt, body in db.execute(ROWS):
            if body is not None:
                body_hash = sha256(salt + body).digest()  # noqa: PLW2901
            digest = sha256(digest + f"{at}{kind}{facts}".encode() + (body_hash or b"")).digest()
    return digest


def starts(rounds: int) -> dict[str, Any]:
    """From the start of a process to its end."""
    with shop() as place:
        turns = {
            "python": lambda: place.spend([sys.executable, "-c", "pass"]),
            "click": lambda: place.spend([sys.executable, "-c", "import click"]),
            "journal_help": lambda: place.spend(place.command("journal", "--help")),
            "forwarder_help": lambda: place.spend(place.command("forwarder", "--help")),
            "status": lambda: place.spend(place.command("forwarder", "status")),
        }
        place.run(place.command("journal", "ingest", "--once"))
        found = in_turns(rounds, turns)
    figures: dict[str, Any] = {f"{name}_s": middle([spent.wall_s for spent in rows]) for name, rows in found.items()}
    figures |= {f"{name}_cpu_s": middle([spent.cpu_s for spent in rows]) for name, rows in found.items()}
    return figures | {"times_click": figures["journal_help_s"] / figures["click_s"]}
