"""
One HTTP request on a line that can do anything: a deadline for the whole of it, and a cap on what comes back.

A transport of httpx, without its client: redirects, cookies, proxies from the environment and content decoding don't
exist on this level. Python's own `http.client` reads the answers, which takes a third of the time that httpx's pool
takes (docs/performance.md: a request). Every operation on a socket gets what is left of the request's whole time:
a server that trickles a byte every half second is never timed out by a time-out for each read.
"""

import http.client
import io
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpx

ANSWER_BYTES = 4 * 1024 * 1024  # no answer that we ask for is nearly as long
PIECE_BYTES = 64 * 1024
TRIED = 3  # no address of a host gets more than its share of the time, down to a third: one that is dead may come first
IDLE_S = 50.0  # how long an idle connection is kept; servers commonly close after 60 to 75 s

Resolve = Callable[[str, int], list[str]]


class TooLong(httpx.TransportError):
    """The answer went over the cap. As good as no answer: something left, nothing usable came back."""


def addresses(host: str, port: int) -> list[str]:
    """A host's addresses, in the order in which the system would try them. Raises httpx.ConnectError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def _left(until: float, timed_out: type[httpx.TimeoutException]) -> float:
    """Seconds that are left of a request, at least a little: raises when there are none."""
    left = until - time.monotonic()
    if left <= 0:
        raise timed_out("the whole of the request took too long")
    return left


class _Incoming(io.RawIOBase):
    """What a socket receives, until the deadline of the request that is under way; between two, nothing."""

    def __init__(self, plug: socket.socket) -> None:
        self._plug = plug
        self.until: float | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.until is None:
            return None
        self._plug.settimeout(_left(self.until, httpx.ReadTimeout))
        return self._plug.recv_into(buffer)


class _Kept(io.BufferedReader):
    """Outlives the answers that are read from it: `http.client` closes what it was given after each."""

    def close(self) -> None:
        """Not yet."""

    def readline(self, size: int | None = -1, /) -> bytes:
        """A line that has no end is what was left of an answer; `http.client` would take it for one without headers."""
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size:
            raise http.client.IncompleteRead(b"")
        return line


class _Connection:
    """A connection to the host, with at most one request under way."""

    def __init__(self, plug: socket.socket) -> None:
        self._plug = plug
        self._incoming = _Incoming(plug)
        self._reader = _Kept(self._incoming)
        self.used_at = time.monotonic()

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        """All that `http.client.HTTPResponse` wants of a socket."""
        return self._reader

    def ask(
        self, method: str, raw: bytes, until: float, sent: Callable[[], object]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Head and body of a request leave together; the whole answer comes back."""
        for start in range(0, len(raw), PIECE_BYTES):  # one write may be many sends, each with the whole time-out
            self._plug.settimeout(_left(until, httpx.WriteTimeout))
            try:
                self._plug.sendall(raw[start : start + PIECE_BYTES])
            except TimeoutError as error:
                raise httpx.WriteTimeout(str(error)) from error
            except OSError:
                break  # whoever hangs up early may have said why
        sent()
        self._incoming.until = until
        try:
            return self._hear(method)
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except OSError as error:  # http.client's "hung up without an answer" too
            raise httpx.ReadError(str(error)) from error
        except (http.client.HTTPException, ValueError) as error:  # it is no HTTP; its words may be anybody's
            raise httpx.RemoteProtocolError(type(error).__name__) from error
        finally:
            self._incoming.until = None

    def _hear(self, method: str) -> tuple[http.client.HTTPResponse, bytes]:
        while True:
            answer = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]
            answer.begin()
            if answer.status >= 200:
                break  # what comes before is only a promise of it (RFC 9110, 15.2)
        lengths = set(answer.headers.get_all("content-length", []))
        coding = answer.headers.get("transfer-encoding", "chunked").lower()
        if len(lengths) > 1 or coding != "chunked":
            raise http.client.UnknownTransferEncoding
        body = answer.read(ANSWER_BYTES + 1)
        if len(body) > ANSWER_BYTES:
            raise TooLong(f"an answer of more than {ANSWER_BYTES} bytes")
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
        return answer, body

    @property
    def fit(self) -> bool:
        """May it take another request? Not when there is something to read: the end, or what nobody has asked for."""
        if time.monotonic() - self.used_at > IDLE_S or self._reader.peek(1):
            return False
        looked = select.poll()
        looked.register(self._plug, select.POLLIN)
        return not looked.poll(0)

    def close(self) -> None:
        self._plug.close()


