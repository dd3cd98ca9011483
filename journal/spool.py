"""
The spool: the directory the POS drops into. A file is theirs until the log has it; then it goes.

Nothing here trusts the directory to stand still: a file is read through one descriptor, and is only removed after it
was moved to a private name and recognised as the very file that was read.
"""

import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from journal import rejected
from journal.files import TAKEN, Contents, File, as_file
from journal.leaving import Leaving, private_name
from journal.measure import Measure
from journal.rejected import REJECTED, printable
from journal.scan import scan

QUIET_S = 2.0  # a file that is not whole JSON is judged when it stood still for so long (contract, section 2)
MOST = 8192  # files of one scan that are remembered: a spool of N files is scanned N / MOST times …
BATCH_FILES = 256  # files in one commit at the most …
BATCH_BYTES = 4 * 1024 * 1024  # … and bytes, which bounds our memory too


class Spool:
    """The watched directory. Remembers only what was already said, and which files must be looked at again."""

    def __init__(
        self,
        root: Path,
        max_bytes: int,
        say: Callable[[str, str], None],
        stop: threading.Event | None = None,
        wake: threading.Event | None = None,
    ) -> None:
        """
        `say(path, why)` hears once of everything that is not taken, or can't be. `stop` ends a long sweep early; `wake`
        is set when something new has come.
        """
        self.root = root
        self._prefix = str(root)
        self.directories = [root]  # what the last scan looked into
        self.left = 0  # files that the last sweep left, so far
        self.more = False  # did the last scan leave some out, because they are so many?
        self.swept_at: float | None = None  # when one last came to its end, by the wall clock
        self.max_bytes = max_bytes
        self._say = say
        self._stop = stop or threading.Event()
        self._told: set[tuple[str, str]] = set()
        self.measure = Measure()
        self._restless: dict[str, tuple[File, float]] = {}  # path → as last seen, since when (monotonic)
        self._leaving = Leaving(wake or threading.Event())

    # -- what waits -------------------------------------------------------------------------------------------------

    def ready(self) -> list[File]:
        """
        Scan the whole directory: the regular files that wait, oldest first (modification time, then path).

        The oldest MOST of them, which bounds memory; `more` says whether there are others. Those whose time has not
        come yet stand last, so that no number of them keeps others from being seen.
        """
        now, left, bound = time.monotonic(), 0, sys.maxsize
        found: list[tuple[int, bytes, File]] = []
        early: list[File] = []
        watched = {}
        self.directories = []
        for path, seen in scan(self.root, "", self._leaving, self.tell, self.directories):
            left += 1
            if path in self._restless:
                watched[path] = self._restless[path]
                if self._too_early(file := as_file(path, seen), now):
                    early.append(file)
                    continue
            if seen.st_mtime_ns > bound:  # nearly all of a hundred thousand: for them no more is done than a stat
                continue
            file = as_file(path, seen)
            found.append((file.mtime_ns, os.fsencode(file.name), file))
            if len(found) >= 2 * MOST:
                found.sort()
                del found[MOST:]
                bound = found[-1][0]
        found.sort()
        self.left, self.more, self._restless = left, left - len(early) > MOST, watched
        oldest = [*(file for _, _, file in found[:MOST]), *early][:MOST]
        self.measure.sweep(set(oldest) if self.measure.going else set())
        return oldest

    def tell(self, path: str, why: str) -> None:
        """Say something about a file, once."""
        if (path, why) not in self._told:
            self._told.add((path, why))
            self._say(printable(path), why)

    # -- reading ----------------------------------------------------------------------------------------------------

    def batches(self, files: Iterable[File], now: float) -> Iterator[list[Contents]]:
        """Read the files, many at a time: as large a batch as one commit should hold. Vanished ones are left out."""
        batch: list[Contents] = []
        size = 0
        for file in files:
            if self._stop.is_set():
                break
            if self._too_early(file, now):
                continue
            try:
                contents = self._read(file)
            except OSError as error:  # whatever the system says, the file stays: only its content can condemn it
                self._later(file, f"can't be read: {error.strerror}")
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
            handle = os.open(self._at(file.path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            seen = os.fstat(handle)
            if not stat.S_ISREG(seen.st_mode):
                return None
            file = as_file(file.path, seen)
            if seen.st_size > self.max_bytes:
                return self._measure(file, handle)
            # Not with room for as much as there may be, which would cost more than to read.
            body = os.read(handle, seen.st_size + 1)
            while len(body) < seen.st_size and (chunk := os.read(handle, seen.st_size + 1 - len(body))):
                body += chunk
            if len(body) > seen.st_size:  # it grew while we read
                self.stands_still(file, time.monotonic())
                return None
            return Contents(file, body)
        finally:
            os.close(handle)

    def _measure(self, file: File, handle: int) -> Contents | None:
        """A file over the limit is only hashed, once it stands still, and a piece at a time."""
        if not self.stands_still(file, time.monotonic()) or (digest := self.measure.more(file, handle)) is None:
            return None
        if (grown := as_file(file.path, os.fstat(handle))) != file:
            self.stands_still(grown, time.monotonic())
            return None
        return Contents(file, None, digest)

    # -- waiting ----------------------------------------------------------------------------------------------------

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

    def _later(self, file: File, why: str) -> None:
        """A file can't be dealt with now: say so once, and try again in a while."""
        self.tell(file.path, why)
        self._restless[file.path] = (file, time.monotonic())

    def next_due(self, now: float) -> float | None:
        """Seconds until the first file that was left has its turn again; None if none was left."""
        return min((max(0.0, since + QUIET_S - now) for _, since in self._restless.values()), default=None)

    # -- letting go -------------------------------------------------------------------------------------------------

    def retire(self, file: File) -> bool:
        """
        Take a file that the log has away from its name. False: it is still there, or another one stands in its place.

        It is gone for whoever dropped it; `let_go` unlinks it.
        """
        try:
            private = self._take(file)
        except OSError as error:  # it is in the log; when it is seen again it is a repeat
            self._later(file, f"is in the journal but can't be removed: {error.strerror}")
            return False
        if private is None:
            return False
        self._restless.pop(file.path, None)
        self._leaving.add(private, file)
        return True

    def let_go(
        self, beat: Callable[[], object] = lambda: None, until: Callable[[Leaving], bool] = Leaving.disturbed
    ) -> None:
        """Unlink what was retired, until something new comes, or so far. `beat` is called after each."""
        self._leaving.go(self._prefix, self._is, self._stays, beat, until)

    def _stays(self, file: File, error: OSError) -> None:
        self.tell(file.path, f"is in the journal but can't be removed: {error.strerror}")

    def reject(self, file: File, error: dict[str, Any]) -> bool:
        """
        Move a file to rejected/ beside NAME.json.error.json (contract, section 8).

        The words are written first: whoever finds the file finds them too. If rejected/ can't be written, the file
        stays where it is, and False comes back.
        """
        try:
            target, words = rejected.write_words(self.root, file.name, error)
            private = self._take(file)
            if private is None:
                words.unlink()
            else:
                self._set_aside(file, self._at(private), target, words)
        except OSError as problem:
            self._later(file, f"should be in {REJECTED}/, which can't be written: {problem.strerror}")
            return False
        return private is not None

    def was_rejected(self, file: File) -> bool:
        """Does a file of this name stand in rejected/?"""
        return os.path.lexists(self.root / REJECTED / file.name)

    def _set_aside(self, file: File, private: str, target: Path, words: Path) -> None:
        try:
            os.rename(private, target)  # noqa: PTH104
            self._restless.pop(file.path, None)
        except OSError:  # rejected/ on another disk, say: the file gets its own name back, if that is still free
            words.unlink()
            with suppress(OSError):
                os.link(private, self._at(file.name), follow_symlinks=False)
                os.unlink(private)  # noqa: PTH108
            raise

    def _take(self, file: File) -> str | None:
        """
        Move a file to a private name and look whether it is the one that was read. None: it isn't, or it has gone.

        A rename in between can't be lost: what we moved away unread keeps its private name, which the next scan
        finds like any other file that waits.
        """
        directory, name = os.path.split(file.path)
        private = file.path
        if not TAKEN.match(name):
            private = private_name(self._prefix, file.inode, directory, name)
            try:
                os.rename(self._at(file.path), self._at(private))  # noqa: PTH104
            except FileNotFoundError:
                return None
        return private if self._is(private, file) else None

    def _is(self, private: str, file: File) -> bool:
        """Does what was read stand there, unchanged? Anything else is looked at at once."""
        with suppress(FileNotFoundError):
            if as_file(file.path, os.lstat(self._at(private))) == file:
                return True
            self._restless[private] = (file, time.monotonic() - QUIET_S)
        return False

    def _at(self, path: str) -> str:
        return f"{self._prefix}/{path}"
