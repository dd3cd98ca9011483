"""
Two hosts of our own on this machine: `shop`, where the forwarder runs, and `omneo`, each in a network namespace.

A good cable (veth) and a bad line (tun.py) join them. No other host can be reached from either, and this machine's own
network is not touched. Sockets of the far end are made in its namespace and served from this very process.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from tests.faults.tun import enter

NAME = "omneo.test"
SHOP = "10.77.0.4"  # nearer to nobody than to Omneo: the resolver puts the nearest first
NOBODY6 = "2001:db8::9"
CABLE, LINE, STRANGER, NOBODY = "10.77.0.2", "10.78.0.2", "10.77.0.3", "10.77.0.5"
TUN = Path(__file__).with_name("tun.py")
Got = TypeVar("Got")


def needs() -> str | None:
    """Why there can be no hosts of our own here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need `ip` (Debian: iproute2)"
    if not os.access("/dev/net/tun", os.W_OK):
        return "a bad line needs /dev/net/tun"
    probe = subprocess.run(
        ["unshare", "--net", "ip", "link", "add", "probe-a", "type", "veth", "peer", "name", "probe-b"],
        capture_output=True,
        check=False,
    )
    return "network namespaces can't be made here" if probe.returncode else None


class Hosts:
    """Both hosts, for as long as the block lasts."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.shop, self.omneo = f"shop-{os.getpid()}", f"omneo-{os.getpid()}"
        self.own = Path("/etc/netns") / self.shop  # `ip netns exec` lays these files over /etc

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            self.undo = undo
            for name in (self.shop, self.omneo):
                _ip("netns", "add", name)
                undo.callback(_ip, "netns", "del", name)
                _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", self.shop, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", self.omneo)
            for name, addresses in ((self.shop, [SHOP]), (self.omneo, [CABLE, STRANGER])):
                for address in addresses:
                    _ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
                _ip("-n", name, "link", "set", "cable", "up")
            # a neighbour that is never there, but whose hardware address is known: what is sent to it is just gone
            gone = ("lladdr", "02:00:00:00:00:09", "nud", "permanent", "dev", "cable")
            _ip("-n", self.shop, "neigh", "add", NOBODY, *gone)
            _ip("-n", self.shop, "addr", "add", "2001:db8::1/64", "dev", "cable", "nodad")
            _ip("-n", self.shop, "neigh", "add", NOBODY6, *gone)
            self.own.mkdir(parents=True)
            undo.callback(shutil.rmtree, self.own)
            (self.own / "resolv.conf").write_text(f"nameserver {CABLE}\n")
            (self.own / "hosts").write_text("127.0.0.1 localhost\n")
            carrier = [sys.executable, str(TUN), self.shop, self.omneo, str(self.seed)]
            self.carrier = subprocess.Popen(carrier, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            undo.callback(self._stop_carrier)
            out: IO[str] = self.carrier.stdout  # type: ignore[assignment]
            if out.readline().strip() != "up":
                raise RuntimeError("the line did not come up")
            undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop_carrier()
        shutil.rmtree(self.own, ignore_errors=True)
        for name in (self.shop, self.omneo):
            _ip("netns", "del", name)

    def _stop_carrier(self) -> None:
        assert self.carrier.stdin is not None
        with contextlib.suppress(OSError):
            self.carrier.stdin.close()
        self.carrier.wait(10)

    def line(self, **how: float) -> None:
        """From now on the line carries packets like this; nothing given: as it should."""
        assert self.carrier.stdin is not None
        self.carrier.stdin.write(json.dumps(how) + "\n")
        self.carrier.stdin.flush()

    def in_shop(self, command: list[str]) -> list[str]:
        """A command as it runs on the shop's host."""
        return ["ip", "netns", "exec", self.shop, *command]

    def at_omneo(self, make: Callable[[], Got]) -> Got:
        """Something made on Omneo's host: a socket stays there, whoever uses it."""
        made: list[Any] = []

        def there() -> None:
            enter(f"/run/netns/{self.omneo}")
            made.append(make())

        thread = threading.Thread(target=there)
        thread.start()
        thread.join()
        if not made:
            raise RuntimeError("nothing could be made on Omneo's host")
        got: Got = made[0]
        return got


@contextlib.contextmanager
def answering(bound: socket.socket) -> Iterator[socket.socket]:
    """A socket, closed at the end."""
    try:
        yield bound
    finally:
        with contextlib.suppress(OSError):
            bound.shutdown(socket.SHUT_RDWR)
        bound.close()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
