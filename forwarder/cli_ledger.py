"""The commands about head office: `ship` in each store, `ledger` there."""

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from forwarder.options import Finite, option
from journal import log
from journal.command import beside, delivery_option, fail, journal_option, tell
from journal.log import Unusable

NEEDS = "The ledger needs {}: pip install 'omneo-journal[ledger]'."
KEY_BYTES = 32

TO = option(
    "--to", "The ledger, postgresql://ROLE@HOST/DATABASE, without a password.", envvar="OMNEO_LEDGER", required=True
)


@click.command()
@journal_option
@delivery_option
@TO
@click.option(
    "--bodies/--no-bodies",
    envvar="OMNEO_LEDGER_BODIES",
    default=False,
    help="Documents as the tills wrote them too, with all that is personal in them. Off, unless --bodies.",
)
@click.option(
    "--customer-key",
    envvar="OMNEO_CUSTOMER_KEY_FILE",
    type=Path,
    help="File with the stores' shared key for customers' hashes. Else the credential omneo-customer-key; else none.",
)
@click.option(
    "--every",
    envvar="OMNEO_LEDGER_EVERY",
    type=Finite(min=0.1, max=240),  # a store is silent after 300
    default=5,
    show_default=True,
    help="Seconds between two looks into the books.",
)
@click.option("--once", is_flag=True, help="Ship what is there now, then stop.")
def ship(db: Path, delivery: Path | None, to: str, customer_key: Path | None, **options: Any) -> None:
    """Copy both books to the head office's ledger as they grow, until stopped."""
    import random
    import signal
    import threading

    try:
        from forwarder import ledger, ship_loop
        from forwarder.ship import Shipper
    except ModuleNotFoundError as missing:
        fail(NEEDS.format(missing.name), 78)
    from journal.notify import Pulse
    from journal.say import speak

    where = ledger.check_url(to)
    key = key_of(customer_key)
    log.open_book(db, "journal", write=False).close()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    line = ledger.Ledger(where, ship_loop.BATCH_S, password_of())
    shipper = Shipper(db, beside(db, delivery), line, speak("omneo-forwarder"), bodies=options["bodies"], key=key)
    with closing(line), ship_loop.only_shipper(db):
        if options["once"]:
            well = shipper.go()
        else:
            dice = random.SystemRandom()
            ship_loop.run_until(shipper, stop, Pulse(os.environ), options["every"], lambda most: dice.uniform(0, most))
            well = True
    if not well:
        for book, word in shipper.refused.items():
            tell(f"The ledger refuses the {book}: {word.verdict}; {word.seq} entries are there.", err=True)
        for book, seq in shipper.altered.items():
            tell(f"Entry {seq} of the {book} is another here than at the ledger.", err=True)
        sys.exit(1)


def key_of(path: Path | None) -> bytes | None:
    """The stores' shared key. Raises Unusable for a file that can't be read or is too short to be one."""
    path = path or credential("omneo-customer-key")
    if path is None:
        return None
    key = secret(path)
    if len(key) < KEY_BYTES:
        raise Unusable(f"{path} holds less than {KEY_BYTES} bytes: make one with openssl rand -hex 32, for all stores.")
    return key


def password_of() -> str | None:
    """
    The role's password, as systemd hands it over. Not by way of the library's own passfile: it refuses a file that an
    access list lets this user read, and that is how systemd may do it.
    """
    path = credential("omneo-ledger-password")
    return None if path is None else os.fsdecode(secret(path))


def credential(name: str) -> Path | None:
    path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere")) / name
    return path if path.exists() else None


def secret(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise Unusable(f"{path} can't be read: {error.strerror}.") from None


@click.command()
@TO
@click.option("--page", type=Path, help="Write the chain's page, as it is now, into this file; lay nothing.")
def ledger(to: str, page: Path | None) -> None:
    """Lay or update the ledger's schema at head office, as the owner of its database; or write the chain's page."""
    try:
        from forwarder import headoffice_page, headoffice_schema
        from forwarder import ledger as line
    except ModuleNotFoundError as missing:
        fail(NEEDS.format(missing.name), 78)
    where = line.check_url(to)
    if page is not None:
        headoffice_page.write(where, page)
        return
    laid = headoffice_schema.lay(where)
    tell("\n".join(f"{name} was run" for name in laid.ran) or "The schema is up to date.")
    if laid.loose:
        able = " and ".join(laid.loose)
        fail(f"A store's role can {able} here. Run this once as a superuser, and revoke what else was granted.", 1)


COMMANDS = (ship, ledger)
