"""What the two programs cost a box: memory with a backlog, and how often they wake while nothing happens."""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from journal import log
from journal.log import Entry
from tests.bench.shop import Shop, omneo, sale, shop

# As on a shop's box, where the demo's bars are not installed: structlog would load them for their looks.
BARE = "import sys; sys.modules['rich'] = sys.modules['pygments'] = None; "
BATCH = 2000
PAGE = os.sysconf("SC_PAGE_SIZE")


def cost(seconds: float) -> dict[str, Any]:
    """Both programs at rest for so long, then with a line that is down."""
    return rest(seconds) | down(seconds)


def memory(few: int, many: int, seconds: float) -> dict[str, Any]:
    """Both programs over a backlog in the journal, in both orders, and over one in the spool; and over a long one."""
    figures: dict[str, Any] = {"few": few, "many": many, **spooled(few)}
    for ordering in ("strict", "customer"):
        for name, backlog in (("few", few), ("many", many)):
            found = laden(backlog, ordering, seconds)
            figures |= {f"{ordering}_{name}_{what}": value for what, value in found.items()}
    held = {name: value for name, value in figures.items() if name.endswith("_mb")}
    figures["resident_mb"] = max(held.values())
    pairs = [(value, held[name.replace("_many_", "_few_")]) for name, value in held.items() if "_many_" in name]
    figures["growth_mb"] = max(many_mb - few_mb for many_mb, few_mb in pairs)
    return figures


def rest(seconds: float) -> dict[str, Any]:
    """Nothing comes and nothing goes: how often do they wake, and how much of one core do they take?"""
    with shop() as place, omneo() as there, both(place, there.url) as pair:
        time.sleep(5)  # both have looked at everything by then
        before = [(switches(pid), worked_s(pid)) for pid in pair]
        time.sleep(seconds)
        after = [(switches(pid), worked_s(pid)) for pid in pair]
        woke = [(b[0] - a[0]) / seconds for a, b in zip(before, after, strict=True)]
        took = [(b[1] - a[1]) / seconds for a, b in zip(before, after, strict=True)]
        return {
            "wakes_a_second": sum(woke),
            "core_percent": 100 * sum(took),
            "busier_ms_in_10_s": max(took) * 10_000,
            "ingest_wakes": woke[0],
            "forwarder_wakes": woke[1],
            "idle_ingest_mb": resident_mb(pair[0]),
            "idle_forwarder_mb": resident_mb(pair[1]),
        }


def down(seconds: float) -> dict[str, Any]:
    """The forwarder alone, with documents that wait and nobody who answers."""
    with shop() as place, closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        pile(place.journal, 100)
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/api/v3"
        with both(place, url, "--rate", "0") as (_, forwarder):
            time.sleep(2)
            before = worked_s(forwarder)
            time.sleep(seconds)
            return {"down_ms_a_second": (worked_s(forwarder) - before) / seconds * 1000}


def spooled(backlog: int) -> dict[str, Any]:
    """So many files wait in the spool when the ingest program starts."""
    with shop() as place, tempfile.TemporaryDirectory(prefix="bench-") as out:
        place.fill(range(backlog))
        command = bare(place.command("journal", "ingest", "--metrics", out))
        most = 0.0
        with subprocess.Popen(command, env=place.env, stderr=subprocess.DEVNULL) as process:
            try:
                while most == 0.0 or waits(place.spool):
                    most = max(most, resident_mb(process.pid))
                    time.sleep(0.2)
            finally:
                process.terminate()
        return {"spooled_ingest_mb": most}


def waits(spool: Path) -> bool:
    """Is there a file of a till's in the spool?"""
    with os.scandir(spool) as found:
        return any(entry.name.endswith(".json") for entry in found)


def bare(command: list[str]) -> list[str]:
    """The same command on a shop's box."""
    return [*command[:3], BARE + command[3], *command[4:]]


def laden(backlog: int, ordering: str, seconds: float) -> dict[str, Any]:
    """So many documents wait: memory while nothing can go, and while all of it goes as fast as it can."""
    with shop() as place:
        pile(place.journal, backlog)
        with omneo() as there, closing(socket.socket()) as nobody:
            nobody.bind(("127.0.0.1", 0))
            dead = there.url.replace(there.host, f"127.0.0.1:{nobody.getsockname()[1]}")
            figures = {}
            for name, url in (("down", dead), ("up", there.url)):
                options = ("--ordering", ordering, "--rate", "0")
                with both(place, url, *options) as pair:
                    most = [0.0, 0.0]
                    until = time.monotonic() + seconds
                    while time.monotonic() < until:
                        most = [max(high, resident_mb(pid)) for high, pid in zip(most, pair, strict=True)]
                        time.sleep(0.1)
                    figures |= {f"{name}_ingest_mb": most[0], f"{name}_forwarder_mb": most[1]}
            return figures


def pile(journal: Path, backlog: int) -> None:
    """A backlog in the journal, as quickly as it can be written."""
    with closing(log.open_book(journal, "journal", write=True)) as book:
        book.execute("PRAGMA synchronous = OFF")
        for low in range(0, backlog, BATCH):
            entries = []
            for number in range(low, min(low + BATCH, backlog)):
                body = sale(number)
                facts = {"bytes": len(body), "n": number + 1, "total": "139.65"}
                entries.append(Entry("sale", None, f"MEL01-T{number % 4}-{number:07d}", facts, body))
            log.append(book, entries)


@contextlib.contextmanager
def both(place: Shop, url: str, *options: str) -> Iterator[tuple[int, int]]:
    """Both programs as a shop runs them, metrics and words for the till included. Their process ids, once ready."""
    with tempfile.TemporaryDirectory(prefix="bench-") as out, contextlib.ExitStack() as stack:
        pids = []
        more = ("--metrics", out)
        for command in (
            place.command("journal", "ingest", *more, "--outcomes", out),
            place.command("forwarder", "run", *more, "--url", url, *options),
        ):
            said = stack.enter_context(tempfile.TemporaryFile())
            process = stack.enter_context(subprocess.Popen(bare(command), env=place.env, stderr=said))
            stack.callback(process.terminate)
            _until_ready(process, said)
            pids.append(process.pid)
        yield pids[0], pids[1]


def _until_ready(process: "subprocess.Popen[bytes]", said: Any) -> None:
    give_up = time.monotonic() + 60
    while b'"ready"' not in os.pread(said.fileno(), 65536, 0):
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"a program did not start: {os.pread(said.fileno(), 65536, 0)!r}")
        time.sleep(0.02)


def switches(pid: int) -> int:
    """How often the threads of a process were put on a processor, so far."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            lines = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            found += int(lines["voluntary_ctxt_switches"])
    return found


def worked_s(pid: int) -> float:
    """Seconds on a processor, to the nanosecond (proc(5), schedstat): ticks of a hundredth would be all there is."""
    return sum(int(path.read_text("ascii").split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def resident_mb(pid: int) -> float:
    """What a process holds in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6
