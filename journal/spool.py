"""
The spool: the directory the POS drops into. A file is theirs until the log has it; then it goes.

Nothing here trusts the directory to stand still: a file is read through one descriptor, and is only removed after it
was moved to a private name and recognised as the very file that was read.
"""

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

QUIET_S = 2.0  # a file that is not whole JSON is judged when it stood still for so long (contract, section 2)
BATCH_FILES = 1024  # files in one commit at the most …
BATCH_BYTES = 16 * 1024 * 1024  # … and bytes, which bounds our memory too
NAME_MAX = 255  # bytes of a file name on every file system we know
REJECTED = "rejected"
TAKEN = re.compile(r"^\.taken-\d+-(.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class File:
    """A regular file that waits, and what it looked like when it was seen."""

    path: str  # below the spool: NAME.json or DIR/NAME.json
    device: int
    inode: int
    size: int
    mtime_ns: int

    @property
    def name(self) -> str:
        """Its path as the POS gave it: one that we had begun to take when the power went has got a private name."""
        directory, name = os.path.split(self.path)
        taken = TAKEN.match(name)
        return os.path.join(directory, taken[1]) if taken else self.path


@dataclass(frozen=True, slots=True)
class Contents:
    """What was read of a file: its bytes, or of one over the limit only its size and SHA-256."""

    file: File
    body: bytes | None
    sha256: str | None = None


class Spool:
    """The watched directory. Remembers only what was already said, and which files don't stand still yet."""

    def __init__(self, root: Path, max_bytes: int, say: Callable[[str, str], None]) -> None:
        """`say(path, why)` hears once of everything that is not taken, or can't be."""
        self.root = root
        self.max_bytes = max_bytes
        self._say = say
        self._told: set[tuple[str, str]] = set()
        self._restless: dict[str, tuple[File, float]] = {}  # path → as last seen, since when (monotonic)

    def ready(self) -> list[File]:
        """Scan the whole directory: the regular files that wait, oldest first (modification time, then path)."""
        found: list[File] = []
        self._scan("", found)
        found.sort(key=lambda file: (file.mtime_ns, file.name))
        still_there = {file.path for file in found}
        self._restless = {path: seen for path, seen in self._restless.items() if path in still_there}
        return found

    def tell(self, path: str, why: str) -> None:
        """Say something about a file, once."""
        if (path, why) not in self._told:
            self._told.add((path, why))
            self._say(printable(path), why)

    def _scan(self, directory: str, found: list[File]) -> None:
        with os.scandir(self.root / directory) as entries:
            for entry in entries:
                path = os.path.join(directory, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    if entry.name.startswith(".") or path == REJECTED:
                        continue
                    if directory:
                        self.tell(path, "a directory below a directory: only one level is looked into")
                    else:
                        self._scan(path, found)
                    continue
                if not entry.name.endswith(".json") or (entry.name.startswith(".") and not TAKEN.match(entry.name)):
                    continue
                try:
                    seen = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(seen.st_mode):
                    found.append(_as_file(path, seen))
                else:
                    self.tell(path, "not a regular file (a link, device, pipe or socket is never followed)")

    def batches(self, files: Iterable[File], now: float) -> Iterator[list[Contents]]:
        """Read the files, many at a time: as large a batch as one commit should hold. Vanished ones are left out."""
        batch: list[Contents] = []
        size = 0
        for file in files:
            if self._too_early(file, now):
                continue
            try:
                contents = self._read(file)
            except OSError as error:  # whatever the system says, the file stays: only its content can condemn it
                self.tell(file.path, f"can't be read: {error.strerror}")
                continue
            if contents is None:
                continue
            batch.append(contents)
            size += len(contents.body or b"")
            if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _read(self, file: File) -> Contents | None:
        """Read through one descriptor, so that nothing can be swapped in between the check and the read."""
        try:
            handle = os.open(self.root / file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            seen = os.fstat(handle)
            if not stat.S_ISREG(seen.st_mode):
                return None
            file = _as_file(file.path, seen)
            if seen.st_size > self.max_bytes:
                return Contents(file, None, _hash(handle))
            body = b""
            while chunk := os.read(handle, self.max_bytes + 1 - len(body)):
                body += chunk
            if len(body) > self.max_bytes:  # it grew while we read: seen again at the next sweep
                return None
            return Contents(file, body)
        finally:
            os.close(handle)

    def stands_still(self, file: File, now: float) -> bool:
        """
        Has this file not changed for QUIET_S while we watched? Only our own clock counts, never the file's.

        The first question about a file starts the watch.
        """
        seen, since = self._restless.get(file.path, (None, now))
        if seen != file:
            self._restless[file.path] = (file, now)
            return False
        return now - since >= QUIET_S

    def _too_early(self, file: File, now: float) -> bool:
        seen, since = self._restless.get(file.path, (None, now))
        return seen == file and now - since < QUIET_S

    def next_due(self, now: float) -> float | None:
        """Seconds until the first restless file may be judged; None if there is none."""
        return min((max(0.0, since + QUIET_S - now) for _, since in self._restless.values()), default=None)

    def retire(self, file: File) -> None:
        """Remove a file that the log has. One that was replaced meanwhile stays, to be taken next."""
        try:
            if (private := self._take(file)) is not None:
                private.unlink()
        except OSError as error:  # it is in the log; when it is seen again it is a repeat
            self.tell(file.path, f"is in the journal but can't be removed: {error.strerror}")

    def reject(self, file: File, error: dict[str, Any]) -> None:
        """
        Move a file to rejected/ beside NAME.json.error.json (contract, section 8).

        The words are written first: whoever finds the file finds them too. If rejected/ can't be written, the file
        stays where it is.
        """
        try:
            self._reject(file, error)
        except OSError as problem:
            self.tell(file.path, f"should be in {REJECTED}/, which can't be written: {problem.strerror}")

    def _reject(self, file: File, error: dict[str, Any]) -> None:
        directory, name = os.path.split(file.name)
        target = self.root / REJECTED / directory
        target.mkdir(parents=True, exist_ok=True, mode=0o750)
        name = _free_name(target, name)
        words = target / (name + ".error.json")
        draft = target / f".{sha256(os.fsencode(name)).hexdigest()[:16]}.tmp"
        with draft.open("w", encoding="utf-8", errors="backslashreplace") as out:
            json.dump({"file": printable(name), **error}, out, ensure_ascii=False, indent=2)
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        draft.replace(words)
        private = self._take(file)
        if private is None:
            words.unlink()
        else:
            private.rename(target / name)

    def _take(self, file: File) -> Path | None:
        """
        Move a file to a private name and look whether it is the one that was read. None: it isn't, or it has gone.

        A rename in between can't be lost: what we moved away unread keeps its private name, which the next scan
        finds like any other file that waits.
        """
        directory, name = os.path.split(file.path)
        if TAKEN.match(name):
            private = self.root / file.path
        else:
            private = self.root / directory / _shortened(f".taken-{file.inode}-", name)
            if private.exists():  # left by a power cut, not yet taken: never overwrite it
                private = self.root / directory / _shortened(f".taken-{file.inode}{file.mtime_ns}-", name)
            try:
                (self.root / file.path).rename(private)
            except FileNotFoundError:
                return None
        with contextlib.suppress(FileNotFoundError):
            if _as_file(file.path, os.lstat(private)) == file:
                return private
        return None


def _as_file(path: str, seen: os.stat_result) -> File:
    return File(path, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)


def _hash(handle: int) -> str:
    digest = sha256()
    while chunk := os.read(handle, 1024 * 1024):
        digest.update(chunk)
    return digest.hexdigest()


def _free_name(directory: Path, name: str) -> str:
    """NAME.json, or NAME-2.json, NAME-3.json …: never over one that is there. Room is left for `.error.json`."""
    stem = name.removesuffix(".json")
    number = 1
    while True:
        tail = ".json" if number == 1 else f"-{number}.json"
        candidate = _cut(stem, NAME_MAX - len(tail) - len(".error.json")) + tail
        if not os.path.lexists(directory / candidate):
            return candidate
        number += 1


def _shortened(prefix: str, name: str) -> str:
    return prefix + _cut(name.removesuffix(".json"), NAME_MAX - len(prefix) - len(".json")) + ".json"


def _cut(name: str, length: int) -> str:
    """At most so many bytes of a name, never half a character."""
    raw = os.fsencode(name)
    return name if len(raw) <= length else raw[:length].decode("utf-8", "ignore")


def printable(name: str) -> str:
    """A file name as text, whatever bytes it is made of."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
