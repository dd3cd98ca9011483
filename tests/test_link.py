"""Who we are at Omneo, how fast we ask, and what becomes of a token: it is read anew, and it is shown to nobody."""

import itertools
import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from standin import Listen, Omneo, at_once, execute, http, says

from forwarder import omneo as routes
from forwarder import outcome
from forwarder.link import Credentials, Link, check_url
from forwarder.outcome import Answer
from forwarder.wire import Wire
from journal.log import Unusable

Connect = Callable[..., Link]
ASK = routes.verify_token()


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as stack:

        def to(
            url: str, credentials: Credentials, *, rate: float = 0, sleep: Callable[[float], object] = at_once
        ) -> Link:
            wire = Wire(2)
            stack.callback(wire.close)
            return Link(check_url(url), credentials, wire, rate=rate, sleep=sleep)

        yield to


@pytest.fixture(autouse=True)
def _no_token_around_us(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMNEO_TOKEN", "OMNEO_TOKEN_FILE", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


def oauth_file(place: Path, **fields: str) -> Path:
    file = place / "oauth"
    known = {"client_id": "sandbox", "client_secret": "sandbox", "username": "u", "password": "p"}
    file.write_text(json.dumps(known | fields))
    return file


def ok(answer: Answer) -> bool:
    return outcome.meaning(answer) == "yes"


# ── Where the token comes from ────────────────────────────────────────────────────────────────────────────────────


def test_the_file_goes_before_the_credential_and_that_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNEO_TOKEN", "from-environment")
    assert Credentials.find(None).read() == "from-environment"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Credentials.find(None).read() == "from-environment"
    (tmp_path / "omneo-token").write_text("from-systemd\n")
    assert Credentials.find(None).read() == "from-systemd"
    (tmp_path / "mine").write_text("  from-file \r\n")
    assert Credentials.find(tmp_path / "mine").read() == "from-file"


def test_without_a_token_it_says_what_to_do() -> None:
    with pytest.raises(Unusable, match="--token-file"):
        Credentials.find(None)


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"\xff\xfe", "schlüssel".encode(), b"a\x00b", b"a\nb"])
def test_a_token_that_is_none_is_refused_without_being_quoted(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(Unusable) as refused:
        Credentials.find(file)
    assert not any(word in str(refused.value) for word in ("two words", "schl", "a\nb"))


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="nowhere"):
        Credentials.find(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content", ['{"client_id": "only-this"}', '{"client_secret": "hush-7"', '{"client_id": 1, "hush-7": [}', "{}"]
)
def test_an_oauth_credential_that_is_none_is_refused_without_being_quoted(tmp_path: Path, content: str) -> None:
    file = tmp_path / "oauth"
    file.write_text(content)
    with pytest.raises(Unusable) as refused:
        Credentials.find(file).oauth()
    assert "hush-7" not in "".join(traceback.format_exception(refused.value))


def test_an_oauth_password_may_hold_any_character(tmp_path: Path) -> None:
    """Once: the whole credential has to be ASCII, which a token is but a person's password need not be."""
    file = tmp_path / "oauth"
    known = {"client_id": "sandbox", "client_secret": "sandbox", "username": "u", "password": "Schlüssel 7"}
    file.write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")
    form = Credentials.find(file).oauth()
    assert form is not None
    assert form["password"] == "Schlüssel 7"


# ── Renewal ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_that_omneo_no_longer_takes_is_read_again(omneo: Omneo, token: Path, connect: Connect) -> None:
    link = connect(omneo.url, Credentials.find(token))
    assert ok(link.ask(ASK))
    omneo.control("/revoke")
    answer = link.ask(ASK)
    assert outcome.otherwise(answer).kind == "paused"
    omneo.control("/tokens", accept="renewed")
    assert outcome.meaning(link.ask(ASK)) == "credentials"
    token.write_text("renewed\n")
    assert ok(link.ask(ASK))


def test_a_good_token_is_read_once_and_a_bad_one_costs_two_requests_at_most(
    omneo: Omneo, token: Path, connect: Connect
) -> None:
    link = connect(omneo.url, Credentials.find(token))
    assert ok(link.ask(ASK))
    token.write_text("another")
    assert ok(link.ask(ASK))
    before = len(omneo.asked())
    omneo.control("/revoke")
    link.ask(ASK)
    assert len(omneo.asked()) == before + 2


@pytest.mark.parametrize("content", [b"", b"\xff"])
def test_a_token_that_is_just_being_written_is_one_pause_more(
    omneo: Omneo, token: Path, connect: Connect, content: bytes
) -> None:
    link = connect(omneo.url, Credentials.find(token))
    assert ok(link.ask(ASK))
    omneo.control("/revoke")
    token.write_bytes(content)
    assert outcome.otherwise(link.ask(ASK)).kind == "paused"
    token.unlink()
    assert outcome.otherwise(link.ask(ASK)).kind == "paused"
    omneo.control("/tokens", accept="renewed")
    token.write_text("renewed")
    assert ok(link.ask(ASK))


