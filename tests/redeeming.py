"""What the tests of redemptions stand on: a box whose clocks run as told, a till, and what Omneo has in the end."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from standin import Omneo, Store, sale

from forwarder.books import Books
from forwarder.outcome import Outcome
from forwarder.replay import Replay, step
from forwarder.sandbox.customers import JANE
from forwarder.window import Instant
from forwarder.wire import Wire
from journal.log import boot_facts, utc_now

ZONE = "Australia/Melbourne"
CHANGES = ("/redeem", "/redemptions", "/reversal", "/return", "/update-create")  # what changes something at Omneo
AUTHORIZED = {"Authorization": "Bearer sandbox"}


class Gone(BaseException):
    """The process is gone at this moment."""


@dataclass
class Box:
    """The clocks of the shop's box and of Omneo, which run on together when a test says so."""

    omneo: Omneo
    passed_s: float = 0.0
    boot: str | None = None  # another one, after a reboot
    wall_ahead_s: float = 0.0  # how far this box's wall clock is off

    def now(self) -> datetime:
        return utc_now() + timedelta(seconds=self.passed_s + self.wall_ahead_s)

    def instant(self) -> Instant:
        facts = boot_facts()
        return Instant(self.boot or facts["boot"], facts["since_boot_s"] + self.passed_s, self.now())

    def passes(self, seconds: float) -> None:
        self.passed_s += seconds
        self.omneo.control("/clock", offset_s=self.passed_s)

    def said(self) -> str:
        """Now, as a till writes it."""
        return self.now().astimezone(ZoneInfo(ZONE)).strftime("%Y-%m-%d %H:%M:%S")


