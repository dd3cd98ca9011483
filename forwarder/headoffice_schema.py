"""
The ledger's schema, laid by whoever owns the database: numbered scripts beside this file, each run once and in order.

A script that was run is never changed; what has to become different is another script. The ledger keeps each one's
SHA-256, so that two versions of this program can't disagree about what was run.
"""

from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

import psycopg

from journal.log import NotNow, Unusable

KEPT = """
CREATE TABLE IF NOT EXISTS public.ledger_migration (
    number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, at timestamptz NOT NULL DEFAULT now())
"""
CONNECT_S, LOCK_S = 10, 3


def scripts() -> Iterator[tuple[int, str, str]]:
    """Number, name and text of each, in order."""
    place = files("forwarder") / "headoffice"
    for each in sorted(place.iterdir(), key=lambda file: file.name):
        if each.name.endswith(".sql"):
            yield int(each.name[:3]), each.name, each.read_text("utf-8")


class Laid(NamedTuple):
    """What was done, and what is left to do."""

    ran: list[str]  # names of the scripts
    loose: list[str]  # what a store's role may do besides, which only a superuser can forbid


def lay(url: str, months: int = 3) -> Laid:
    """Bring a database's schema up to this program's, and make room for the months to come. Raises NotNow, Unusable."""
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_S) as db:
            if (encoding := db.info.parameter_status("server_encoding")) != "UTF8":
                raise Unusable(f"This database's encoding is {encoding}: make it with createdb -E UTF8 -T template0.")
            db.execute(f"SET LOCAL lock_timeout = '{LOCK_S}s'")  # else all stores wait behind us for a long reader
            db.execute(KEPT)
            db.execute("LOCK TABLE public.ledger_migration IN EXCLUSIVE MODE")  # one at a time
            done: dict[int, str] = dict(db.execute("SELECT number, sha256 FROM public.ledger_migration").fetchall())
            ran = []
            for number, name, text in scripts():
                said = sha256(text.encode()).hexdigest()
                if (before := done.pop(number, None)) is None:
                    db.execute(text.encode())
                    db.execute("INSERT INTO public.ledger_migration VALUES (%s, %s, %s)", (number, name, said))
                    ran.append(name)
                elif before != said:
                    raise Unusable(f"{name} of this ledger is another: install the version that laid it, or a later.")
            if done:
                raise Unusable("This ledger was laid by a newer version of this program; install that one.")
            db.execute("SELECT ledger.guard(), ledger.make_room(%s)", (months,))
            return Laid(ran, [what for (what,) in db.execute("SELECT ledger.loose()").fetchall()])
    except psycopg.errors.LockNotAvailable:
        raise NotNow("Somebody is reading the ledger, a backup maybe, and its partitions can't be made now.") from None
    except psycopg.OperationalError as error:
        raise NotNow(f"The ledger's database can't be reached ({error.sqlstate or 'no connection'}).") from None
    except psycopg.errors.InsufficientPrivilege:
        raise Unusable("The schema has to be laid by the database's owner, who may create roles.") from None
    except psycopg.Error as error:
        words = "give a database that is the ledger's alone"
        raise Unusable(f"The schema can't be laid ({error.sqlstate}): {words}.") from None
