"""`omneo-forwarder`: for store operations and the forwarding service."""

import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from forwarder import cli_ledger, cli_look, cli_reconcile
from forwarder.options import TIMEOUT, lanes_of, link_options, policy_of, policy_options
from journal import log
from journal.command import (
    beside,
    delivery_option,
    fail,
    journal_option,
    json_option,
    metrics_option,
    print_json,
    program,
    tell,
)
from journal.rejected import printable

if TYPE_CHECKING:
    import threading

    from forwarder.ballast import Ballast
    from forwarder.replay import Replay

SILENT = 3  # times --timeout: a request, and what the name server and the disk take beside it


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="omneo-journal", message="%(prog)s %(version)s")
def cli() -> None:
    """Take documents from the journal to Omneo, in order, over a line that comes and goes."""


@cli.command()
@journal_option
@delivery_option
@link_options
@policy_options
@metrics_option
@click.option(
    "--metrics-port",
    envvar="OMNEO_METRICS_PORT",
    type=click.IntRange(1, 65535),
    help="The same figures over HTTP, on this machine only.",
)
@click.option("--once", is_flag=True, help="Deliver what can be delivered now, then stop.")
def run(
    db: Path, delivery: Path | None, metrics: Path | None, metrics_port: int | None, *, once: bool, **options: Any
) -> None:
    """Deliver until stopped."""
    import signal
    import threading

    from forwarder import patience, side_by_side
    from forwarder.ballast import Ballast

    stop, wake = threading.Event(), threading.Event()

    def end(*_: object) -> None:
        stop.set()
        wake.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    ballast = Ballast(beside(db, delivery))
    with forwarding(db, beside(db, delivery), ballast, stop, options) as running:
        if not once:
            running.chores.others.append(ballast.keep)
            running.chores.make_room = ballast.give_up
            if metrics is not None or metrics_port is not None:
                from forwarder.metrics import writer

                both = db, beside(db, delivery)
                running.chores.others.append(writer(both, metrics, metrics_port, say=running.say))
            head = patience.waited(lambda: log.head(running.books.journal), db)
            running.say("ready", head=head[0])
            running.pulse.ready(SILENT * options["timeout"])
            with patience.watch(db, wake, running.say):
                (side_by_side.run_until if running.lanes else patience.run_until)(running, stop, wake)
            running.say("stopped", head=log.head(running.books.delivery)[0])
            return
        result = (side_by_side.run_once if running.lanes else patience.run_once)(running, stop)
    if result is not None and result.kind == "paused":
        fail(f"Paused: {result.reason}.", 78)
    if result is not None:
        fail(f"Something still waits: {result.reason}.", 75)


@contextmanager
def forwarding(
    db: Path, delivery: Path, ballast: "Ballast", stop: "threading.Event", options: dict[str, Any]
) -> "Iterator[Replay]":
    """Everything a run needs, opened and closed again. Raises Unusable and NotNow."""
    os.environ.setdefault("RES_OPTIONS", "timeout:2 attempts:2")  # resolv.conf(5): a silent name server, for 4 s
    from forwarder import books as pair
    from forwarder.link import Credentials, Link, check_url
    from forwarder.patience import waited
    from forwarder.replay import Replay
    from forwarder.wire import Wire
    from journal import migrate
    from journal.notify import Pulse
    from journal.say import speak

    url = check_url(options["url"])
    credentials = Credentials.find(options["token_file"])
    log.open_book(db, "journal", write=False).close()
    if delivery.exists():  # before a lock file is put beside what may be no book at all
        log.open_book(delivery, "delivery", write=False).close()
    say = speak("omneo-forwarder")
    with log.only_instance(delivery, "omneo-forwarder run"):
        if not delivery.exists():
            waited(lambda: pair.create_delivery(db, delivery), db)
        elif (kept := migrate.forward(delivery, "delivery")) is not None:
            say("migrated", kept=str(kept))
        books = waited(lambda: pair.Books(db, delivery), db)
        try:
            waited(books.opened, db)
        except log.NotNow:
            if not ballast.give_up():
                raise
            waited(books.opened, db)
        lanes = lanes_of(options["ordering"], options["lanes"])
        pulse = Pulse(os.environ)

        def sent() -> None:
            running.meanwhile()

        def rest(seconds: float) -> None:
            if not lanes:  # side by side, the books belong to the thread that keeps them
                books.flush()
            pulse.rest(stop, seconds)

        wire = Wire(options["timeout"], sent=sent, over=pulse.beat)
        link = Link(url, credentials, wire, rate=options["rate"], sleep=rest)
        policy = policy_of(options)
        try:
            running = waited(lambda: Replay(books, link, policy, say, pulse=pulse, lanes=lanes), db)
            yield running
        finally:
            wire.close()
            books.close()