def test_oauth_fetches_a_token_and_another_when_that_has_expired(
    omneo: Omneo, tmp_path: Path, connect: Connect
) -> None:
    link = connect(omneo.url, Credentials.find(oauth_file(tmp_path)))
    assert ok(link.ask(ASK))
    assert ok(link.ask(ASK))
    assert [line for line in omneo.asked() if "token" in line] == ["POST /auth/token"]
    omneo.control("/clock", offset_s=3700)
    assert ok(link.ask(ASK))
    assert [line for line in omneo.asked() if "token" in line] == ["POST /auth/token"] * 2


@pytest.mark.parametrize("grant", ["client_credentials", "password"])
def test_oauth_asks_for_the_grant_that_the_credential_names(
    omneo: Omneo, tmp_path: Path, connect: Connect, grant: str
) -> None:
    assert ok(connect(omneo.url, Credentials.find(oauth_file(tmp_path, grant_type=grant))).ask(ASK))


def test_an_oauth_client_that_omneo_no_longer_knows_pauses_and_a_new_secret_goes_on(
    omneo: Omneo, tmp_path: Path, connect: Connect
) -> None:
    file = oauth_file(tmp_path, client_secret="expired")
    link = connect(omneo.url, Credentials.find(file))
    assert outcome.otherwise(link.ask(ASK)).kind == "paused"
    oauth_file(tmp_path)
    assert ok(link.ask(ASK))


def test_an_oauth_credential_that_is_just_being_written_is_one_pause_more(
    omneo: Omneo, tmp_path: Path, connect: Connect
) -> None:
    """Once: until a first token is there, `ask` reads the file outside its `except Unusable`: the program ends (78)."""
    file = oauth_file(tmp_path, client_secret="expired")
    link = connect(omneo.url, Credentials.find(file))
    assert outcome.otherwise(link.ask(ASK)).kind == "paused"
    file.write_text("")
    assert outcome.otherwise(link.ask(ASK)).kind == "paused"
    oauth_file(tmp_path)
    assert ok(link.ask(ASK))


PORTAL = http("200 OK", b"<html>Please sign in</html>", content_type="text/html")
NO_TOKEN = http("200 OK", b'{"status": "login_required"}', content_type="application/json")
ODD_TOKEN = http("200 OK", b'{"access_token": {"a": 1}}', content_type="application/json")
BUSY = http("503 Service Unavailable", b"{}", content_type="application/json", retry_after="7")


@pytest.mark.parametrize(("raw", "wait_s"), [(PORTAL, None), (NO_TOKEN, None), (ODD_TOKEN, None), (BUSY, 7.0)])
def test_a_token_endpoint_that_gives_no_token_now_is_a_line_that_is_down(
    listen: Listen, tmp_path: Path, connect: Connect, raw: bytes, wait_s: float | None
) -> None:
    """Nothing of the document left: there is no need to look it up. Once: the endpoint's Retry-After is dropped."""
    answer = connect(listen(says(raw)).url, Credentials.find(oauth_file(tmp_path))).ask(ASK)
    result = outcome.otherwise(answer)
    assert (result.kind, result.look_up) == ("deferred", False)
    if wait_s is not None:
        assert result.retry_after_s == wait_s


@pytest.mark.parametrize("given", ["line\\r\\nInjected: yes", "spät", "a b", "\\ud800"])
def test_an_access_token_that_no_header_can_carry_is_no_token(
    listen: Listen, tmp_path: Path, connect: Connect, given: str
) -> None:
    """Once: what the token endpoint gives goes into a header unseen: httpx or h11 raise, or a second header is sent."""
    raw = http("200 OK", f'{{"access_token": "{given}"}}'.encode(), content_type="application/json")
    speaker = listen(says(raw))
    result = outcome.otherwise(connect(speaker.url, Credentials.find(oauth_file(tmp_path))).ask(ASK))
    assert result.kind in {"deferred", "paused"}
    assert not any(b"Injected" in heard for heard in speaker.requests)


# ── Rate ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_rate_is_kept_over_every_kind_of_request(omneo: Omneo, token: Path, connect: Connect) -> None:
    link = connect(omneo.url, Credentials.find(token), rate=20, sleep=time.sleep)
    began = time.monotonic()
    for _ in range(3):
        assert ok(link.ask(ASK))
        link.ask(routes.find_sale("nothing"))
    assert 0.25 <= time.monotonic() - began < 0.6


def test_a_pause_is_not_made_up_for(omneo: Omneo, token: Path, connect: Connect) -> None:
    waits: list[float] = []
    link = connect(omneo.url, Credentials.find(token), rate=10, sleep=waits.append)
    link.ask(ASK)
    time.sleep(0.35)
    link.ask(ASK)
    assert waits == []
    link.ask(ASK)
    assert len(waits) == 1
    assert 0.05 < waits[0] <= 0.1


def test_no_limit_is_no_limit(omneo: Omneo, token: Path, connect: Connect) -> None:
    waits: list[float] = []
    link = connect(omneo.url, Credentials.find(token), rate=0, sleep=waits.append)
    assert all(ok(link.ask(ASK)) for _ in range(20))
    assert waits == []


