"""One request on a bad line: it is over in time, it never fills the memory, and it says whether anything left."""

import contextlib
import gzip
import itertools
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from standin import Listen, Speaker, http, says
from tills import wait_until

from forwarder import outcome
from forwarder.wire import ANSWER_BYTES, TooLong, Wire
from journal.log import utc_now

TIMEOUT_S = 0.4
SLACK_S = 0.4
FINE = http("200 OK", b'{"data": {"id": 1}}', content_type="application/json")


@pytest.fixture
def wire() -> Iterator[Wire]:
    line = Wire(TIMEOUT_S)
    yield line
    line.close()


def get(url: str) -> httpx.Request:
    return httpx.Request("GET", url + "/auth/verify")


def slowly(raw: bytes, piece: int = 1) -> Callable[[Speaker, socket.socket], None]:
    """Each piece comes well within any wait for the next one."""

    def talk(speaker: Speaker, connection: socket.socket) -> None:
        speaker.hear(connection)
        for at in itertools.count(0, piece):
            connection.sendall(raw[at : at + piece] or b" ")
            if speaker.over.wait(0.05):
                return

    return talk


def for_ever(start: bytes, piece: bytes) -> Callable[[Speaker, socket.socket], None]:
    def talk(speaker: Speaker, connection: socket.socket) -> None:
        speaker.hear(connection)
        connection.sendall(start)
        while not speaker.over.is_set():
            connection.sendall(piece)

    return talk


def silent(speaker: Speaker, connection: socket.socket) -> None:
    speaker.hear(connection)
    speaker.over.wait(10)


LENGTH = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
TRICKLES = {
    "not a word": silent,
    "a status line, a byte at a time": slowly(FINE),
    "headers without an end": slowly(b"HTTP/1.1 200 OK\r\n" + b"x-more: 1\r\n" * 1000, 11),
    "a body, a byte at a time": slowly(LENGTH + b"[" * 1000, len(LENGTH)),
    "chunks, one at a time": slowly(CHUNKED + b"1\r\n \r\n" * 1000, len(CHUNKED)),
    "promises to go on, without an end": slowly(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 25),
}


@pytest.mark.parametrize("talk", TRICKLES.values(), ids=TRICKLES.keys())
def test_the_whole_of_a_request_is_over_in_time(
    listen: Listen, wire: Wire, talk: Callable[[Speaker, socket.socket], None]
) -> None:
    began = time.monotonic()
    with pytest.raises(httpx.TimeoutException):
        wire.handle_request(get(listen(talk).url))
    assert TIMEOUT_S - 0.05 <= time.monotonic() - began < TIMEOUT_S + SLACK_S


def test_a_server_that_reads_slowly_does_not_hold_us_either(listen: Listen, wire: Wire) -> None:
    """One write of all of it would be many sends, each of which gets the whole of what was left when it began."""

    def reads_slowly(speaker: Speaker, connection: socket.socket) -> None:
        while connection.recv(65536) and not speaker.over.wait(0.01):
            pass

    speaker = listen(reads_slowly, 65536)
    big = httpx.Request("POST", speaker.url, content=b" " * 16 * 1024 * 1024)
    began = time.monotonic()
    with pytest.raises(httpx.WriteTimeout):
        wire.handle_request(big)
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S


def test_a_handshake_that_never_ends_is_over_in_time_and_nothing_left(listen: Listen, wire: Wire) -> None:
    def trickles(speaker: Speaker, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"\x16\x03\x03\x10\x00")  # a record of 4,096 bytes, which never all come
        while not speaker.over.wait(0.05):
            connection.sendall(b"\x02")

    url = listen(trickles).url.replace("http:", "https:")
    began = time.monotonic()
    with pytest.raises(httpx.ConnectTimeout):
        wire.handle_request(get(url))
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S


