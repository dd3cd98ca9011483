"""
A disk with a volatile cache, as a model: what is surely on it, what was written since, and what a power cut may leave.

    data      a write is sure once its file was synced; until then any subset of its 512-byte sectors may be there
    names     (create, rename, link, unlink, mkdir) by one of two models:
      ordered   as ext4 and XFS do it: kept in order, so that a prefix survives; any sync makes all earlier ones sure
      strict    what POSIX promises: only a sync of the directory makes its entries sure; of what happened to the names
                of each file a prefix survives, whatever becomes of other files (no file system tears a rename)
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

SECTOR = 512
Model = Literal["ordered", "strict"]


class Op(NamedTuple):
    """One thing that a program did to a disk, or (`request`: path, method, body) said to Omneo."""

    what: str  # create, write, truncate, sync, lose, rename, link, unlink, mkdir, request
    path: str
    to: str = ""
    offset: int = 0
    data: bytes = b""


Change = tuple[int, bytes | None]  # at an offset these bytes; or: cut off there
Name = tuple[str, str, int]  # set or gone, path, which file (0: none, -1: a directory)


@dataclass
class State:
    """What a power cut has left."""

    names: dict[str, int]  # path → file
    files: dict[int, bytes]
    directories: frozenset[str]

    def key(self) -> int:
        """Equal for equal disks."""
        there = self.names.items()
        return hash((frozenset((path, self.files[number]) for path, number in there), self.directories))

    def contents(self) -> dict[str, bytes]:
        """Path → bytes."""
        return {path: self.files[number] for path, number in self.names.items()}


@dataclass
class Disk:
    """What is sure, and what is pending; give it each operation in turn."""

    model: Model
    sure: dict[int, bytes] = field(default_factory=dict)
    pending: dict[int, list[Change]] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)  # as the running program sees them
    sure_names: dict[str, int] = field(default_factory=dict)
    renames: list[list[Name]] = field(default_factory=list)  # pending, each of one operation
    count: int = 0

    @classmethod
    def of(cls, root: Path, model: Model) -> "Disk":
        """A directory as it stands, all of it sure."""
        disk = cls(model)
        for path in (root, *root.rglob("*")):
            if path.is_dir():
                disk.sure_names[str(path)] = -1
            else:
                disk.count += 1
                disk.sure_names[str(path)], disk.sure[disk.count] = disk.count, path.read_bytes()
        disk.names = dict(disk.sure_names)
        return disk

    def take(self, op: Op) -> None:
        """The program goes on by one operation."""
        act: Callable[[Op], None] | None = getattr(self, f"_{op.what}", None)
        if act is not None:
            act(op)

    def _create(self, op: Op) -> None:
        if op.path not in self.names:
            self.count += 1
            self.names[op.path], self.sure[self.count] = self.count, b""
            self.renames.append([("set", op.path, self.count)])

    def _write(self, op: Op) -> None:
        if (number := self._file(op.path)) > 0:
            self.pending.setdefault(number, []).append((op.offset, op.data))

    def _truncate(self, op: Op) -> None:
        if (number := self._file(op.path)) > 0:
            self.pending.setdefault(number, []).append((op.offset, None))

    def _file(self, path: str) -> int:
        """One that was unlinked while it was open is nobody's concern any more."""
        return self.names.get(path, 0)

    def _sync(self, op: Op) -> None:
        number = self._file(op.path)
        if number > 0 and number in self.pending:
            self.sure[number] = applied(self.sure[number], self.pending.pop(number))
        if self.model == "ordered":
            self._settle(lambda _: True)
        elif number == -1:
            self._settle(lambda name: above(name[1]) == op.path)

    def _lose(self, op: Op) -> None:
        """A sync failed: what it was to write counts as written from now on, and never will be (fsyncgate)."""
        self.pending.pop(self._file(op.path), None)

    def _settle(self, which: Callable[[Name], bool]) -> None:
        """Some of what is pending is sure now, and with it what happened to the same files' names before."""
        settled: set[int] = set()
        left: list[list[Name]] = []
        sure: list[list[Name]] = []
        for changes in reversed(self.renames):
            number = changes[0][2]
            if any(map(which, changes)) or (number in settled and number > 0):
                settled.add(number)
                sure.append(changes)
            else:
                left.append(changes)
        for changes in reversed(sure):
            _rename(self.sure_names, changes)
        self.renames = left[::-1]

    def _rename(self, op: Op) -> None:
        number = self.names.pop(op.path, 0)
        self.names[op.to] = number
        self.renames.append([("gone", op.path, number), ("set", op.to, number)])

    def _link(self, op: Op) -> None:
        self.names[op.to] = self.names[op.path]
        self.renames.append([("set", op.to, self.names[op.path])])

    def _unlink(self, op: Op) -> None:
        number = self.names.pop(op.path, 0)
        self.renames.append([("gone", op.path, number)])

    def _mkdir(self, op: Op) -> None:
        self.names[op.path] = -1
        self.renames.append([("set", op.path, -1)])

    # -- the power goes ---------------------------------------------------------------------------------------------

    def cut(self, dice: random.Random) -> State:
        """One of the states that the disk may be in now."""
        names = dict(self.sure_names)
        how = dice.random()
        most = len(self.renames)
        kept = most if how < 0.15 else 0 if how < 0.3 else dice.randint(0, most)
        lost: set[int] = set()
        for at, changes in enumerate(self.renames):
            number = changes[0][2]
            if number in lost or not ((at < kept) if self.model == "ordered" or how < 0.3 else dice.random() < 0.5):
                if number > 0:
                    lost.add(number)
            else:
                _rename(names, changes)
        there = _there(names)
        files = {
            number: _surviving(self.sure[number], self.pending[number], dice)
            if number in self.pending
            else self.sure[number]
            for number in set(there.values())
            if number > 0
        }
        directories = frozenset(path for path, number in there.items() if number == -1)
        return State({path: number for path, number in there.items() if number > 0}, files, directories)


