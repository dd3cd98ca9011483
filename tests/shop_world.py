"""
A world for the redemption machine, in one process and made-up time: clocks, a line, Omneo at its end, power cuts.

Omneo is the sandbox's own application, asked without sockets; what a fault looks like to a client is told here.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any

import httpx

from forwarder import books, by_customer, errand, line, link, lookup, redeem, replay, side_by_side
from forwarder.sandbox import wire
from forwarder.sandbox.app import API, Sandbox
from forwarder.sandbox.exchange import Answer, peek
from forwarder.sandbox.faults import Rule
from forwarder.sandbox.serve import open_desk
from forwarder.sandbox.state import Tenant, reference
from journal import book, log

START = datetime(2025, 6, 15, 2, 0, 0, 250_000, tzinfo=UTC)
HOST = "http://127.0.0.1:1"
TIMEOUT_S = 15.0
WINDOW_S = 600.0
# Modules that ask for seconds since some moment: they get the world's.
TIMED = (books, by_customer, errand, line, link, log, lookup, redeem, replay, side_by_side)


class PowerCut(BaseException):
    """The box loses power here. No `except Exception` may stop it."""


class World:
    """What time it is, by whom you ask; how long a request takes; when the power goes."""

    def __init__(self) -> None:
        self.line = Line(self)
        self.clear()

    def clear(self) -> None:
        self.passed_s = 0.0  # truly
        self.wall_ahead = timedelta()
        self.boots = 0
        self.booted_at_s = -5000.0
        self.takes_s = [(0.0, 0.0)]  # a request, there and back; in turns
        self.power_left: int | None = None  # moments until the power goes
        self.dice = Random(0)
        self.line.clear()

    def passes(self, seconds: float) -> None:
        self.passed_s += max(0.0, seconds)

    def truly(self) -> datetime:
        return START + timedelta(seconds=self.passed_s)

    def wall(self) -> datetime:
        """The machine's clock, and one of the moments at which the power may go (inside a commit, for one)."""
        self.moment()
        return self.truly() + self.wall_ahead

    def monotonic(self) -> float:
        return self.passed_s - self.booted_at_s

    def boot_facts(self) -> dict[str, Any]:
        return {"boot": f"boot-{self.boots}", "since_boot_s": round(self.monotonic(), 3)}

    def reboot(self) -> None:
        self.passes(20)
        self.boots += 1
        self.booted_at_s = self.passed_s - 8

    def moment(self) -> None:
        if self.power_left is None:
            return
        self.power_left -= 1
        if self.power_left < 0:
            self.power_left = None
            raise PowerCut


class Line(httpx.BaseTransport):
    """Asks the sandbox as its own server does, with the fault that is due; keeps what came to be, in that order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.desk = open_desk(world_clock(world))
        self.sandbox = Sandbox(self.desk)
        self.furnished = False

    @property
    def omneo(self) -> Tenant:
        return self.desk.tenant

    def clear(self) -> None:
        self.down = False
        self.made: list[tuple[str, int]] = []  # ("transaction" or "redemption", Omneo's id), as they came to be
        self.watch: Callable[[str, str, dict[str, Any]], None] = lambda *_: None
        self.ask("POST", "/_sandbox/reset")

    def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Straight to the application: nothing in it waits."""
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": "",
            "query_string": query.encode("latin-1"),
            "headers": [(b"authorization", self.token.encode()), (b"content-type", b"application/json")],
            "sandbox.body": body,
        }
        going = self.sandbox._apply(scope)
        try:
            going.send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("the sandbox waited for something")

    token = "Bearer sandbox"

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        world, omneo = self.world, self.omneo
        method, raw = request.method, request.url.raw_path.decode()
        body = request.content
        world.moment()
        path = request.url.path.removeprefix(API)
        rule = None if self.down else self.desk.faults.pick(method, path, body)
        if self.down or (rule is not None and rule.mode == "refuse"):
            raise httpx.ConnectError("refused", request=request)
        there_s, back_s = world.takes_s[0]
        world.takes_s = [*world.takes_s[1:], world.takes_s[0]]
        world.passes(there_s)
        self.token = request.headers["authorization"]
        entry = omneo.note(method, path, path, reference(peek(body)))
        answer = None
        if rule is None or rule.applies():
            self.watch(method, path, peek(body))
            before = self._counts()
            answer = self.ask(method, self._decoded(raw), body)
            entry.status, entry.applied = answer.status, answer.status < 400
            self._keep(before)
            world.moment()
        if rule is None:
            assert answer is not None
            response = self._response(answer)
        else:
            entry.fault = rule.mode
            response = self._broken(rule, answer, request, TIMEOUT_S - there_s)
        world.passes(back_s)
        return response

    @staticmethod
    def _decoded(raw: str) -> str:
        path, _, query = raw.partition("?")
        return httpx.URL(f"{HOST}{path}").path + (f"?{query}" if query else "")

    def _broken(self, rule: Rule, answer: Answer | None, request: httpx.Request, left_s: float) -> httpx.Response:
        """What the client sees of a fault."""
        match rule.mode:
            case "hang" | "hang_after" | "trickle":
                self.world.passes(left_s)
                raise httpx.ReadTimeout("no answer in time", request=request)
            case "drop_before" | "drop_after" | "truncate":
                raise httpx.ReadError("the connection was lost", request=request)
        false = wire.false_answer(rule, self.omneo)
        if false is not None:
            return self._response(false)
        assert answer is not None
        return self._response(answer, rule.skew_s)

    def _response(self, answer: Answer, skew_s: float = 0.0) -> httpx.Response:
        headers = [*answer.head(), (b"date", wire.http_date(self.omneo, skew_s).encode())]
        return httpx.Response(answer.status, headers=headers, content=answer.body)

    def _counts(self) -> tuple[int, int]:
        return len(self.omneo.transactions), len(self.omneo.redemptions)

    def _keep(self, before: tuple[int, int]) -> None:
        sales, redemptions = self.omneo.transactions, self.omneo.redemptions
        if len(sales) > before[0]:
            self.made.append(("transaction", max(sales)))
        if len(redemptions) > before[1]:
            self.made.append(("redemption", max(redemptions)))


def world_clock(world: World) -> Callable[[], datetime]:
    """Omneo's clock: the true time, and the tenant's own offset on top."""
    return lambda: START + timedelta(seconds=getattr(world, "passed_s", 0.0))


def fast_disk(database: Any) -> None:
    """The power cuts of this world leave the file system alone: nothing has to be synced."""
    for pragma in ("journal_mode = MEMORY", "synchronous = OFF", "cache_size = -2000"):
        database.execute(f"PRAGMA {pragma}")


@contextmanager
def made_up_time(world: World) -> Any:
    """Let the forwarder live in this world's time, on a disk that is fast."""
    clock = SimpleNamespace(monotonic=world.monotonic)
    with ExitStack() as stack:
        for room in TIMED:
            if hasattr(room, "time"):
                stack.callback(setattr, room, "time", room.time)
                room.time = clock
            if hasattr(room, "boot_facts"):
                stack.callback(setattr, room, "boot_facts", room.boot_facts)
                room.boot_facts = world.boot_facts
        stack.callback(setattr, book, "set_up", book.set_up)
        book.set_up = fast_disk
        stack.callback(setattr, side_by_side, "wait", side_by_side.wait)
        yield