def test_head_and_body_of_a_request_leave_together(listen: Listen, wire: Wire) -> None:
    """Once: two packets each, and a server that woke up for a head without a body."""
    came: list[bytes] = []

    def takes_note(_: Speaker, connection: socket.socket) -> None:
        came.append(connection.recv(65536))
        connection.sendall(FINE)

    speaker = listen(takes_note)
    assert wire.handle_request(httpx.Request("POST", speaker.url, content=b"x" * 2000)).status_code == 200
    assert came[0].endswith(b"x" * 2000)


def test_nothing_is_answered_that_has_not_left(listen: Listen, wire: Wire) -> None:
    """A server that answers twice: what nobody has asked for is no answer to the next request."""
    heard: list[bytes] = []

    def answers_twice(speaker: Speaker, connection: socket.socket) -> None:
        while head := speaker.hear(connection):
            heard.append(head)
            connection.sendall(FINE + FINE)

    url = listen(answers_twice).url
    for path in ("/first", "/second"):
        wire.handle_request(httpx.Request("GET", url + path))
    wait_until(lambda: len(heard) == 2)
    assert [head.split()[1].rpartition(b"/")[2] for head in heard] == [b"first", b"second"]


def test_the_next_request_after_one_that_timed_out_gets_its_own_answer(listen: Listen, wire: Wire) -> None:
    """The late answer to the first must not be taken for the answer to the second."""

    def late_then_right(speaker: Speaker, connection: socket.socket) -> None:
        first = speaker.connections == 1
        while heard := speaker.hear(connection):
            path = heard.split()[1]
            if first:
                speaker.over.wait(TIMEOUT_S + 0.1)
            connection.sendall(http("200 OK", path))

    speaker = listen(late_then_right)
    with pytest.raises(httpx.ReadTimeout):
        wire.handle_request(httpx.Request("GET", speaker.url + "/first"))
    time.sleep(0.2)
    answer = wire.handle_request(httpx.Request("GET", speaker.url + "/second"))
    assert answer.content == b"/api/v3/second"


ENDLESS = {
    "a body without a length": for_ever(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536),
    "chunks": for_ever(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "a length beyond all sense": for_ever(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n", b" " * 65536),
}


@pytest.mark.parametrize("talk", ENDLESS.values(), ids=ENDLESS.keys())
def test_an_endless_answer_is_cut_off(listen: Listen, talk: Callable[[Speaker, socket.socket], None]) -> None:
    line = Wire(10)
    with pytest.raises(TooLong):
        line.handle_request(get(listen(talk).url))
    line.close()


def test_endless_headers_are_cut_off(listen: Listen) -> None:
    line = Wire(10)
    with pytest.raises(httpx.TransportError):
        line.handle_request(get(listen(for_ever(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000)).url))
    line.close()


def test_a_line_that_sent_too_much_serves_the_next_request(listen: Listen) -> None:
    def once_too_much(speaker: Speaker, connection: socket.socket) -> None:
        if speaker.connections == 1:
            ENDLESS["chunks"](speaker, connection)
        says(FINE)(speaker, connection)

    speaker, line = listen(once_too_much), Wire(5)
    with pytest.raises(TooLong):
        line.handle_request(get(speaker.url))
    assert line.handle_request(get(speaker.url)).status_code == 200
    line.close()


def test_the_largest_answer_that_is_taken_is_taken_whole(listen: Listen) -> None:
    line = Wire(10)
    assert len(line.handle_request(get(listen(says(http("200 OK", b" " * ANSWER_BYTES))).url)).content) == ANSWER_BYTES
    line.close()


def test_while_an_answer_is_waited_for_there_is_time_for_something_else(listen: Listen) -> None:
    gone = threading.Event()

    def once_gone(speaker: Speaker, connection: socket.socket) -> None:
        speaker.hear(connection)
        assert gone.wait(5)
        connection.sendall(FINE)

    line = Wire(5, sent=gone.set)
    assert line.handle_request(get(listen(once_gone).url)).status_code == 200
    line.close()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "nonsense"])