@dataclass
class Counter:
    """A shop with one till, and its forwarder."""

    store: Store
    omneo: Omneo
    token: Path
    options: dict[str, Any] = field(default_factory=dict)
    cut_at: set[str] = field(default_factory=set)  # the process goes once an answer to one of these has come
    sent: list[str] = field(default_factory=list)  # what left that changes something at Omneo
    crashes: int = 0
    run: Replay | None = None

    def __post_init__(self) -> None:
        self.box = Box(self.omneo)
        self.store.now = self.box.now

    # -- what the till writes ---------------------------------------------------------------------------------------

    def redemption(self, external_id: str = "R", **fields: Any) -> dict[str, Any]:
        """20.00 of the customer's rewards, unless a benefit is meant."""
        worth = {} if "benefit_id" in fields else {"amount": Decimal(20), "strategies": ["rewards"]}
        return self._document("redemption", external_id, {"profile_id": JANE} | worth | fields)

    def reversal(self, external_id: str = "V", **fields: Any) -> dict[str, Any]:
        return self._document("reversal", external_id, {"reason": "the payment failed"} | fields)

    def give_back(self, external_id: str = "B", **fields: Any) -> dict[str, Any]:
        return self._document("return", external_id, fields)

    def sale(self, external_id: str = "S", **fields: Any) -> dict[str, Any]:
        return sale(external_id, **{"profile_id": JANE, **fields})

    def _document(self, kind: str, external_id: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {"kind": kind, "external_id": external_id, "issued_at": self.box.said(), "timezone": ZONE} | fields

    def online(self, path: str = f"/profiles/{JANE}/redeem", **body: Any) -> tuple[int, str]:
        """The till talks to Omneo itself (POS direct): the redemption's id there, and when it was made."""
        body = body or {"amount": 20, "strategies": ["rewards"]}
        answer = httpx.post(self.omneo.url + path, json=body, headers=AUTHORIZED)
        assert answer.is_success, answer.text
        return answer.json()["data"]["id"], self.box.said()

    # -- the forwarder ----------------------------------------------------------------------------------------------

    def open(self) -> Replay:
        """Start it, or take the one that runs."""
        if self.run is None:
            clocks = {"instant": self.box.instant, "wire": lambda timeout: Cable(timeout, self)}
            self.run = self.store.open(self.omneo.url, token=self.token, timeout=0.4, **clocks, **self.options)
        return self.run

    def crash(self) -> None:
        """What only the running process knew is gone."""
        if self.run is not None:
            self.store.crash(self.run)
            self.crashes += 1
            self.run = None

    def reboot(self, seconds: float = 30) -> None:
        """The whole box goes and comes back: the kernel's clock tells nothing of what was before."""
        self.crash()
        self.box.passes(seconds)
        self.box.boot = f"after {self.box.boot}"

    def close(self) -> None:
        if self.run is not None:
            self.store.wire.close()
            self.run.books.close()
            self.run = None

    def step(self) -> Outcome | None:
        """One step; time passes if it asks for that. None too when the process is gone."""
        try:
            result = step(self.open())
        except Gone:
            self.crash()
            return None
        if result is not None and not result.settles:
            self.box.passes(result.retry_after_s or 1.0)
        return result

    def drain(self, most: int = 60) -> list[Outcome]:
        """Step until nothing waits."""
        results = []
        while (result := self.step()) is not None:
            results.append(result)
            assert len(results) < most, results[-3:]
        self.open().books.flush()
        return results

    def deliver(self, *documents: dict[str, Any]) -> list[Outcome]:
        """The till writes them, and the forwarder does all it can."""
        self.open()
        self.store.take(*documents)
        return self.drain()

    def decide(self, what: Callable[[Books, str, str, str], object], external_id: str) -> None:
        """A person decides of a held document, beside the running forwarder, and that goes on."""
        self.open().books.flush()
        books = Books(self.store.db, self.store.delivery, now=self.box.now)
        try:
            what(books, external_id, "A. Person", "as it was agreed")
        finally:
            books.close()
        self.drain()

    def hit(self, path: str, *, mode: str, **more: Any) -> None:
        """What happens to the next such request."""
        self.omneo.fault(mode, path=path, method="POST", count=1, **more)

    def attempt(self, *documents: dict[str, Any], path: str, **fate: Any) -> None:
        """One try, and its fate."""
        self.open()
        self.hit(path, **fate)
        self.store.take(*documents)
        before = len(self.sent)
        while len(self.sent) == before:
            self.step()

    # -- what came of it --------------------------------------------------------------------------------------------

    def states(self) -> str:
        """Each document and its state, in journal order."""
        return ", ".join(f"{name} {state}" for name, state in self.store.states().items())

    def flags(self) -> set[str]:
        return {f"{flag} {name}" for flag, name in self.store.flags()}

    def detail(self, flag: str) -> dict[str, Any]:
        """What a flag says, wherever it is."""
        found = [
            each for name in self.store.states() for each in self.store.show(name)["flags"] if each["flag"] == flag
        ]
        assert len(found) == 1
        return found[0]["detail"]

    def at_omneo(self) -> "Held":
        return Held(self.omneo.state())


@pytest.fixture
def counter(store: Store, omneo: Omneo, token: Path) -> Iterator[Counter]:
    """A shop; whatever happened in it, its books are in order in the end."""
    made = Counter(store, omneo, token)
    yield made
    made.close()
    store.verified()


@dataclass
class Held:
    """What Omneo has."""

    state: dict[str, Any]

    def redemptions(self) -> list[str]:
        """Each redemption, reversal and return by its type, in the order in which they came to be."""
        return [row["type"] for row in sorted(self.state["redemptions"], key=lambda row: row["id"])]

    def row(self, kind: str = "redeem") -> dict[str, Any]:
        rows = [row for row in self.state["redemptions"] if row["type"] == kind]
        assert len(rows) == 1, rows
        return rows[0]

    def sale(self, external_id: str = "S") -> dict[str, Any]:
        rows = [row for row in self.state["transactions"] if row["external_id"] == external_id]
        assert len(rows) == 1, rows
        return rows[0]

    def person(self, profile: str = JANE) -> dict[str, Any]:
        return next(row for row in self.state["profiles"] if row["id"] == profile)

    def balance(self, name: str = "reward_balance", profile: str = JANE) -> Decimal:
        return Decimal(self.person(profile)["balances"][name])


class Cable(Wire):
    """The line. Beside it the process can go, once an answer has come or was lost and nothing is written of it yet."""

    def __init__(self, timeout_s: float, counter: Counter) -> None:
        super().__init__(timeout_s)
        self._counter = counter

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        changes = request.method == "POST" and request.url.path.endswith(CHANGES)
        try:
            return super().handle_request(request)
        finally:
            if changes:
                self._counter.sent.append(request.url.path)
                if any(request.url.path.endswith(path) for path in self._counter.cut_at):
                    raise Gone
