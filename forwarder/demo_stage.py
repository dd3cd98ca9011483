"""What stands behind the demo: both programs and the sandbox as processes of their own, in a temporary directory."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import httpx
import msgspec

from forwarder import status
from forwarder.demo_screen import Screen
from forwarder.demo_shop import Tills, receipt
from journal.log import NotNow

PROGRAMS = {"omneo-journal": "journal", "omneo-forwarder": "forwarder"}
LOOK_S = 0.08
START_S = 30.0
STOP_S = 5.0

_exact = msgspec.json.Decoder(float_hook=Decimal)


class NotAsPromisedError(Exception):
    """Something that had to happen did not."""


class Stage:
    """Directories, children, the way to the sandbox's control desk, and a memory of every promise."""

    def __init__(self, home: Path, screen: Screen, scale: int) -> None:
        """`scale` is how many documents make a full bar."""
        self.home, self.screen, self.scale = home, screen, scale
        self.spool, self.journal, self.delivery = home / "spool", home / "journal.db", home / "delivery.db"
        self.tills = Tills(self.spool)
        self.kept = True
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("OMNEO_")}
        self.env.pop("CREDENTIALS_DIRECTORY", None)
        self.env |= {"OMNEO_JOURNAL_DB": str(self.journal), "OMNEO_JOURNAL_SPOOL": str(self.spool)}
        self.env["PYTHONIOENCODING"] = "utf-8"  # what they say is read here, whatever the terminal can show
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._desk = httpx.Client()
        self._standing: dict[str, Any] = {}

    # -- processes ---------------------------------------------------------------------------------------------------

    def start(self, program: str, *arguments: str) -> Path:
        """A program that runs until it is stopped. What it says goes to a file; that file's path."""
        name = arguments[0]
        log = self.home / "logs" / f"{name}.log"
        with log.open("wb") as out:
            self._children[name] = subprocess.Popen(  # noqa: S603
                [*command(program), *arguments], env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        return log

    def run(self, program: str, *arguments: str) -> str:
        """A program that ends by itself: what it wrote to stdout."""
        line, log = [*command(program), *arguments], self.home / "logs" / "commands.log"
        with log.open("ab") as err:
            pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
            try:
                done = subprocess.run(  # noqa: S603
                    line, env=self.env, stdin=nothing, stdout=pipe, stderr=err, timeout=30, check=False
                )
            except subprocess.TimeoutExpired:
                self.fail(f"{program} {arguments[0]} did not end", log)
        if done.returncode not in {0, 1}:  # 1 is an answer: bad news
            self.fail(f"{program} {arguments[0]} failed", log)
        return done.stdout.decode()

    def ask(self, program: str, *arguments: str) -> Any:
        """What a program says under --json."""
        return _exact.decode(self.run(program, *arguments, "--json"))

    def ask_lines(self, program: str, *arguments: str) -> list[Any]:
        """The same where it says one value a line."""
        return [_exact.decode(line) for line in self.run(program, *arguments, "--json").splitlines()]

    def open(self) -> None:
        """The sandbox first, because it says where it listens; then both programs."""
        (self.home / "logs").mkdir(mode=0o750)
        self.run("omneo-journal", "init")
        sandbox = self.start("omneo-forwarder", "sandbox", "--port", "0")
        ingest = self.start("omneo-journal", "ingest")
        self._wait_for(sandbox, b"/api/v3\n")
        url = sandbox.read_text().split()[0]
        self.env |= {"OMNEO_URL": url, "OMNEO_TOKEN": "sandbox"}
        # One connection that stays: the desk can still be reached by it while the sandbox refuses new ones.
        only = httpx.Limits(max_connections=1, keepalive_expiry=None)
        control = url.removesuffix("/api/v3") + "/_sandbox"
        self._desk = httpx.Client(base_url=control, timeout=5, trust_env=False, limits=only)
        self._wait_for(self.start("omneo-forwarder", "run", "--rate", "0"), b'"ready"')
        self._wait_for(ingest, b'"ready"')

    def close(self, *names: str) -> bool:
        """Stop these children, or all: asked first, and not for long. True when each ended well."""
        children = [self._children.pop(name) for name in names or tuple(self._children)]
        until = time.monotonic() + STOP_S
        try:
            for child in children:
                child.terminate()
            for child in children:
                child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()
                    child.wait()
        return all(child.returncode == 0 for child in children)

    def _wait_for(self, log: Path, words: bytes) -> None:
        until = time.monotonic() + START_S
        while words not in log.read_bytes():
            if self._children[log.stem].poll() is not None or time.monotonic() > until:
                self.fail(f"{log.stem} did not start", log)
            time.sleep(0.02)

    # -- the sandbox's control desk ------------------------------------------------------------------------------------

    def desk(self, method: str, path: str, content: Any = None) -> Any:
        """Turn something at the sandbox, or look into it."""
        try:
            answer = self._desk.request(method, path, json=content)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            self.fail(f"the sandbox did not do what it was asked ({error!r})", self.home / "logs" / "sandbox.log")
        return _exact.decode(answer.content) if answer.content else None

    def omneo(self, method: str, path: str, content: Any = None) -> Any:
        """What a till that is online asks of Omneo itself."""
        token = {"Authorization": f"Bearer {self.env['OMNEO_TOKEN']}"}
        try:
            answer = self._desk.request(method, self.env["OMNEO_URL"] + path, json=content, headers=token)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            self.fail(f"the sandbox did not answer the till ({error!r})", self.home / "logs" / "sandbox.log")
        return _exact.decode(answer.content)

    def fault(self, mode: str, **how: Any) -> None:
        """Something goes wrong from now on."""
        self.desk("POST", "/faults", {"mode": mode, **how})

    def fired(self) -> int:
        """How often the faults have struck."""
        return sum(rule["fired"] for rule in self.desk("GET", "/faults")["data"])

    # -- what is going on ----------------------------------------------------------------------------------------------

    def look(self) -> dict[str, Any]:
        """How things stand, as `omneo-forwarder status` has it; the bars follow."""
        for name, child in self._children.items():
            if child.poll() is not None:
                self.fail(f"the program behind `{name}` has ended by itself", self.home / "logs" / f"{name}.log")
        try:
            self._standing = status.status(self.journal, self.delivery, datetime.now(UTC))
        except NotNow:  # a writer was faster: what was seen last is good enough
            if not self._standing:
                raise
        self.screen.board(self._standing, self.scale)
        return self._standing

    def until(self, wanted: Callable[[dict[str, Any]], bool], what: str, seconds: float = 30) -> dict[str, Any]:
        """Watch until it is so. Raises NotAsPromisedError."""
        give_up = time.monotonic() + seconds
        while not wanted(standing := self.look()):
            if time.monotonic() > give_up:
                self.fail(f"after {seconds:.0f} s it is still not so that {what}", self.home / "logs")
            time.sleep(LOOK_S)
        return standing

    def sell(self, count: int) -> dict[str, Any]:
        """So many customers, one after the other, slowly enough to watch. The last one's sale."""
        pause_s = 0.2 if self.screen.live else 0.1
        for _ in range(count):
            sale = self.tills.sell()
            self.screen.ticker(receipt(sale))
            time.sleep(pause_s)
            self.look()
        self.screen.ticker("")
        return sale

    def breathe(self) -> None:
        """Time to read, for those who watch."""
        if self.screen.live:
            time.sleep(1.5)

    def promise(self, ok: bool, text: str) -> None:
        """Say it, and remember if it isn't so."""
        self.kept = self.kept and ok
        self.screen.check(ok, text)

    def fail(self, what: str, where: Path) -> NoReturn:
        """Nothing sensible can follow."""
        raise NotAsPromisedError(f"{what[0].upper()}{what[1:]}: see {where}.")


@contextmanager
def stage(screen: Screen, scale: int) -> Iterator[Stage]:
    """A new one; at its end no child is left, whatever ended it, and all files are."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    made = Stage(Path(tempfile.mkdtemp(prefix="omneo-demo-")), screen, scale)
    try:
        yield made
    finally:
        try:
            made.close()
        finally:
            screen.drop_curtain()
        for number, handler in before.items():
            signal.signal(number, handler)


def command(program: str) -> list[str]:
    """The installed program beside this Python; from a checkout, its module."""
    installed = Path(sys.executable).with_name(program)
    if installed.exists():
        return [str(installed)]
    return [sys.executable, "-c", f"from {PROGRAMS[program]}.cli import main; main()"]


def typed(program: str) -> str:
    """What a person types for it in this shell: the name if that is found, else the path."""
    found, installed = shutil.which(program), Path(sys.executable).with_name(program)
    if not installed.exists() or (found and Path(found).resolve() == installed.resolve()):
        return program
    here = Path.cwd()
    return shlex.quote(str(installed.relative_to(here) if installed.is_relative_to(here) else installed))
