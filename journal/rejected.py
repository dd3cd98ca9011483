"""The directory under the spool where files go that can't be taken, each beside the words that say why."""

import errno
import json
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from journal.book import make_directory, sync_directory

REJECTED = "rejected"
NAME_MAX = 255  # bytes of a file name on every file system we know
WORDS = ".error.json"


def write_words(spool: Path, path: str, error: dict[str, Any]) -> tuple[Path, Path]:
    """Write the words about a file that is to be moved here. Returns where the file goes, and where the words are."""
    directory, name = os.path.split(path)
    target = spool / REJECTED / directory
    for below in (spool / REJECTED, target):
        if below.is_symlink():
            raise OSError(errno.ELOOP, "a link stands there, which is never followed")
    make_directory(target)
    name = _free_name(target, name)
    draft = target / f".{sha256(os.fsencode(name)).hexdigest()[:16]}.tmp"
    try:
        with draft.open("w", encoding="utf-8", errors="backslashreplace") as out:
            json.dump({"file": printable(name), **error}, out, ensure_ascii=False, indent=2)
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        words = target / (name + WORDS)
        draft.replace(words)
        sync_directory(target)  # before the file moves here
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise
    return target / name, words


def _free_name(directory: Path, name: str) -> str:
    """
    NAME.json, or NAME-2.json, NAME-3.json …: never over one that is there. Room is left for `.error.json`.

    Words without a file are what a crash left, and are written anew; unless they are a file with that very name,
    which has words of its own.
    """
    stem = name.removesuffix(".json")
    number = 1
    while True:
        tail = ".json" if number == 1 else f"-{number}.json"
        candidate = cut(stem, NAME_MAX - len(tail) - len(WORDS)) + tail
        if not os.path.lexists(directory / candidate) and not os.path.lexists(directory / (candidate + WORDS + WORDS)):
            return candidate
        number += 1


def cut(name: str, length: int) -> str:
    """At most so many bytes of a name, never half a character."""
    raw = os.fsencode(name)
    return name if len(raw) <= length else raw[:length].decode("utf-8", "ignore")


def printable(name: str) -> str:
    """A file name, or whatever a command line holds, as text that neither a terminal nor UTF-8 trips over."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
