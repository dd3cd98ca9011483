"""`omneo-journal`: for POS integrators, auditors and the ingest service. Never touches the network."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from journal import log

MAX_BYTES = 1024 * 1024
DOCUMENT_STATES = ("waiting", "delivered", "cancelled", "refused", "held", "abandoned", "invalid")
DOCUMENT_KINDS = ("sale", "redemption", "reversal", "return", "invalid")

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


def beside(db: Path, delivery: Path | None) -> Path:
    """Where the delivery book is."""
    return delivery or db.parent / "delivery.db"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="omneo-journal", message="%(prog)s %(version)s")
def cli() -> None:
    """Take a shop's sales from the spool into the journal, and show what became of them."""


@cli.command()
@journal_option
@click.option("--spool", envvar="OMNEO_JOURNAL_SPOOL", type=Path, help="Create the spool directory too.")
def init(db: Path, spool: Path | None) -> None:
    """Create the journal (and the spool)."""
    import uuid

    log.create(db, "journal", {"journal": str(uuid.uuid4())} | log.boot_facts())
    click.echo(f"Created the journal {db}.")
    if spool is not None:
        (spool / "rejected").mkdir(parents=True, exist_ok=True, mode=0o750)
        click.echo(f"The POS drops its files into {spool}.")


@cli.command()
@journal_option
@delivery_option
@click.option("--spool", envvar="OMNEO_JOURNAL_SPOOL", type=Path, required=True, help="The watched directory.")
@max_bytes_option
@click.option("--once", is_flag=True, help="One sweep of the spool, then stop.")
def ingest(db: Path, delivery: Path | None, spool: Path, max_bytes: int, *, once: bool) -> None:
    """Take files from the spool into the journal until stopped."""
    import signal
    import threading

    from journal import ingest as way
    from journal.say import speak
    from journal.spool import Spool

    if not spool.is_dir():
        raise log.Unusable(f"There is no spool directory {spool}; create it, or give the right one with --spool.")
    say = speak("omneo-journal")
    files = Spool(spool, max_bytes, lambda path, why: say("passed_over", path=path, why=why))
    book = log.open_book(db, "journal", write=True)
    with log.only_instance(db, "omneo-journal ingest"):
        # An entry is on disk before the spool is looked at: this cures a loss after a failed fsync and a restart.
        way.opened(book, beside(db, delivery))
        if once:
            if not way.once(files, book, say=say):
                fail("Some files still change; they were left for the next run.", 75)
            return
        stop, wake = threading.Event(), threading.Event()

        def end(*_: object) -> None:
            stop.set()
            wake.set()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        say("ready", head=log.head(book)[0])
        way.run(files, book, stop, wake, say=say)
        say("stopped", head=log.head(book)[0])


@cli.command()
@click.argument("files", nargs=-1, required=True, type=Path)
@max_bytes_option
@json_option
def check(files: tuple[Path, ...], max_bytes: int, *, as_json: bool) -> None:
    """Say what ingest would say of these files. Touches nothing."""
    from journal.check import on_its_own

    bad = False
    for file in files:
        try:
            body = file.read_bytes() if file.stat().st_size <= max_bytes else None
        except OSError as error:
            fail(f"{file} can't be read: {error.strerror}.", 1)
        document, flags = on_its_own(file.name, body)
        bad = bad or document.kind == "invalid"
        if as_json:
            problems = [{"pointer": p.pointer, "message": p.message} for p in document.problems]
            print_json(
                {
                    "file": str(file),
                    "ok": document.kind != "invalid",
                    "kind": document.kind,
                    "external_id": document.external_id,
                    "reason": document.reason,
                    "problems": problems,
                    "flags": flags,
                }
            )
            continue
        if document.kind != "invalid":
            click.echo(f"{file}: good, a {document.kind} ({document.external_id})")
        else:
            click.echo(f"{file}: bad, {document.reason}")
        for problem in document.problems:
            click.echo(f"    {problem.pointer or '(the whole document)'}: {problem.message}")
        for flag in flags:
            click.echo(f"    would be flagged {flag}")
    sys.exit(1 if bad else 0)


@cli.command("list")
@journal_option
@delivery_option
@click.option("--state", type=click.Choice(DOCUMENT_STATES), help="Only documents in this state.")
@click.option("--kind", type=click.Choice(DOCUMENT_KINDS), help="Only documents of this kind.")
@json_option
def list_(db: Path, delivery: Path | None, state: str | None, kind: str | None, *, as_json: bool) -> None:
    """Documents, one a line, in journal order."""
    from journal import story

    with story.both_books(db, beside(db, delivery)) as books:
        for row in story.documents(books, state, kind):
            if as_json:
                print_json(row)
            else:
                omneo = f"Omneo {row['omneo_id']}" if row["omneo_id"] is not None else ""
                line = f"{row['seq']:>7}  {row['received_at']}  {row['kind']:<10}  {row['state']:<9}"
                click.echo(f"{line}  {row['external_id'] or '-'}  {omneo}".rstrip())


