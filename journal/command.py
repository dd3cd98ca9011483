"""What the two command lines share: options, output for machines and for people, and how an error ends a program."""

import errno
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from sqlite3 import SQLITE_BUSY, SQLITE_IOERR, SQLITE_LOCKED, SQLITE_READONLY, DatabaseError, OperationalError
from typing import Any, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from journal import log

HUMBLE = (["verify"], ["witness"])  # long walks get the processor that nobody else wants: sched(7), SCHED_IDLE
MAX_BYTES = 1024 * 1024

Command = Callable[..., Any]


def journal_option(command: Command) -> Command:
    """`--db`: the journal."""
    return click.option("--db", envvar="OMNEO_JOURNAL_DB", type=Path, required=True, help="The journal (SQLite).")(
        command
    )


def delivery_option(command: Command) -> Command:
    """`--delivery`: the delivery book."""
    return click.option(
        "--delivery",
        envvar="OMNEO_DELIVERY_DB",
        type=Path,
        help="The delivery book (SQLite). Default: delivery.db beside the journal.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`: for machines."""
    return click.option("--json", "as_json", is_flag=True, help="For machines.")(command)


def max_bytes_option(command: Command) -> Command:
    """`--max-bytes`: the largest file taken."""
    return click.option(
        "--max-bytes",
        envvar="OMNEO_JOURNAL_MAX_BYTES",
        type=click.IntRange(min=1),
        default=MAX_BYTES,
        show_default=True,
        help="Largest file taken.",
    )(command)


def _zone(_: click.Context, option: click.Parameter, name: str | None) -> ZoneInfo | None:
    """A time zone by its IANA name. Raises click.BadParameter."""
    try:
        return ZoneInfo(name) if name is not None else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        words = "is no time zone's name, as Australia/Melbourne is one."
        raise click.BadParameter(f"{plain(str(name))} {words}", param=option) from None


def timezone_option(command: Command) -> Command:
    """`--timezone`: whose midnight ends a day."""
    words = "Time zone of the shop (IANA name). Default: this machine's."
    return click.option("--timezone", "zone", callback=_zone, help=words)(command)


def metrics_option(command: Command) -> Command:
    """`--metrics`: where figures for Prometheus go."""
    return click.option(
        "--metrics",
        envvar="OMNEO_METRICS",
        type=Path,
        help="Directory for figures in Prometheus' text format, read by node_exporter's textfile collector.",
    )(command)


def beside(db: Path, delivery: Path | None) -> Path:
    """Where the delivery book is."""
    return delivery or db.parent / "delivery.db"


def encode(value: Any) -> bytes:
    """JSON with every number as the till wrote it."""
    import msgspec

    return msgspec.json.Encoder(decimal_format="number").encode(value)


def pretty(value: Any) -> str:
    """JSON laid out for people, and still JSON: what a terminal would obey is escaped as JSON does it."""
    import msgspec

    text = msgspec.json.format(encode(value)).decode()
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def print_json(value: Any) -> None:
    """One JSON value on one line of stdout: UTF-8, whatever the locale."""
    click.echo(encode(value))


def tell(text: str, *, err: bool = False) -> None:
    """Lines for people."""
    click.echo(shown(text, err=err).encode(_letters(err)), err=err)


def shown(text: str, *, err: bool = False) -> str:
    """What their terminal would obey, or has no letters for, is spelt out: no name stops a list."""
    spelt = "\n".join(map(plain, text.split("\n")))
    return spelt.encode(_letters(err), "backslashreplace").decode(_letters(err))


def _letters(err: bool) -> str:
    return getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"


def fail(message: str, code: int) -> NoReturn:
    """Say what to do, on stderr, and end."""
    with suppress(OSError):
        tell(message, err=True)
    sys.exit(code)


def program(group: click.Group) -> NoReturn:
    """Run a command line: every error an operator can cause is a sentence and an exit code (contract, section 1)."""
    os.umask(os.umask(0o027) | 0o027)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    name = Path(sys.argv[0]).name
    variable = f"_{name.upper().replace('-', '_')}_COMPLETE"
    if asked := os.environ.get(variable):  # by the shell, when somebody presses the tab key
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(group, {}, name, variable, asked))
    if sys.argv[1:2] in HUMBLE:
        with suppress(OSError):  # where that is forbidden, it is only less polite
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:  # not group.main(), which says 1, bad news, when whoever reads along has seen enough
        with group.make_context(name, sys.argv[1:]) as context:
            group.invoke(context)
        sys.exit(0)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        fail("Stopped.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (log.Unusable, log.NotNow, log.NoSuch, OSError, DatabaseError) as error:
        fail(*verdict(error))


def verdict(error: Exception) -> tuple[str, int]:
    """What to tell the operator, and the exit code."""
    if isinstance(error, OSError) and error.filename is None:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF}:  # no file of ours: what stdout goes to
            return f"The output can't be written: {error.strerror}. Free some space, or send it elsewhere.", 75
        return f"The system refuses: {error.strerror}. Check the paths, and that this user may use them.", 78
    if isinstance(error, OSError):
        error = log.system_failed(error, Path(error.filename))
    if isinstance(error, log.NotNow):
        return str(error), 75
    if isinstance(error, log.NoSuch):
        return str(error), 1
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF if isinstance(error, OperationalError) else 0
    if code in {SQLITE_BUSY, SQLITE_LOCKED}:  # a commit on a slow disk may last
        return "A book is held by another program; try again in a moment.", 75
    if code == SQLITE_READONLY:  # its writer was killed in the middle of a commit
        return "A book has to be recovered by the program that writes it; start that program first.", 75
    if code == SQLITE_IOERR:
        return f"The disk fails: {error}. Look at the system's log; nothing was taken that is not on disk.", 75
    if isinstance(error, DatabaseError):
        return f"A book can't be read: {error}. Run omneo-journal verify; keep the file, and restore a backup.", 78
    return str(error), 78


def plain(text: str) -> str:
    """Text that a terminal shows and does not obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
