"""Files that wait in the spool, as they were seen and as they were read."""

import os
import re
from dataclasses import dataclass
from typing import NamedTuple

CANARY = ".omneo-canary.json"  # the one hidden file that is taken: our own
TAKEN = re.compile(r"^\.taken-\d+-(.*)$", re.DOTALL)  # one that we had begun to take when the power went


class File(NamedTuple):  # a hundred thousand of them are made in one scan
    """A regular file that waits, and what it looked like when it was seen."""

    path: str  # below the spool: NAME.json or DIR/NAME.json
    device: int
    inode: int
    size: int
    mtime_ns: int

    @property
    def name(self) -> str:
        """Its path as the POS gave it: one that we had begun to take when the power went has got a private name."""
        if ".taken-" not in self.path:  # asked for some times of every file
            return self.path
        directory, name = os.path.split(self.path)
        taken = TAKEN.match(name)
        return below(directory, taken[1]) if taken else self.path


@dataclass(frozen=True, slots=True)
class Contents:
    """What was read of a file: its bytes, or of one over the limit only its size and SHA-256."""

    file: File
    body: bytes | None
    sha256: str | None = None


def below(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def hidden(path: str, name: str) -> bool:
    """Is it nobody's business? Hidden files are still being written, but for our own."""
    return name.startswith(".") and path != CANARY and not TAKEN.match(name)


def as_file(path: str, seen: os.stat_result) -> File:
    return File(path, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)
