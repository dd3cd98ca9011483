"""What a fault looks like from the other end of the line: bytes that come late, in part, or never."""

import asyncio
import http
import socket
import struct
from datetime import timedelta
from email.utils import format_datetime

from starlette.types import Receive, Send

from forwarder.sandbox.exchange import HTML, Answer, json_answer
from forwarder.sandbox.faults import Rule
from forwarder.sandbox.state import Tenant

PORTAL_PATH = "/_sandbox/portal"
LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Guest Wi-Fi</title></head><body><h1>Please sign in</h1></body></html>"
# Longer than any answer here, so that a client waits for bytes that never come.
MISSING_BYTES = 1000


async def whole(receive: Receive) -> bytes | None:
    """The request's body; None when the client went away while sending it."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def gone(receive: Receive) -> None:
    """Waits until the connection is closed: uvicorn would answer 500 for an application that returned before that."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_answer(send: Send, answer: Answer, date: str) -> None:
    head = [*answer.head(), (b"date", date.encode())]
    await send({"type": "http.response.start", "status": answer.status, "headers": head})
    await send({"type": "http.response.body", "body": answer.body})


async def drop(transport: asyncio.Transport, receive: Receive, *, reset: bool) -> None:
    """Closes without a word: in good order, or with a reset, as a dying router or a full table does."""
    if reset:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    else:
        transport.close()
    await gone(receive)


async def hang(transport: asyncio.Transport, receive: Receive, seconds: float) -> None:
    """Says nothing until the client gives up, or for so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await gone(receive)
    except TimeoutError:
        await drop(transport, receive, reset=False)


async def trickle(transport: asyncio.Transport, raw: bytes, interval: float) -> bool:
    """A byte at a time: each one satisfies a client that only limits the wait for the next. True if all went out."""
    for index in range(len(raw)):
        await asyncio.sleep(interval)
        if transport.is_closing():
            return False
        transport.write(raw[index : index + 1])
    return True


async def truncate(transport: asyncio.Transport, receive: Receive, answer: Answer, date: str) -> None:
    """Promises more than it sends, and hangs up half-way."""
    transport.write(raw_answer(answer, date, extra=MISSING_BYTES)[: -max(1, len(answer.body) // 2)])
    await drop(transport, receive, reset=False)


def raw_answer(answer: Answer, date: str, extra: int = 0) -> bytes:
    """The answer as bytes on the wire, past the HTTP library, which would not let us lie about the length."""
    phrase = _phrase(answer.status)
    lines = [f"HTTP/1.1 {answer.status} {phrase}".encode(), b"date: " + date.encode(), b"connection: close"]
    length = str(len(answer.body) + extra).encode()
    lines += [name + b": " + (length if name == b"content-length" else value) for name, value in answer.head()]
    return b"\r\n".join([*lines, b"", answer.body])


def http_date(tenant: Tenant, skew_s: float = 0.0) -> str:
    """The server's own clock, and what is put on top of it, in HTTP's form."""
    return format_datetime(tenant.now() + tenant.date_skew + timedelta(seconds=skew_s), usegmt=True)


def false_answer(rule: Rule, tenant: Tenant) -> Answer | None:
    """What stands in the place of Omneo's answer; None for a mode that leaves it alone."""
    match rule.mode:
        case "status":
            return _status(rule.code, html=rule.html)
        case "throttle":
            after = timedelta(seconds=rule.retry_after)
            when = format_datetime(tenant.now() + after, usegmt=True) if rule.as_date else str(rule.retry_after)
            return json_answer(429, {"message": "Too Many Attempts."}, {"retry-after": when})
        case "unauthorized":
            return json_answer(401, {"message": "Unauthenticated."})
        case "forbidden":
            return json_answer(403, {"message": "Invalid scope(s) provided."})
        case "portal":
            return Answer(200, LOGIN_PAGE, HTML)
        case "portal_json":
            return json_answer(200, {"status": "login_required", "data": {"portal": PORTAL_PATH}})
        case "redirect":
            return Answer(302, LOGIN_PAGE, HTML, {"location": PORTAL_PATH})
        case "garbage":
            return Answer(200, b'{"data": {"id": 4711, "external_id": "')
        case "wrong_id":
            return json_answer(201, {"data": {"id": 4711, "external_id": "SOMEBODY-ELSES-4711", "total": 1}})
    return None


def _status(code: int, *, html: bool) -> Answer:
    phrase = _phrase(code)
    if html:
        return Answer(code, f"<html><body><h1>{code} {phrase}</h1></body></html>".encode(), HTML)
    return json_answer(code, {"message": "Server Error" if code == 500 else phrase})


def _phrase(code: int) -> str:
    """Front ends make codes up (520 to 530, say): those have no name."""
    return http.HTTPStatus(code).phrase if code in http.HTTPStatus.__members__.values() else "Unknown"
