"""
Size and hash of files over the limit, which may be larger than anybody can wait for: a piece in each sweep.

Such a file is only evidence. While it is read the good ones go on, so nothing that lies in a spool can stop a shop.
"""

import os
from hashlib import sha256
from typing import Any

PIECE_BYTES = 64 * 1024 * 1024  # of all such files together, in one sweep: a tenth of a second or so


class Measure:
    """What was read of files over the limit so far; after a restart it begins again."""

    def __init__(self) -> None:
        self._going: dict[Any, tuple[Any, int]] = {}  # file → its hash so far, of so many bytes
        self._left = PIECE_BYTES

    def sweep(self, still_there: set[Any]) -> None:
        """A new sweep: another piece may be read, of what is still there."""
        self._left = PIECE_BYTES
        self._going = {file: so_far for file, so_far in self._going.items() if file in still_there}

    def more(self, file: Any, handle: int) -> str | None:
        """Read on, where we were: the SHA-256 in hexadecimal when this was the last piece."""
        digest, at = self._going.get(file) or (sha256(), 0)
        os.lseek(handle, at, os.SEEK_SET)
        while self._left > 0:
            chunk = os.read(handle, min(1024 * 1024, self._left))
            if not chunk:
                self._going.pop(file, None)
                return str(digest.hexdigest())
            digest.update(chunk)
            at += len(chunk)
            self._left -= len(chunk)
        self._going[file] = (digest, at)
        return None

    @property
    def going(self) -> bool:
        """Is there a file of which more has to be read?"""
        return bool(self._going)
