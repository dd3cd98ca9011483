"""
One HTTP request on a line that can do anything: a deadline for the whole of it, and a cap on what comes back.

httpx's time-outs are per read: a server that trickles a byte every half second is never timed out. Here each read and
write on the socket gets what is left of the request's whole time. Redirects, cookies, proxies from the environment and
content decoding don't exist on this level, which is why it is used bare (httpx's transport, without its client).
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpcore
import httpx

ANSWER_BYTES = 4 * 1024 * 1024  # no answer that we ask for is nearly as long
PIECE_BYTES = 64 * 1024
TRIED = 3  # no address of a host gets more than its share of the time, down to a third: one that is dead may come first
IDLE_S = 50.0  # how long an idle connection is kept; servers commonly close after 60 to 75 s


class TooLong(httpx.TransportError):
    """The answer went over the cap. As good as no answer: something left, nothing usable came back."""


class _Stream(httpcore.NetworkStream):
    """A socket whose every operation ends with the request's deadline. Head and body of a request leave together."""

    def __init__(self, stream: httpcore.NetworkStream, left: "Deadline") -> None:
        self._stream = stream
        self._left = left
        self._held = b""  # of a request, and has not left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        self._leave()
        return self._stream.read(max_bytes, self._left.or_raise(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """Hold it until the request is whole: httpcore writes the head, the body, and an empty end."""
        self._held += buffer
        if not buffer:
            self._leave()

    def _leave(self) -> None:
        leaving, self._held = self._held, b""
        for start in range(0, len(leaving), PIECE_BYTES):  # one write may be many sends, each with the whole time-out
            self._stream.write(leaving[start : start + PIECE_BYTES], self._left.or_raise(httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        left = self._left.or_raise(httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class Deadline(threading.local):
    """When the request of this thread has to be over (monotonic seconds)."""

    at = float("inf")

    def or_raise(self, timed_out: type[Exception]) -> float:
        """Seconds left, at least a little: raises when there are none."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise timed_out("the whole of the request took too long")
        return left


Resolve = Callable[[str, int], list[str]]


def addresses(host: str, port: int) -> list[str]:
    """A host's addresses, in the order in which the system would try them. Raises httpcore.ConnectError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class _Backend(httpcore.NetworkBackend):
    def __init__(self, left: Deadline, resolve: Resolve) -> None:
        self._sockets = httpcore.SyncBackend()
        self._left = left
        self._resolve = resolve

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Left to itself, the system would give each address of the host the whole time of the request."""
        waiting = self._resolve(host, port)
        while True:
            address, *waiting = waiting
            share = self._left.or_raise(httpcore.ConnectTimeout) / min(len(waiting) + 1, TRIED)
            try:
                connected = self._sockets.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectTimeout, httpcore.ConnectError):
                if not waiting:
                    raise
            else:
                return _Stream(connected, self._left)


class Wire(httpx.BaseTransport):
    """Keep-alive connections to one host, one for each lane. TLS is verified against the system's authorities."""

    def __init__(
        self,
        timeout_s: float,
        connections: int = 1,
        over: Callable[[], object] = lambda: None,
        resolve: Resolve = addresses,
    ) -> None:
        """`over` is called after each request, however it ended."""
        self._timeout_s = timeout_s
        self._over = over
        self._left = Deadline()
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=IDLE_S,
            network_backend=_Backend(self._left, resolve),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and read the whole answer. Raises httpx.TransportError: see `outcome.NOT_LEFT` for what each means."""
        try:
            return self._ask(request)
        finally:
            self._over()

    def _ask(self, request: httpx.Request) -> httpx.Response:
        self._left.at = time.monotonic() + self._timeout_s
        with _as_httpx(request):
            answer = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=request.url.raw_scheme,
                        host=request.url.raw_host,
                        port=request.url.port,
                        target=request.url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.content,
                    extensions={"timeout": {"pool": self._timeout_s}},
                )
            )
            try:
                body = b"".join(self._capped(answer))
            finally:
                answer.close()
        return httpx.Response(answer.status, headers=_undecoded(answer.headers), content=body)

    def _capped(self, answer: httpcore.Response) -> Iterator[bytes]:
        size = 0
        assert isinstance(answer.stream, Iterable)
        for chunk in answer.stream:
            size += len(chunk)
            if size > ANSWER_BYTES:
                raise TooLong(f"an answer of more than {ANSWER_BYTES} bytes")
            yield chunk

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


def _undecoded(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """We ask for `identity`; what comes in another encoding is not unpacked (a bomb is small until then)."""
    return [(name, value) for name, value in headers if name.lower() != b"content-encoding"]


_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.PoolTimeout, httpx.PoolTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
)


@contextlib.contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    """Httpcore's errors as httpx's, whose tree separates “could not connect” from “connected, no answer”."""
    try:
        yield
    except tuple(ours for ours, _ in _ERRORS) as error:
        theirs = next(theirs for ours, theirs in _ERRORS if isinstance(error, ours))
        raise theirs(str(error), request=request) from error
