"""What lies in the spool: itself and one level below it."""

import os
from collections.abc import Callable, Container, Iterator
from pathlib import Path

from journal.files import below, hidden
from journal.rejected import REJECTED

Seen = Iterator[tuple[str, os.stat_result]]
Tell = Callable[[str, str], None]


def scan(root: Path, directory: str, leaving: Container[str], tell: Tell, into: list[Path]) -> Seen:
    """
    Every regular file that waits, and what it looks like; not those that are `leaving`. `tell(path, why)` hears of
    everything else, `into` gets the directories that were looked into. Raises OSError where the first can't be.
    """
    into.append(root / directory)
    with os.scandir(root / directory) as entries:
        for entry in entries:
            name = entry.name
            path = below(directory, name)
            if not name.startswith(".") and name.endswith(".json") and entry.is_file(follow_symlinks=False):
                pass  # nearly all of them
            elif entry.is_dir(follow_symlinks=False):
                yield from _below(root, path, leaving, tell, into)
                continue
            elif path in leaving or hidden(path, name):
                continue
            elif not entry.is_file(follow_symlinks=False):
                tell(path, "not a regular file (a link, device, pipe or socket is never followed)")
                continue
            elif not name.endswith(".json"):
                continue
            try:  # not `with suppress`, which costs as much as half of the look
                seen = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield path, seen


def _below(root: Path, path: str, leaving: Container[str], tell: Tell, into: list[Path]) -> Seen:
    above, name = os.path.split(path)
    if name.startswith(".") or path == REJECTED:
        return
    if above:
        tell(path, "a directory below a directory: only one level is looked into")
        return
    try:
        yield from scan(root, path, leaving, tell, into)
    except FileNotFoundError:
        return
    except OSError as error:  # one till's directory must not keep the others waiting
        tell(path, f"can't be looked into: {error.strerror}")
