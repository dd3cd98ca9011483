"""
The two programs as processes without the price of an interpreter each: forked, the imports done, ten times as fast.

Everything from `main()` on is the real program in a process of its own, with its own descriptors, locks and end. Who
forks must have no threads.
"""

import contextlib
import importlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

LONG_S = 60.0
USED = (  # what the commands import when they need it
    "journal.ingest journal.story journal.redact journal.archive journal.checkpoint journal.verify journal.say"
    " journal.cli forwarder.cli forwarder.books forwarder.patience forwarder.side_by_side forwarder.wire"
    " watchdog.observers.inotify tests.planted"
)


@dataclass
class Done:
    """How it ended: as `subprocess` tells it."""

    returncode: int
    stderr: bytes


def ready() -> None:
    """Import once what every child would."""
    for name in USED.split():
        importlib.import_module(name)


@dataclass
class Child:
    """A program that runs."""

    words: Sequence[str]  # program and arguments
    env: dict[str, str]
    plant: str
    said: Path
    stopped: bool = False  # it waits for SIGCONT before it begins
    pid: int = field(init=False)

    def __post_init__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                code = self._run()
            finally:
                os._exit(code)

    def _run(self) -> int:
        said = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
        os.environ.clear()
        os.environ.update(self.env)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        sys.argv = list(self.words)
        if self.stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        try:
            from tests import planted

            for name in filter(None, self.plant.split(",")):
                planted.CHANGES[name]()
            importlib.import_module(f"{self.words[0]}.cli").main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        except BaseException:  # noqa: BLE001 - as an interpreter ends
            import traceback

            traceback.print_exc()
            return 1
        return 0

    def wait(self, seconds: float = LONG_S) -> Done:
        """Until it has ended; one that doesn't is killed, and that is its end."""
        give_up = time.monotonic() + seconds
        pause_s = 0.0002
        while (ended := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > give_up:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return Done(124, b"it did not end")
            time.sleep(pause_s)
            pause_s = min(0.005, pause_s * 1.3)
        return Done(os.waitstatus_to_exitcode(ended[1]), self.said.read_bytes())


def traced(child: Child, *options: str) -> Done:
    """Let a stopped child run under strace, from its first step on."""
    os.waitpid(child.pid, os.WUNTRACED)
    tracer = subprocess.Popen(["strace", "-f", *options, "-p", str(child.pid)], stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    tracer.stderr.readline()  # it is attached
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGCONT)
    done = child.wait()
    tracer.wait(LONG_S)
    tracer.stderr.close()
    return done