def test_nothing_is_unpacked(listen: Listen, wire: Wire, encoding: str) -> None:
    """A bomb is small until then."""
    packed = gzip.compress(b"0" * 10_000_000)
    answer = wire.handle_request(get(listen(says(http("200 OK", packed, content_encoding=encoding))).url))
    answer.read()
    assert answer.content == packed


# ── Addresses ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port of 127.0.0.2 where nobody answers, not even with a refusal: what comes is dropped."""
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.2", 0), backlog=0))
        for _ in range(3):  # fill its queue
            knock = stack.enter_context(socket.socket())
            knock.setblocking(False)
            knock.connect_ex(deaf.getsockname())
        yield deaf.getsockname()[1]


@pytest.mark.parametrize("dead", [1, 2, 7])
def test_an_address_that_never_answers_does_not_keep_us_from_the_next(dead_port: int, dead: int) -> None:
    """Once: each address of a host got the whole time of the request, so a dead one before a good one took it all."""
    with contextlib.closing(Speaker(lambda connection: says(FINE)(speaker, connection), port=dead_port)) as speaker:
        line = Wire(4 * TIMEOUT_S, resolve=lambda *_: ["127.0.0.2"] * dead + ["127.0.0.1"])
        began = time.monotonic()
        assert line.handle_request(get(f"http://omneo.test:{dead_port}")).status_code == 200
        assert time.monotonic() - began < 4 * TIMEOUT_S
        line.close()


def test_addresses_that_never_answer_cost_the_time_of_one_request(dead_port: int) -> None:
    line = Wire(TIMEOUT_S, resolve=lambda *_: ["127.0.0.2"] * 9)
    began = time.monotonic()
    with pytest.raises(httpx.ConnectTimeout) as dead:
        line.handle_request(get(f"http://omneo.test:{dead_port}"))
    assert isinstance(dead.value, outcome.NOT_LEFT)
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    line.close()


def test_a_slow_name_server_leaves_only_the_rest_of_the_time(dead_port: int) -> None:
    def slow(*_: object) -> list[str]:
        time.sleep(TIMEOUT_S / 2)
        return ["127.0.0.2"]

    line = Wire(TIMEOUT_S, resolve=slow)
    began = time.monotonic()
    with pytest.raises(httpx.ConnectTimeout):
        line.handle_request(get(f"http://omneo.test:{dead_port}"))
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S / 2
    line.close()


def test_a_name_that_is_not_known_is_said_to_be_so(wire: Wire) -> None:
    answer = outcome.send(wire, get("http://no-such-host.invalid"), utc_now)
    assert (answer.left, answer.reason) == (False, "the name of Omneo's host can't be resolved")


