"""The command `omneo-journal ingest`: what the program is put together from."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from journal import cli_proof, log
from journal.command import (
    Command,
    beside,
    delivery_option,
    fail,
    journal_option,
    max_bytes_option,
    metrics_option,
)

if TYPE_CHECKING:
    from journal.outcomes import Outcomes
    from journal.say import Say

GRACE_S = 2.0  # how long an end waits for the words to the till, which may go to a share that hangs

OPTIONS = (
    click.option("--spool", envvar="OMNEO_JOURNAL_SPOOL", type=Path, required=True, help="The watched directory."),
    max_bytes_option,
    cli_proof.key_option,
    click.option(
        "--checkpoint-every",
        envvar="OMNEO_CHECKPOINT_EVERY",
        type=click.IntRange(min=1),
        default=10_000,
        show_default=True,
        help="Entries after which a checkpoint is due, if there is a key.",
    ),
    click.option(
        "--canary",
        envvar="OMNEO_CANARY",
        type=click.FloatRange(min=0),
        default=300,
        show_default=True,
        help="Seconds in which nothing went the whole way after which a canary is sent it; 0: none.",
    ),
    metrics_option,
    click.option(
        "--outcomes", envvar="OMNEO_OUTCOMES", type=Path, help="Directory for words to the till, a file a document."
    ),
    click.option(
        "--outcomes-days",
        envvar="OMNEO_OUTCOMES_DAYS",
        type=click.FloatRange(min=0),
        default=7,
        show_default=True,
        help="Days after which such a file goes.",
    ),
)


def _options(command: Command) -> Command:
    for each in reversed(OPTIONS):
        command = each(command)
    return command


@click.command()
@journal_option
@delivery_option
@_options
@click.option("--once", is_flag=True, help="One sweep of the spool, then stop.")
def ingest(
    db: Path,
    delivery: Path | None,
    spool: Path,
    max_bytes: int,
    key: Path | None,
    *,
    checkpoint_every: int,
    canary: float,
    metrics: Path | None,
    outcomes: Path | None,
    outcomes_days: float,
    once: bool,
) -> None:
    """Take files from the spool into the journal until stopped."""
    import os

    from journal import ingest as way
    from journal import migrate
    from journal.canary import Canary
    from journal.clock import Clock
    from journal.notify import Pulse
    from journal.reserve import Reserve
    from journal.say import speak
    from journal.spool import Spool

    if not spool.is_dir():
        raise log.Unusable(f"There is no spool directory {spool}; create it, or give the right one with --spool.")
    say, other = speak("omneo-journal"), beside(db, delivery)
    stop, wake = threading.Event(), threading.Event()
    files = Spool(spool, max_bytes, lambda path, why: say("passed_over", path=path, why=why), stop, wake)
    log.open_book(db, "journal", write=False).close()  # before a lock file is put beside what may be no book at all
    words = _outcomes(outcomes, (db, other), spool, outcomes_days, say)

    with log.only_instance(db, "omneo-journal ingest"):
        if (kept := migrate.forward(db, "journal")) is not None:
            say("migrated", kept=str(kept))
        book = log.open_book(db, "journal", write=True)
        keep = cli_proof.keeper(book, key, checkpoint_every, lambda: way.head_of(other, say), say)
        if once:
            way.opened(book, other, say=say)
            whole = way.once(files, book, say=say, keep=keep, room=Reserve(db))
            while words is not None and words.follow():
                pass
            if not whole:
                fail("Some files still change or can't be taken; they were left for the next run.", 75)
            return

        _end_with(stop, wake)
        chores: list[Callable[[], object]] = [Clock(book), keep]
        if canary:
            chores.append(Canary(book, spool, other, every_s=canary))
        if metrics is not None:
            from journal.metrics import writer

            chores.append(writer(metrics, book, db, files, say))
        with _telling(words, stop):
            pulse = Pulse(os.environ)
            way.run(files, book, other, stop, wake, say=say, chores=chores, room=Reserve(db), pulse=pulse)


def _end_with(*events: threading.Event) -> None:
    """SIGTERM and SIGINT set these."""
    import signal

    def end(*_: object) -> None:
        for each in events:
            each.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


def _outcomes(
    directory: Path | None, books: tuple[Path, Path], spool: Path, days: float, say: "Say"
) -> "Outcomes | None":
    """Words for the till, if somebody wants them. Raises log.Unusable where they would be taken for documents."""
    if directory is None:
        return None
    from journal.outcomes import Outcomes

    if not directory.is_dir():
        raise log.Unusable(f"There is no directory {directory} for --outcomes; create it, or give the right one.")
    if directory.resolve().is_relative_to(spool.resolve()):
        raise log.Unusable(f"{directory} is in the spool: give a directory beside it with --outcomes.")
    return Outcomes(*books, directory, days=days, say=say)


@contextmanager
def _telling(words: "Outcomes | None", stop: threading.Event) -> Iterator[None]:
    """Words for the till are written beside the loop, in a thread that nobody waits for."""
    thread = threading.Thread(target=words.run_until, args=(stop,), daemon=True) if words is not None else None
    if thread is not None:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread is not None:
            thread.join(GRACE_S)
