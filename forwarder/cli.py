"""`omneo-forwarder`: for store operations and the forwarding service."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from journal import log
from journal.cli import Command, beside, delivery_option, fail, journal_option, json_option, print_json, program

if TYPE_CHECKING:
    import threading

    from forwarder.replay import Replay


class Finite(click.FloatRange):
    """A range of numbers, in which neither infinity nor "nan" is one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A number of the range. Raises click.BadParameter."""
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value} is no number.", param, ctx)
        return found


def link_options(command: Command) -> Command:
    """How to reach Omneo, and how fast."""
    options = (
        click.option("--url", envvar="OMNEO_URL", required=True, help="Omneo's API base, https://…/api/v3."),
        click.option(
            "--token-file",
            envvar="OMNEO_TOKEN_FILE",
            type=Path,
            help="File with the bearer token. Else the credential omneo-token, else OMNEO_TOKEN.",
        ),
        click.option(
            "--rate",
            envvar="OMNEO_RATE",
            type=Finite(min=0),
            default=10,
            show_default=True,
            help="Requests a second at most; 0 = no limit.",
        ),
        click.option(
            "--timeout",
            envvar="OMNEO_TIMEOUT",
            type=Finite(min=0, min_open=True),
            default=15,
            show_default=True,
            help="Seconds for the whole of one request.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def policy_options(command: Command) -> Command:
    """What the operator chooses."""
    options = (
        click.option(
            "--system", envvar="OMNEO_SYSTEM", default="POS", show_default=True, help="Source that Omneo sees."
        ),
        click.option(
            "--ordering",
            envvar="OMNEO_ORDERING",
            type=click.Choice(["strict", "customer"]),
            default="strict",
            show_default=True,
            help="Journal order, or order for each customer.",
        ),
        click.option(
            "--reversal-window",
            envvar="OMNEO_REVERSAL_WINDOW",
            type=click.FloatRange(min=0),
            default=600,
            show_default=True,
            help="Seconds for which Omneo lets a redemption be reversed.",
        ),
        click.option(
            "--late-redemption",
            envvar="OMNEO_LATE_REDEMPTION",
            type=click.Choice(["send", "hold"]),
            default="send",
            show_default=True,
            help="A redemption that is older than the window when its turn comes.",
        ),
        click.option(
            "--late-reversal",
            envvar="OMNEO_LATE_REVERSAL",
            type=click.Choice(["flag", "return"]),
            default="flag",
            show_default=True,
            help="A reversal that comes too late: leave it to a person, or refund it.",
        ),
        click.option(
            "--grace",
            envvar="OMNEO_GRACE",
            type=click.FloatRange(min=0),
            default=60,
            show_default=True,
            help="Seconds that a document waits for the redemption it names.",
        ),
        click.option(
            "--routes",
            envvar="OMNEO_ROUTES",
            type=click.Choice(["guide", "reference"]),
            default="reference",
            show_default=True,
            help="Which spelling of Omneo's routes.",
        ),
        click.option(
            "--lanes",
            envvar="OMNEO_LANES",
            type=click.IntRange(1, 256),
            help="Requests in flight at once. Default: 1 for strict (no other), 8 for customer.",
        ),
        click.option(
            "--poison-after",
            envvar="OMNEO_POISON_AFTER",
            type=click.IntRange(min=1),
            default=10,
            show_default=True,
            help="Failures with 5xx after which a document is held …",
        ),
        click.option(
            "--poison-for",
            envvar="OMNEO_POISON_FOR",
            type=Finite(min=0),
            default=900,
            show_default=True,
            help="… if they went on for so many seconds while Omneo otherwise answered.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="omneo-journal", message="%(prog)s %(version)s")
def cli() -> None:
    """Take documents from the journal to Omneo, in order, over a line that comes and goes."""


@cli.command()
@journal_option
@delivery_option
@link_options
@policy_options
@click.option("--once", is_flag=True, help="Deliver what can be delivered now, then stop.")
def run(db: Path, delivery: Path | None, *, once: bool, **options: Any) -> None:
    """Deliver until stopped."""
    import signal
    import threading

    from forwarder import patience, side_by_side

    stop, wake = threading.Event(), threading.Event()

    def end(*_: object) -> None:
        stop.set()
        wake.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    with forwarding(db, beside(db, delivery), stop, options) as running:
        if not once:
            running.say("ready", head=log.head(running.books.journal)[0])
            with patience.watch(db, wake):
                (side_by_side.run_until if running.lanes else patience.run_until)(running, stop, wake)
            running.say("stopped", head=log.head(running.books.delivery)[0])
            return
        result = (side_by_side.run_once if running.lanes else patience.run_once)(running, stop)
    if result is not None and result.kind == "paused":
        fail(f"Paused: {result.reason}.", 78)
    if result is not None:
        fail(f"Something still waits: {result.reason}.", 75)


@contextmanager
def forwarding(db: Path, delivery: Path, stop: "threading.Event", options: dict[str, Any]) -> "Iterator[Replay]":
    """Everything a run needs, opened and closed again. Raises Unusable and NotNow."""
    os.environ.setdefault("RES_OPTIONS", "timeout:2 attempts:2")  # resolv.conf(5): a silent name server, for 4 s
    from forwarder import books as pair
    from forwarder.link import Credentials, Link, check_url
    from forwarder.replay import Policy, Replay
    from forwarder.wire import Wire
    from journal.say import speak

    url = check_url(options["url"])
    credentials = Credentials.find(options["token_file"])
    log.open_book(db, "journal", write=False).close()
    if delivery.exists():  # before a lock file is put beside what may be no book at all
        log.open_book(delivery, "delivery", write=False).close()
    with log.only_instance(delivery, "omneo-forwarder run"):
        if not delivery.exists():
            pair.create_delivery(db, delivery)
        books = pair.Books(db, delivery)
        books.opened()
        lanes = lanes_of(options["ordering"], options["lanes"])
        wire = Wire(options["timeout"], lanes or 1)

        def rest(seconds: float) -> None:
            if not lanes:  # side by side, the books belong to the thread that keeps them
                books.flush()
            stop.wait(seconds)

        link = Link(url, credentials, wire, rate=options["rate"], sleep=rest)
        names = ("system", "poison_after", "late_redemption", "late_reversal", "routes")
        seconds = {
            "poison_for_s": "poison_for",
            "window_s": "reversal_window",
            "timeout_s": "timeout",
            "grace_s": "grace",
        }
        policy = Policy(
            **{name: options[name] for name in names}, **{ours: options[its] for ours, its in seconds.items()}
        )
        try:
            yield Replay(books, link, policy, speak("omneo-forwarder"), lanes=lanes)
        finally:
            wire.close()
            books.close()


def lanes_of(ordering: str, lanes: int | None) -> int:
    """How many side by side; 0 for strict."""
    if ordering == "customer":
        return lanes or 8
    if lanes not in {None, 1}:
        raise click.UsageError("--lanes above 1 needs --ordering customer: strict is one request at a time.")
    return 0


@cli.command()
@journal_option
@delivery_option
@json_option
def status(db: Path, delivery: Path | None, *, as_json: bool) -> None:
    """How things stand."""
    from forwarder import status as standing

    found = standing.status(db, beside(db, delivery), log.utc_now())
    if as_json:
        print_json(found)
        return
    for line in standing.lines(found):
        click.echo(line)


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


def main() -> NoReturn:
    """Console script."""
    program(cli)
