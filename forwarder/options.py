"""The options that several commands of `omneo-forwarder` share (contract: each has an environment variable)."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from journal.command import Command

if TYPE_CHECKING:
    from forwarder.errand import Policy

Decorator = Callable[[Command], Command]


class Finite(click.FloatRange):
    """A range of numbers, in which neither infinity nor "nan" is one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A number of the range. Raises click.BadParameter."""
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value} is no number.", param, ctx)
        return found


def option(name: str, help_: str, **how: Any) -> Decorator:
    """An option, and the environment variable that stands in for it."""
    how.setdefault("envvar", f"OMNEO_{name.removeprefix('--').replace('-', '_').upper()}")
    return click.option(name, show_default="default" in how, help=help_, **how)


TIMEOUT = option("--timeout", "Seconds for the whole of one request.", type=Finite(min=0, min_open=True), default=15)

ROUTES = option(
    "--routes",
    "Which spelling of Omneo's routes.",
    type=click.Choice(["guide", "reference"]),
    default="reference",
)

LINK = (
    option("--url", "Omneo's API base, https://…/api/v3.", required=True),
    option(
        "--token-file",
        "File with the bearer token. Else the credential omneo-token, else OMNEO_TOKEN.",
        type=Path,
    ),
    option("--rate", "Requests a second at most; 0 = no limit.", type=Finite(min=0), default=10),
    TIMEOUT,
)

POLICY = (
    option("--system", "Source that Omneo sees.", default="POS"),
    option(
        "--ordering",
        "Journal order, or order for each customer.",
        type=click.Choice(["strict", "customer"]),
        default="strict",
    ),
    option(
        "--lanes",
        "Requests in flight at once. Default: 1 for strict (no other), 8 for customer.",
        type=click.IntRange(1, 256),
    ),
    option(
        "--reversal-window",
        "Seconds for which Omneo lets a redemption be reversed.",
        type=Finite(min=0),
        default=600,
    ),
    option(
        "--late-redemption",
        "A redemption that is older than the window when its turn comes.",
        type=click.Choice(["send", "hold"]),
        default="send",
    ),
    option(
        "--late-reversal",
        "A reversal that comes too late: leave it to a person, or refund it.",
        type=click.Choice(["flag", "return"]),
        default="flag",
    ),
    option("--grace", "Seconds that a document waits for the redemption it names.", type=Finite(min=0), default=60),
    ROUTES,
    option(
        "--poison-after",
        "Failures with 5xx after which a document is held …",
        type=click.IntRange(min=1),
        default=10,
    ),
    option(
        "--poison-for",
        "… if they went on for so many seconds while Omneo otherwise answered.",
        type=Finite(min=0),
        default=900,
    ),
    click.option(
        "--witness/--no-witness",
        envvar="OMNEO_WITNESS",
        default=True,
        help="Does each sale take its entry's number and digest to Omneo, in meta? On, unless --no-witness.",
    ),
)


def link_options(command: Command) -> Command:
    """How to reach Omneo, and how fast."""
    return _with(LINK, command)


def policy_options(command: Command) -> Command:
    """What the operator chooses."""
    return _with(POLICY, command)


def _with(options: Sequence[Decorator], command: Command) -> Command:
    for each in reversed(options):
        command = each(command)
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
        witness=options["witness"],
    )
