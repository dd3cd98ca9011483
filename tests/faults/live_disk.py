"""
A file system whose cache is volatile: a program of its own, for Debian's Python with python3-fusepy.

    live_disk.py MOUNTPOINT BACKING      in the foreground; what programs see lies in BACKING

What is sure and what is pending is `volatile`'s model. Writing `cut SEED` to MOUNTPOINT/.power takes the power away:
what is there afterwards is one of the states that the model allows. Nobody may have a file open then.
"""

# It has the methods that FUSE calls, each of them one call of the system.
# ruff: noqa: ARG002, PTH101, PTH102, PTH103, PTH104, PTH106, PTH108, PTH112, PTH208
import os
import random
import shutil
import stat
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from fusepy import FUSE, FuseOSError, Operations

from tests.faults.volatile import Disk, Model, Op

POWER = "/.power"
SYNC_S = 0.008  # as on a cheap card: most of a program's time is spent in the middle of a commit
MODELS: tuple[Model, ...] = ("ordered", "strict")


class LiveDisk(Operations):
    """Passes everything on to a directory, and tells the models."""

    def __init__(self, backing: str) -> None:
        self.backing = backing
        self.disks = {model: Disk.of(Path(backing), model) for model in MODELS}
        self.open_files: dict[int, str] = {}
        self.times: dict[int, int] = {}  # file → when it was changed

    def __call__(self, op: str, path: str, *arguments: Any) -> Any:
        """Errors of the directory are ours."""
        try:
            return super().__call__(op, path, *arguments)
        except OSError as error:
            raise FuseOSError(error.errno) from None

    def at(self, path: str) -> str:
        """Where it lies."""
        return self.backing + path.rstrip("/")

    def tell(self, what: str, path: str, to: str = "", offset: int = 0, data: bytes = b"") -> None:
        """Something happened."""
        for disk in self.disks.values():
            disk.take(Op(what, self.at(path), self.at(to) if to else "", offset, data))

    def remember(self, path: str) -> None:
        """A file's time, under its number: a cut may bring it back under another name."""
        number = self.disks["strict"].names.get(self.at(path), 0)
        if number > 0:
            self.times[number] = os.lstat(self.at(path)).st_mtime_ns

    # -- looking ----------------------------------------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        if path == POWER:
            return {"st_mode": stat.S_IFREG | 0o600, "st_size": 0, "st_nlink": 1}
        seen = os.fstat(fh) if fh in self.open_files and fh is not None else os.lstat(self.at(path))
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino", "st_blocks")
        times = {f"st_{name}": getattr(seen, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}
        return {name: getattr(seen, name) for name in names} | times

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self.at(path))]

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self.at(path))
        return {
            name: getattr(found, name)
            for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_namemax")
        }

    def access(self, path: str, mode: int) -> int:
        return 0

    # -- files ------------------------------------------------------------------------------------------------------

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        handle = os.open(self.at(path), os.O_RDWR | os.O_CREAT, mode)
        self.open_files[handle] = path
        self.tell("create", path)
        return handle

    def open(self, path: str, flags: int) -> int:
        if path == POWER:
            return 0
        handle = os.open(self.at(path), flags & ~(os.O_APPEND | os.O_TRUNC | os.O_NOFOLLOW))
        self.open_files[handle] = path
        if flags & os.O_TRUNC:
            self.truncate(path, 0)
        return handle

    def release(self, path: str, fh: int) -> None:
        if self.open_files.pop(fh, None) is not None:
            os.close(fh)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return b"" if path == POWER else os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        if path == POWER:
            self.cut(int(data.split()[1]))
            return len(data)
        done = os.pwrite(fh, data, offset)
        self.tell("write", path, offset=offset, data=bytes(data[:done]))
        return done

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        if path != POWER:
            os.truncate(self.at(path), length)
            self.tell("truncate", path, offset=length)

    def flush(self, path: str, fh: int) -> int:
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        time.sleep(SYNC_S)
        self.tell("sync", path)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        time.sleep(SYNC_S)
        self.tell("sync", path)
        return 0

    # -- names ------------------------------------------------------------------------------------------------------

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self.at(path), mode)
        self.tell("mkdir", path)

    def rmdir(self, path: str) -> None:
        os.rmdir(self.at(path))
        self.tell("unlink", path)

    def unlink(self, path: str) -> None:
        self.remember(path)
        os.unlink(self.at(path))
        self.tell("unlink", path)

    def rename(self, old: str, new: str) -> None:
        self.remember(old)
        os.rename(self.at(old), self.at(new))
        self.tell("rename", old, new)

    def link(self, target: str, source: str) -> None:
        os.link(self.at(source), self.at(target))
        self.tell("link", source, target)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self.at(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(self.at(path), uid, gid)

    def utimens(self, path: str, times: Any = None) -> None:
        if times is not None:
            os.utime(self.at(path), ns=(int(times[0]), int(times[1])))

    # -- the power goes ---------------------------------------------------------------------------------------------

    def cut(self, seed: int) -> None:
        """One of the states that may be left takes the place of everything."""
        dice = random.Random(seed)
        strict = self.disks["strict"]
        for path, number in strict.names.items():
            if number > 0 and os.path.lexists(path):
                self.times[number] = os.lstat(path).st_mtime_ns
        chosen = self.disks[dice.choice(MODELS)]
        print(len(chosen.pending) + len(chosen.renames), file=sys.stderr, flush=True)  # what may be lost
        state = chosen.cut(dice)
        for name in os.listdir(self.backing):
            path = f"{self.backing}/{name}"
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        for path in sorted(state.directories):
            os.makedirs(path, exist_ok=True)
        for path, number in state.names.items():
            Path(path).write_bytes(state.files[number])
            if number in self.times:
                os.utime(path, ns=(self.times[number], self.times[number]))
        self.disks = {model: Disk.of(Path(self.backing), model) for model in MODELS}
        self.times.clear()


if __name__ == "__main__":
    options = {"attr_timeout": 0, "entry_timeout": 0, "use_ino": True, "hard_remove": True}
    LiveDisk.use_ns = True
    FUSE(LiveDisk(sys.argv[2]), sys.argv[1], foreground=True, nothreads=True, allow_other=True, **options)
