"""
What systemd is told of a program that runs under it: it is ready, it goes on, it ends.

The watchdog is fed where the loop comes by and by no thread of its own: a loop that hangs falls silent, and systemd
kills the program and starts it again. Elsewhere (no `NOTIFY_SOCKET`) all of this does nothing.
"""

import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

SAID_EVERY_S = 1.0  # systemd waits for minutes: a loop that turns a thousand times a second need not tell each turn
SEND_S = 1.0  # a supervisor that doesn't listen holds up the start and the end for so long, and no turn of the loop
REST_S = 10.0  # a long pause of the loop's own is told so often, or oftener if the unit asks for it


class Pulse:
    """One program's word to its supervisor. A word that can't be sent is dropped: it never stops the work."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """What systemd has put into the environment; nothing of it elsewhere."""
        given = environment or {}
        address = given.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._patience_s = int(given.get("WATCHDOG_USEC", "0")) / 1_000_000
        self._rest_s = min(REST_S, self._patience_s / 4) if self._patience_s else REST_S
        self._said_at = -SAID_EVERY_S

    def ready(self, silent_s: float = 0.0) -> None:
        """It works from now on, and may be silent for so long without being stuck, if the unit allows for less."""
        longer = 0 < self._patience_s < silent_s
        self._tell("READY=1" + (f"\nWATCHDOG_USEC={int(silent_s * 1_000_000)}" if longer else ""))

    def beat(self) -> None:
        """The loop has come by."""
        now = time.monotonic()
        if now - self._said_at >= SAID_EVERY_S:
            self._said_at = now
            self._tell("WATCHDOG=1", patience_s=0.0)

    def rest(self, stop: threading.Event, seconds: float) -> None:
        """A pause that the loop makes by itself; ends at once when the program is to stop."""
        until = time.monotonic() + seconds
        self.beat()
        while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, self._rest_s)):
            self.beat()

    def stopping(self) -> None:
        """It was asked to end and is about to."""
        self._tell("STOPPING=1")

    def _tell(self, words: str, patience_s: float = SEND_S) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
            door.settimeout(patience_s)
            door.connect(self._address)  # only so does the wait wait: of an address alone, poll() never says it is full
            door.send(words.encode())
