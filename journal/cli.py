"""`omneo-journal`: for POS integrators, auditors and the ingest service. Never touches the network."""

import stat
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import click

from journal import cli_ingest, cli_keep, cli_proof, cli_report, log
from journal.command import (
    Command,
    beside,
    delivery_option,
    fail,
    journal_option,
    json_option,
    max_bytes_option,
    print_json,
    program,
    tell,
)
from schemas import KINDS

__all__ = [
    "Command",
    "beside",
    "delivery_option",
    "fail",
    "journal_option",
    "json_option",
    "main",
    "print_json",
    "program",
]

STATES = ("waiting", "delivered", "cancelled", "refused", "held", "abandoned", "invalid")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="omneo-journal", message="%(prog)s %(version)s")
def cli() -> None:
    """Take a shop's sales from the spool into the journal, and show what became of them."""


@cli.command()
@journal_option
@click.option("--spool", envvar="OMNEO_JOURNAL_SPOOL", type=Path, help="Create the spool directory too.")
def init(db: Path, spool: Path | None) -> None:
    """Create the journal (and the spool)."""
    import os
    import uuid

    if spool is not None and not os.path.lexists(db):  # first, so that a slip in its name spoils nothing
        log.make_directory(spool / "rejected")
    log.create(db, "journal", {"journal": str(uuid.uuid4())} | log.boot_facts())
    tell(f"Created the journal {db}.")
    if spool is not None:
        tell(f"The POS drops its files into {spool}.")


@cli.command()
@click.argument("files", nargs=-1, required=True, type=Path)
@max_bytes_option
@json_option
def check(files: tuple[Path, ...], max_bytes: int, *, as_json: bool) -> None:
    """Say what ingest would say of these files. Touches nothing."""
    bad = False
    for file in files:
        told = _checked(file, max_bytes)
        bad = bad or not told["ok"]
        if as_json:
            print_json(told)
            continue
        why = told["reason"].partition(": ")[0] if told["problems"] else told["reason"]
        verdict = f"good, a {told['kind']} ({told['external_id']})" if told["ok"] else f"bad, {why}"
        tell(f"{told['file']}: {verdict}")
        for problem in told["problems"]:
            tell(f"    {problem['pointer'] or '(the whole document)'}: {problem['message']}")
        for flag in told["flags"]:
            tell(f"    would be flagged {flag}")
    sys.exit(1 if bad else 0)


def _checked(file: Path, max_bytes: int) -> dict[str, Any]:
    """What `check --json` prints of one file."""
    from journal.check import in_words, on_its_own
    from journal.rejected import printable

    told = {"file": printable(str(file)), "ok": False, "kind": None, "external_id": None, "problems": [], "flags": []}
    try:
        regular = stat.S_ISREG(file.lstat().st_mode)
        with file.open("rb") if regular else nullcontext() as opened:
            body = opened.read(max_bytes + 1) if opened else b""
    except OSError as error:
        return told | {"reason": f"can't be read: {error.strerror}"}
    if not regular:
        return told | {"reason": "not a regular file: ingest passes over directories, links, devices and pipes"}
    document, flags = on_its_own(file.name, body if len(body) <= max_bytes else None)
    return told | {
        "ok": document.kind != "invalid",
        "kind": document.kind,
        "external_id": document.external_id,
        "reason": in_words(document),
        "problems": [{"pointer": p.pointer, "message": p.message} for p in document.problems],
        "flags": flags,
    }


@cli.command("list")
@journal_option
@delivery_option
@click.option("--state", type=click.Choice(STATES), help="Only documents in this state.")
@click.option("--kind", type=click.Choice([*KINDS, "invalid"]), help="Only documents of this kind.")
@json_option
def list_(db: Path, delivery: Path | None, state: str | None, kind: str | None, *, as_json: bool) -> None:
    """Documents, one a line, in journal order."""
    from journal import story, words

    with story.both_books(db, beside(db, delivery)) as books:
        for row in story.documents(books, state, kind):
            if as_json:
                print_json(row)
            else:
                tell(words.document(row))


@cli.command()
@click.argument("document")
@journal_option
@delivery_option
@json_option
def show(document: str, db: Path, delivery: Path | None, *, as_json: bool) -> None:
    """One document's whole story, by external_id or seq."""
    from journal import story, words
    from journal.rejected import printable

    with story.both_books(db, beside(db, delivery)) as books:
        told = story.show(books, printable(document))
    if as_json:
        print_json(told)
        return
    for line in words.story(told):
        tell(line)


@cli.command()
@journal_option
@delivery_option
@click.option("--all", "every", is_flag=True, help="Resolved ones too.")
@json_option
def flags(db: Path, delivery: Path | None, *, every: bool, as_json: bool) -> None:
    """What a person must know about: open flags."""
    from journal import story, words

    with story.both_books(db, beside(db, delivery)) as books:
        for row in story.flags(books, every=every):
            if as_json:
                print_json(row)
            else:
                tell(words.flag(row))


@cli.command()
@click.argument("flag_id")
@journal_option
@delivery_option
@click.option("--by", required=True, help="Who resolves it.")
@click.option("--note", required=True, help="What was done.")
def resolve(flag_id: str, db: Path, delivery: Path | None, by: str, note: str) -> None:
    """Close a flag, with a name and a note. Both become part of the journal."""
    from journal import story
    from journal.rejected import printable

    if not by.strip() or not note.strip():
        raise click.UsageError("--by and --note must say something.")
    book = log.open_book(db, "journal", write=True)
    with story.both_books(db, beside(db, delivery)) as books:
        entry = story.resolution(books, printable(flag_id), printable(by), printable(note))
    log.append(book, [entry])
    tell(f"Flag {flag_id} is resolved (entry {entry.seq}).")


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
        tell(f"{'The day can be closed' if clear else 'The day can not be closed yet'} ({words}).")
    sys.exit(0 if clear else 1)


for added in (cli_ingest.ingest, *cli_report.COMMANDS, *cli_keep.COMMANDS, *cli_proof.COMMANDS):
    cli.add_command(added)


def main() -> NoReturn:
    """Console script."""
    program(cli)