class Wire(httpx.BaseTransport):
    """Keep-alive connections to one host, as many as lanes ask at once; TLS by the system's authorities."""

    def __init__(
        self,
        timeout_s: float,
        *,
        sent: Callable[[], object] = lambda: None,
        over: Callable[[], object] = lambda: None,
        resolve: Resolve = addresses,
    ) -> None:
        """`sent` is called when a request has left and its answer is waited for, `over` after it, however it ended."""
        self._timeout_s = timeout_s
        self._sent = sent
        self._over = over
        self._resolve = resolve
        self._tls = ssl.create_default_context()
        self._idle: list[_Connection] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and read the whole answer. Raises httpx.TransportError: see `outcome.NOT_LEFT` for what each means."""
        try:
            return self._ask(request)
        finally:
            self._over()

    def _ask(self, request: httpx.Request) -> httpx.Response:
        until = time.monotonic() + self._timeout_s
        raw = _in_bytes(request)
        connection = self._fit() or _Connection(self._connect(request.url, until))
        whole = False
        try:
            answer, body = connection.ask(request.method, raw, until, self._sent)
            whole = not answer.will_close
        finally:
            if whole:
                connection.used_at = time.monotonic()
                self._idle.append(connection)
            else:
                connection.close()
        return httpx.Response(answer.status, headers=_undecoded(answer.headers.items()), content=body)

    def _fit(self) -> _Connection | None:
        """One that is idle, and still stands."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another lane was faster
                return None
            if connection.fit:
                return connection
            connection.close()
        return None

    def _connect(self, url: httpx.URL, until: float) -> socket.socket:
        """Left to itself, the system would give each address of the host the whole time of the request."""
        host, port = url.raw_host.decode("ascii"), url.port or {"https": 443, "http": 80}[url.scheme]
        waiting = self._resolve(host, port)
        while True:
            address, *waiting = waiting
            share = _left(until, httpx.ConnectTimeout) / min(len(waiting) + 1, TRIED)
            try:
                plug = socket.create_connection((address, port), share)
                break
            except OSError as error:
                if not waiting:
                    raise _unconnected(error) from error
        try:
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if url.scheme == "http":
                return plug
            plug.settimeout(_left(until, httpx.ConnectTimeout))
            return self._tls.wrap_socket(plug, server_hostname=host)
        except OSError as error:
            plug.close()
            raise _unconnected(error) from error

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().close()


def _unconnected(error: OSError) -> httpx.TransportError:
    timed_out = isinstance(error, TimeoutError)
    return httpx.ConnectTimeout(str(error)) if timed_out else httpx.ConnectError(str(error))


def _undecoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """We ask for `identity`; what comes in another encoding is not unpacked (a bomb is small until then)."""
    kept = ((name, value) for name, value in headers if name.lower() != "content-encoding")
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept]


def _in_bytes(request: httpx.Request) -> bytes:
    """The whole request (RFC 9112, 3). httpx has quoted the target, and added Host and Content-Length."""
    lines: Iterable[bytes] = (b"%b: %b\r\n" % header for header in request.headers.raw)
    head = b"%b %b HTTP/1.1\r\n%b" % (request.method.encode("ascii"), request.url.raw_path, b"".join(lines))
    if head.count(b"\n") != len(request.headers.raw) + 1 or head.count(b"\r") != head.count(b"\n"):
        raise httpx.LocalProtocolError("a header of more than one line")
    return head + b"\r\n" + request.content