@cli.command()
@click.argument("document")
@journal_option
@delivery_option
@json_option
def show(document: str, db: Path, delivery: Path | None, *, as_json: bool) -> None:
    """One document's whole story, by external_id or seq."""
    from journal import story

    with story.both_books(db, beside(db, delivery)) as books:
        told = story.show(books, document)
    if as_json:
        print_json(told)
        return
    click.echo(f"{told['kind']} {told['external_id'] or '(no external_id)'}, entry {told['seq']}: {told['state']}")
    if told["omneo_id"] is not None:
        click.echo(f"Omneo knows it as {told['omneo_id']}.")
    for row in told["history"]:
        facts = {name: value for name, value in row.items() if name not in {"at", "book", "seq", "what"}}
        words = ", ".join(f"{name} {value}" for name, value in facts.items())
        click.echo(f"  {row['at'] or '-':<24}  {row['book']:<8} {row['seq']:>7}  {row['what']:<11} {words}".rstrip())
    for row in told["flags"]:
        click.echo(f"  {_flag_line(row)}")
    body = told["body"]
    click.echo(body if isinstance(body, str) else encode(body, indent=True))


@cli.command()
@journal_option
@delivery_option
@click.option("--all", "every", is_flag=True, help="Resolved ones too.")
@json_option
def flags(db: Path, delivery: Path | None, *, every: bool, as_json: bool) -> None:
    """What a person must know about: open flags."""
    from journal import story

    with story.both_books(db, beside(db, delivery)) as books:
        for row in story.flags(books, every=every):
            if as_json:
                print_json(row)
            else:
                click.echo(_flag_line(row))


def _flag_line(row: dict[str, Any]) -> str:
    detail = ", ".join(f"{name} {value}" for name, value in row["detail"].items())
    done = row["resolved"]
    end = f"resolved by {done['by']}: {done['note']}" if done else "open"
    name = row["external_id"] or "(no external_id)"
    return f"{row['id']:<6} {row['raised_at']}  {row['flag']:<24} {name}  {detail or '-'}  [{end}]"


@cli.command()
@click.argument("flag_id")
@journal_option
@delivery_option
@click.option("--by", required=True, help="Who resolves it.")
@click.option("--note", required=True, help="What was done.")
def resolve(flag_id: str, db: Path, delivery: Path | None, by: str, note: str) -> None:
    """Close a flag, with a name and a note. Both become part of the journal."""
    from journal import story

    if not by.strip() or not note.strip():
        raise click.UsageError("--by and --note must say something.")
    book = log.open_book(db, "journal", write=True)
    with story.both_books(db, beside(db, delivery)) as books:
        entry = story.resolution(books, flag_id, by, note)
    log.append(book, [entry])
    click.echo(f"Flag {flag_id} is resolved (entry {entry.seq}).")


@cli.command()
@journal_option
@delivery_option
@json_option
def verify(db: Path, delivery: Path | None, *, as_json: bool) -> None:
    """Walk both books from the first entry: has anything been altered?"""
    from journal.verify import verify as walk

    found = walk(db, beside(db, delivery))
    if as_json:
        print_json(found)
    else:
        for problem in found["problems"]:
            click.echo(f"{problem['book']} entry {problem['seq']}: {problem['what']}")
        second = found["delivery"]
        click.echo(f"Journal: {found['entries']} entries, head {found['head'][:16]}…")
        if second["head"]:
            click.echo(f"Delivery book: {second['entries']} entries, head {second['head'][:16]}…")
        click.echo("Nothing was altered." if found["ok"] else f"{len(found['problems'])} problems.")
    sys.exit(0 if found["ok"] else 1)


@cli.command("close-check")
@journal_option
@delivery_option
@json_option
def close_check(db: Path, delivery: Path | None, *, as_json: bool) -> None:
    """For the till's end-of-day script: exit 0 when nothing is left to wait for or to decide."""
    from journal import story

    with story.both_books(db, beside(db, delivery)) as books:
        counts = story.close(books)
    clear = not any(counts.values())
    if as_json:
        print_json({"ok": clear} | counts)
    else:
        words = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items())
        click.echo(f"{'The day can be closed' if clear else 'The day can not be closed yet'} ({words}).")
    sys.exit(0 if clear else 1)


def encode(value: Any, *, indent: bool = False) -> str:
    """JSON with every number as the till wrote it."""
    import msgspec

    raw = msgspec.json.Encoder(decimal_format="number").encode(value)
    return (msgspec.json.format(raw) if indent else raw).decode()


def print_json(value: Any) -> None:
    """One JSON value on one line of stdout."""
    click.echo(encode(value))


def fail(message: str, code: int) -> NoReturn:
    """Say what to do, on stderr, and end."""
    click.echo(message, err=True)
    sys.exit(code)


def program(group: click.Group) -> NoReturn:
    """Run a command line: every error an operator can cause is a sentence and an exit code (contract, section 1)."""
    os.umask(os.umask(0o027) | 0o027)
    try:
        sys.exit(group.main(standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as help_:
        help_.show()
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        fail("Stopped.", 130)
    except log.Unusable as error:
        fail(str(error), 78)
    except log.NotNow as error:
        fail(str(error), 75)
    except log.NoSuch as error:
        fail(str(error), 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read along has seen enough
        sys.exit(0)


def main() -> NoReturn:
    """Console script."""
    program(cli)
