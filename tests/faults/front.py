"""
What stands before the sandbox on Omneo's host: name server, TLS and HTTP, each as wrong as it is told to be.

Rightly, a request is read, passed on to the sandbox and its answer given back. `Wrong` says what goes wrong instead,
and at which of the three; `struck` counts how often it did.
"""

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Self

from tests.faults.certs import contexts
from tests.faults.hosts import CABLE, LINE, NAME, NOBODY, NOBODY6, STRANGER, Hosts, answering

PATIENCE_S = 30.0


class Talk:
    """One request that was heard, and the connection that waits for its answer."""

    def __init__(self, front: "Front", connection: socket.socket, heard: bytes, over: threading.Event) -> None:
        self.front, self.connection, self.heard, self.over = front, connection, heard, over
        self._answer: bytes | None = None

    def answer(self) -> bytes:
        """
        Pass the request on to the sandbox: now it has been carried out. Its whole answer.

        Not when nobody waits for it any more: a request that overtook the next ones would be judged as a blind resend.
        """
        if self._answer is None:
            if select.select([self.connection], [], [], 0)[0]:  # nobody sends two requests at once: that is the end
                raise ConnectionAbortedError
            self._answer = self.front.ask(self.heard)
        return self._answer

    def say(self, raw: bytes) -> None:
        self.connection.sendall(raw)

    def slowly(self, raw: bytes, piece: int = 1, every_s: float = 0.05) -> None:
        """A piece at a time, well within any wait for the next one, and blanks for ever."""
        at = 0
        while not self.over.wait(every_s):
            self.say(raw[at : at + piece] or b" ")
            at += piece

    def for_ever(self, raw: bytes) -> None:
        while not self.over.is_set():
            self.say(raw)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionAbortedError


def rightly(talk: Talk) -> None:
    talk.say(talk.answer())


@dataclass(frozen=True)
class Wrong:
    """What goes wrong: in the answers, in the handshake (a certificate or a deed), in the names, on the line."""

    http: Callable[[Talk], None] = rightly
    tls: str = "good"
    names: str = "cable"
    line: dict[str, float] = field(default_factory=dict)
    share: float = 1.0  # of requests


RIGHT = Wrong()
NAMES: dict[str, list[str]] = {
    "cable": [CABLE],
    "line": [LINE],
    "stranger": [STRANGER],
    "nobody first": [NOBODY, CABLE],
    "nobody by IPv6 first": [NOBODY6, CABLE],
    "nobody at all": [NOBODY],
    "no address": [],
}
REFUSALS = {"nxdomain": 3, "servfail": 2, "refused": 5}


