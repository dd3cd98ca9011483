"""The commands of `omneo-journal` that prove something: keys, checkpoints, proofs, evidence, and `verify`."""

import sys
from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

import click

from journal import log
from journal.command import Command, beside, delivery_option, journal_option, json_option, print_json, tell
from journal.say import Say

if TYPE_CHECKING:
    from journal.checkpoint import Head
    from journal.note import Key
    from journal.verify import Verdict

Keep = Callable[[], object]

CREDENTIAL = "omneo-journal-key"  # systemd's name for the key: LoadCredential= in the unit
GONE = {"redaction": "redacted", "archived": "archived"}


def key_option(command: Command) -> Command:
    """`--key`: the private one."""
    return click.option("--key", envvar="OMNEO_JOURNAL_KEY", type=Path, help="The private key that keygen made.")(
        command
    )


def keeper(db: Connection, key: Path | None, every: int, other: Callable[[], "Head | None"], say: Say) -> Keep:
    """What makes checkpoints while ingest runs: nothing, without a key."""
    signer = signing_key(key)
    if signer is None:
        return lambda: None
    from journal.checkpoint import Keeper

    return Keeper(db, signer, every, other, say=say)


def signing_key(path: Path | None) -> "Key | None":
    """The private key: the file that was named, else systemd's credential, else none. Raises log.Unusable."""
    import os

    from journal import note

    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if path is None and directory is not None:
        path = Path(directory, CREDENTIAL)
        path = path if path.exists() else None
    if path is None:
        return None
    try:
        return note.private_key(note.from_file(path))
    except note.Bad as bad:
        raise log.Unusable(f"{path} can't be used as a key: {bad}. Make one with: omneo-journal keygen.") from None


def _public_key(given: str) -> "Key":
    """A public key, as keygen printed it or in a file."""
    from journal import note

    try:
        return note.public_key(given if "+" in given and not Path(given).exists() else note.from_file(Path(given)))
    except note.Bad as bad:
        raise log.Unusable(f"--key can't be used: {bad}.") from None


@click.command()
@journal_option
@click.option("--out", type=Path, required=True, help="Where to: a new file, or a directory.")
def keygen(db: Path, out: Path) -> None:
    """Make a key for this journal's checkpoints. Prints the public half: give it to whoever verifies."""
    from contextlib import closing

    from journal import checkpoint, note

    with closing(log.open_book(db, "journal", write=False)) as book:
        private, public = note.generate(checkpoint.origin_of(book))
    path = out / CREDENTIAL if out.is_dir() else out
    note.to_file(path, private + "\n", 0o600)
    tell(f"The private key is in {path}: nobody but the ingest program should be able to read it.", err=True)
    tell(public)


@click.command()
@journal_option
@delivery_option
@key_option
@click.option("--out", type=Path, help="Write the checkpoint into a new file, to be kept elsewhere.")
@click.option("--print", "printed", is_flag=True, help="In a short form, for the Z-report.")
def checkpoint(db: Path, delivery: Path | None, key: Path | None, out: Path | None, *, printed: bool) -> None:
    """Sign how many entries the journal has and what they are. What is taken away shows later changes."""
    from journal import checkpoint as way
    from journal import note

    signer = signing_key(key)
    book = log.open_book(db, "journal", write=True)
    seq, said, signed = way.make(book, way.head_of(beside(db, delivery)), signer)
    text = said.text() if signed is None else signed
    if out is not None:
        note.to_file(out, text)
    if printed:
        tell(said.printed())
    elif out is None:
        tell(text.rstrip("\n"))
    else:
        tell(f"Checkpoint over {said.size} entries (entry {seq}), in {out}.")
    if signed is None:
        tell("It is not signed: no key was given. Keep it where nobody can change it.", err=True)


@click.command()
@click.argument("document", required=False)
@journal_option
@click.option("--since", "earlier", type=Path, help="Instead of a document: that the journal only grew since this one.")
@click.option("--checkpoint", "against", type=Path, help="Prove it against this checkpoint, not the newest.")
@click.option("--out", type=Path, required=True, help="Write the proof into a new file.")
def prove(document: str | None, db: Path, earlier: Path | None, against: Path | None, out: Path) -> None:
    """Prove that one document is in the journal as it stands, or that the journal only grew; no other is shown."""
    from contextlib import closing

    from journal import checkpoint as way
    from journal import note, proof
    from journal.rejected import printable

    newer = None if against is None else way.taken(against)
    with closing(log.open_book(db, "journal", write=False)) as book:
        if document is not None and earlier is None:
            text, size = proof.make(book, printable(document), newer)
        elif document is None and earlier is not None:
            text, size = proof.since(book, way.taken(earlier), newer)
        else:
            raise click.UsageError("Name a document, or an earlier checkpoint with --since.")
    note.to_file(out, text)
    what = "entry and audit path" if earlier is None else "what ties the earlier checkpoint"
    tell(f"The proof is in {out}: {what} {'up ' if earlier is None else ''}to a checkpoint over {size} entries.")


