"""
Hostile JSON and bytes: whatever a file holds, it is read in bounded time and memory, and understood one way only.

A second reader (`tests.faults.reader`) says what is strict JSON; ours must agree, value by value. Nothing raises, what
is said about a document quotes no value of it, what a till writes well is taken. Some of the documents then go the
whole way through a real spool into a real journal.
"""

import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from journal import document, strict
from journal.spool import QUIET_S
from tests.faults.hostile import CANARY, TABLE, Paper, Press
from tests.faults.means import Figures, Means, Size
from tests.faults.reader import Refused, read
from tests.faults.together import one, together
from tests.tills import Shop

CHUNK = 1000  # documents in one child
WHOLE_WAY = 100  # of a chunk, files in a spool too
CPU_S, CPU_S_MIB = 0.05, 2.0  # for any document, and for each MiB of one: generous, for a machine that is busy
MEMORY, MEMORY_EACH = 16 * 1024 * 1024, 120  # bytes above what was there before, and for each byte of it
STUCK_S = 5  # of processor time: it would go on for ever
CLEAR = Path("/proc/self/clear_refs")


def needs() -> str | None:
    try:
        CLEAR.write_text("5")
    except OSError:
        return "the peak of memory can't be measured (/proc/self/clear_refs)"
    return None


# ── The judge ──


def wrong_with(paper: Paper) -> Iterator[str]:
    """Read one document, and everything that is wrong with how it was read."""
    CLEAR.write_text("5")
    before, began = _memory("VmRSS"), time.process_time()
    try:
        found = document.read("till-1/x.json", paper.body)
    except TimeoutError:
        yield f"not read within {STUCK_S} s"
        return
    except Exception as error:  # noqa: BLE001 - that is the finding
        yield f"raised {type(error).__name__}: {error}"
        return
    seconds, peak = time.process_time() - began, _memory("VmHWM") - before
    if seconds > CPU_S + CPU_S_MIB * len(paper.body) / 1024**2:
        yield f"took {seconds:.2f} s for {len(paper.body)} bytes"
    if peak > MEMORY + MEMORY_EACH * len(paper.body):
        yield f"took {peak // 1024**2} MiB for {len(paper.body)} bytes"
    if found.body != paper.body:
        yield "its bytes were changed"
    if paper.good and found.kind == "invalid":
        yield f"a good document was refused: {found.reason}, {found.problems[:2]}"
    if found.kind != "invalid" and found.reason:
        yield "valid, and yet there is a reason"
    if found.kind == "invalid" and (found.reason not in document.REASONS or not found.problems):
        yield f"no known reason: {found.reason!r}"
    yield from _against_the_other_reader(paper, found)
    for problem in found.problems:
        if CANARY in problem.message or len(problem.pointer) > 300 or not problem.message.isprintable():
            yield f"what is said of it quotes it, or is unfit for a terminal: {problem.pointer[:300]}"


def _against_the_other_reader(paper: Paper, found: document.Document) -> Iterator[str]:
    syntax = {document.EMPTY, document.NOT_UTF8, document.NOT_JSON, document.NOT_STRICT, document.TOO_DEEP}
    try:
        value = read(paper.body)
    except Refused as refused:
        if found.reason not in syntax:
            yield f"taken for strict JSON, which it isn't: {refused}"
        return
    if found.reason in syntax:
        yield f"refused as {found.reason}, and yet it is strict JSON"
    elif found.content is not None and not _equal(found.content, value):
        yield "read otherwise than by the second reader"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    numbers = (int, Decimal)
    if isinstance(a, numbers) and isinstance(b, numbers) and bool not in {type(a), type(b)}:
        return a == b
    return type(a) is type(b) and bool(a == b)


