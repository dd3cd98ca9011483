"""
Room on the disk that nobody else can take: a file that is given up when the disk is full.

Intake stops before the disk is full (journal/reserve.py), but other programs don't. With what the file held, the
forwarder goes on delivering for some tens of thousands of documents; when there is space again, the file is made anew.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

BYTES = 8 * 1024 * 1024
FULL_BYTES = 1024 * 1024  # with less than this free, a commit that fails has failed for want of space
SPARE = 8  # it is made when so many times its size are free
LOOK_S = 60.0


class Ballast:
    """The file, beside the delivery book."""

    def __init__(self, delivery: Path) -> None:
        """Made by the first `keep`."""
        self._path = delivery.with_name(delivery.name + ".ballast")
        self._looked_at = -LOOK_S

    def keep(self) -> None:
        """Make it if it isn't there and there is space. A chore: what keeps it from that can wait."""
        if time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        with suppress(OSError):
            if self._path.exists() or _free(self._path.parent) < SPARE * BYTES:
                return
            draft = self._path.with_name(f".{self._path.name}.new")
            with draft.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, BYTES)
            draft.rename(self._path)

    def give_up(self) -> bool:
        """The disk is full: let it go. False: it isn't, or there is nothing left to let go."""
        with suppress(OSError):
            if _free(self._path.parent) < FULL_BYTES:
                self._path.unlink()
                self._looked_at = time.monotonic()
                return True
        return False


def _free(directory: Path) -> int:
    there = os.statvfs(directory)
    return there.f_bavail * there.f_frsize