@click.command()
@journal_option
@delivery_option
@click.option("--from", "first", required=True, type=click.DateTime(["%Y-%m-%d"]), help="First day.")
@click.option("--to", "last", required=True, type=click.DateTime(["%Y-%m-%d"]), help="Last day.")
@click.option("--out", type=Path, required=True, help="A new file.")
def evidence(db: Path, delivery: Path | None, first: Any, last: Any, out: Path) -> None:
    """Everything about some days in one file, with a program that checks it and needs nothing of ours."""
    from journal import evidence as way

    if last < first:
        raise click.UsageError("--to is before --from.")
    told = way.write(db, beside(db, delivery), first.date(), last.date(), out)
    tell(f"{out}: {told['journal']} entries of the journal, {told['delivery']} of the delivery book.")
    tell("It holds what the tills wrote, customers' names among it: treat it like the journal.")


@click.command()
@click.option("--db", envvar="OMNEO_JOURNAL_DB", type=Path, help="The journal (SQLite).")
@delivery_option
@click.option("--checkpoint", "taken", type=Path, multiple=True, help="Against a checkpoint that was taken away.")
@click.option("--key", "keys", multiple=True, help="Public key (or its file) that checkpoints are signed with.")
@click.option("--evidence", "pack", type=Path, help="A file that evidence or prove has written, and no journal.")
@click.option("--pack", "packs", type=Path, multiple=True, help="A pack that archive has written, too.")
@json_option
def verify(
    db: Path | None,
    delivery: Path | None,
    taken: tuple[Path, ...],
    keys: tuple[str, ...],
    pack: Path | None,
    *,
    packs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Walk both books from the first entry: has anything been altered?"""
    from journal import archive, exhibit
    from journal import checkpoint as way
    from journal import verify as walk

    trusted, kept = [_public_key(key) for key in keys], [way.taken(path) for path in taken]
    if pack is not None:
        found = exhibit.examine(pack, trusted, kept)
    elif db is not None:
        found = walk.examine(db, beside(db, delivery), trusted, kept)
        for path in packs:
            found.told["problems"] += archive.check(db, path, trusted)
        found.told["ok"] = not found.told["problems"]
        if trusted and packs and not as_json:
            signed = sum(archive.is_signed(path, trusted) for path in packs)
            tell(f"Packs with a good signature: {signed} of {len(packs)}")
    else:
        raise click.UsageError("Missing option '--db' (or '--evidence').")
    if as_json:
        print_json(found.told)
    else:
        _tell_verdict(found, kept=len(kept))
    sys.exit(0 if found.told["ok"] else 1)


def _tell_verdict(found: "Verdict", *, kept: int) -> None:
    told = found.told
    for problem in told["problems"]:
        tell(f"{problem['book']} entry {problem['seq']}: {problem['what']}")
    for (kind, by, day), (count, first) in found.gone.items():
        what = f"the body of entry {first}" if count == 1 else f"{count} bodies (the first: entry {first})"
        tell(f"Gone with a word: {what}, {GONE[kind]} by {by} on {day}")
    tell(found.shown or f"Journal: {told['entries']} entries, head {told['head'][:16]}…")
    if told["delivery"]["head"]:
        tell(f"Delivery book: {told['delivery']['entries']} entries, head {told['delivery']['head'][:16]}…")
    if found.signed:
        tell(f"Checkpoints with a good signature: {found.signed}")
    if found.covered and told["entries"] - found.covered > 1:  # the first after it is the checkpoint itself
        tell(f"No signature covers what came after entry {found.covered} yet.")
    if kept and told["ok"]:
        tell("It still begins with what the checkpoint saw.")
    tell("Nothing was altered." if told["ok"] else f"{len(told['problems'])} problems.")


COMMANDS = (keygen, checkpoint, prove, evidence, verify)
