"""`omneo-forwarder` as its operator meets it: a real process, its exit code, and a sentence that says what to do."""

import json
import os
import pwd
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import click
import pytest
from standin import CODE, ENVIRONMENT, Done, Listen, Omneo, Store, command, execute, http, sale, says

from forwarder.books import create_delivery
from forwarder.cli import cli
from journal import log
from journal.cli import cli as journal_cli

Run = Callable[..., Done]


@pytest.fixture
def once(store: Store, omneo: Omneo, token: Path) -> Run:
    """`run --once` in this shop; an option given as None is left out."""

    def run(**changed: object) -> Done:
        given = {"--db": store.db, "--url": omneo.url, "--token-file": token, "--rate": 0, "--timeout": 2}
        given |= {f"--{name.replace('_', '-')}": value for name, value in changed.items() if name.islower()}
        environment = {name: str(value) for name, value in changed.items() if name.isupper()}
        options = [part for name, value in given.items() if value is not None for part in (name, value)]
        return execute("forwarder", "run", "--once", *options, **environment)

    return run


def said(done: Done) -> list[str]:
    """What it says to a person: the lines of stderr that are no log."""
    return [line for line in done.err.splitlines() if not line.startswith("{")]


def ends(done: Done, code: int, *words: str) -> None:
    """The exit code, one or two sentences with these words in them, and never a traceback."""
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err, done.err
    if code not in {0, 2}:
        assert 1 <= len(said(done)) <= 2


# ── run --once ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_waits(once: Run, store: Store) -> None:
    ends(once(), 0)
    assert store.delivery.exists()
    store.verified()


def test_everything_is_delivered(once: Run, store: Store, omneo: Omneo) -> None:
    store.take(sale("S-1"), sale("S-2"))
    done = once()
    ends(done, 0)
    assert done.out == ""
    assert (omneo.sales(), set(store.states().values())) == (["S-1", "S-2"], {"delivered"})
    ends(once(), 0)
    store.verified()


def test_a_refused_document_does_not_wait(once: Run, store: Store) -> None:
    store.take(sale("S-1", profile_id="nobody"), sale("S-2"))
    ends(once(), 0)
    assert store.states() == {"S-1": "refused", "S-2": "delivered"}


def test_a_passing_failure_is_tried_again(once: Run, store: Store, omneo: Omneo) -> None:
    store.take(sale("S-1"))
    omneo.fault("status", code=503, count=2)
    ends(once(), 0)
    assert omneo.sales() == ["S-1"]


def test_a_failure_that_does_not_pass_is_given_up_within_seconds(once: Run, store: Store, omneo: Omneo) -> None:
    store.take(sale("S-1"))
    omneo.fault("drop_before")
    began = time.monotonic()
    ends(once(), 75, "waits")
    assert 3 < time.monotonic() - began < 9
    assert len(omneo.asked()) >= 4
    assert store.states() == {"S-1": "waiting"}


def test_a_long_wait_is_not_waited_for(once: Run, store: Store, omneo: Omneo) -> None:
    store.take(sale("S-1"))
    omneo.fault("throttle", retry_after=60)
    began = time.monotonic()
    ends(once(), 75, "waits")
    assert time.monotonic() - began < 3
    assert len(omneo.asked()) == 1


def test_a_short_wait_is_kept_to(once: Run, store: Store, omneo: Omneo) -> None:
    """Once: `--once` waits 0.1 to 1 s between tries whatever Retry-After says: three seconds are not honoured."""
    store.take(sale("S-1"))
    omneo.fault("throttle", retry_after=3, count=1)
    began = time.monotonic()
    ends(once(), 0)
    assert time.monotonic() - began >= 3


def test_nobody_there(once: Run, store: Store, listen: Listen) -> None:
    speaker = listen(says(b""))
    speaker.close()
    store.take(sale("S-1"))
    ends(once(url=speaker.url), 75, "no connection")


