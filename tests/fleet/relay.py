"""What stands in front of a server and can go away and come back: a region's line, or one that is cut."""

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

Address = Any  # a path, or a host and port


def _new(address: Address) -> socket.socket:
    return socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)


class Relay:
    """Passes bytes both ways. `left`: it is cut after so many, of both directions. `slow_s`: how long each takes."""

    def __init__(self, near: Address, far: Address) -> None:
        self.far, self.left, self.passed, self.slow_s = far, None, 0, 0.0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = self._listen(near)
        self.near = self._listener.getsockname()

    def _listen(self, near: Address) -> socket.socket:
        listener = _new(near)
        if not isinstance(near, str):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(near)
        listener.listen(512)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def down(self) -> None:
        """Nobody listens any more, and who is connected is cut off; all of it is over when this returns."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if isinstance(self.near, str):
            Path(self.near).unlink(missing_ok=True)
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        while self._open:
            time.sleep(0.005)

    def up(self) -> None:
        self._listener = self._listen(self.near)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = _new(self.far)
            try:
                far.connect(self.far)
            except OSError:
                near.close()
                far.close()
                continue
            self._open |= {near, far}
            ends = [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other, ends), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, ends: list[socket.socket]) -> None:
        with suppress(OSError):
            while piece := one.recv(65536 if self.left is None else 4096):
                over = False
                with self._lock:
                    self.passed += len(piece)
                    if self.left is not None:
                        over = len(piece) >= self.left
                        piece, self.left = piece[: self.left], max(0, self.left - len(piece))
                if self.slow_s:
                    time.sleep(self.slow_s * len(piece))
                other.sendall(piece)
                if over:
                    break
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        with self._lock:
            ends.pop()
            if not ends:  # the other direction is over too
                self._open -= {one, other}
                one.close()
                other.close()
