"""The options that several commands of `omneo-forwarder` share (contract: each has an environment variable)."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from journal.command import Command

if TYPE_CHECKING:
    from forwarder.errand import Policy


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
            type=Finite(min=0),
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
            type=Finite(min=0),
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


def lanes_of(ordering: str, lanes: int | None) -> int:
    """How many side by side; 0 for strict."""
    if ordering == "customer":
        return lanes or 8
    if lanes not in {None, 1}:
        raise click.UsageError("--lanes above 1 needs --ordering customer: strict is one request at a time.")
    return 0


def policy_of(options: dict[str, Any]) -> "Policy":
    """What the operator chose, as the rooms that decide know it."""
    from forwarder.errand import Policy

    return Policy(
        system=options["system"],
        poison_after=options["poison_after"],
        poison_for_s=options["poison_for"],
        window_s=options["reversal_window"],
        timeout_s=options["timeout"],
        grace_s=options["grace"],
        late_redemption=options["late_redemption"],
        late_reversal=options["late_reversal"],
        routes=options["routes"],
    )
