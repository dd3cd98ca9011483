"""
A server that takes sales as fast as it can, or after a fixed delay: the far end of the figures, so that what is
measured is the sender. The sandbox checks what it is asked, which costs it more than the asking costs us.

    python tests/bench/quick.py [DELAY_MS] [PORT]

Prints its port, then, when asked `GET /last`, answers what it saw: {"posts", "inversions", "first", "last"} (seconds,
monotonic; an inversion is a sale whose number is not above that of the one before). It keeps nothing of what it took.
"""

import asyncio
import json
import re
import sys
import time
from typing import Any

NAMED = re.compile(rb'"external_id":\s*"([^"]*?(\d+))"')
LENGTH = re.compile(rb"(?i)\r\ncontent-length:\s*(\d+)")
NOT_FOUND = b'{"message":"No such transaction"}'


class Seen:
    """What came, of all connections."""

    def __init__(self) -> None:
        self.posts = self.inversions = 0
        self.number = -1  # of the sale that came last
        self.first = self.last = 0.0

    def as_json(self) -> bytes:
        return json.dumps({name: getattr(self, name) for name in ("posts", "inversions", "first", "last")}).encode()


class Taker(asyncio.Protocol):
    """One connection."""

    def __init__(self, seen: Seen, delay_s: float) -> None:
        self.seen, self.delay_s, self.held = seen, delay_s, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self.held, 0, end)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self.held) < whole:
                return
            request, self.held = self.held[:whole], self.held[whole:]
            answer = self.answer(request)
            if self.delay_s and not request.startswith(b"GET /last"):
                asyncio.get_running_loop().call_later(self.delay_s, self.send, answer)
            else:
                self.send(answer)

    def send(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)

    def answer(self, request: bytes) -> bytes:
        seen = self.seen
        if request.startswith(b"GET /last"):
            return said(200, seen.as_json())
        if not request.startswith(b"POST"):
            return said(404, NOT_FOUND)
        seen.posts += 1
        seen.last = time.monotonic()
        seen.first = seen.first or seen.last
        named = NAMED.search(request)
        number = int(named[2]) if named else -1
        seen.inversions += number <= seen.number
        seen.number = number
        return said(200, b'{"data":{"id":%d,"external_id":"%b"}}' % (seen.posts, named[1] if named else b""))


def said(status: int, body: bytes) -> bytes:
    """An answer."""
    head = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    return head + body


async def serve(delay_s: float, port: int) -> None:
    """Until it is killed."""
    seen = Seen()
    server = await asyncio.get_running_loop().create_server(lambda: Taker(seen, delay_s), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    given = [float(each) for each in sys.argv[1:]] + [0.0, 0.0][len(sys.argv) - 1 :]
    asyncio.run(serve(given[0] / 1000, int(given[1])))