# ── Where to ──────────────────────────────────────────────────────────────────────────────────────────────────────

FINE = [
    "https://api.acme.getomneo.com/api/v3",
    "https://api.acme.getomneo.com:8443/api/v3/",
    "http://127.0.0.1:8080/api/v3",
    "http://127.9.9.9/api/v3",
    "http://localhost:8080/api/v3",
    "http://[::1]:8080/api/v3",
]
NOT = [
    "http://api.acme.getomneo.com/api/v3",
    "http://10.0.0.1/api/v3",
    "http://localhost.example.com/api/v3",
    "http://127.0.0.1.example.com/api/v3",
    "http://127.0.0.1@example.com/api/v3",
    "http://localhost@example.com",
    "http://0.0.0.0:8080/api/v3",
    "http://2130706433/api/v3",
    "https://user:secret@api.acme.getomneo.com/api/v3",
    "ftp://api.acme.getomneo.com",
    "api.acme.getomneo.com/api/v3",
    "//api.acme.getomneo.com/api/v3",
    "https://",
    "https:///api/v3",
    "http://",
    "",
    "https://[::1",
    "file:///etc/passwd",
]


@pytest.mark.parametrize("url", FINE)
def test_a_safe_address_is_taken(url: str) -> None:
    assert str(check_url(url)) == url.rstrip("/")


@pytest.mark.parametrize("url", NOT)
def test_a_token_never_crosses_a_network_in_the_clear(url: str) -> None:
    with pytest.raises(Unusable) as refused:
        check_url(url)
    assert "--url" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1/api/v3?token=1", "https://example.com/api/v3#there"])
def test_an_address_with_a_query_is_no_api_base(url: str) -> None:
    """Once: paths are appended to it as text, so every request would go to the base itself with a long query."""
    with pytest.raises(Unusable):
        check_url(url)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_never_followed(listen: Listen, token: Path, connect: Connect, code: int) -> None:
    elsewhere = listen(says(http("200 OK", b'{"data": {"id": 1}}')))
    speaker = listen(says(http(f"{code} Moved", location=elsewhere.url)))
    answer = connect(speaker.url, Credentials.find(token)).ask(ASK)
    assert outcome.meaning(answer) == "not_omneo"
    assert (len(speaker.requests), elsewhere.connections) == (1, 0)


# ── What is sent along ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_request_asks_for_json_and_names_nothing_but_us(listen: Listen, token: Path, connect: Connect) -> None:
    speaker = listen(says(http("200 OK", b"{}")))
    connect(speaker.url, Credentials.find(token)).ask(("POST", "/a", b"{}"))
    head, _, body = speaker.requests[0].partition(b"\r\n\r\n")
    lines = {name.lower(): value for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n")[1:])}
    assert lines[b"authorization"] == b"Bearer sandbox"
    assert lines[b"accept"] == b"application/json"
    assert lines[b"content-type"] == b"application/json"
    assert b"cookie" not in lines
    assert body == b"{}"


# ── Nobody sees the token ─────────────────────────────────────────────────────────────────────────────────────────

SECRET = "hush-4711-hush"
TALES = {
    "401": http("401 Unauthorized", b'{"message": "Unauthenticated."}', content_type="application/json"),
    "a redirect": http("302 Found", location="http://127.0.0.1:9/elsewhere"),
    "an echo of the token": http(
        "400 Bad Request", f'{{"message": "Bearer {SECRET}?"}}'.encode(), content_type="application/json"
    ),
    "half an answer": b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{}",
    "no HTTP": b"what?\r\n",
}


@pytest.mark.parametrize("raw", TALES.values(), ids=TALES.keys())
def test_the_token_is_in_no_answer_and_no_log(
    listen: Listen, tmp_path: Path, connect: Connect, caplog: pytest.LogCaptureFixture, raw: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "secret"
    file.write_text(SECRET)
    sent = itertools.count()

    def once(speaker: object, connection: object) -> None:
        next(sent)
        speaker.hear(connection)
        connection.sendall(raw)

    answer = connect(listen(once).url, Credentials.find(file)).ask(ASK)
    assert SECRET not in answer.reason
    assert SECRET not in outcome.otherwise(answer).reason
    assert SECRET not in repr(Credentials.find(file))
    assert SECRET not in caplog.text  # httpcore's and httpx's own debug lines too
    assert next(sent) > 0


def test_no_option_takes_a_token(tmp_path: Path) -> None:
    """What stands on a command line stands in the process list."""
    done = execute("forwarder", "run", "--db", tmp_path / "journal.db", "--url", "https://x", "--token", SECRET)
    assert done.code == 2
    helped = execute("forwarder", "run", "--help")
    assert "--token-file" in helped.out
    assert "--token " not in helped.out


def test_a_name_with_letters_of_any_language_is_an_address() -> None:
    assert check_url("https://bücher.example/api/v3").host == "bücher.example"
    assert isinstance(check_url("https://bücher.example/api/v3"), httpx.URL)
