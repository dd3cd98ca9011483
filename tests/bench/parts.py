"""Where the time goes: a file's way into the journal step by step, and a request with our client and a bare one."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx

from forwarder.wire import Wire
from journal import ingest, log
from journal.leaving import Leaving
from journal.spool import Spool
from tests.bench.deliver import HEAD, post
from tests.bench.shop import Quick, quick, sale, shop
from tests.bench.turns import in_turns

LIMIT = 1024 * 1024
TIMEOUT_S = 60.0


def parts(files: int, rounds: int) -> dict[str, Any]:
    """Processor time in this process, in µs a file or request; of several rounds the least, since others use it too."""
    found = [_file(files) for _ in range(rounds)]
    steps = {f"{step}_us": min(took[step] for took in found) / files * 1e6 for step in found[0]}
    figures: dict[str, Any] = {"files": files, **steps, "file_us": sum(steps.values())}
    with quick() as there:
        bodies = [sale(number) for number in range(files)]
        turns = {"wire_us": lambda: _spent(_ask, there, bodies), "http_client_us": lambda: _spent(post, there, bodies)}
        figures |= {name: min(took) / files * 1e6 for name, took in in_turns(rounds, turns).items()}
    return figures


def _file(files: int) -> Counter[str]:
    """The steps of `ingest.sweep`, one after the other."""
    took: Counter[str] = Counter()

    @contextmanager
    def step(name: str) -> Iterator[None]:
        used = time.thread_time()
        yield
        took[name] += time.thread_time() - used

    with shop() as place, closing(log.open_book(place.journal, "journal", write=True)) as book:
        place.fill(range(files))
        spool = Spool(place.spool, LIMIT, lambda *_: None)
        while True:
            with step("finding"):
                found = spool.ready()
            if not found:
                break
            batches = spool.batches(found, time.monotonic())
            while True:
                with step("reading"):
                    batch = next(batches, None)
                if batch is None:
                    break
                with step("judging"):
                    documents = [(contents, ingest.read(contents)) for contents in batch]
                with step("entering"):
                    ingest.enter(documents, book, log.utc_now)
                with step("moving"):
                    for contents in batch:
                        spool.retire(contents.file)
        with step("unlinking"):
            spool.let_go(until=Leaving.empty)
    return took


def _spent(act: Callable[[Quick, list[bytes]], object], there: Quick, bodies: list[bytes]) -> float:
    used = time.thread_time()
    act(there, bodies)
    return time.thread_time() - used


def _ask(there: Quick, bodies: list[bytes]) -> None:
    """Ours, without the books."""
    with closing(Wire(TIMEOUT_S)) as wire:
        url = httpx.URL(f"{there.url}/transactions/update-create")
        for body in bodies:
            answer = wire.handle_request(httpx.Request("POST", url, headers=HEAD, content=body))
            if answer.status_code != 200:
                raise RuntimeError(f"the server answered {answer.status_code}")
