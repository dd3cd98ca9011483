"""
File events wake a loop, and are believed in nothing else: what has changed is for whoever wakes to find out.

watchdog's own thread for inotify calls us back, without the two threads of its observer: an event is here in a quarter
of the time. Where the system grants no events (its watches are used up, say), the regular look must do.
"""

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

from journal.say import Say

NEW = Mask(InotifyConstants.IN_CREATE | InotifyConstants.IN_CLOSE_WRITE | InotifyConstants.IN_MOVED_TO)
GONE = Mask(InotifyConstants.IN_DELETE)


class Hints:
    """Directories whose events set `wake`, if they are about a directory or a file with a `hopeful` name."""

    def __init__(self, wake: threading.Event, hopeful: Callable[[bytes], bool], mask: Mask, say: Say) -> None:
        self._wake = wake
        self._hopeful = hopeful
        self._mask = mask
        self._say = say
        self._told = False
        self._events: InotifyFD | None = None
        self._ids = itertools.count()
        self._watched: dict[
            Path, tuple[tuple[int, int], tuple[WatchDescriptor, CallbackId]]
        ] = {}  # (device, inode), watch

    def look_at(self, directories: Iterable[Path]) -> None:
        """These matter from now on, and no others. One that is new, or has taken another's place, sets `wake`."""
        before, self._watched = self._watched, {}
        for directory in directories:
            try:
                seen = directory.stat()
                there, watched = (seen.st_dev, seen.st_ino), before.get(directory)
                if watched is None or watched[0] != there:
                    path, name = os.fsencode(directory), CallbackId(next(self._ids))
                    watched = there, (self._running().add_callback(path, self._mask, self, name), name)
                    self._wake.set()
                self._watched[directory] = watched
            except OSError as error:
                if not self._told:
                    self._say("no_file_events", reason=error.strerror or str(error))
                self._told = True
        gone = [old[1] for directory, old in before.items() if self._watched.get(directory) != old]
        if gone and self._events is not None:
            self._events.remove_callbacks(gone)

    def _running(self) -> InotifyFD:
        if self._events is None:
            self._events = InotifyFD()
            self._events.start()
        return self._events

    # -- what watchdog tells us -------------------------------------------------------------------------------------

    def on_event(self, event: InotifyEvent) -> None:
        """Something has happened in a directory."""
        if event.is_directory or self._hopeful(event.name):
            self._wake.set()

    def on_watch_deleted(self, _: WatchDescriptor) -> None:
        """A directory has gone. What takes its place is another one, which `look_at` finds."""

    def on_queue_overflow(self) -> None:
        """Some events were lost."""
        self._wake.set()

    # ---------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Hear no more."""
        if self._events is not None:
            self._events.stop()
            self._events.join()


@contextmanager
def watching(wake: threading.Event, hopeful: Callable[[bytes], bool], mask: Mask, say: Say) -> Iterator[Hints]:
    """Hints for as long as they are wanted."""
    hints = Hints(wake, hopeful, mask, say)
    try:
        yield hints
    finally:
        hints.close()
