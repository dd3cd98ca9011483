"""
Both programs started again over a place, within this process: real books, a real spool, and Omneo's stand-in asked
without sockets. In milliseconds what two interpreters need a second for; only the loops and the command line are left
out. Time is made up, so that a state that is looked at an hour later is judged like one that was looked at at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec

from forwarder import books as pair
from forwarder.link import Credentials, Link, check_url
from forwarder.replay import Policy, Replay, step
from forwarder.sandbox import customers, wire
from forwarder.sandbox.app import API, Sandbox
from forwarder.sandbox.control import Desk, read_state
from forwarder.sandbox.exchange import Answer, Call, peek
from forwarder.sandbox.state import Tenant, reference
from forwarder.window import Instant
from journal import ingest, log
from journal.spool import Spool
from tests.campaign.drops import LIMIT, Doc
from tests.campaign.programs import Place

HOST = "http://127.0.0.1:1"
MOST_STEPS = 400
exact = msgspec.json.Decoder(float_hook=Decimal).decode

Request = tuple[str, str, bytes]  # method, target, body


def quiet(event: str, **facts: Any) -> None:
    """A program that says nothing."""


def none_said(path: str, why: str) -> None:
    """A spool that says nothing."""


@dataclass
class Clock:
    """The clocks of this machine and of Omneo, which run on when something waits."""

    start: datetime
    passed_s: float = 0.0
    boot: str = "after the cut"

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.passed_s)

    def begin_earlier(self) -> None:
        """What is laid out may take its time: nothing of it will lie in the future of a program that runs now."""
        self.start, self.passed_s = log.utc_now() - timedelta(seconds=30), 0.0

    def instant(self) -> Instant:
        return Instant(self.boot, 60.0 + self.passed_s, self.now())


@dataclass
class NearOmneo(httpx.BaseTransport):
    """The sandbox's own application, without a socket."""

    clock: Clock
    desk: Desk = field(init=False)
    heard: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        tenant = Tenant(self.clock.now)
        customers.furnish(tenant)
        self.desk = Desk(tenant)
        self.app = Sandbox(self.desk)

    def forget(self, told: Sequence[Request] = ()) -> None:
        """As at the start, and then what was said to it before."""
        self.desk.tenant.clear()
        customers.furnish(self.desk.tenant)
        self.heard.clear()
        for request in told:
            self.say(*request)

    def say(self, method: str, target: str, body: bytes) -> Answer:
        """One request, and a line about it in the sandbox's journal."""
        self.heard.append((method, target, body))
        path, _, query = target.partition("?")
        path = httpx.URL(f"{HOST}{path}").path
        entry = self.desk.tenant.note(method, path.removeprefix(API), path.removeprefix(API), reference(peek(body)))
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": "",
            "query_string": query.encode("latin-1"),
            "headers": [(b"authorization", b"Bearer sandbox"), (b"content-type", b"application/json")],
            "sandbox.body": body,
        }
        going = self.app._apply(scope)
        try:
            going.send(None)
        except StopIteration as done:
            answer: Answer = done.value
        else:
            raise AssertionError("the sandbox waited for something")
        entry.status, entry.applied, entry.answered = answer.status, answer.status < 400, True
        return answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self.say(request.method, request.url.raw_path.decode(), request.content)
        headers = [*answer.head(), (b"date", wire.http_date(self.desk.tenant).encode())]
        return httpx.Response(answer.status, headers=headers, content=answer.body)

    def state(self) -> Doc:
        """As `/_sandbox/state` tells it."""
        call = Call("GET", "/state", "/state", HOST, {}, "", {}, b"")
        told: Doc = exact(read_state(self.desk, call).body)
        return told


def take(place: Place, clock: Clock) -> None:
    """`omneo-journal ingest --once`: whatever waits in the spool."""
    with log.only_instance(place.journal, "omneo-journal ingest"):
        book = log.open_book(place.journal, "journal", write=True)
        try:
            ingest.opened(book, place.delivery, say=quiet)
            spool = Spool(place.spool, LIMIT, none_said)
            ingest.sweep(spool, book, say=quiet, now=clock.now)
        finally:
            book.close()


def deliver(place: Place, omneo: NearOmneo, token: Path) -> None:
    """`omneo-forwarder run --once`, with all the time that it wants."""
    with log.only_instance(place.delivery, "omneo-forwarder run"):
        if not place.delivery.exists():
            pair.create_delivery(place.journal, place.delivery)
        _deliver(place, omneo, token)


def _deliver(place: Place, omneo: NearOmneo, token: Path) -> None:
    clock = omneo.clock
    books = pair.Books(place.journal, place.delivery, now=clock.now)
    try:
        books.opened()
        link = Link(
            check_url(HOST + API),
            Credentials(token),
            omneo,
            rate=0,
            sleep=lambda _: None,
            now=clock.now,
            instant=clock.instant,
        )
        run = Replay(books, link, Policy(), quiet, now=clock.now)
        for _ in range(MOST_STEPS):
            result = step(run)
            if result is None:
                run.line.settle()
                return
            if not result.settles:
                books.flush()
                clock.passed_s += result.retry_after_s or 1.0
        raise log.NotNow("the forwarder does not come to an end")
    finally:
        books.close()
