"""Commands that tell of many documents at once: the day's report, the export of a period, and looking around."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from journal import log
from journal.command import (
    Command,
    beside,
    delivery_option,
    encode,
    fail,
    journal_option,
    plain,
    shown,
    tell,
    timezone_option,
)

DAY = click.DateTime(["%Y-%m-%d"])


def out_option(command: Command) -> Command:
    """`--out`: a file instead of stdout."""
    words = "Write it into a new file. Default: to stdout."
    return click.option("--out", type=Path, help=words)(command)


@click.command()
@journal_option
@delivery_option
@click.option("--day", type=DAY, help="The shop's local day, as 2025-06-16. Default: today.")
@click.option("--terminal", help="Only this terminal's documents.")
@click.option("--format", "form", type=click.Choice(["text", "json", "csv", "html"]), default="text", help="As what.")
@timezone_option
@click.option(
    "--reversal-window",
    "window_s",
    envvar="OMNEO_REVERSAL_WINDOW",
    type=click.FloatRange(0, 1e9),
    default=600,
    show_default=True,
    help="Seconds for which Omneo lets a redemption be reversed.",
)
@out_option
def report(
    db: Path,
    delivery: Path | None,
    *,
    day: datetime | None,
    terminal: str | None,
    form: str,
    zone: ZoneInfo | None,
    window_s: float,
    out: Path | None,
) -> None:
    """One day: what came, what became of it, what is open."""
    from journal import report as figures
    from journal import story
    from journal.day import Days, today

    which = day.date() if day is not None else today(zone)
    with story.both_books(db, beside(db, delivery)) as books, readable():
        told = figures.report(books, Days(which, which, zone), terminal, window_s)
        pieces = _printed(told, form, screen=out is None)
    write(out, pieces)


def _printed(told: dict[str, Any], form: str, *, screen: bool) -> list[bytes]:
    from journal import report_page, report_text
    from journal.export import csv_lines

    match form:
        case "json":
            return [encode(told) + b"\n"]
        case "csv":
            return list(csv_lines(report_text.COLUMNS, report_text.table(told)))
        case "html":
            return [report_page.page(told).encode()]
        case _:
            return [(shown(line) if screen else plain(line)).encode() + b"\n" for line in report_text.lines(told)]


@click.command()
@journal_option
@delivery_option
@click.option("--from", "first", type=DAY, required=True, help="The first local day.")
@click.option("--to", "last", type=DAY, required=True, help="The last local day, itself included.")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", help="As what.")
@timezone_option
@out_option
def export(
    db: Path,
    delivery: Path | None,
    *,
    first: datetime,
    last: datetime,
    form: str,
    zone: ZoneInfo | None,
    out: Path | None,
) -> None:
    """Every document of a period, one a line, for a spreadsheet or a program. Nothing personal is in it."""
    from journal import export as way
    from journal import story
    from journal.day import Days

    if last < first:
        raise click.UsageError("--to is before --from.")
    with story.both_books(db, beside(db, delivery)) as books, readable():
        rows = way.rows(books, Days(first.date(), last.date(), zone))
        write(out, way.json_lines(rows) if form == "jsonl" else way.csv_lines(way.COLUMNS, rows))


@click.command()
@journal_option
@delivery_option
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free port.")
def browse(db: Path, delivery: Path | None, port: int) -> None:
    """Look around in both books with a browser on this machine. Changes nothing, stops nobody."""
    try:
        from journal.browse import CannotListenError, serve
    except ModuleNotFoundError as missing:
        fail(f"Browsing needs {missing.name}: pip install 'omneo-journal[browse]'.", 78)
    try:
        serve(db, beside(db, delivery), port, announce=tell)
    except CannotListenError as error:
        fail(str(error), 78)


COMMANDS = (report, export, browse)


@contextmanager
def readable() -> Iterator[None]:
    """What a hand has put into a book is a matter for `verify`, and no reason to fall over."""
    try:
        yield
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        words = "A book holds what no program of ours writes: see omneo-journal verify."
        raise log.Unusable(words) from error


def write(out: Path | None, pieces: Iterable[bytes]) -> None:
    """Everything to stdout, or to a new file that is whole or not there. Raises OSError, Unusable."""
    if out is None:
        for piece in pieces:
            click.echo(piece, nl=False)
        return
    draft = out.with_name(f".{out.name}.{os.getpid()}.new")
    try:
        with draft.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, out)
    except FileExistsError:
        raise log.Unusable(f"There is already a file at {out}; it was left as it is.") from None
    finally:
        draft.unlink(missing_ok=True)
