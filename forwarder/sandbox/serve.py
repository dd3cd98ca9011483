"""Runs the stand-in: in the foreground for the command line, in a thread for tests."""

import asyncio
import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from forwarder.sandbox import customers
from forwarder.sandbox.app import API, CONTROL, Sandbox
from forwarder.sandbox.control import Desk
from forwarder.sandbox.faults import Rule
from forwarder.sandbox.state import Tenant, utc_now
from forwarder.sandbox.tokens import PAT

# As long as a usual front end keeps an idle connection: shorter, and clients would mostly meet closed ones.
KEEP_ALIVE_S = 75
GRACE_S = 2
HANG_S = 2.0
BACKLOG = 2048


class _Protocol(H11Protocol):
    """uvicorn's own, but the application gets the connection's transport, to abort it or to write past HTTP."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {"transport": transport}


class _Server(uvicorn.Server):
    """uvicorn without its ten ticks a second, and with a listener that can go away and come back."""

    def __init__(self, sandbox: Sandbox, port: int, host: str, announce: Callable[[str], None]) -> None:
        config = uvicorn.Config(
            sandbox,
            http=_Protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            date_header=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)
        self.sandbox, self.announce = sandbox, announce
        self.listener = _listen(host, port)
        self.address: tuple[str, int] = self.listener.getsockname()[:2]
        self.stopped = asyncio.Event()
        self.returning: asyncio.Task[None] | None = None
        sandbox.desk.go_down, sandbox.desk.come_up = self.go_down, self.come_up

    @property
    def origin(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        """The base class would raise the signal again and so end by it: here, being told to stop is no failure."""
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.announce(self.origin + API)

    async def main_loop(self) -> None:
        await self.stopped.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Requests that a fault holds are cut off; the others are answered."""
        if self.returning is not None:
            self.returning.cancel()
        for transport in list(self.sandbox.held):
            transport.abort()
        await super().shutdown(sockets)

    def go_down(self, seconds: float) -> None:
        """Stops listening, for real: connections are refused, and open ones are cut, but for the desk's own."""
        if self.returning is not None:
            self.returning.cancel()
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            scope = getattr(connection, "scope", None)
            transport = getattr(connection, "transport", None)
            if transport is not None and not (scope and scope["path"].startswith(CONTROL)):
                transport.abort()
        self.returning = self.loop.create_task(self._come_back(seconds))

    def come_up(self) -> None:
        if self.returning is not None:
            self.returning.cancel()
            self.returning = self.loop.create_task(self._come_back(0))

    async def _come_back(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        config, state = self.config, self.server_state
        server = await self.loop.create_server(
            lambda: _Protocol(config=config, server_state=state, app_state={}),
            sock=_listen(*self.address),
            backlog=BACKLOG,
        )
        self.servers = [server]
        self.returning = None


def _listen(host: str, port: int) -> socket.socket:
    """With the protocol named: asyncio turns Nagle's delay off (40 ms an answer) only where it sees that it is TCP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class CannotListenError(Exception):
    """The port can't be had: says what to do."""


def open_desk(now: Callable[[], datetime] = utc_now, *, seed: int = 0, share: float = 0.0) -> Desk:
    """A furnished tenant; with a `share`, that part of its requests goes wrong, by the seed's dice."""
    tenant = Tenant(now)
    customers.furnish(tenant)
    desk = Desk(tenant)
    if share:
        desk.faults.add(Rule(mode="any", share=share, seed=seed, seconds=HANG_S, interval=0.001))
    return desk


def serve(
    port: int, *, host: str = "127.0.0.1", announce: Callable[[str], None], seed: int = 0, share: float = 0.0
) -> None:
    """
    Until SIGTERM or SIGINT. Port 0 is any free one; `announce` is told the API's base once it listens.

    Raises CannotListenError if the port can't be had.
    """

    async def run() -> None:
        try:
            server = _Server(Sandbox(open_desk(seed=seed, share=share)), port, host, announce)
        except OSError as error:
            raise CannotListenError(_cannot_listen(error, port)) from error
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.stopped.set)
        await server.serve(sockets=[server.listener])

    asyncio.run(run())


def _cannot_listen(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} is in use by another program; stop that one, or give another port with --port (0: any free)."
        )
    if error.errno == errno.EACCES:
        return f"Port {port} is for root only; give one from 1024 up with --port (0: any free)."
    return f"The sandbox can't listen on port {port}: {error.strerror}. Give another one with --port (0: any free)."


@dataclass(frozen=True, slots=True)
class Running:
    """A sandbox that runs in a thread of this process."""

    url: str
    control: str
    state: Tenant
    token: str = PAT


@contextlib.contextmanager
def running(
    now: Callable[[], datetime] = utc_now, *, port: int = 0, seed: int = 0, share: float = 0.0
) -> Generator[Running]:
    """For tests: a real server on a free port, gone at the end of the block."""
    desk = open_desk(now, seed=seed, share=share)
    server = _Server(Sandbox(desk), port, "127.0.0.1", lambda _url: ready.set())
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[server.listener])), daemon=True)
    thread.start()
    try:
        if not ready.wait(10):
            raise RuntimeError("the sandbox did not start within ten seconds")
        yield Running(server.origin + API, server.origin + CONTROL, desk.tenant)
    finally:
        if thread.is_alive():
            server.loop.call_soon_threadsafe(server.stopped.set)
            thread.join(10)
