"""The commands of `omneo-journal` about keeping and letting go: persons, redactions, packs, backups."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from journal import log
from journal.cli_proof import key_option, signing_key
from journal.command import beside, delivery_option, encode, journal_option, json_option, print_json, tell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from journal.person import Search
    from journal.redact import Going, Redacted

PACKS = click.option("--pack", "packs", type=Path, multiple=True, help="A pack that archive has written.")
EXACT = click.option("--exact", is_flag=True, help="Only documents that hold the handle itself.")
SPOOL = click.option("--spool", envvar="OMNEO_JOURNAL_SPOOL", type=Path, help="Name files there that hold it, too.")
REST = "Backups, and copies of the journal elsewhere, are not reached from here."


@click.command()
@click.argument("handle")
@journal_option
@delivery_option
@click.option("--out", type=Path, help="Write everything about them into a new file (JSON).")
@EXACT
@PACKS
@SPOOL
@json_option
def person(
    handle: str,
    db: Path,
    delivery: Path | None,
    *,
    out: Path | None,
    packs: tuple[Path, ...],
    spool: Path | None,
    exact: bool,
    as_json: bool,
) -> None:
    """Every document of one customer, by any handle: for whoever asks what is known about them."""
    from journal import person as way
    from journal import story

    with story.both_books(db, beside(db, delivery)) as books:
        search = way.Search(books.conn, packs, exact=exact)
        search.run(_handle(handle))
        found = way.told(books, search)
        if out is not None:
            _write(out, found)
        else:
            for row in found:
                if as_json:
                    print_json(row)
                else:
                    words = (
                        f"{row['kind']}  {row['external_id'] or '-'}  {row['state']}  ({row['why']}; {row['where']})"
                    )
                    tell(f"{row['seq']:>8}  {row['received_at'][:10]}  {words}")
        _tell_handles(search, packs, books.conn)
    if spool is not None:
        for path in way.files(spool, search):
            tell(f"A file in the spool holds it too: {path}", err=True)


def _handle(given: str) -> str:
    """`-`: the first line of standard input, since everybody on this machine can read a command line."""
    return sys.stdin.readline().strip() if given == "-" else given


def _write(out: Path, rows: "Iterable[dict[str, Any]]") -> None:
    """A file for the person who asked: whole or not there, and only for us to read."""
    draft = out.with_name(f".{out.name}.new")
    if os.path.lexists(out):
        raise log.Unusable(f"There is already a file at {out}; it was left as it is.")
    try:
        with draft.open("wb") as file:
            draft.chmod(0o600)
            file.write(b"[")
            for number, row in enumerate(rows):
                file.write((b",\n" if number else b"\n") + encode(row))
            file.write(b"\n]\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(out)
    finally:
        draft.unlink(missing_ok=True)
    tell(f"Written to {out}.")


def _tell_handles(search: "Search", packs: tuple[Path, ...], db: Any) -> None:
    """On stderr, beside whatever is on stdout."""
    from journal.person import unsearched

    tell(f"{len(search.found)} documents.", err=True)
    for value, where in search.handles.items():
        tell(f"Handle {value}: {where}.", err=True)
    if names := unsearched(db, packs):
        tell(f"Archived bodies were not looked through: {', '.join(names)}. Give them with --pack.", err=True)


@click.command()
@click.argument("document", required=False)
@journal_option
@delivery_option
@key_option
@click.option("--person", "handle", help="Every document of this customer, by any handle. Lists them, without --yes.")
@click.option("--yes", is_flag=True, help="Do what was listed.")
@click.option("--by", required=True, help="Who redacts.")
@click.option("--reason", required=True, help="Why. Becomes part of the journal: nothing personal.")
@click.option("--even-unsent", is_flag=True, help="Documents too that Omneo does not have yet: they never reach it.")
@EXACT
@PACKS
@SPOOL
def redact(
    document: str | None,
    db: Path,
    delivery: Path | None,
    *,
    handle: str | None,
    by: str,
    reason: str,
    packs: tuple[Path, ...],
    spool: Path | None,
    yes: bool,
    even_unsent: bool,
    exact: bool,
    key: Path | None,
) -> None:
    """Take the bytes of a document out of the journal, for good. Its entry stays, and everything still proves."""
    from journal import redact as way
    from journal import story
    from journal.rejected import printable

    if (document is None) == (handle is None):
        raise click.UsageError("Name one document, or --person.")
    if not by.strip() or not reason.strip():
        raise click.UsageError("--by and --reason must say something.")
    books = beside(db, delivery)
    signer = signing_key(key)
    files: list[Path] = []
    if handle is not None:
        seqs, files = _person(db, books, handle, packs, spool, exact=exact)
        going = [each for each in way.look(db, books, seqs) if each.here or each.packs]
        if not yes:
            _tell_plan(going)
            return
        seqs = [each.seq for each in going]
    else:
        with story.both_books(db, books) as both:
            seqs = [int(story.find(both, printable(str(document)))["seq"])]
    done = way.redact(
        db, books, seqs, printable(by), printable(reason), even_unsent=even_unsent, packs=packs, key=signer
    )
    _tell_done(done, files)


def _person(
    db: Path, delivery: Path, handle: str, packs: tuple[Path, ...], spool: Path | None, *, exact: bool
) -> tuple[list[int], list[Path]]:
    from journal import person as way
    from journal import story

    with story.both_books(db, delivery) as books:
        search = way.Search(books.conn, packs, exact=exact)
        search.run(_handle(handle))
        _tell_handles(search, packs, books.conn)
    return sorted(search.found), [] if spool is None else way.files(spool, search)


def _tell_plan(going: "list[Going]") -> None:
    from journal.redact import UNSENT

    for each in going:
        tell(f"{each.seq:>8}  {each.kind}  {each.external_id or '-'}  {each.state}")
    unsent = sum(each.here and each.state in UNSENT for each in going)
    words = f" {unsent} of them may not be at Omneo yet: --even-unsent." if unsent else ""
    tell(f"The bytes of these {len(going)} documents would go, for good.{words} Nothing was changed: add --yes.")


def _tell_done(done: "Redacted", files: list[Path]) -> None:
    entries = ", ".join(map(str, done.gone[:10])) + (", …" if len(done.gone) > 10 else "")
    tell(f"Redacted: {len(done.gone)} (entries {entries}). Their bytes and salts are gone from the journal.")
    for name in done.packs:
        tell(f"The pack {name} was made anew without them: destroy every other copy of it.")
    for name in done.unsigned:
        tell(f"The pack {name} is not signed any more: there was no key.")
    for name in done.elsewhere:
        tell(f"The pack {name} may hold them: run this again with --pack.")
    for name in done.rejected:
        tell(f"If {name} still lies in rejected/, its bytes are there: remove it.")
    for path in files:
        tell(f"A file in the spool holds it too: {path}")
    tell(REST)


@click.command()
@journal_option
@delivery_option
@click.option("--before", required=True, type=click.DateTime(["%Y-%m-%d"]), help="What came before this day.")
@click.option("--out", required=True, type=Path, help="Where the packs go: a directory.")
@key_option
@json_option
def archive(db: Path, delivery: Path | None, *, before: Any, out: Path, key: Path | None, as_json: bool) -> None:
    """Move bodies of settled documents out of the journal into packs. Their entries stay."""
    from journal import archive as way

    total = 0
    for facts in way.archive(db, beside(db, delivery), before.astimezone(), out, key=signing_key(key)):
        total += facts["documents"]
        if as_json:
            print_json(facts)
        else:
            tell(f"{out / facts['pack']}: {facts['documents']} documents, sha256 {facts['sha256']}")
    if not as_json:
        tell(f"{total} bodies are in packs now, and nowhere else: keep the packs as you keep the journal.")


@click.command()
@click.argument("dest", type=Path)
@journal_option
@delivery_option
@json_option
def backup(dest: Path, db: Path, delivery: Path | None, *, as_json: bool) -> None:
    """Copy both books, as they are at one moment, into a new directory. Both programs may run."""
    from journal import backup as way

    told = way.backup(db, beside(db, delivery), dest)
    if as_json:
        print_json(told)
    else:
        tell(f"Backup in {dest}: {told['entries']} entries of the journal, {told['delivery']['entries']} deliveries'.")
        for problem in told["problems"]:
            tell(f"{problem['book']} entry {problem['seq']}: {problem['what']}")
        tell("It was walked, and stands." if told["ok"] else "It is a faithful copy of books that do not stand.")
    if not told["ok"]:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("source", type=Path)
@journal_option
@delivery_option
@click.option("--by", required=True, help="Who restores.")
@click.option("--reason", required=True, help="Why. Becomes part of both books.")
@click.option("--anyway", is_flag=True, help="Even if the backup is older than what is known here.")
@click.option("--checkpoint", "taken", type=Path, multiple=True, help="A checkpoint that was taken away.")
def restore(
    source: Path, db: Path, delivery: Path | None, *, by: str, reason: str, taken: tuple[Path, ...], anyway: bool
) -> None:
    """Put a backup in the place of the books, which are moved aside. Both programs have to be stopped."""
    from journal import checkpoint
    from journal import restore as way
    from journal.rejected import printable

    if not by.strip() or not reason.strip():
        raise click.UsageError("--by and --reason must say something.")
    kept = [checkpoint.taken(path) for path in taken]
    done = way.restore(source, db, beside(db, delivery), printable(by), printable(reason), anyway=anyway, taken=kept)
    tell(f"Restored: {done.entries} entries. What waits is looked up at Omneo before it is sent.")
    for words in done.lost:
        tell(f"Lost: {words}")
    for path in done.aside:
        tell(f"What was here is kept: {path}")


COMMANDS = (person, redact, archive, backup, restore)
