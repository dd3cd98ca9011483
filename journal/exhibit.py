"""What `evidence` and `prove` have written, read and judged by the rules of the walk, with no journal at hand."""

import json
import zipfile
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from journal import chain, checkpoint, log, note, proof, tree
from journal.checkpoint import Taken
from journal.evidence import COLUMNS
from journal.note import Key
from journal.roots import Roots
from journal.verify import Verdict
from journal.walk import DOCUMENTS, Book, Row, says, walk

PIECE = 500  # entries read at a time


@dataclass(slots=True)
class Part:
    """What an evidence pack has of one book."""

    book: Book
    first: int = 1
    entries: int = 0  # how many the whole book had
    digests: dict[int, bytes] = field(default_factory=dict)
    documents: set[int] = field(default_factory=set)
    abouts: list[tuple[int, int]] = field(default_factory=list)

    def lacks(self, seq: int) -> bool:
        """Is it an entry of the book that is not in the pack, and nothing can be said of?"""
        return seq < self.first or self.book.seq < seq <= self.entries


def examine(path: Path, keys: Sequence[Key], taken: Sequence[Taken]) -> Verdict:
    """An evidence pack or a proof, as `verify` puts it."""
    ours, theirs = Book("journal"), Book("delivery")
    roots = ours.roots = Roots(ours.found, keys)
    try:
        with path.open("rb") as file:
            begins = file.read(len(proof.FIRST)).decode("latin-1")
    except OSError as error:
        raise log.system_failed(error, path) from error
    shown = ""
    try:
        if begins == proof.FIRST:
            shown = _proof(ours, path, keys)
        elif begins.startswith(proof.SINCE):
            shown = _since(ours, path, keys, taken)
        else:
            with zipfile.ZipFile(path) as pack:
                _pack(Part(ours), Part(theirs), pack, taken)
    except Exception as error:  # noqa: BLE001 - whatever somebody has made of it, it is not what was written
        ours.problems, theirs.problems = [], []
        ours.found(0, f"can't be read: {type(error).__name__} {error}")
    problems = ours.problems + theirs.problems
    told = {"ok": not problems, "entries": ours.seq, "head": ours.digest.hex()}
    second = {"entries": theirs.seq, "head": theirs.digest.hex() if theirs.seq else None}
    return Verdict(told | {"delivery": second, "problems": problems}, ours.gone, roots.signed, roots.covered, shown)


# -- an evidence pack


def _pack(ours: Part, theirs: Part, pack: zipfile.ZipFile, taken: Sequence[Taken]) -> None:
    book, roots = ours.book, ours.book.roots
    assert roots is not None
    names = _sums(book, pack)
    manifest = json.loads(pack.read("manifest.json"))
    kept = [_kept(name, pack.read(name).decode()) for name in names if name.startswith("checkpoints/")]
    place = manifest["journal"]
    roots.taken, roots.origin = [*kept, *taken], manifest["origin"]
    roots.grown = tree.Range(place["first"] - 1, [bytes.fromhex(each) for each in place["range"]])
    roots.entries([])
    book.erased = set()
    ends = _entries(ours, pack, "journal.jsonl", manifest)
    if (place["first"] > 1 and ends[0]) or (book.seq < place["entries"] and ends[1]):
        book.found(book.seq, "the days that this is to be evidence of are not whole")
    for leaves, subtree in place["after"]:
        roots.add(bytes.fromhex(subtree), leaves)
    if (roots.grown.size, roots.grown.root().hex()) != (place["entries"], place["root"]):
        book.found(book.seq, "these are not the entries of that journal: one was altered, taken out or put in")
    with pack.open("later.jsonl") as lines:
        for line in lines:
            _later(book, json.loads(line), place)
    for seq in book.bare:
        if seq not in book.erased:
            book.found(seq, "the body is gone, and no entry says why")
    roots.compare(place["entries"])
    if manifest["delivery"]:
        theirs.book.born = manifest["delivery"]["born"]
        _entries(theirs, pack, "delivery.jsonl", manifest)
        _together(ours, theirs)


def _sums(book: Book, pack: zipfile.ZipFile) -> list[str]:
    """The files that are in it, after a look whether they are those that were written."""
    lines = [line.split("  ") for line in pack.read("SHA256SUMS").decode().split("\n")[:-1]]
    for digest, name in lines:
        hashed = sha256()
        with pack.open(name) as file:
            while piece := file.read(1 << 20):
                hashed.update(piece)
        if hashed.hexdigest() != digest:
            book.found(0, f"{name} is not the file that was packed")
    return [name for _, name in lines]


def _kept(name: str, text: str) -> Taken:
    signed = "\n\n" in text
    said = checkpoint.parse(note.text_of(text) if signed else text)
    return Taken(name, said.origin, said.size, said.root, text if signed else None)


