"""Both programs and the sandbox as processes: started, killed, started again, asked."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.campaign.drops import Doc

START_S = 2.0  # an interpreter that is still starting knows no SIGTERM
ASK_S = 600.0  # `verify` gives way to everything else on the machine


@dataclass(slots=True)
class Program:
    """One of the two programs as a process: started, killed, started again."""

    name: str
    command: list[str]
    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    kills: int = 0
    complaints: list[str] = field(default_factory=list)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.env, stdout=log, stderr=log)
        self.started = time.monotonic()

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        assert self.process is not None
        self.look()
        self.process.kill()
        self.process.wait()
        self.kills += 1

    def look(self) -> None:
        """Still alive? A program that ended by itself is a finding; as systemd would, start it again."""
        if self.process is not None and self.process.poll() not in {None, -signal.SIGKILL}:
            tail = self.log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            self.complaints.append(f"{self.name} ended by itself with code {self.process.returncode}: {tail}")
            self.start()

    def stop(self) -> None:
        """SIGTERM, as at a shutdown: it has to end in good order."""
        assert self.process is not None
        self.look()
        time.sleep(max(0.0, self.started + START_S - time.monotonic()))
        self.process.terminate()
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.complaints.append(f"{self.name} did not end after SIGTERM")
        else:
            if code != 0:
                self.complaints.append(f"{self.name} ended with code {code} after SIGTERM")


PLANTED = Path(__file__).parents[1] / "planted.py"


class Place:
    """A directory with a spool and two books, and the programs over it."""

    def __init__(self, root: Path, plant: str) -> None:
        self.root, self.spool = root, root / "spool"
        self.journal, self.delivery = root / "books" / "journal.db", root / "books" / "delivery.db"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("OMNEO_")}
        self.env |= {"OMNEO_JOURNAL_DB": str(self.journal), "OMNEO_JOURNAL_SPOOL": str(self.spool)}
        self.env |= {"OMNEO_TOKEN": "sandbox", "RES_OPTIONS": ""}
        self.plant = plant

    def command(self, program: str, *arguments: str) -> list[str]:
        if self.plant:
            return [sys.executable, "-P", str(PLANTED), self.plant, program, *arguments]
        return [sys.executable, "-P", "-c", f"from {program}.cli import main; main()", *arguments]

    def program(self, package: str, *arguments: str) -> Program:
        return Program(package, self.command(package, *arguments), self.env, self.root / f"{package}.log")

    def ask(self, *arguments: str) -> tuple[int, list[Doc]]:
        """A command of omneo-journal with --json: its exit code and what it said, numbers exact."""
        command = self.command("journal", *arguments, "--json")
        done = subprocess.run(command, env=self.env, capture_output=True, timeout=ASK_S, check=False)
        if done.stderr:
            raise RuntimeError(done.stderr.decode("utf-8", "replace"))
        return done.returncode, [json.loads(line, parse_float=Decimal) for line in done.stdout.splitlines()]


class Sandbox:
    """The stand-in Omneo in a process of its own, and its control desk."""

    def __init__(self, root: Path) -> None:
        code = "from forwarder.sandbox.serve import serve; serve(0, announce=lambda url: print(url, flush=True))"
        self.process = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, cwd=root)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()
        self.host = self.url.split("/")[2]
        self.cuts = 0

    def desk(self, method: str, route: str, body: Any = None) -> Any:
        """One request to the control desk; the answer's numbers stay exact."""
        line = http.client.HTTPConnection(self.host, timeout=30)
        with contextlib.closing(line):
            line.request(method, f"/_sandbox{route}", None if body is None else json.dumps(body))
            raw = line.getresponse().read()
        return json.loads(raw, parse_float=Decimal) if raw else None

    def fail(self, seed: int, share: float, seconds: float) -> list[str]:
        """From now on a share of requests goes wrong, in every way that one request can: the names of these ways."""
        rule = {"mode": "any", "share": share, "seed": seed, "seconds": seconds, "interval": 0.01}
        modes: list[str] = self.desk("POST", "/faults", rule)["data"][0]["modes"]
        return modes

    def cut(self, seconds: float) -> None:
        """Nobody listens any more, for so long."""
        with contextlib.suppress(ConnectionError):  # still cut
            self.desk("POST", "/faults", {"mode": "down", "seconds": seconds})
            self.cuts += 1
