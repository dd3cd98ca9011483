"""The shop of the redemption machine: its two books, its forwarder in either order, and the person who decides."""

import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from shop_world import HOST, TIMEOUT_S, WINDOW_S, PowerCut, World
from standin import encode, quiet

from forwarder import decide, side_by_side
from forwarder.books import Books, create_delivery
from forwarder.link import Credentials, Link, check_url
from forwarder.outcome import Outcome
from forwarder.replay import Policy, Replay, step
from forwarder.side_by_side import Lanes
from journal import check, document, known, log

URL = check_url(f"{HOST}/api/v3")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no disk is waited for, where there is such a place
SETTLED = ("delivered", "refused", "held", "cancelled", "abandoned")


class Pool:
    """In the place of threads: a conversation that was handed over is held when the world says so, in any order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.flying: dict[Future[Outcome], tuple[Callable[..., Outcome], tuple[Any, ...]]] = {}

    def submit(self, act: Callable[..., Outcome], *arguments: Any) -> "Future[Outcome]":
        future: Future[Outcome] = Future()
        self.flying[future] = act, arguments
        return future

    def wait(self, flights: dict[Any, Any], _timeout_s: float | None, _wake: Any) -> tuple[set[Any], set[Any]]:
        """One of them comes back."""
        future = list(flights)[self.world.dice.randrange(len(flights))]
        self.fly(future)
        return {future}, set(flights) - {future}

    def fly(self, future: "Future[Outcome]") -> None:
        act, arguments = self.flying.pop(future)
        future.set_result(act(*arguments))


class Templates:
    """An empty pair of books, made once."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(dir=MEMORY))
        self.journal, self.delivery = self.place / "journal.db", self.place / "delivery.db"
        log.create(self.journal, "journal", {"journal": "the-machine's"} | log.boot_facts())
        create_delivery(self.journal, self.delivery)
        (self.place / "token").write_text("sandbox")

    def close(self) -> None:
        shutil.rmtree(self.place)


