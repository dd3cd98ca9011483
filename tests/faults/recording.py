"""
What a program did to the files below one directory, and what it sent to Omneo, in order: one run under strace.

Data, names, lengths and syncs come out as operations of `tests.faults.volatile`, which says what a power cut may leave
of them. Nothing of the program is changed for it.
"""

import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.volatile import Op

CALLS = (
    "openat,close,read,write,pwrite64,lseek,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir,sendto"
)
LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+|\?)(.*)$")
STRINGS = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
HANDLE = re.compile(r"(-?\d+|AT_FDCWD)(?:<([^>]*)>)?")


def lacking() -> str | None:
    """Why this can't be done here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "strace may not trace processes here"


OPTIONS = ("-y", "-xx", "-s", "100000000", "-e", f"trace={CALLS}")


def record(command: Sequence[str], env: dict[str, str], root: Path, trace: Path) -> tuple[int, list[Op]]:
    """Run a program to its end. Its exit code, and what it did below `root`."""
    tracing = ["strace", "-f", "--seccomp-bpf", *OPTIONS, "-o", str(trace)]
    done = subprocess.run([*tracing, *command], env=env, capture_output=True, timeout=120, check=False)
    return done.returncode, understood(trace, root)


def understood(trace: Path, root: Path) -> list[Op]:
    """What a trace tells of a directory."""
    with trace.open(encoding="ascii", errors="replace") as lines:
        reading = _Reading(str(root))
        for line in _whole(lines):
            reading.take(line)
    return reading.ops


def _whole(lines: "Sequence[str]") -> "list[str]":
    """Calls that another thread interrupted stand on two lines."""
    begun: dict[str, str] = {}
    whole = []
    for line in lines:
        thread, _, rest = line.rstrip("\n").partition(" ")
        rest = rest.lstrip()
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest.removesuffix("<unfinished ...>").rstrip()
        elif rest.startswith("<... "):
            whole.append(begun.pop(thread, "") + rest.partition("resumed>")[2])
        else:
            whole.append(rest)
    return whole


@dataclass
class _Reading:
    """Understands the calls of one process, whose descriptors it follows."""

    root: str
    ops: list[Op] = field(default_factory=list)
    paths: dict[int, str] = field(default_factory=dict)  # descriptor → path when it was opened
    at: dict[int, int] = field(default_factory=dict)  # … and where it stands
    sent: dict[int, bytes] = field(default_factory=dict)  # of a connection: what of a request has left

    def take(self, line: str) -> None:
        found = LINE.match(line)
        if found is not None and found[1] in {"fsync", "fdatasync"} and found[3] in {"-1", "?"}:
            self._unsynced(found[2])
        if found is None or found[3].startswith(("-", "?")):
            return
        act = getattr(self, f"_{_PLAIN.get(found[1], found[1])}", None)
        if act is not None:
            act(found[2], int(found[3]), found[4])

    def _openat(self, words: str, handle: int, _: str) -> None:
        path = self._path(words, 0)
        self.paths.pop(handle, None)
        if not path.startswith(self.root):
            return
        self.paths[handle], self.at[handle] = path, 0
        if "O_CREAT" in words:
            self.ops.append(Op("create", path))
        if "O_TRUNC" in words:
            self.ops.append(Op("truncate", path, offset=0))

    def _close(self, words: str, *_: object) -> None:
        handle = _number(words)
        self.paths.pop(handle, None)
        self.sent.pop(handle, None)

    def _read(self, words: str, count: int, _: str) -> None:
        if (handle := _number(words)) in self.paths:
            self.at[handle] += count

    def _lseek(self, words: str, place: int, _: str) -> None:
        if (handle := _number(words)) in self.paths:
            self.at[handle] = place

    def _write(self, words: str, count: int, _: str) -> None:
        handle = _number(words)
        if handle in self.paths:
            self.ops.append(Op("write", self.paths[handle], offset=self.at[handle], data=_data(words)[:count]))
            self.at[handle] += count

    def _pwrite64(self, words: str, count: int, _: str) -> None:
        handle = _number(words)
        if handle in self.paths:
            place = int(words.rpartition(",")[2])
            self.ops.append(Op("write", self.paths[handle], offset=place, data=_data(words)[:count]))

    def _ftruncate(self, words: str, *_: object) -> None:
        if (handle := _number(words)) in self.paths:
            self.ops.append(Op("truncate", self.paths[handle], offset=int(words.rpartition(",")[2])))

    def _fsync(self, words: str, *_: object) -> None:
        if (handle := _number(words)) in self.paths:
            self.ops.append(Op("sync", self.paths[handle]))

    def _unsynced(self, words: str) -> None:
        if (handle := _number(words)) in self.paths:
            self.ops.append(Op("lose", self.paths[handle]))

    def _rename(self, words: str, *_: object) -> None:
        self._two("rename", words)

    def _link(self, words: str, *_: object) -> None:
        self._two("link", words)

    def _two(self, what: str, words: str) -> None:
        before, after = self._path(words, 0), self._path(words, 1)
        if before.startswith(self.root):
            self.ops.append(Op(what, before, to=after))
            for handle, path in self.paths.items():
                if what == "rename" and path == before:
                    self.paths[handle] = after

    def _unlink(self, words: str, *_: object) -> None:
        if (path := self._path(words, 0)).startswith(self.root):
            self.ops.append(Op("unlink", path))

    def _mkdir(self, words: str, *_: object) -> None:
        if (path := self._path(words, 0)).startswith(self.root):
            self.ops.append(Op("mkdir", path))

    def _sendto(self, words: str, count: int, _: str) -> None:
        handle = _number(words)
        raw = self.sent.get(handle, b"") + _data(words)[:count]
        head, end, body = raw.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        self.sent[handle] = raw
        if end and len(body) >= int(length[1] if length else 0):
            method, target, _version = head.split(b"\r\n", 1)[0].split(b" ")
            self.ops.append(Op("request", target.decode(), to=method.decode(), data=body))
            self.sent[handle] = b""

    def _path(self, words: str, number: int) -> str:
        """The path that a call names, by itself or below a directory that it holds open."""
        name = _unhex(STRINGS.findall(words)[number]).decode("utf-8", "surrogateescape")
        if name.startswith("/"):
            return name
        handles = [_unhex(path).decode("utf-8", "surrogateescape") for _, path in HANDLE.findall(words) if path]
        return f"{handles[min(number, len(handles) - 1)]}/{name}" if handles else name


_PLAIN = {
    "renameat": "rename",
    "renameat2": "rename",
    "linkat": "link",
    "unlinkat": "unlink",
    "mkdirat": "mkdir",
    "fdatasync": "fsync",
}


def _number(words: str) -> int:
    found = HANDLE.match(words)
    return int(found[1]) if found is not None and found[1] != "AT_FDCWD" else -1


def _data(words: str) -> bytes:
    return _unhex(STRINGS.findall(words)[0])


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def route(target: str) -> str:
    """A request's target as an application gets it: the path decoded, the query not."""
    path, mark, query = target.partition("?")
    return urllib.parse.unquote(path) + mark + query
