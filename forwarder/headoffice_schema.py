"""
The ledger's schema, laid by whoever owns the database: numbered scripts beside this file, each run once and in order.

A script that was run is never changed; what has to become different is another script. The ledger keeps each one's
SHA-256, so that two versions of this program can't disagree about what was run.
"""

from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files

import psycopg

from journal.log import NotNow, Unusable

KEPT = """
CREATE TABLE IF NOT EXISTS public.ledger_migration (
    number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, at timestamptz NOT NULL DEFAULT now())
"""
ONE_AT_A_TIME = 0x4F4D4C31  # "OML1"


def scripts() -> Iterator[tuple[int, str, str]]:
    """Number, name and text of each, in order."""
    place = files("forwarder") / "headoffice"
    for each in sorted(place.iterdir(), key=lambda file: file.name):
        if each.name.endswith(".sql"):
            yield int(each.name[:3]), each.name, each.read_text("utf-8")


def lay(url: str, months: int = 3) -> list[str]:
    """Bring a database's schema up to this program's, and make room for the months to come. Names of what was run."""
    try:
        with psycopg.connect(url) as db:
            db.execute("SELECT pg_advisory_xact_lock(%s)", (ONE_AT_A_TIME,))
            db.execute(KEPT)
            done: dict[int, str] = dict(db.execute("SELECT number, sha256 FROM public.ledger_migration").fetchall())
            ran = []
            for number, name, text in scripts():
                said = sha256(text.encode()).hexdigest()
                if done.pop(number, said) != said:
                    raise Unusable(
                        f"This ledger's {name} was another one: install the version that laid it, or a later."
                    )
                if not db.execute("SELECT 1 FROM public.ledger_migration WHERE number = %s", (number,)).fetchone():
                    db.execute(text.encode())
                    db.execute("INSERT INTO public.ledger_migration VALUES (%s, %s, %s)", (number, name, said))
                    ran.append(name)
            if done:
                raise Unusable("This ledger was laid by a newer version of this program; install that one.")
            db.execute("SELECT ledger.guard(), ledger.make_room(%s)", (months,))
            return ran
    except psycopg.OperationalError as error:
        raise NotNow(f"The ledger's database can't be reached ({error.sqlstate or 'no connection'}).") from None
    except psycopg.errors.InsufficientPrivilege:
        raise Unusable("The schema has to be laid by the database's owner, who may create roles.") from None