def test_a_revoked_token_is_a_matter_for_a_person(once: Run, store: Store, omneo: Omneo) -> None:
    """Once: A pause is retried for the whole five seconds, though only a person can end it."""
    store.take(sale("S-1"))
    omneo.control("/revoke")
    ends(once(), 78, "token")
    assert store.states() == {"S-1": "waiting"}
    assert len(omneo.asked()) <= 2, "nothing was tried again"


def test_a_scope_that_is_missing_is_a_matter_for_a_person(once: Run, store: Store, omneo: Omneo) -> None:
    store.take(sale("S-1"))
    omneo.fault("forbidden")
    ends(once(), 78, "scopes")
    told = execute("forwarder", "status", "--db", store.db)
    assert told.code == 0
    assert "paused" in told.out
    assert "1 waiting" in told.out


def test_an_oauth_credential_does_as_well(once: Run, store: Store, omneo: Omneo, tmp_path: Path) -> None:
    store.take(sale("S-1"))
    file = tmp_path / "oauth"
    file.write_text(json.dumps(dict.fromkeys(["client_id", "client_secret", "username", "password"], "sandbox")))
    ends(once(token_file=file), 0)
    assert omneo.sales() == ["S-1"]


# ── Configuration ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_journal(once: Run, tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    ends(once(db=missing), 78, "omneo-journal init")
    assert not missing.exists()
    assert not (tmp_path / "delivery.db").exists()


def test_a_journal_that_is_none(once: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE t (a)")
    ends(once(db=other), 78, "--db")
    other.write_text("something")
    ends(once(db=other), 78, "--db")
    ends(once(db=tmp_path), 78)


def test_a_newer_journal(once: Run, store: Store) -> None:
    with closing(sqlite3.connect(store.db)) as db:
        db.execute("PRAGMA user_version = 99")
    ends(once(), 78, "newer")


def test_a_foreign_delivery_book(once: Run, store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    log.create(other, "journal", {"journal": str(uuid.uuid4())})
    create_delivery(other, store.delivery)
    before = store.delivery.read_bytes()
    ends(once(), 78, "another journal")
    assert store.delivery.read_bytes() == before


def test_a_delivery_book_that_is_none(once: Run, store: Store) -> None:
    store.delivery.write_text("something else")
    ends(once(), 78, "--delivery")
    assert store.delivery.read_text() == "something else"


def test_the_journal_given_as_the_delivery_book(once: Run, store: Store) -> None:
    ends(once(delivery=store.db), 78)
    store.verified()


def test_a_delivery_book_in_a_place_that_is_not_there_yet(once: Run, store: Store, tmp_path: Path) -> None:
    """It is created when the forwarder is first run; so is the directory, or the words say that it is missing."""
    store.take(sale("S-1"))
    done = once(delivery=tmp_path / "new" / "delivery.db")
    assert done.code in {0, 78}, done.err
    assert "Traceback" not in done.err


def test_no_token(once: Run, store: Store) -> None:
    ends(once(token_file=None), 78, "--token-file", "OMNEO_TOKEN")
    assert not store.delivery.exists()


@pytest.mark.parametrize("content", ["", "two words\n", "{", "{}"])
def test_a_token_that_is_none(once: Run, tmp_path: Path, content: str) -> None:
    """Once: an OAuth credential that is none is only found when something is to be sent; before that it exits 0."""
    file = tmp_path / "bad"
    file.write_text(content)
    ends(once(token_file=file), 78)
    ends(once(token_file=tmp_path / "nowhere"), 78, "nowhere")


@pytest.mark.parametrize("url", ["http://api.example.com/api/v3", "ftp://x", "nonsense", "https://u:hush@example.com"])
def test_an_address_that_is_none(once: Run, url: str) -> None:
    done = once(url=url)
    ends(done, 78, "--url")
    assert "hush" not in done.err


WRONG = {
    "no url": ["--db", "x"],
    "no journal": ["--url", "https://x"],
    "an unknown option": ["--db", "x", "--url", "https://x", "--nonsense"],
    "an unknown ordering": ["--db", "x", "--url", "https://x", "--ordering", "random"],
    "a negative rate": ["--db", "x", "--url", "https://x", "--rate", "-1"],
    "no time at all": ["--db", "x", "--url", "https://x", "--timeout", "0"],
    "a time that is none": ["--db", "x", "--url", "https://x", "--timeout", "nan"],
    "no end of time": ["--db", "x", "--url", "https://x", "--timeout", "inf"],
    "a rate that is none": ["--db", "x", "--url", "https://x", "--rate", "nan"],
    "an argument": ["--db", "x", "--url", "https://x", "document"],
}
# Once: "nan" and "inf" are numbers to click's FloatRange: with either, the first request ends in a traceback.


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
def test_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("sandbox")
    ends(execute("forwarder", "run", "--once", *arguments, OMNEO_TOKEN_FILE=str(file)), 2)


@pytest.mark.parametrize("arguments", [["nonsense"], ["status"], ["status", "--db"], ["sandbox", "--port", "x"], []])
def test_wrong_usage_of_other_commands(arguments: list[str]) -> None:
    ends(execute("forwarder", *arguments), 2)


def test_every_command_explains_itself() -> None:
    assert execute("forwarder", "--help").code == 0
    for name in cli.commands:
        done = execute("forwarder", name, "--help")
        assert (done.code, bool(done.out)) == (0, True), name
    with suppress(PackageNotFoundError):  # run from its directory, it has no version
        assert version("omneo-journal") in execute("forwarder", "--version").out


# ── Two of them ───────────────────────────────────────────────────────────────────────────────────────────────────


class Daemon:
    """`omneo-forwarder run`, until stopped."""

    def __init__(self, store: Store, url: str, token: Path, *options: object) -> None:
        self.log = store.root / f"log-{time.monotonic_ns()}"
        arguments = ["run", "--db", store.db, "--url", url, "--token-file", token, "--rate", 0, *options]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command("forwarder", *arguments), env=ENVIRONMENT, stdout=out, stderr=out)

    def __enter__(self) -> Self:
        self.wait(lambda: self.events("ready"))
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if name in {None, line["event"]}]

    def wait(self, true: Callable[[], object], seconds: float = 15) -> None:
        give_up = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < give_up, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(10), time.monotonic() - began


