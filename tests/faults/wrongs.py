"""Everything that a line, a proxy, a name server or a server can do wrong: the table of the line means."""

import random
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from tests.faults.front import Talk, Wrong
from tests.faults.hosts import STRANGER

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def _head(status: str, body: bytes = b"", *lines: str) -> bytes:
    head = [f"HTTP/1.1 {status}", *lines, f"content-length: {len(body)}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def answers(status: str, body: bytes = b"", *lines: str, apply: bool = False) -> Callable[[Talk], None]:
    """Another answer than the sandbox's, which may have carried the request out all the same."""

    def talk(each: Talk) -> None:
        if apply:
            each.answer()
        each.say(_head(status, body, *lines))

    return talk


def hangs_up(*, apply: bool, reset: bool = False, said: float = 0.0) -> Callable[[Talk], None]:
    """The connection ends, after so much of the answer."""

    def talk(each: Talk) -> None:
        if apply:
            answer = each.answer()
            each.say(answer[: round(len(answer) * said)])
        if reset:
            each.reset()
        raise ConnectionAbortedError

    return talk


def silent(*, apply: bool) -> Callable[[Talk], None]:
    def talk(each: Talk) -> None:
        if apply:
            each.answer()
        each.over.wait(60)

    return talk


def trickles(part: str) -> Callable[[Talk], None]:
    def talk(each: Talk) -> None:
        answer = each.answer()
        head, _, body = answer.partition(b"\r\n\r\n")
        match part:
            case "head":
                each.slowly(answer)
            case "headers without an end":
                each.slowly(b"HTTP/1.1 200 OK\r\n" + b"x-more: 1\r\n" * 10_000, 11)
            case "body":
                each.say(head + b"\r\n\r\n" + body[:1])
                each.slowly(body[1:])
            case "chunks":
                each.say(HEAD + b"transfer-encoding: chunked\r\n\r\n")
                each.slowly(b"1\r\n \r\n" * 10_000, 6)
            case "1xx":
                each.slowly(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000, 28)

    return talk


def endless(start: bytes, piece: bytes) -> Callable[[Talk], None]:
    def talk(each: Talk) -> None:
        each.answer()
        each.say(start)
        each.for_ever(piece)

    return talk


def packed(each: Talk) -> None:
    """The right answer with 300 MB of noughts in it, packed: small until somebody unpacks it. Such pieces just join."""
    _, _, body = each.answer().partition(b"\r\n\r\n")
    bomb = (
        _piece(body.rstrip()[:-1] + b', "x": "') + NOUGHTS * 300 + _piece(b'"}') + zlib.compressobj(wbits=-15).flush()
    )
    each.say(_head("200 OK", bomb, "content-type: application/json", "content-encoding: deflate"))


def _piece(raw: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(raw) + packer.flush(zlib.Z_FULL_FLUSH)


NOUGHTS = _piece(b"0" * 1_000_000)


def promises(change: int) -> Callable[[Talk], None]:
    """Another length than comes."""

    def talk(each: Talk) -> None:
        head, _, body = each.answer().partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
        lines.append(b"content-length: %d" % max(0, len(body) + change))
        each.say(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        raise ConnectionAbortedError

    return talk


def two_lengths(each: Talk) -> None:
    head, _, body = each.answer().partition(b"\r\n\r\n")
    each.say(head + b"\r\ncontent-length: 1\r\n\r\n" + body)


def two_answers(each: Talk) -> None:
    """The second one is taken for the answer to the next request, by whoever doesn't look."""
    each.say(each.answer() + _head("200 OK", b'{"data": {"id": 1}}', "content-type: application/json"))


def another_id(each: Talk) -> None:
    each.answer()
    each.say(_head("200 OK", b'{"data": {"id": 4711, "external_id": "another"}}', "content-type: application/json"))


def noise(each: Talk) -> None:
    each.say(random.Random(len(each.heard)).randbytes(2000))


PAGE = b"<html><body>Welcome! Please accept our terms.</body></html>"
SOON = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)

ANSWERS: dict[str, Callable[[Talk], None]] = {
    "hangs up before": hangs_up(apply=False),
    "hangs up after": hangs_up(apply=True),
    "resets before": hangs_up(apply=False, reset=True),
    "resets after": hangs_up(apply=True, reset=True),
    "half an answer": hangs_up(apply=True, said=0.5),
    "almost an answer": hangs_up(apply=True, said=0.98),
    "silent before": silent(apply=False),
    "silent after": silent(apply=True),
    "trickles its head": trickles("head"),
    "trickles headers without an end": trickles("headers without an end"),
    "trickles its body": trickles("body"),
    "trickles chunks": trickles("chunks"),
    "trickles early hints": trickles("1xx"),
    "an endless body": endless(HEAD + b"\r\n", b" " * 65536),
    "endless chunks": endless(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "a length beyond all sense": endless(HEAD + b"content-length: 999999999999\r\n\r\n", b" " * 65536),
    "endless headers": endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 10_000),
    "one giant header": endless(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 65536),
    "a packed bomb": packed,
    "a length too long": promises(10),
    "a length too short": promises(-10),
    "two lengths": two_lengths,
    "two answers": two_answers,
    "another id": another_id,
    "a portal": answers("200 OK", PAGE, "content-type: text/html"),
    "a portal, after": answers("200 OK", PAGE, "content-type: text/html", apply=True),
    "a portal that says it is JSON": answers("200 OK", b'{"login": "required"}', "content-type: application/json"),
    "a redirect": answers("302 Found", b"", f"location: https://{STRANGER}/login"),
    "a redirect that keeps the method": answers("307 Temporary Redirect", b"", f"location: https://{STRANGER}/"),
    "an empty yes": answers("200 OK"),
    "no content": answers("204 No Content"),
    "other protocols": answers("101 Switching Protocols", b"", "upgrade: h2c"),
    "noise": noise,
    "HTTP/2": lambda each: each.say(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" * 20),
    "429": answers("429 Too Many Requests"),
    "429, in a second": answers("429 Too Many Requests", b"{}", "retry-after: 1"),
    "429, by date": answers("429 Too Many Requests", b"{}", f"retry-after: {SOON}"),
    "429, nonsense": answers("429 Too Many Requests", b"{}", "retry-after: -1e9, soon"),
    "500": answers("500 Internal Server Error", b"{}", "content-type: application/json"),
    "500, after": answers("500 Internal Server Error", b"{}", "content-type: application/json", apply=True),
    "502": answers("502 Bad Gateway", PAGE, "content-type: text/html"),
    "503": answers("503 Service Unavailable", b"", "retry-after: 0"),
    "504, after": answers("504 Gateway Timeout", PAGE, "content-type: text/html", apply=True),
    "408, after": answers("408 Request Timeout", apply=True),
    "425": answers("425 Too Early"),
    "401": answers("401 Unauthorized", b'{"message": "Unauthenticated."}', "content-type: application/json"),
    "403": answers("403 Forbidden", PAGE, "content-type: text/html"),
    "404 of a proxy": answers("404 Not Found", PAGE, "content-type: text/html"),
}
TLS = ("wrong_host", "expired", "not_yet", "self_signed", "stranger", "silent", "closed", "closed in the middle")
TLS += ("plain HTTP", "garbage", "a byte at a time", "closed after it")
NAMING = ("silent", "nxdomain", "servfail", "refused", "garbage", "no address", "stranger", "nobody at all")
LINES: dict[str, dict[str, float]] = {
    "loses 5 %": {"loss": 5},
    "loses 30 %": {"loss": 30},
    "300 ± 250 ms, reordered": {"delay": 300, "jitter": 250},
    "everything twice": {"twice": 100},
    "a flipped bit in 10 %": {"flip": 10},
    "all of it": {"loss": 10, "delay": 60, "jitter": 50, "twice": 20, "flip": 5},
}

WRONGS: dict[str, Wrong] = {
    **{f"answer: {name}": Wrong(http=talk) for name, talk in ANSWERS.items()},
    **{f"TLS: {name}": Wrong(tls=name) for name in TLS},
    **{f"names: {name}": Wrong(names=name) for name in NAMING},
    **{f"line: {name}": Wrong(names="line", line=how) for name, how in LINES.items()},
}
# What the forwarder has to get through while it lasts, in the time that a request has.
BEARABLE: dict[str, Wrong] = {
    "names: nobody first": Wrong(names="nobody first"),
    "names: nobody by IPv6 first": Wrong(names="nobody by IPv6 first"),
}
# The line that was up dies and comes back: connections that are half open.
DEAD = Wrong(names="line", line={"loss": 100})
