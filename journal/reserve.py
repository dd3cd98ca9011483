"""
Room that intake leaves on the disk: what is in hand can still be committed, a person's word too, and the forwarder, on
the same disk, can go on delivering and write down what Omneo said. Files wait in the spool meanwhile.
"""

import os
from collections.abc import Callable
from pathlib import Path

from journal.log import NotNow

BYTES = 64 * 1024 * 1024
SHARE = 20  # of a small disk, a twentieth
AGAIN = 1.25  # so much more has to be free before it goes on, so that it doesn't stop and go

Room = Callable[[], None]


class Reserve:
    """Asked before each commit of documents."""

    def __init__(self, journal: Path) -> None:
        """Where the journal is."""
        self._journal = journal
        self._short = False

    def __call__(self) -> None:
        """Raises NotNow while the disk is nearly full."""
        free, least = of(self._journal.parent)
        self._short = free < (least * AGAIN if self._short else least)
        if self._short:
            raise NotNow(
                f"The disk that holds {self._journal} is nearly full: free some space. Files stay in the spool, and"
                " everything goes on by itself then."
            )


def of(directory: Path) -> tuple[int, int]:
    """Free bytes there, and how many of them intake leaves alone."""
    there = os.statvfs(directory)
    return there.f_bavail * there.f_frsize, min(BYTES, there.f_blocks * there.f_frsize // SHARE)


def none() -> None:
    """Nothing is left: for whoever sees to the disk otherwise."""
