"""The commands that look: `status` and `doctor`."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from forwarder.options import ROUTES, link_options
from journal import log
from journal.command import beside, delivery_option, journal_option, json_option, print_json, tell

SPOOL = click.option(
    "--spool", envvar="OMNEO_JOURNAL_SPOOL", type=Path, help="The spool, if it shall be looked at too."
)


@click.command()
@journal_option
@delivery_option
@SPOOL
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C.")
@click.option("--full", is_flag=True, help="With --json: everything that people are told.")
@json_option
def status(db: Path, delivery: Path | None, spool: Path | None, *, watch: bool, full: bool, as_json: bool) -> None:
    """How things stand."""
    from forwarder import standing, standing_text

    book = beside(db, delivery)
    if as_json and not full:
        from forwarder.status import status as brief

        print_json(brief(db, book, log.utc_now()))
    elif as_json:
        print_json(standing.look(db, book, log.utc_now(), spool))
    elif watch:
        standing_text.watch(lambda: (standing.look(db, book, now := log.utc_now(), spool), now))
    else:
        for line in standing_text.lines(standing.look(db, book, now := log.utc_now(), spool), now):
            tell(line)


@click.command()
@journal_option
@delivery_option
@SPOOL
@link_options
@ROUTES
@json_option
def doctor(db: Path, delivery: Path | None, spool: Path | None, *, as_json: bool, **options: Any) -> None:
    """Check the way to Omneo step by step, and say what is wrong. Sends no document."""
    os.environ.setdefault("RES_OPTIONS", "timeout:2 attempts:2")
    from forwarder import doctor as examination
    from forwarder.wire import Wire

    asked = {name: options[name] for name in ("url", "token_file", "rate", "routes")}
    patient = examination.Patient(db, beside(db, delivery), spool, now=log.utc_now, **asked)
    wire = Wire(options["timeout"])
    well = True
    try:
        for finding in examination.examine(patient, wire):
            well = well and finding.ok is not False
            if as_json:
                print_json(finding.as_json())
            else:
                tell(finding.told())
    finally:
        wire.close()
    sys.exit(0 if well else 1)


COMMANDS = (status, doctor)