def test_a_second_one_is_told_that_there_is_a_first(once: Run, store: Store, omneo: Omneo, token: Path) -> None:
    with Daemon(store, omneo.url, token) as first:
        ends(once(), 75, "Another")
        link = store.root / "by-another-name.db"
        link.symlink_to(store.delivery)
        ends(once(delivery=link), 75, "Another")
        first.stop(signal.SIGKILL)
    ends(once(), 0)


def test_it_takes_what_comes_while_it_runs(store: Store, omneo: Omneo, token: Path) -> None:
    with Daemon(store, omneo.url, token) as daemon:
        for number in range(3):
            store.take(sale(f"S-{number}"))
            daemon.wait(lambda number=number: f"S-{number}" in omneo.sales())
        code, _ = daemon.stop()
    assert code == 0
    assert set(store.states().values()) == {"delivered"}
    store.verified()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_while_it_backs_off(store: Store, omneo: Omneo, token: Path, number: signal.Signals) -> None:
    store.take(sale("S-1"))
    omneo.fault("throttle", retry_after=600, count=1)
    omneo.fault("hang", seconds=5)
    with Daemon(store, omneo.url, token) as daemon:
        daemon.wait(omneo.asked)
        time.sleep(0.2)
        code, took = daemon.stop(number)
        assert (code, [line["event"] for line in daemon.events()][-1]) == (0, "stopped")
    assert took < 3  # and not the seconds or minutes that it would wait
    assert len(omneo.asked()) == 1
    store.verified()


def test_it_ends_at_once_when_it_has_nothing_to_do(store: Store, omneo: Omneo, token: Path) -> None:
    with Daemon(store, omneo.url, token) as daemon:
        code, took = daemon.stop()
    assert code == 0
    assert took < 3  # and not the seconds or minutes that it would wait