# ── Did anything leave? ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_connection_that_is_refused_says_that_nothing_left(listen: Listen, wire: Wire) -> None:
    speaker = listen(silent)
    speaker.close()
    with pytest.raises(httpx.ConnectError) as refused:
        wire.handle_request(get(speaker.url))
    assert isinstance(refused.value, outcome.NOT_LEFT)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", LENGTH, LENGTH + b"[1, 2"])
def test_a_connection_lost_after_the_request_says_that_it_may_have_left(
    listen: Listen, wire: Wire, said: bytes, *, reset: bool
) -> None:
    def talk(speaker: Speaker, connection: socket.socket) -> None:
        speaker.hear(connection)
        connection.sendall(said)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with pytest.raises(httpx.TransportError) as lost:
        wire.handle_request(get(listen(talk).url))
    assert not isinstance(lost.value, outcome.NOT_LEFT)


def test_a_server_that_hangs_up_before_it_heard_anything_is_one_more_failure(listen: Listen, wire: Wire) -> None:
    speaker = listen(lambda _speaker, _connection: None)
    with pytest.raises(httpx.TransportError):
        wire.handle_request(get(speaker.url))


# ── Connections ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_many_requests_share_one_connection(listen: Listen, wire: Wire) -> None:
    speaker = listen(says(FINE))
    for _ in range(50):
        assert wire.handle_request(get(speaker.url)).status_code == 200
    assert (speaker.connections, len(speaker.requests)) == (1, 50)


def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again(listen: Listen, wire: Wire) -> None:
    def once(speaker: Speaker, connection: socket.socket) -> None:
        speaker.hear(connection)
        connection.sendall(FINE)

    speaker = listen(once)
    for _ in range(5):
        assert wire.handle_request(get(speaker.url)).status_code == 200
        time.sleep(0.05)
    assert speaker.connections == 5


def test_lanes_have_a_connection_each_and_a_deadline_each(listen: Listen) -> None:
    def by_path(speaker: Speaker, connection: socket.socket) -> None:
        while heard := speaker.hear(connection):
            if b"/slow" in heard:
                speaker.over.wait(0.3)
            connection.sendall(FINE)

    speaker, line = listen(by_path), Wire(TIMEOUT_S * 2)
    slow = threading.Thread(target=lambda: line.handle_request(httpx.Request("GET", speaker.url + "/slow")))
    began = time.monotonic()
    slow.start()
    for _ in range(10):
        assert line.handle_request(get(speaker.url)).status_code == 200
    assert time.monotonic() - began < 0.25
    slow.join()
    line.close()


def test_proxies_of_the_environment_are_not_asked(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    line = Wire(TIMEOUT_S)
    assert line.handle_request(get(listen(says(FINE)).url)).status_code == 200
    line.close()


def test_a_redirect_is_an_answer_like_any_other(listen: Listen, wire: Wire) -> None:
    elsewhere = listen(says(FINE))
    speaker = listen(says(http("302 Found", location=elsewhere.url, set_cookie="a=b")))
    assert wire.handle_request(get(speaker.url)).status_code == 302
    assert wire.handle_request(get(speaker.url)).status_code == 302
    assert elsewhere.connections == 0
    assert b"cookie" not in speaker.requests[1].lower()


# ── TLS ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("NOT TESTED: openssl is not here, so no certificate that nobody has signed could be made")
    place = tmp_path_factory.mktemp("tls")
    key, pem = place / "key.pem", place / "certificate.pem"
    subject = ["-subj", "/CN=sandbox", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    making = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    done = subprocess.run(
        [*making, "-keyout", key, "-out", pem, *subject], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return pem, key


def secured(certificate: tuple[Path, Path], heard: list[bytes]) -> Callable[[Speaker, socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def talk(speaker: Speaker, connection: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as secure:
            heard.append(speaker.hear(secure))
            secure.sendall(FINE)

    return talk


def test_a_certificate_that_nobody_has_signed_is_refused_before_a_word_is_said(
    listen: Listen, certificate: tuple[Path, Path]
) -> None:
    heard: list[bytes] = []
    url = listen(secured(certificate, heard)).url.replace("http:", "https:")
    line = Wire(5)
    request = httpx.Request("GET", url, headers={"Authorization": "Bearer secret-7"})
    with pytest.raises(httpx.ConnectError):
        line.handle_request(request)
    answer = outcome.send(line, request, utc_now)
    line.close()
    assert (answer.left, outcome.meaning(answer), outcome.otherwise(answer).look_up) == (False, "not_now", False)
    assert answer.reason.startswith("TLS: the certificate can't be trusted")
    assert heard == []


def test_authorities_of_this_machine_are_believed_for_the_name_they_vouch_for(
    listen: Listen, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the same server is fine once its certificate is trusted, but not under another name."""
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(certificate[0]))
    heard: list[bytes] = []
    speaker, line = listen(secured(certificate, heard)), Wire(5)
    assert line.handle_request(get(f"https://127.0.0.1:{speaker.port}")).status_code == 200
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        line.handle_request(get(f"https://localhost:{speaker.port}"))
    line.close()
    assert len(heard) == 1
