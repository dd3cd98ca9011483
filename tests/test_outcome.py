"""Contract, section 6, as a table: what came back, over a real socket, and what it means."""

import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from standin import Listen, Speaker, http, says

from forwarder import outcome
from forwarder.outcome import RETRY_AFTER_MAX_S, Answer
from forwarder.wire import Wire

NOW = datetime(2025, 6, 15, 4, 0, tzinfo=UTC)
OURS = b'{"data": {"id": 50001, "external_id": "S-1"}}'
SAID = b'{"message": "Something."}'
PAGE = b"<!DOCTYPE html><html><body>Please sign in</body></html>"
JSON, HTML, TEXT = "application/json", "text/html; charset=utf-8", "text/plain"


@contextmanager
def wire(timeout_s: float = 1.0) -> Iterator[Wire]:
    opened = Wire(timeout_s)
    try:
        yield opened
    finally:
        opened.close()


def asked(url: str, timeout_s: float = 1.0) -> Answer:
    with wire(timeout_s) as line:
        request = httpx.Request("POST", url + "/transactions/update-create", content=b"{}")
        return outcome.send(line, request, lambda: NOW)


# status line, body, content type → meaning; what it comes to where it is neither yes nor no; look up before a resend?
TABLE = {
    # 2xx with JSON
    "200 with our data": ("200 OK", OURS, JSON, "yes", None),
    "201 with our data": ("201 Created", OURS, JSON, "yes", None),
    "200 with our data and no content type": ("200 OK", OURS, None, "yes", None),
    "200 with a byte order mark": ("200 OK", b"\xef\xbb\xbf" + OURS, JSON, "yes", None),
    # 2xx without, 3xx, HTML: not Omneo, the line is down, and what we sent may have got through all the same
    "200 without an id": ("200 OK", b'{"data": {}}', JSON, "yes", ("deferred", True)),
    "200 with JSON of a portal": ("200 OK", b'{"status": "login_required"}', JSON, "yes", ("deferred", True)),
    "200 with a list": ("200 OK", b"[1, 2]", JSON, "not_omneo", ("deferred", True)),
    "200 with a text": ("200 OK", b'"fine"', JSON, "not_omneo", ("deferred", True)),
    "200 with null": ("200 OK", b"null", JSON, "not_omneo", ("deferred", True)),
    "200 with nothing": ("200 OK", b"", JSON, "not_omneo", ("deferred", True)),
    "200 with half of JSON": ("200 OK", OURS[:-5], JSON, "not_omneo", ("deferred", True)),
    "200 with bytes that are no text": ("200 OK", b"\xff\xfe\x00garbage", JSON, "not_omneo", ("deferred", True)),
    "200 with a tower of brackets": ("200 OK", b"[" * 100_000, JSON, "not_omneo", ("deferred", True)),
    "200 with a page": ("200 OK", PAGE, HTML, "not_omneo", ("deferred", True)),
    "200 with a page that says it is JSON": ("200 OK", b"  " + PAGE, JSON, "not_omneo", ("deferred", True)),
    "200 with JSON that says it is a page": ("200 OK", OURS, HTML, "not_omneo", ("deferred", True)),
    "204": ("204 No Content", b"", None, "not_omneo", ("deferred", True)),
    **{
        f"{status} {what}": (f"{status} Moved", body, kind, "not_omneo", ("deferred", True))
        for status in (300, 301, 302, 303, 304, 307, 308)
        for what, body, kind in (("with a page", PAGE, HTML), ("with our data", OURS, JSON), ("bare", b"", None))
    },
    **{
        f"{status} with a page": (f"{status} No", PAGE, HTML, "not_omneo", None)
        for status in (400, 401, 403, 404, 405, 409, 413, 422)
    },
    # our credentials
    "401": ("401 Unauthorized", SAID, JSON, "credentials", ("paused", False)),
    "401 bare": ("401 Unauthorized", b"", None, "credentials", ("paused", False)),
    "403": ("403 Forbidden", SAID, JSON, "credentials", ("paused", False)),
    "403 bare": ("403 Forbidden", b"", None, "credentials", ("paused", False)),
    # our configuration, unless it is about the document
    "404": ("404 Not Found", SAID, JSON, "missing", ("paused", False)),
    "405": ("405 Method Not Allowed", SAID, JSON, "route", ("paused", False)),
    # a no to the document
    **{f"{status}": (f"{status} No", SAID, JSON, "no", None) for status in (400, 409, 413, 422)},
    # not now
    **{
        f"{status} {what}": (f"{status} Later", body, kind, "not_now", ("deferred", look_up))
        for status, look_up in ((408, True), (425, False), (429, False), (500, True), (502, True), (503, True))
        for what, body, kind in (("in JSON", SAID, JSON), ("with a page", PAGE, HTML), ("bare", b"", None))
    },
    **{f"{status}": (f"{status} ?", SAID, JSON, "not_now", ("deferred", True)) for status in (504, 520, 530, 599)},
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
def test_an_answer_is_sorted_by_what_it_says(
    listen: Listen, row: tuple[str, bytes, str | None, str | None, tuple[str, bool] | None]
) -> None:
    status, body, kind, wanted, comes_to = row
    raw = http(status, body, **({"content_type": kind} if kind else {}))
    if status.startswith(("204", "304")):
        raw = f"HTTP/1.1 {status}\r\n\r\n".encode()
    answer = asked(listen(says(raw)).url)
    assert answer.left
    assert answer.status == int(status[:3])
    if wanted is not None:
        assert outcome.meaning(answer) == wanted
    if comes_to is not None:
        result = outcome.otherwise(answer)
        assert (result.kind, result.look_up, result.settles) == (*comes_to, False)


# Once: the contract's row says "404 or 405 that is not about the document": nothing there asks for JSON, and only
# HTML is "not Omneo". A wrong `--url` at a server that answers 404 in plain text must pause (78), not wait for ever.
@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed"])
@pytest.mark.parametrize(("body", "kind"), [(b"404 page not found\n", TEXT), (b"", None)])
def test_a_route_that_is_not_there_pauses_whatever_the_body(
    listen: Listen, status: str, body: bytes, kind: str | None
) -> None:
    answer = asked(listen(says(http(status, body, **({"content_type": kind} if kind else {})))).url)
    assert outcome.otherwise(answer).kind == "paused"


# Once: The same for a no: a 413 without a body (or in plain text) holds the line for ever, because nothing settles it.
@pytest.mark.parametrize("status", [400, 409, 413, 422])
@pytest.mark.parametrize("body", [b"", b"Payload too large"])
def test_a_no_is_a_no_without_json_too(listen: Listen, status: int, body: bytes) -> None:
    assert outcome.meaning(asked(listen(says(http(f"{status} No", body, content_type=TEXT))).url)) == "no"


# ── Nothing came back ─────────────────────────────────────────────────────────────────────────────────────────────


def hang_up(speaker: Speaker, connection: socket.socket) -> None:
    speaker.hear(connection)


def reset(speaker: Speaker, connection: socket.socket) -> None:
    speaker.hear(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_up_half_way(speaker: Speaker, connection: socket.socket) -> None:
    speaker.hear(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + OURS)


def speak_something_else(speaker: Speaker, connection: socket.socket) -> None:
    speaker.hear(connection)
    connection.sendall(b"220 mail.example.com ESMTP\r\n")


def say_nothing(speaker: Speaker, connection: socket.socket) -> None:
    speaker.hear(connection)
    speaker.over.wait(5)


@pytest.mark.parametrize("talk", [hang_up, reset, hang_up_half_way, speak_something_else, say_nothing])
def test_a_request_whose_answer_is_lost_may_have_arrived(listen: Listen, talk: object) -> None:
    answer = asked(listen(talk).url, 0.3)
    assert (answer.status, answer.left, outcome.meaning(answer)) == (None, True, "lost")
    result = outcome.otherwise(answer)
    assert (result.kind, result.look_up) == ("deferred", True)


def test_a_request_that_met_nobody_did_not_arrive(listen: Listen) -> None:
    speaker = listen(hang_up)
    speaker.close()
    answer = asked(speaker.url)
    assert (answer.left, outcome.meaning(answer)) == (False, "not_now")
    result = outcome.otherwise(answer)
    assert (result.kind, result.look_up, result.reason) == ("deferred", False, "no connection")


def test_a_name_that_is_not_resolved_is_told_from_a_refused_connection() -> None:
    answer = asked("https://omneo.invalid/api/v3", 20)
    assert (answer.left, outcome.meaning(answer)) == (False, "not_now")
    assert "name" in answer.reason


def test_a_server_that_speaks_no_tls_is_told_from_one_that_is_gone(listen: Listen) -> None:
    speaker = listen(lambda _speaker, connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    answer = asked(speaker.url.replace("http:", "https:"))
    assert (answer.left, outcome.meaning(answer)) == (False, "not_now")
    assert answer.reason.startswith("TLS")


# ── Retry-After and Date ──────────────────────────────────────────────────────────────────────────────────────────


def stamp(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


THERE = NOW + timedelta(hours=5)  # their clock is off: a date is read against it
RETRY_AFTER = {
    "seconds": ("7", None, 7.0),
    "none": ("0", None, 0.0),
    "seconds with blanks": (" 7 ", None, 7.0),
    "an hour and more": ("3601", None, RETRY_AFTER_MAX_S),
    "for ever": ("9" * 400, None, RETRY_AFTER_MAX_S),
    "a date by their clock": (stamp(THERE + timedelta(seconds=90)), stamp(THERE), 90.0),
    "a date by ours": (stamp(NOW + timedelta(seconds=90)), None, 90.0),
    "a date that is over": (stamp(THERE - timedelta(days=1)), stamp(THERE), 0.0),
    "a date in a year": (stamp(THERE + timedelta(days=365)), stamp(THERE), RETRY_AFTER_MAX_S),
    "a date without a zone": (stamp(NOW + timedelta(seconds=90)).removesuffix(" GMT"), None, 90.0),
    "the old form of a date": (f"{NOW + timedelta(seconds=90):%A, %d-%b-%y %H:%M:%S} GMT", None, 90.0),
    "negative": ("-5", None, None),
    "a fraction": ("1.5", None, None),
    "words": ("soon", None, None),
    "empty": ("", None, None),
    "the year nothing": ("Mon, 00 Jan 0000 00:00:00 GMT", None, None),
    # Once: str.isdigit() is true of these, float() raises ValueError: an exception leaves `send`, the forwarder dies.
    "digits of another kind": ("²", None, None),
    # Once: parsedate_to_datetime raises OverflowError here, which nobody catches.
    "a year that no calendar has": ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None, None),
}


@pytest.mark.parametrize(("value", "date", "wanted"), RETRY_AFTER.values(), ids=RETRY_AFTER.keys())
@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_retry_after_is_understood_in_both_forms_and_never_stops_a_shop_for_long(
    listen: Listen, status: str, value: str, date: str | None, wanted: float | None
) -> None:
    headers = {"retry_after": value} | ({"date": date} if date else {})
    answer = asked(listen(says(http(status, SAID, content_type=JSON, **headers))).url)
    assert answer.retry_after_s == wanted
    assert outcome.otherwise(answer).retry_after_s == wanted


# Once: an OverflowError in the Date of any answer (a proxy's, say) leaves `send`.
@pytest.mark.parametrize(
    "date",
    [
        "soon",
        "",
        "Mon, 32 Jan 2025 00:00:00 GMT",
        "Mon, 01 Jan 2025 00:00:00 +99999999999",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 99999999999999999999 Jan 2025 00:00:00 GMT",
        "²",
    ],
)
def test_a_date_that_is_none_is_left_aside(listen: Listen, date: str) -> None:
    answer = asked(listen(says(http("200 OK", OURS, content_type=JSON, date=date))).url)
    assert answer.date is None
    assert outcome.meaning(answer) == "yes"


# ── What a body can be ────────────────────────────────────────────────────────────────────────────────────────────

ODD_BODIES = {
    "NaN": b'{"data": {"id": NaN, "external_id": "S-1"}}',
    "a number with 5,000 digits": b'{"data": {"id": ' + b"1" * 5000 + b"}}",
    # Once: Decimal() raises InvalidOperation, which is no ValueError: an exception leaves `send`.
    "an exponent beyond all numbers": b'{"data": {"id": 1, "total": 1e99999999999999999999}}',
    "an exponent below all numbers": b'{"data": {"id": 1, "total": 1e-99999999999999999999}}',
    "half a character": b'{"data": {"id": "\\ud800"}}',
    "errors that are a list": b'{"message": "no", "errors": ["a", 1]}',
    "errors that are numbers": b'{"message": 5, "errors": {"a": 1, "b": [2, {}]}}',
    "data that is a list of anything": b'{"data": [1, null, {"id": 5}, []]}',
    "UTF-16": json.dumps({"data": {"id": 1}}).encode("utf-16"),
    "deep nesting": b'{"data":' * 50_000,
}


@pytest.mark.parametrize("status", ["200 OK", "422 No", "500 Oh"])
@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES.keys())
def test_no_body_makes_it_raise(listen: Listen, status: str, body: bytes) -> None:
    answer = asked(listen(says(http(status, body, content_type=JSON))).url)
    assert answer.status == int(status[:3])
    assert isinstance(outcome.meaning(answer), str)
    assert isinstance(answer.rows, list)
    assert isinstance(answer.data, dict)
    assert isinstance(outcome.otherwise(answer).reason, str)


def test_numbers_come_back_digit_by_digit(listen: Listen) -> None:
    body = b'{"data": {"id": 1, "total": 123456789012345678901234567890.123, "small": 0.10}}'
    data = asked(listen(says(http("200 OK", body, content_type=JSON))).url).data
    assert str(data["total"]) == "123456789012345678901234567890.123"
    assert str(data["small"]) == "0.10"


def test_no_reason_quotes_what_came_back(listen: Listen) -> None:
    """Reasons are logged and kept: a 422 may quote a customer."""
    body = b'{"message": "The email jane@example.com is taken.", "errors": {"email": ["jane@example.com is taken."]}}'
    answer = asked(listen(says(http("422 No", body, content_type=JSON))).url)
    assert "jane" not in answer.reason
    assert "jane" not in outcome.otherwise(answer).reason
    assert answer.errors == ("email",)


def test_an_answer_takes_no_longer_than_it_takes(listen: Listen) -> None:
    speaker = listen(says(http("200 OK", OURS, content_type=JSON)))
    with wire() as line:
        began = time.monotonic()
        for _ in range(100):
            outcome.send(line, httpx.Request("GET", speaker.url), lambda: NOW)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("content", "ends"),
    [
        ({"data": [{}], "meta": {"last_page": 2}}, [False, True]),
        ({"data": [{}], "meta": {"last_page": "2"}}, [False, True]),
        ({"data": [{}], "links": {"next": "https://…?page=2"}}, [False, False]),
        ({"data": [{}], "links": {"next": None}}, [True, True]),
        ({"data": [{}], "meta": {"last_page": "many"}, "links": {"next": "https://…"}}, [False, False]),
        ({"data": [], "links": {"next": "https://…"}}, [True, True]),
        ({"data": [{}]}, [True, True]),
        ({"data": [{}], "meta": 7, "links": []}, [True, True]),
        ([], [True, True]),
    ],
)
def test_which_page_of_a_list_is_its_last(content: Any, ends: list[bool]) -> None:
    answer = Answer(200, content, left=True, reason="")
    assert [answer.ends(1), answer.ends(2)] == ends