def _memory(name: str) -> int:
    """Bytes of this process now (VmRSS), or at most since the last time that was cleared (VmHWM)."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{name}:")[2].split(None, 1)[0]) * 1024


@contextmanager
def bounded() -> Iterator[None]:
    """What hangs is cut off, and no memory is taken without end."""

    def stuck(*_: object) -> None:
        raise TimeoutError

    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (4 * 1024**3, old[1]))
    signal.signal(signal.SIGPROF, stuck)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, old)


def whole_way(papers: list[Paper], scratch: Path) -> Iterator[str]:
    """Through the spool into the journal: whatever it is, its bytes are in the journal, and it is where it belongs."""
    shop = Shop(scratch / "shop")
    try:
        for number, paper in enumerate(papers):
            shop.drop(f"{number:04d}.json", paper.body)
        shop.sweep()
        time.sleep(QUIET_S + 0.1)  # what may still grow is judged when it stood still for so long
        shop.sweep()
        bodies = {body for (body,) in shop.book.execute("SELECT bytes FROM body")}
        aside = set(shop.rejected())
        for number, paper in enumerate(papers):
            name = f"{number:04d}.json"
            if (shop.spool / name).exists():
                yield f"{paper.how}: still in the spool after it stood still"
            elif paper.good and name in aside:
                yield f"{paper.how}: a good file was set aside"
            elif paper.good and not any(entry["external_id"] for entry in shop.entries("sale")):
                yield f"{paper.how}: a good file is not in the journal"
            elif paper.body and paper.body not in bodies and not paper.good:
                yield f"{paper.how}: its bytes are not in the journal"
        yield from (f"verify: {problem}" for problem in shop.problems()[:3])
    finally:
        shop.book.close()


# ── Bugs to plant ──


def lax(body: bytes) -> Any:
    """Python's own reader, as it comes."""
    import json

    try:
        return json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise document.NotJSON(document.NOT_JSON, document.Problem("", "is not JSON"), whole=False) from None


def plant_lax() -> None:
    document.parse = lax


def plant_last_wins() -> None:
    """A key that stands twice: the last one counts."""
    strict._object = lambda _, pairs: dict(pairs)


def plant_fragile() -> None:
    """A time that doesn't exist is not expected."""
    document._exists = lambda value, zone: bool(document.local_time(value, zone))


def plant_quoting() -> None:
    """What is said of a document holds what stands in it."""
    said = document._said
    document._said = lambda error, schema: document.Problem(
        said(error, schema).pointer, f"must be otherwise than {error.instance!r}"
    )


def plant_slow() -> None:
    """Each key is looked up in a list."""

    def in_a_list(faults: Any, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: list[str] = []
        for key, _ in pairs:
            if key not in seen:
                seen.append(key)
        return whole(faults, pairs)

    whole = strict._object
    strict._object = in_a_list


def plant_greedy() -> None:
    """Takes room for the largest document that could be, for every container."""
    parse = document.parse

    def greedy(body: bytes) -> Any:
        rooms = [bytearray(256 * 1024) for _ in range(min(1000, body.count(b"[")))]
        for room in rooms:
            room[::4096] = b"x" * len(room[::4096])
        return parse(body)

    document.parse = greedy


PLANTS: dict[str, Callable[[], None]] = {
    "lax": plant_lax,
    "last_wins": plant_last_wins,
    "fragile": plant_fragile,
    "quoting": plant_quoting,
    "slow": plant_slow,
    "greedy": plant_greedy,
}


# ── The means ──


def chunk(given: tuple[int, int, int, str]) -> tuple[int, list[str]]:
    """Documents of one child: how many there were, and what was wrong. The first child reads the whole table too."""
    seed, number, count, plant = given
    if plant:
        PLANTS[plant]()
    press = Press(f"{seed}/{number}")
    papers = [Paper(make(), how=name) for name, make in TABLE.items()] if number == 0 else []
    papers += [press.paper() for _ in range(count - len(papers))]
    found = []
    with bounded():
        for at, paper in enumerate(papers):
            signal.setitimer(signal.ITIMER_PROF, STUCK_S)
            found += [f"chunk {number}, document {at} ({paper.how}): {wrong}" for wrong in wrong_with(paper)]
            if plant and found:
                return at + 1, found
    signal.setitimer(signal.ITIMER_PROF, 0)
    if not plant:
        with tempfile.TemporaryDirectory() as scratch:
            found += [f"chunk {number}: {wrong}" for wrong in whole_way(papers[:: CHUNK // WHOLE_WAY], Path(scratch))]
    return len(papers), found


def run(size: Size) -> Figures:
    """Scratch files of this process and its children go where this means may leave them; other means come after it."""
    before, tempfile.tempdir = tempfile.tempdir, str(size.scratch)
    try:
        return _run(size)
    finally:
        tempfile.tempdir = before


def _run(size: Size) -> Figures:
    figures = Figures()
    for plant in PLANTS:
        _, found = one(chunk, (size.seed, 0, 3 * CHUNK, plant))
        figures.caught[plant] = bool(found)
    chunks = [
        (size.seed, number, min(CHUNK, size.points - number * CHUNK), "") for number in range(-(-size.points // CHUNK))
    ]
    for count, found in together(chunk, chunks, size.jobs):
        figures.points += count
        figures.found += found
    figures.detail = {"of them through spool and journal": figures.points // (CHUNK // WHOLE_WAY)}
    return figures


MEANS = Means("parser", "parser", "hostile documents", 20_000, 200_000, needs, run)
