"""
Files that the log has, under their private names, until there is time to unlink them.

On a disk that discards what is freed (`mount -o discard`), the next commit waits for that: in a burst it took longer
than all the rest. After a crash these files are found like any that waits, and are repeats.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

from journal.files import File, below
from journal.rejected import NAME_MAX, cut

MOST = 10_000  # files: this bounds our memory, and what is looked at again after a crash
MOST_BYTES = 64 * 1024 * 1024  # on a disk that may be small


class Leaving:
    """What has only to be unlinked: private path below the spool → what was recognised there."""

    def __init__(self, wake: threading.Event) -> None:
        """`wake` is set when something new has come, which goes first."""
        self._wake = wake
        self._files: OrderedDict[str, File] = OrderedDict()
        self._bytes = 0

    def __contains__(self, private: object) -> bool:
        return private in self._files

    def add(self, private: str, file: File) -> None:
        """It was recognised under its private name."""
        self._files[private] = file
        self._bytes += file.size

    def fits(self) -> bool:
        """Are there no more than may wait?"""
        return len(self._files) < MOST and self._bytes < MOST_BYTES

    def disturbed(self) -> bool:
        """Has something new come?"""
        return self._wake.is_set()

    def empty(self) -> bool:
        """Is there nothing left?"""
        return not self._files

    def go(
        self,
        root: str,
        is_it: Callable[[str, File], bool],
        failed: Callable[[File, OSError], object],
        beat: Callable[[], object],
        until: "Callable[[Leaving], bool]",
    ) -> None:
        """Unlink them, if they are still what was recognised. What can't be unlinked is tried again the next time."""
        for _ in range(len(self._files)):
            if until(self):
                return
            private, file = self._files.popitem(last=False)
            self._bytes -= file.size
            try:
                if is_it(private, file):
                    os.unlink(f"{root}/{private}")  # noqa: PTH108 - Path objects cost more than the call
            except OSError as error:
                failed(file, error)
                self.add(private, file)
            beat()


def private_name(root: str, number: int, directory: str, name: str) -> str:
    """A hidden name that is free: one that a power cut left there was not taken yet, and is never overwritten."""
    while True:
        prefix = f".taken-{number}-"
        stem = cut(name.removesuffix(".json"), NAME_MAX - len(prefix) - len(".json"))
        private = below(directory, f"{prefix}{stem}.json")
        if not os.path.lexists(f"{root}/{private}"):
            return private
        number += 1
