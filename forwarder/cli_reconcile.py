"""The command `reconcile`: a day held against Omneo, and what is missing there sent again."""

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from forwarder.options import ROUTES, link_options
from journal import log
from journal.command import (
    beside,
    delivery_option,
    journal_option,
    json_option,
    print_json,
    tell,
    timezone_option,
)
from journal.rejected import printable

if TYPE_CHECKING:
    from forwarder.books import Books


@click.command()
@journal_option
@delivery_option
@link_options
@ROUTES
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), required=True, help="The shop's local day.")
@timezone_option
@click.option("--location", "locations", multiple=True, help="Ours, at Omneo. Default: where our sales are there.")
@click.option("--ignore", "ignored", multiple=True, metavar="FIELD", help="A field that is not compared.")
@click.option("--resend", is_flag=True, help="What is missing at Omneo goes again: say what would be done.")
@click.option("--value", is_flag=True, help="With --resend: not only sales, but what moves customers' value, too.")
@click.option("--yes", is_flag=True, help="With --resend: do it.")
@click.option("--by", help="With --resend: who decides. Default: the user.")
@click.option("--note", default="", help="With --resend: why.")
@json_option
def reconcile(db: Path, delivery: Path | None, *, day: Any, zone: ZoneInfo | None, **options: Any) -> None:
    """Hold a day against what Omneo has, both ways, when the line is idle; the delivery book keeps what it came to."""
    os.environ.setdefault("RES_OPTIONS", "timeout:2 attempts:2")
    from contextlib import closing

    from forwarder import compare, decide
    from forwarder import reconcile as way
    from forwarder.books import Books
    from journal.day import Days
    from journal.story import both_books

    for option in ("yes", "value"):
        if options[option] and not options["resend"]:
            raise click.UsageError(f"--{option} goes with --resend.")
    if not 1970 <= day.year < 9999:  # what a calendar and a time zone can be asked for
        raise click.UsageError("--day is no day on which a shop was open.")
    if unknown := sorted(set(options["ignored"]) - compare.NAMES):
        raise click.UsageError(
            f"--ignore {unknown[0]}: that is not compared. What is: {', '.join(sorted(compare.NAMES))}."
        )
    book = beside(db, delivery)
    if not book.exists():
        log.open_book(db, "journal", write=False).close()
        raise log.Unusable(f"There is no delivery book at {book}: nothing was ever sent, and nothing can be compared.")
    chosen = {name: frozenset(options[name]) for name in ("locations", "ignored")}
    wanted = way.Wanted(Days(day.date(), day.date(), zone), options["routes"], **chosen)
    with closing(Books(db, book)) as books:
        with both_books(db, book) as both:
            result = _asked(books, both.conn, wanted, options)
        result |= {"entry": decide.reconciled(books, way.facts(books, result))}
        if options["resend"]:
            result |= {"resend": _resend(books, result, options)}
    _say(result, options)
    sys.exit(0 if result["ok"] and result["complete"] else 1)


def _asked(books: "Books", both: Any, wanted: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Omneo's answers, compared."""
    import time

    from forwarder import reconcile as way
    from forwarder.asking import Asking
    from forwarder.link import Credentials, Link, check_url
    from forwarder.wire import Wire

    def rest(seconds: float) -> None:
        time.sleep(seconds)

    url, credentials = check_url(options["url"]), Credentials.find(options["token_file"])
    wire = Wire(options["timeout"])
    try:
        link = Link(url, credentials, wire, rate=options["rate"], sleep=rest)
        asking = Asking(link, rest, first=lambda: way.idle(both, rest))
        return way.examine(books, both, asking, wanted)
    finally:
        wire.close()


def _resend(books: "Books", result: dict[str, Any], options: dict[str, Any]) -> list[dict[str, Any]]:
    """What is done, or would be, with each that is missing at Omneo."""
    from forwarder import decide, resend

    rows = resend.plan(books, result["differences"], value=options["value"])
    goes = [row["seq"] for row in rows if row["what"] == "send"]
    done: set[int] = set()
    if options["yes"] and goes:
        by = options["by"] or getpass.getuser()
        done = set(decide.send_again(books, goes, printable(by), printable(options["note"])))
    return [row | {"done": row["seq"] in done} for row in rows]


def _say(result: dict[str, Any], options: dict[str, Any]) -> None:
    """For machines, or for people."""
    if options["as_json"]:
        print_json(result)
        return
    from journal import reconciled

    for line in reconciled.lines(result, len(result["differences"])):
        tell(line)
    tell(f"{result['documents']} documents of {result['day']}: {reconciled.counted(result)} (entry {result['entry']}).")
    for row in result.get("resend", ()):
        tell(f"{row['seq']:>7}  {row['what']:<5}  {row['kind']:<10}  {row['external_id']}: {row['why']}")
    if options["resend"]:
        goes = sum(row["what"] == "send" for row in result["resend"])
        done = sum(row["done"] for row in result["resend"])
        tell(f"{done} go when their turn comes." if options["yes"] else f"{goes} would go. --yes does it.")


COMMANDS = (reconcile,)
