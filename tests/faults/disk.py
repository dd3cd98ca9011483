"""
Disks that are full, read-only, over quota, out of inodes or slow, under both real programs while they work.

Real file systems, made small and filled, or turned read-only by the kernel as after an error; only a quota and a slow
disk are strace's. The tills go on dropping; nothing may be lost then, and all of it goes on by itself afterwards.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tests.campaign.events import drained, waiting_files
from tests.campaign.programs import Program, Sandbox
from tests.faults import recording, shop
from tests.faults.judge import Near, judge, kept
from tests.faults.means import Figures, Means, Size

FILES = 18
NOTICED_S = 10.0
HOLD_S = 1.0
CALM_S = 60.0
FILLS = 6  # a commit that is under way gives back what it held
SIZE = 4 * 1024 * 1024
PLANTED = {"shrugging": ("inode-less", "books")}  # before a disk is full, intake stops by itself


@dataclass
class Broken:
    """A disk that can be broken and mended, at a place of its own."""

    at: Path
    scratch: Path
    tracers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    says: ClassVar[bool] = True  # does a program have to notice?

    def mount(self) -> None:
        run("mount", "-t", "tmpfs", "-o", f"size={SIZE},nr_inodes=200", "tmpfs", str(self.at))

    def unmount(self) -> None:
        for _ in range(100):
            if subprocess.run(["umount", str(self.at)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.05)

    def damage(self, programs: list[Program]) -> None:
        """From now on."""
        raise NotImplementedError

    def mend(self, programs: list[Program]) -> None:
        """As it was."""
        raise NotImplementedError


class Full(Broken):
    """Not a byte is left."""

    def damage(self, programs: list[Program]) -> None:  # noqa: ARG002
        for _ in range(FILLS):
            with contextlib.suppress(OSError), (self.at / "ballast").open("ab", buffering=0) as ballast:
                while True:
                    ballast.write(bytes(512))
            time.sleep(0.05)

    def mend(self, programs: list[Program]) -> None:  # noqa: ARG002
        (self.at / "ballast").unlink()


class NoInodes(Broken):
    """Room enough, and no name to be had."""

    def damage(self, programs: list[Program]) -> None:  # noqa: ARG002
        (self.at / "many").mkdir()
        for again in range(FILLS):
            with contextlib.suppress(OSError):
                for number in range(1000):
                    (self.at / "many" / f"{again}-{number}").touch()
            time.sleep(0.05)

    def mend(self, programs: list[Program]) -> None:  # noqa: ARG002
        shutil.rmtree(self.at / "many")


class ReadOnly(Broken):
    """Ext4 after an error: the kernel lets nobody write until it is mounted anew."""

    def mount(self) -> None:
        image = self.scratch / "image"
        with image.open("wb") as file:
            file.truncate(16 * 1024 * 1024)
        run("mkfs.ext4", "-q", "-F", str(image))
        run("mount", "-o", "loop", str(image), str(self.at))
        (self.at / "lost+found").rmdir()

    def damage(self, programs: list[Program]) -> None:  # noqa: ARG002
        run("mount", "-o", "remount,abort", str(self.at))

    def mend(self, programs: list[Program]) -> None:
        for program in programs:
            program.kill()
        self.unmount()
        subprocess.run(["e2fsck", "-fy", str(self.scratch / "image")], capture_output=True, check=False)
        run("mount", "-o", "loop", str(self.scratch / "image"), str(self.at))
        shutil.rmtree(self.at / "lost+found", ignore_errors=True)
        for program in programs:
            program.start()


class Traced(Broken):
    """What no small file system of ours can do, strace does to the calls."""

    inject = ""

    def damage(self, programs: list[Program]) -> None:
        for program in programs:
            assert program.process is not None
            command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", self.inject, "-p", str(program.process.pid)]
            self.tracers.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        for program in programs:
            assert program.process is not None
            wait_for(_is_traced(program.process.pid), NOTICED_S)

    def mend(self, programs: list[Program]) -> None:  # noqa: ARG002
        for tracer in self.tracers:
            tracer.terminate()
            tracer.wait()
        self.tracers.clear()


class Quota(Traced):
    """Every write that needs room is refused."""

    inject = "inject=pwrite64,write:error=EDQUOT"


class Slow(Traced):
    """A second a sync."""

    says: ClassVar[bool] = False
    inject = "inject=fsync,fdatasync:delay_enter=1000000"


KINDS: dict[str, type[Broken]] = {
    "full": Full,
    "read-only": ReadOnly,
    "inode-less": NoInodes,
    "quota": Quota,
    "slow": Slow,
}
ROUND = [
    (kind, where) for kind in KINDS for where in ("books", "all") if not (where == "all" and kind in {"quota", "slow"})
]


def _is_traced(pid: int) -> Callable[[], bool]:
    return lambda: "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def wait_for(true: Callable[[], bool], seconds: float) -> bool:
    """A condition, for so long at the most."""
    give_up = time.monotonic() + seconds
    while not true():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True


@contextlib.contextmanager
def standing(disk: Broken) -> Iterator[None]:
    """The disk is there for as long as the block runs."""
    disk.at.mkdir(parents=True, exist_ok=True)
    disk.mount()
    try:
        yield
    finally:
        for tracer in disk.tracers:
            tracer.kill()
            tracer.wait()
        disk.unmount()


@dataclass
class Trial:
    """One disk, one shop, both programs."""

    kind: str
    where: str
    seed: int
    root: Path
    plant: str = ""
    ends: list[str] = field(default_factory=list)

    def run(self) -> list[str]:
        """What was not kept."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        home = self.root / "shop"
        disk = KINDS[self.kind](home / "books" if self.where == "books" else home, self.root)
        sandbox = Sandbox(self.root)
        try:
            with standing(disk):
                return self._in(shop.found(home, ",".join(filter(None, (self.plant, "hurry")))), disk, sandbox)
        finally:
            sandbox.process.kill()
            sandbox.process.wait()
            shutil.rmtree(self.root, ignore_errors=True)

    def _in(self, place: Near, disk: Broken, sandbox: Sandbox) -> list[str]:
        programs = [
            self._program(place, "journal", "ingest"),
            self._program(place, "forwarder", "run", "--url", sandbox.url, "--rate", "0"),
        ]
        drops = shop.written(self.seed, FILES if disk.says else FILES // 3, 1)
        third = len(drops) // 3
        try:
            for program in programs:
                program.start()
            shop.put(place, drops[:third])
            wrong = [] if wait_for(lambda: not waiting_files(place.spool), CALM_S) else ["nothing was taken at first"]
            wrong += self._damaged(place, disk, programs, drops[third : 2 * third]) + kept(place, drops[: 2 * third])
            disk.mend(programs)
            shop.put(place, drops[2 * third :])
            by_name = {program.name: program for program in programs}
            if not drained(place, by_name, time.monotonic() + CALM_S):
                wrong.append(f"it did not go on: {waiting_files(place.spool)} wait")
            wrong += self._ended(programs)
            return wrong + judge(place, drops, sandbox.desk("GET", "/state"))
        finally:
            for program in programs:
                if program.process is not None and program.process.poll() is None:
                    program.process.kill()
                    program.process.wait()

    def _program(self, place: Near, name: str, *arguments: str) -> Program:
        """Its log stands on a disk that is well."""
        return Program(name, place.command(name, *arguments), place.env, self.root / f"{name}.log")

    def _damaged(self, place: Near, disk: Broken, programs: list[Program], drops: list[shop.Drop]) -> list[str]:
        """While it is broken. Where it holds the spool too, its files come just before."""
        journal = programs[0]
        assert journal.process is not None
        if self.where == "all":
            os.kill(journal.process.pid, 19)
            shop.put(place, drops)
            disk.damage(programs)
            os.kill(journal.process.pid, 18)
        else:
            disk.damage(programs)
            shop.put(place, drops)

        def noticed() -> bool:
            for program in programs:
                program.look()
            return b"not_now" in journal.log.read_bytes() or any(program.complaints for program in programs)

        if not disk.says:
            quiet = wait_for(lambda: not waiting_files(place.spool), CALM_S)
            return [] if quiet else ["nothing was taken"]
        if not wait_for(noticed, NOTICED_S):
            return ["nobody noticed: the disk was not broken"] if not self.plant else []
        time.sleep(HOLD_S)  # a program that goes round and round while it can't write would show here
        return []

    def _ended(self, programs: list[Program]) -> list[str]:
        """Programs may end while their disk fails, with a sentence; systemd starts them again."""
        for program in programs:
            program.stop()
        self.ends = [words for program in programs for words in program.complaints]
        wrong = [words for words in self.ends if "ended by itself with code 75" not in words]
        return wrong + [f"{p.name} printed a traceback" for p in programs if b"Traceback" in p.log.read_bytes()]


def lacking() -> str | None:
    """Why this can't be done here, or None."""
    if os.geteuid() != 0:
        return "file systems can be mounted by root only"
    if shutil.which("mkfs.ext4") is None:
        return "mkfs.ext4 is not installed"
    return recording.lacking()


def run_all(size: Size) -> Figures:
    """The planted bug, then disk after disk."""
    figures = Figures()
    for plant, (kind, where) in PLANTED.items():
        figures.caught[plant] = bool(Trial(kind, where, size.seed, size.scratch / "disk", plant).run())
    ended = 0
    for number in range(size.points):
        kind, where = ROUND[number % len(ROUND)]
        trial = Trial(kind, where, size.seed + number, size.scratch / "disk")
        figures.found += [f"{kind} ({where}), seed {trial.seed}: {words}" for words in trial.run()]
        figures.points += 1
        ended += len(trial.ends)
    figures.detail = {"programs ended and were started again": ended}
    return figures


MEANS = Means(
    "disk",
    "disk",
    "disks broken and mended under both programs",
    small=len(ROUND),
    full=10 * len(ROUND),
    needs=lacking,
    run=run_all,
)
