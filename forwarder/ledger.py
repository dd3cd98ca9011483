"""
The head office's ledger from a store's side: one function to call, and a mailbox for COPY that it makes.

Whatever goes wrong on the way is sorted into "not now" and "a person has to set something right". What was handed over
in a transaction whose end we never heard of is no matter: the ledger is asked how far the book is there before each
batch, in that batch's transaction.
"""

import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import conninfo

from journal.log import NotNow, Unusable

CONNECT_S = 10
COPY = (
    "COPY pg_temp.mail (seq, at, kind, about, external_id, facts, body_hash, digest, salt, body, customer, what)"
    " FROM STDIN (FORMAT BINARY)"
)
TYPES = ["int8", "bytea", "bytea", "int8", *["bytea"] * 7, "text"]
SHIP = "SELECT seq, digest, verdict FROM ledger.ship(%s, %s, %s, %s, %s, %s)"
SAFE = {"verify-full", "verify-ca"}
# What the server says when waiting won't help. It has no code before there is a session.
OURS = ("authentication failed", "no password supplied", "no pg_hba.conf entry", "does not exist", "not permitted")

Row = tuple[Any, ...]

logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # it speaks past our own words, of what we have sorted already


@dataclass(frozen=True, slots=True)
class Claim:
    """What a store says of one of its books: it has so many entries, and this digest at one of them."""

    journal: str
    book: str
    upto: int
    at: int
    digest: bytes
    clock: datetime


@dataclass(frozen=True, slots=True)
class Word:
    """What the ledger answers: how far this book is there, and whether it is the one that came before."""

    seq: int
    digest: bytes
    verdict: str


def check_url(url: str) -> str:
    """The ledger's address as the library takes it. Raises Unusable for a secret in it, or a line open to others."""
    if urlsplit(url).scheme not in {"postgresql", "postgres"}:
        raise Unusable("The ledger's address begins with postgresql://. Give it with --to.")
    try:
        given = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise Unusable("The ledger's address can't be read: postgresql://ROLE@HOST/DATABASE is its form.") from None
    if "sslpassword" in given:
        raise Unusable("An sslpassword in the ledger's address would show in the process list: use a key without one.")
    if "password" in given:
        words = "put it into ~/.pgpass, a service file, or the systemd credential omneo-ledger-password"
        raise Unusable(f"A password in the ledger's address would show in the process list: {words}.")
    # Where a service leads stands in a file that only the library reads.
    away = "service" in given or "PGSERVICE" in os.environ or not all(map(_here, _hosts(given)))
    if away and given.setdefault("sslmode", "verify-full") not in SAFE:
        raise Unusable(f"sslmode={given['sslmode']} lets others read along or answer for the ledger: use verify-full.")
    if "sslrootcert" not in given and given.get("sslmode") in SAFE:
        given["sslrootcert"] = "system"
        _trust_what_the_machine_trusts()
    return conninfo.make_conninfo("", **given)


def _hosts(given: Mapping[str, Any]) -> list[str]:
    """Where the library will go: what is not in the address it takes from the environment."""
    named = (given.get("host") or os.environ.get("PGHOST"), given.get("hostaddr") or os.environ.get("PGHOSTADDR"))
    return [host for hosts in named if hosts for host in str(hosts).split(",")]


def _trust_what_the_machine_trusts() -> None:
    """The library brings a TLS of its own, which doesn't know where this machine keeps its roots; Python does."""
    paths = ssl.get_default_verify_paths()
    for name, path in ((paths.openssl_cafile_env, paths.cafile), (paths.openssl_capath_env, paths.capath)):
        if path is not None:
            os.environ.setdefault(name, path)


def _here(host: str) -> bool:
    return host.startswith("/") or host in {"", "localhost", "127.0.0.1", "::1"}


class Ledger:
    """One connection, made when it is needed and made anew when it broke."""

    def __init__(self, url: str, timeout_s: float, password: str | None = None) -> None:
        """
        Nothing is connected yet. `url`: as check_url gave it; `timeout_s`: for one batch, answer and all; `password`:
        unless the library is to look for it in its own places.
        """
        self._url = conninfo.make_conninfo(
            url,
            connect_timeout=CONNECT_S,
            application_name="omneo-forwarder ship",
            keepalives_idle=15,
            keepalives_interval=5,
            keepalives_count=3,
        )
        self._timeout_s = timeout_s
        self._password = password
        self._db: psycopg.Connection[Row] | None = None

    def tell(self, claim: Claim) -> Word:
        """Say how far a book is in the store; hear how far it is there. Raises NotNow and Unusable."""
        with self._talking() as db:
            return _ship(db, claim)

    def bring(self, claim: Claim, after: Callable[[Word], tuple[bytes, Sequence[Row]]]) -> Word:
        """
        Hand over what comes after the ledger's head, all of it or nothing. Raises NotNow and Unusable.

        `after` gives the digest that the store has at that head, so that a fork is told from a broken link, and the
        rows; it is asked while the ledger holds this book, so that two who ship it come one by one.
        """
        with self._talking() as db, db.transaction():
            word = _ship(db, claim)
            before, rows = after(word) if word.verdict == "ok" else (b"", ())
            if not rows:
                return word
            with db.cursor().copy(COPY) as copy:
                copy.set_types(TYPES)
                for row in rows:
                    copy.write_row(row)
            return _ship(db, replace(claim, at=word.seq, digest=before))

    def close(self) -> None:
        """Hang up."""
        if self._db is not None:
            with suppress(psycopg.Error):
                self._db.close()
            self._db = None

    @contextmanager
    def _talking(self) -> Iterator["psycopg.Connection[Row]"]:
        try:
            if self._db is None or self._db.closed:
                # No prepared statements: a pooler may give each transaction another of its connections.
                self._db = psycopg.connect(self._url, autocommit=True, prepare_threshold=None, password=self._password)
            with _deadline(self._db, self._timeout_s):
                yield self._db
        except psycopg.Error as error:
            self.close()
            raise _sorted(error) from None
        except BaseException:
            self.close()
            raise


def _ship(db: "psycopg.Connection[Row]", claim: Claim) -> Word:
    asked = (claim.journal, claim.book, claim.upto, claim.at, claim.digest, claim.clock)
    row = db.execute(SHIP, asked, binary=True).fetchone()
    assert row is not None
    return Word(row[0], row[1] or b"", row[2])


@contextmanager
def _deadline(db: "psycopg.Connection[Row]", seconds: float) -> Iterator[None]:
    """A server that neither answers nor hangs up is hung up on: the library would wait for ever."""
    with socket.socket(fileno=os.dup(db.fileno())) as line:

        def cut() -> None:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _sorted(error: psycopg.Error) -> Exception:
    """What went wrong, in words without what was sent: the library quotes it."""
    code = error.sqlstate or ""
    if code[:2] in {"28", "42", "3F", "3D"}:  # who we are, what there is
        return Unusable(f"The ledger doesn't take this role for a store's ({code}): enrol it there, or lay its schema.")
    said = str(error).strip().splitlines()
    if not code and "certificate" in str(error):
        words = "check the host in --to, sslrootcert, and this machine's clock; it is tried again"
        return NotNow(f"The ledger's certificate isn't one to trust: {words}.")
    if not code and any(words in line for words in OURS for line in said if "FATAL" in line):
        return Unusable("The ledger doesn't let us in: check the role in --to, its password, and the database's name.")
    return NotNow(f"The ledger can't be reached now ({code or type(error).__name__}); it is tried again.")