def _entries(part: Part, pack: zipfile.ZipFile, name: str, manifest: dict[str, Any]) -> tuple[bool, bool]:
    """Walk through a part. Are the first and the last entry of the days that it is about?"""
    book, place = part.book, manifest[part.book.name]
    part.first, part.entries = place["first"], place["entries"]
    book.seq, book.digest = place["first"] - 1, bytes.fromhex(place["before"])
    within: list[bool] = []
    with pack.open(name) as lines:
        while piece := [_row(json.loads(line)) for line in islice(lines, PIECE)]:
            bare = len(book.bare)
            walk(book, piece)
            days = {row[0] for row in piece if manifest["low"] <= row[1] < manifest["high"]}
            book.bare[bare:] = [seq for seq in book.bare[bare:] if seq in days]
            within = [*within[:1], *(row[0] in days for row in (piece[:1] if not within else []) + piece[-1:])]
            for row in piece:
                part.digests[row[0]] = row[7]
                if row[3] is not None:
                    part.abouts.append((row[0], row[3]))
                elif row[2] in DOCUMENTS:
                    part.documents.add(row[0])
    return within[0], within[-1]


def _row(told: dict[str, Any]) -> Row:
    hashes = [told[name] and bytes.fromhex(told[name]) for name in ("body_hash", "digest", "salt")]
    body = b64decode(told["base64"]) if "base64" in told else told["body"] and told["body"].encode()
    return (*(told[name] for name in COLUMNS[:6]), *hashes, body)


def _later(book: Book, told: dict[str, Any], place: dict[str, Any]) -> None:
    """An entry from after these days, by its audit path."""
    row = _row(told)
    path = [bytes.fromhex(each) for each in told["path"]]
    fits = chain.link(bytes.fromhex(told["before"]), chain.Row(*row[:7])) == row[7]
    root = tree.root_from(tree.leaf(row[7]), row[0] - 1, place["entries"], path)
    if not fits or root is None or root.hex() != place["root"]:
        book.found(row[0], "no such entry is in that journal")
    says(book, row)


def _together(ours: Part, theirs: Part) -> None:
    """What the two books say of each other, as far as both are here."""
    told = [claim for claim in ours.book.claims if claim[0] > theirs.book.born]
    for part, claims in ((theirs, told), (ours, theirs.book.claims)):
        for entry, seq, head in claims:
            if not part.lacks(seq) and part.digests.get(seq, b"").hex() != head:
                words = f"entry {entry} of the other book saw another one here: it was rewritten, or cut off"
                part.book.found(seq, words)
                break
    for seq, about in theirs.abouts:
        if not ours.lacks(about) and about not in ours.documents:
            theirs.book.found(seq, f"speaks of entry {about}, which is no document of this journal")


# -- a proof


def _proof(book: Book, path: Path, keys: Sequence[Key]) -> str:
    """One entry, and its audit path to a checkpoint. Returns what it is."""
    head, _, signed = path.read_text("utf-8").partition("\n\n")
    _, extra, index, *hashes = head.split("\n")
    told = json.loads(b64decode(extra.removeprefix("extra ")))
    row = _row(told)
    said = checkpoint.parse(note.text_of(signed))
    roots, book.roots = book.roots, None
    book.seq, book.digest = row[0] - 1, bytes.fromhex(told["before"])
    walk(book, [row])
    book.roots = roots
    place = int(index.removeprefix("index "))
    root = tree.root_from(tree.leaf(row[7]), place, said.size, [b64decode(each) for each in hashes])
    if place != row[0] - 1 or root != said.root:
        book.found(row[0], "the checkpoint is not over this entry")
    _trusted(book, signed, said.size, keys)
    what = f"Entry {row[0]} of {said.origin}, written {row[1]}: {row[2]} {row[4] or ''} {row[5]}"
    return f"{what}\nThe checkpoint is over {said.size} entries."


def _trusted(book: Book, signed: str, size: int, keys: Sequence[Key]) -> None:
    if keys:
        try:
            note.read(signed, keys)
        except note.Bad as bad:
            book.found(size, f"the checkpoint is not to be trusted: {bad}")


def _since(book: Book, path: Path, keys: Sequence[Key], taken: Sequence[Taken]) -> str:
    """That the journal of an earlier checkpoint, which has to be given, only grew to that of the one in the file."""
    head, _, signed = path.read_text("utf-8").partition("\n\n")
    old, *hashes = head.split("\n")
    size, said = int(old.removeprefix(proof.SINCE)), checkpoint.parse(note.text_of(signed))
    roots = [each.root for each in taken if each.size == size and said.origin.startswith(each.origin)]
    way = [b64decode(each, validate=True) for each in hashes]
    if not roots:
        book.found(size, f"give the checkpoint over {size} entries of {said.origin} that it begins with (--checkpoint)")
    for root in roots:
        if not tree.consistent(size, said.size, root, said.root, way):
            book.found(size, "the later checkpoint is not over what the earlier one saw: the journal was rewritten")
    _trusted(book, signed, said.size, keys)
    return f"{said.origin} had {size} entries, and {said.size} later: none of those {size} was changed or taken out."