def _rename(names: dict[str, int], changes: list[Name]) -> None:
    """Names change. One that was lost earlier can't be moved on; an unlink of it does nothing."""
    for what, path, number in changes:
        if what == "set":
            names[path] = number
        elif names.get(path) == number:
            del names[path]


def above(path: str) -> str:
    """The directory that a path is in. (Millions of times: no Path is made for it.)"""
    return path.rpartition("/")[0]


def _there(names: dict[str, int]) -> dict[str, int]:
    """What can be reached: a directory that was lost takes along what was in it."""
    there: dict[str, int] = {}
    for path in sorted(names):
        if not there or above(path) in there:
            there[path] = names[path]
    return there


def applied(before: bytes, changes: list[Change]) -> bytes:
    """A file after these changes."""
    content = bytearray(before)
    for offset, data in changes:
        if data is None:
            del content[offset:]
            content.extend(bytes(offset - len(content)))
        else:
            if len(content) < offset:
                content.extend(bytes(offset - len(content)))
            content[offset : offset + len(data)] = data
    return bytes(content)


def _surviving(before: bytes, changes: list[Change], dice: random.Random) -> bytes:
    """All, none, the first few, some writes, or some sectors of them."""
    how = dice.randrange(5)
    if how == 0:
        return before
    if how == 1:
        return applied(before, changes)
    if how == 2:
        return applied(before, changes[: dice.randint(0, len(changes))])
    if how == 3:
        return applied(before, [change for change in changes if dice.random() < 0.5])
    return applied(before, [piece for change in changes for piece in _torn(change, dice)])


def _torn(change: Change, dice: random.Random) -> list[Change]:
    """Which sectors of a write are there: the first or the last so many, every other one, or any."""
    offset, data = change
    if data is None:
        return [change] if dice.random() < 0.5 else []
    pieces: list[Change] = []
    begin = 0
    count = len(data) // SECTOR + 2
    whole = (1 << count) - 1
    half = whole >> count // 2
    alternate = whole // 3
    coins = dice.choice(
        (0, whole, half, whole ^ half, alternate, whole ^ alternate, whole - 1, dice.getrandbits(count))
    )
    while begin < len(data):
        end = min(len(data), begin + SECTOR - (offset + begin) % SECTOR)
        if coins & 1:
            pieces.append((offset + begin, data[begin:end]))
        coins >>= 1
        begin = end
    return pieces