def test_it_ends_at_once_between_two_requests_of_a_slow_rate(store: Store, omneo: Omneo, token: Path) -> None:
    with Daemon(store, omneo.url, token, "--rate", 0.1) as daemon:
        store.take(*(sale(f"S-{number}") for number in range(5)))
        daemon.wait(omneo.sales)
        code, took = daemon.stop()
    assert code == 0
    assert took < 3  # and not the seconds or minutes that it would wait
    assert len(omneo.sales()) <= 2
    store.verified()


def test_a_new_token_is_enough_to_go_on(store: Store, omneo: Omneo, token: Path) -> None:
    omneo.control("/revoke")
    store.take(sale("S-1"))
    with Daemon(store, omneo.url, token) as daemon:
        daemon.wait(lambda: daemon.events("line_paused"))
        omneo.control("/tokens", accept="renewed")
        token.write_text("renewed")
        daemon.wait(lambda: omneo.sales() == ["S-1"])
        assert daemon.stop()[0] == 0


def test_no_log_line_holds_a_token_or_a_customer(store: Store, omneo: Omneo, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush-token")
    store.take(sale("S-1", profile_id="hush@example.com", profile_id_handle="email"), sale("S-2"))
    with Daemon(store, omneo.url, secret) as daemon:
        daemon.wait(lambda: daemon.events("line_paused"))
        line = Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes()
        omneo.control("/tokens", accept="hush-token")
        daemon.wait(lambda: omneo.sales() == ["S-2"])
        daemon.stop()
        told = daemon.log.read_text()
    assert b"hush" not in line
    assert "hush" not in told


# ── status ────────────────────────────────────────────────────────────────────────────────────────────────────────

STATUS = {"link", "reason", "waiting", "oldest_waiting_s", "delivered", "refused", "held", "invalid", "open_flags"}


def test_status_for_machines(once: Run, store: Store) -> None:
    """Once: Two keys more than the contract has: see test_status."""
    store.take(sale("S-1"), b"[]")
    done = execute("forwarder", "status", "--db", store.db, "--json")
    assert done.code == 0
    assert len(done.out.splitlines()) == 1
    assert (done.json["link"], done.json["waiting"], done.json["invalid"]) == ("unknown", 1, 1)
    once()
    after = execute("forwarder", "status", "--db", store.db, "--json").json
    assert (after["link"], after["waiting"], after["oldest_waiting_s"], after["delivered"]) == ("up", 0, None, 1)
    assert set(after) == STATUS


def test_status_needs_a_journal_only(tmp_path: Path, store: Store) -> None:
    ends(execute("forwarder", "status", "--db", tmp_path / "missing.db"), 78, "init")
    ends(execute("forwarder", "status", "--db", store.db, "--delivery", tmp_path / "missing.db"), 0)
    store.delivery.write_text("no book")
    ends(execute("forwarder", "status", "--db", store.db), 78, "--delivery")


# ── Options and the environment ───────────────────────────────────────────────────────────────────────────────────

# Contract, section 1: option → environment, default.
OPTIONS: dict[str, tuple[str, object]] = {
    "--db": ("OMNEO_JOURNAL_DB", None),
    "--delivery": ("OMNEO_DELIVERY_DB", None),
    "--spool": ("OMNEO_JOURNAL_SPOOL", None),
    "--url": ("OMNEO_URL", None),
    "--token-file": ("OMNEO_TOKEN_FILE", None),
    "--system": ("OMNEO_SYSTEM", "POS"),
    "--reversal-window": ("OMNEO_REVERSAL_WINDOW", 600),
    "--late-redemption": ("OMNEO_LATE_REDEMPTION", "send"),
    "--late-reversal": ("OMNEO_LATE_REVERSAL", "flag"),
    "--ordering": ("OMNEO_ORDERING", "strict"),
    "--lanes": ("OMNEO_LANES", None),
    "--rate": ("OMNEO_RATE", 10),
    "--timeout": ("OMNEO_TIMEOUT", 15),
    "--grace": ("OMNEO_GRACE", 60),
    "--routes": ("OMNEO_ROUTES", "reference"),
    "--max-bytes": ("OMNEO_JOURNAL_MAX_BYTES", 1048576),
    "--poison-after": ("OMNEO_POISON_AFTER", 10),
    "--poison-for": ("OMNEO_POISON_FOR", 900),
}
# What came since, in docs/operating.md.
MORE: dict[str, tuple[str, object]] = {
    "--key": ("OMNEO_JOURNAL_KEY", None),  # the private one; a public one comes from no environment
    "--checkpoint-every": ("OMNEO_CHECKPOINT_EVERY", 10000),
    "--witness": ("OMNEO_WITNESS", True),
    "--canary": ("OMNEO_CANARY", 300),
    "--metrics": ("OMNEO_METRICS", None),
    "--metrics-port": ("OMNEO_METRICS_PORT", None),
    "--outcomes": ("OMNEO_OUTCOMES", None),
    "--outcomes-days": ("OMNEO_OUTCOMES_DAYS", 7),
    "--to": ("OMNEO_LEDGER", None),
    "--bodies": ("OMNEO_LEDGER_BODIES", False),
    "--customer-key": ("OMNEO_CUSTOMER_KEY_FILE", None),
    "--every": ("OMNEO_LEDGER_EVERY", 5),
}
OF_THE_SAME_NAME = {"omneo-journal verify --key", "omneo-journal export --to", "omneo-journal evidence --to"}


def options() -> list[tuple[str, str, click.Option]]:
    """Every option of every command: (command, its long name, itself)."""
    groups = (("omneo-journal", journal_cli), ("omneo-forwarder", cli))
    return [
        (f"{program} {name}", parameter.opts[0], parameter)
        for program, group in groups
        for name, one in group.commands.items()
        for parameter in one.params
        if isinstance(parameter, click.Option)
    ]


@pytest.mark.parametrize(("name", "parameter"), [(f"{where} {name}", each) for where, name, each in options()])
def test_an_option_of_the_contract_has_its_environment_and_default(name: str, parameter: click.Option) -> None:
    option = name.rsplit(maxsplit=1)[-1]
    if option not in OPTIONS | MORE or name in OF_THE_SAME_NAME:
        assert parameter.envvar is None, "an environment name that nobody knows"
        return
    variable, default = (OPTIONS | MORE)[option]
    assert parameter.envvar == variable
    if default is not None:
        assert parameter.default == default


def test_everything_can_come_from_the_environment(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"))
    environment = {
        "OMNEO_JOURNAL_DB": store.db,
        "OMNEO_DELIVERY_DB": store.root / "elsewhere.db",
        "OMNEO_URL": omneo.url,
        "OMNEO_TOKEN_FILE": token,
        "OMNEO_SYSTEM": "SHOP-7",
        "OMNEO_RATE": "0",
        "OMNEO_TIMEOUT": "3",
        "OMNEO_ORDERING": "strict",
        "OMNEO_POISON_AFTER": "3",
        "OMNEO_POISON_FOR": "1",
    }
    done = execute("forwarder", "run", "--once", **{name: str(value) for name, value in environment.items()})
    ends(done, 0)
    assert omneo.state()["transactions"][0]["posted"]["systems"] == ["SHOP-7"]
    assert (store.root / "elsewhere.db").exists()
    assert not store.delivery.exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OMNEO_RATE", "fast"), ("OMNEO_TIMEOUT", "-1"), ("OMNEO_ORDERING", "any"), ("OMNEO_POISON_AFTER", "0")],
)
def test_a_wrong_value_in_the_environment_is_wrong_usage(store: Store, token: Path, variable: str, value: str) -> None:
    given = ["--db", store.db, "--url", "https://x", "--token-file", token]
    ends(execute("forwarder", "run", "--once", *given, **{variable: value}), 2)


def test_a_token_from_the_environment_and_from_systemd(store: Store, omneo: Omneo, tmp_path: Path, once: Run) -> None:
    store.take(sale("S-1"))
    ends(once(token_file=None, OMNEO_TOKEN="sandbox"), 0)
    store.take(sale("S-2"))
    (tmp_path / "omneo-token").write_text("sandbox")
    ends(once(token_file=None, OMNEO_TOKEN="wrong", CREDENTIALS_DIRECTORY=tmp_path), 0)
    assert omneo.sales() == ["S-1", "S-2"]


def test_the_timeout_is_for_the_whole_of_a_request(once: Run, store: Store, listen: Listen) -> None:
    def trickles(speaker: Any, connection: Any) -> None:
        speaker.hear(connection)
        for byte in http("200 OK", b"{}" * 1000):
            connection.sendall(bytes([byte]))
            if speaker.over.wait(0.1):
                return

    store.take(sale("S-1"))
    began = time.monotonic()
    ends(once(url=listen(trickles).url, timeout=0.5), 75, "in time")
    assert time.monotonic() - began < 9


# ── Another user ──────────────────────────────────────────────────────────────────────────────────────────────────

AS_NOBODY = """
import os, sys
import importlib.metadata, importlib.readers, encodings.idna, sqlite_utils, structlog
import forwarder.cli, forwarder.side_by_side, forwarder.status, forwarder.wire, journal.verify
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
sys.argv[1:2] = []
forwarder.cli.main()
"""


def as_nobody(*arguments: object) -> Done:
    """The command as a user who owns nothing, with every module in before (their files may be closed to it)."""
    nobody = pwd.getpwnam("nobody").pw_uid
    line = [sys.executable, "-c", AS_NOBODY, str(nobody), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env=ENVIRONMENT, check=False, cwd=CODE)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def two_users(open_place: Path) -> Store:
    """A journal that the forwarder's user may read and nothing more, and a directory of its own beside it."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can become another user")
    books = open_place / "journal"
    books.mkdir(mode=0o755)
    shop = Store(books)
    shop.db.chmod(0o644)
    books.chmod(0o755)
    own = open_place / "delivery"
    own.mkdir(mode=0o750)
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(own, nobody, nobody)
    shop.delivery = own / "delivery.db"
    file = own / "token"
    file.write_text("sandbox")
    os.chown(file, nobody, nobody)
    return shop


def test_it_works_as_a_user_who_cannot_write_the_journal(two_users: Store, omneo: Omneo) -> None:
    two_users.take(sale("S-1"), sale("S-2"))
    before = two_users.db.read_bytes()
    books = ["--db", two_users.db, "--delivery", two_users.delivery]
    done = as_nobody("run", "--once", *books, "--url", omneo.url, "--token-file", two_users.delivery.parent / "token")
    ends(done, 0)
    assert omneo.sales() == ["S-1", "S-2"]
    assert two_users.db.read_bytes() == before
    assert sorted(path.name for path in two_users.db.parent.iterdir()) == ["journal.db", "spool"]
    mode = two_users.delivery.stat().st_mode & 0o777
    assert mode & ~0o640 == 0
    told = as_nobody("status", *books, "--json")
    assert (told.code, told.json["delivered"]) == (0, 2)
    two_users.verified()


def test_a_delivery_book_where_this_user_may_not_write_is_said_in_words(two_users: Store, omneo: Omneo) -> None:
    token = two_users.delivery.parent / "token"
    done = as_nobody("run", "--once", "--db", two_users.db, "--url", omneo.url, "--token-file", token)
    ends(done, 78, "delivery.db")


def test_a_journal_that_this_user_may_not_read_is_said_in_words(two_users: Store, omneo: Omneo) -> None:
    two_users.db.chmod(0o600)
    token = two_users.delivery.parent / "token"
    given = ["--db", two_users.db, "--delivery", two_users.delivery, "--url", omneo.url, "--token-file", token]
    ends(as_nobody("run", "--once", *given), 78, "journal.db")


def test_a_token_that_this_user_may_not_read_is_said_in_words(two_users: Store, omneo: Omneo) -> None:
    token = two_users.delivery.parent / "token"
    os.chown(token, 0, 0)
    token.chmod(0o600)
    given = ["--db", two_users.db, "--delivery", two_users.delivery, "--url", omneo.url, "--token-file", token]
    ends(as_nobody("run", "--once", *given), 78, "--token-file")