@cli.command()
@journal_option
@delivery_option
@policy_options
@TIMEOUT
@click.option("--limit", type=click.IntRange(min=0), default=100, show_default=True, help="Documents; 0: all.")
@json_option
def plan(db: Path, delivery: Path | None, *, limit: int, as_json: bool, **options: Any) -> None:
    """What would be sent now, in which order and why. Sends nothing."""
    from itertools import islice
    from tempfile import TemporaryDirectory

    from forwarder import books as pair
    from forwarder.plan import plan as rows
    from forwarder.window import Instant

    book = beside(db, delivery)
    lanes = lanes_of(options["ordering"], options["lanes"])
    with TemporaryDirectory() as scratch:
        if not book.exists():  # as the first run would find it
            log.open_book(db, "journal", write=False).close()
            pair.create_delivery(db, book := Path(scratch) / "delivery.db")
        books = pair.Books(db, book, write=False)
        found = rows(books, policy_of(options), lanes, Instant(**log.boot_facts(), wall=log.utc_now()))
        for row in islice(found, limit or None):
            if as_json:
                print_json(row)
            else:
                tell(f"{row['seq']:>7}  {row['what']:<7}  {row['kind']:<10}  {row['external_id']}: {row['why']}")


@cli.command()
@click.argument("document")
@journal_option
@delivery_option
@click.option("--by", default=getpass.getuser, show_default="the user", help="Who decides.")
@click.option("--note", default="", help="Why.")
def release(document: str, db: Path, delivery: Path | None, by: str, note: str) -> None:
    """Let a held document go after all. A reversal that comes too late goes as a return."""
    from forwarder import decide
    from forwarder.books import Books

    decide.release(Books(db, beside(db, delivery)), document, printable(by), printable(note))
    tell(f"{document} is released: it goes when its turn comes.")


@cli.command()
@click.argument("document")
@journal_option
@delivery_option
@click.option("--by", required=True, help="Who decides.")
@click.option("--note", required=True, help="Why.")
def abandon(document: str, db: Path, delivery: Path | None, by: str, note: str) -> None:
    """Decide that a held document never goes."""
    from forwarder import decide
    from forwarder.books import Books

    if not by.strip() or not note.strip():
        raise click.UsageError("--by and --note must say something.")
    decide.abandon(Books(db, beside(db, delivery)), document, printable(by), printable(note))
    tell(f"{document} is abandoned: it never goes.")


@cli.command()
@journal_option
@delivery_option
@link_options
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="The sales of this day.")
@click.option("--sample", type=click.IntRange(min=1), help="So many sales at random, the newest among them; or 100.")
@json_option
def witness(db: Path, delivery: Path | None, *, day: Any, sample: int | None, as_json: bool, **options: Any) -> None:
    """Read back from Omneo what sales took along, and hold the journal against it. Changes nothing."""
    os.environ.setdefault("RES_OPTIONS", "timeout:2 attempts:2")
    import random
    import time

    from forwarder import read_back as way
    from forwarder.link import Credentials, Link, check_url
    from forwarder.wire import Wire
    from journal.day import Days

    if day is not None and sample is not None:
        raise click.UsageError("Give --day or --sample, not both.")
    url, credentials = check_url(options["url"]), Credentials.find(options["token_file"])
    log.open_book(db, "journal", write=False).close()
    wire = Wire(options["timeout"])

    def rest(seconds: float) -> None:
        time.sleep(seconds)

    try:
        link = Link(url, credentials, wire, rate=options["rate"], sleep=rest)
        which = sample or 100 if day is None else Days(day.date(), day.date(), None)
        told = way.examine(db, beside(db, delivery), link, which, dice=random.SystemRandom(), rest=rest)
    finally:
        wire.close()
    if as_json:
        print_json(told)
    else:
        for line in way.lines(told):
            tell(line)
    sys.exit(0 if told["ok"] else 1)


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free port.")
def sandbox(port: int) -> None:
    """A stand-in Omneo on this machine, to try and test against. Its token is `sandbox`."""
    try:
        from forwarder.sandbox.serve import CannotListenError, serve
    except ModuleNotFoundError as missing:
        fail(f"The sandbox needs {missing.name}: pip install 'omneo-journal[sandbox]'.", 78)
    try:
        serve(port, announce=click.echo)
    except CannotListenError as error:
        fail(str(error), 78)


@cli.command()
def demo() -> None:
    """The whole story in one minute, on a temporary spool and journal, against the sandbox."""
    try:
        from forwarder.demo import demo as tell
    except ModuleNotFoundError as missing:
        fail(f"The demo needs {missing.name}: pip install 'omneo-journal[demo]'.", 78)
    sys.exit(tell())


for added in (*cli_look.COMMANDS, *cli_ledger.COMMANDS, *cli_reconcile.COMMANDS):
    cli.add_command(added)


def main() -> NoReturn:
    """Console script."""
    program(cli)