class ModelShop:
    """Books in one directory, and a forwarder that can be stopped, cut off and started."""

    def __init__(self, world: World, templates: Templates, *, lanes: int, rate: float, **policy: Any) -> None:
        self.world, self.lanes, self.rate = world, lanes, rate
        self.policy = Policy(window_s=WINDOW_S, timeout_s=TIMEOUT_S, **policy)
        self.place = Path(tempfile.mkdtemp(dir=MEMORY))
        self.db, self.delivery = self.place / "journal.db", self.place / "delivery.db"
        self.token = templates.place / "token"
        shutil.copyfile(templates.journal, self.db)
        shutil.copyfile(templates.delivery, self.delivery)
        self.journal = log.open_book(self.db, "journal", write=True)
        self.documents: dict[str, dict[str, Any]] = {}  # by external_id, in journal order
        self.seqs: dict[str, int] = {}
        self.run: Replay | None = None
        self.start()

    # ── The till ──

    def take(self, content: dict[str, Any]) -> None:
        """A document into the journal, as intake does it."""
        found = document.read("from-the-till.json", encode(content))
        assert found.kind != "invalid", found.problems
        with log.writing(self.journal):
            verdict = check.judge(found, known.Known(self.journal), size=len(found.body))
            log.append(self.journal, verdict.entries, now=self.world.truly)
        self.documents[content["external_id"]] = content
        self.seqs[content["external_id"]] = verdict.seq

    # ── The forwarder ──

    def start(self) -> None:
        """As `omneo-forwarder run` puts it together. The power may go in the middle of this too."""
        while self.run is None:
            books = None
            try:
                books = Books(self.db, self.delivery, now=self.world.wall)
                books.opened()
                sleep = self.world.passes
                credentials = Credentials(self.token)
                link = Link(URL, credentials, self.world.line, rate=self.rate, sleep=sleep, now=books.now)
                self.run = Replay(books, link, self.policy, quiet, now=books.now, lanes=self.lanes)
            except PowerCut:
                if books is not None:
                    self.let_go(books)
        if self.lanes:
            self.pool = Pool(self.world)
            side_by_side.wait = self.pool.wait  # type: ignore[assignment]
            self.flights = Lanes(self.run, self.pool)  # type: ignore[arg-type]

    @staticmethod
    def let_go(books: Books) -> None:
        """What only the running program knew is gone; what was on disk is there."""
        books.journal.close()
        books.delivery.close()

    def power_cut(self) -> None:
        """Some of what was in the air still arrives; nobody is there to hear the answer."""
        assert self.run is not None
        self.world.power_left = None
        if self.lanes:
            for future in list(self.pool.flying):
                if self.world.dice.random() < 0.5:
                    self.pool.fly(future)
        self.let_go(self.run.books)
        self.run = None
        if self.world.dice.random() < 0.5:
            self.world.reboot()
        self.start()

    def restart(self) -> None:
        """SIGTERM: what is in the air lands, everything is written down."""
        try:
            self.land()
            assert self.run is not None
            self.run.books.close()
            self.run = None
            self.start()
        except PowerCut:
            self.power_cut()

    def land(self) -> None:
        """Everything comes back that is in the air."""
        if self.lanes:
            side_by_side.finish(self.flights)

    def forward(self, times: int) -> bool:
        """So many steps, with the pauses between them. False: nothing is left to do, or it waits for something."""
        try:
            return all(self._step_side_by_side() if self.lanes else self._step() for _ in range(times))
        except PowerCut:
            self.power_cut()
            return True
        finally:
            self.world.power_left = None

    def _step(self) -> bool:
        assert self.run is not None
        result = step(self.run)
        if result is None or result.kind == "waits":
            self.run.books.flush()
            return False
        if not result.settles:
            self.run.books.flush()
            self.world.passes(result.retry_after_s or 1.0)
        return True

    def _step_side_by_side(self) -> bool:
        if side_by_side.turn(self.flights):
            return True
        if side_by_side.due_in_s(self.flights) is None:
            return False
        self.world.passes(max(side_by_side.pause_s(self.flights), 0.01))
        return True

    # ── The person ──

    def decides(self, kind: str, name: str) -> None:
        """`release` and `abandon`, beside the running program."""
        beside = Books(self.db, self.delivery, now=self.world.truly)
        try:
            (decide.release if kind == "released" else decide.abandon)(beside, name, "A. Person", "decided")
        finally:
            beside.close()

    def pause(self) -> None:
        """What the loop does before it waits."""
        assert self.run is not None
        try:
            self.run.books.flush()
        except PowerCut:
            self.power_cut()

    # ── What the books say ──

    def entries(self) -> list[tuple[int, str, int, str]]:
        """Everything that the delivery book has on disk about documents: (seq, kind, about, facts)."""
        assert self.run is not None
        rows = self.run.books.delivery.execute(
            "SELECT seq, kind, about, facts FROM log WHERE about IS NOT NULL ORDER BY seq"
        )
        return rows.fetchall()

    def state_by_seq(self) -> dict[int, str]:
        states = dict.fromkeys(self.seqs.values(), "waiting")
        for _, kind, about, _ in self.entries():
            if kind in SETTLED or kind == "released":
                states[about] = "waiting" if kind == "released" else kind
        return states

    def states(self) -> dict[str, str]:
        by_seq = self.state_by_seq()
        return {name: by_seq[seq] for name, seq in self.seqs.items()}

    def waits(self, name: str) -> bool:
        """As the running program sees it, written down or not."""
        assert self.run is not None
        return self.run.books.state(self.seqs[name]) == "waiting"

    def attempted(self, name: str) -> bool:
        assert self.run is not None
        return self.run.books.attempted(self.seqs[name])

    def close(self) -> None:
        self.world.power_left = None
        if self.run is not None:
            self.let_go(self.run.books)
        self.journal.close()
        shutil.rmtree(self.place)