class Front:
    """Everything that listens on Omneo's host."""

    def __init__(self, hosts: Hosts, sandbox: str, place: Path) -> None:
        self.sandbox = sandbox  # host:port of this machine
        self.tls = contexts(place, NAME)
        self.authority = place / "ca.pem"
        self.wrong = RIGHT
        self.struck = 0
        self.told_strangers: list[bytes] = []
        self.over = threading.Event()  # of what goes on just now; a new one for each change
        self.lock = threading.Lock()
        self.open: set[socket.socket] = set()
        self.hosts = hosts
        self.dice = Random(hosts.seed)

    def __enter__(self) -> Self:
        self.undo = contextlib.ExitStack()
        tcp = self.hosts.at_omneo(lambda: socket.create_server(("0.0.0.0", 443), backlog=128))
        udp = self.hosts.at_omneo(_name_server)
        for bound, serve in ((tcp, self._accept), (udp, self._name)):
            self.undo.enter_context(answering(bound))
            threading.Thread(target=serve, args=(bound,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.be(RIGHT)
        self.undo.close()

    def be(self, wrong: Wrong) -> None:
        """From now on, like this; what hangs or trickles ends, and connections are made anew."""
        self.wrong, self.struck = wrong, 0
        self.hosts.line(**wrong.line)
        old, self.over = self.over, threading.Event()
        old.set()
        with self.lock:
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def ask(self, heard: bytes) -> bytes:
        """The sandbox's whole answer. It closes the connection after it, so that its end is known."""
        host, _, port = self.sandbox.partition(":")
        with socket.create_connection((host, int(port)), PATIENCE_S) as onward:
            head, _, body = heard.partition(b"\r\n\r\n")
            onward.sendall(head + b"\r\nconnection: close\r\n\r\n" + body)
            answer = b"".join(iter(lambda: onward.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    # ── HTTP over TLS ──

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        over = self.over
        with connection, contextlib.suppress(OSError, ValueError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(PATIENCE_S)
            with self._counted(connection):
                if connection.getsockname()[0] == STRANGER:
                    self.struck += 1
                    secure = self.tls["stranger"].wrap_socket(connection, server_side=True)
                    self.told_strangers.append(secure.recv(65536))
                    return
                secure = self._handshake(connection, over)
                if secure is not None:
                    with secure, self._counted(secure):
                        self._converse(secure, over)

    @contextlib.contextmanager
    def _counted(self, connection: socket.socket) -> Iterator[None]:
        with self.lock:
            self.open.add(connection)
        try:
            yield
        finally:
            with self.lock:
                self.open.discard(connection)

    def _handshake(self, connection: socket.socket, over: threading.Event) -> ssl.SSLSocket | None:
        how = self.wrong.tls
        if how == "good":
            return self.tls[how].wrap_socket(connection, server_side=True)
        self.struck += 1
        match how:
            case "silent":
                over.wait(PATIENCE_S)
            case "closed":
                return None
            case "closed in the middle":
                connection.recv(1)
            case "plain HTTP":
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            case "garbage":
                connection.recv(65536)
                connection.sendall(b"\x16\x03\x03\x00\x05hello" * 100)
            case "a byte at a time":
                connection.recv(65536)
                connection.sendall(b"\x16\x03\x03\x10\x00")
                while not over.wait(0.05):
                    connection.sendall(b"\x02")
            case "closed after it":
                self.tls["good"].wrap_socket(connection, server_side=True).close()
            case _:
                secure = self.tls[how].wrap_socket(connection, server_side=True)
                self.told_strangers.append(secure.recv(65536))  # whoever says a word to this one is deceived
        return None

    def _converse(self, secure: ssl.SSLSocket, over: threading.Event) -> None:
        while heard := _whole_request(secure):
            talk = Talk(self, secure, heard, over)
            wrong = self.wrong
            if wrong.http is rightly or self.dice.random() >= wrong.share:
                self.struck += bool(wrong.line)
                rightly(talk)
            else:
                self.struck += 1
                wrong.http(talk)

    # ── Names ──

    def _name(self, udp: socket.socket) -> None:
        while True:
            try:
                asked, whom = udp.recvfrom(4096)
            except OSError:
                return
            how = self.wrong.names
            self.struck += how != "cable"
            answer = named(asked, how) if b"\0" in asked[12:-4] else b""
            if answer:
                with contextlib.suppress(OSError):
                    udp.sendto(answer, whom)


def _name_server() -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((CABLE, 53))
    return udp


def named(asked: bytes, how: str) -> bytes:
    """A name server's answer (RFC 1035), or none. Garbage is garbage."""
    if how == "silent":
        return b""
    if how == "garbage":
        return b"\xff" * 40
    question = asked[12 : asked.index(b"\0", 12) + 5]
    if how in REFUSALS:
        return asked[:2] + struct.pack("!HHHHH", 0x8180 | REFUSALS[how], 1, 0, 0, 0) + question
    wanted = struct.unpack("!H", question[-4:-2])[0]
    found = [(28, socket.inet_pton(socket.AF_INET6, each)) for each in NAMES[how] if ":" in each]
    found += [(1, socket.inet_aton(each)) for each in NAMES[how] if ":" not in each]
    rows = [b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 0, len(raw)) + raw for kind, raw in found if kind == wanted]
    return asked[:2] + struct.pack("!HHHHH", 0x8180, 1, len(rows), 0, 0) + question + b"".join(rows)


def _whole_request(connection: socket.socket) -> bytes:
    """One request: its head, and as much body as it promised. Empty when nobody asks any more."""
    heard = b""
    while b"\r\n\r\n" not in heard:
        piece = connection.recv(65536)
        if not piece:
            return b""
        heard += piece
    head, _, body = heard.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    while lengths and len(body) < int(lengths[0]):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
