"""
The walk through a book's entries, wherever they are read from: what is wrong with each, given the one before it.

Never raises for anything a hand can have done. Each problem names the book, the entry (0: the book as a whole) and
what is wrong with it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from journal import chain, roots
from journal.roots import Roots
from schemas import KINDS

DOCUMENTS = frozenset({*KINDS, "invalid"})
# Entries that say what the other book's head was.
VOUCHING = frozenset({"created", "opened", "turn", "vouched", "reconciled"})
ERASING = frozenset({"redaction", "archived"})  # entries that say why a body is gone
NOTABLE = VOUCHING | ERASING | {"checkpoint"}

Row = tuple[Any, ...]  # the columns of `log`, then salt and bytes of the body


@dataclass(slots=True)
class Book:
    """One book, and what the walk has found so far."""

    name: str
    seq: int = 0  # of the last entry seen
    digest: bytes = chain.ZERO
    born: int = 0  # a delivery book: the journal's head when it was created
    bodies: int = 0  # bodies seen
    bare: list[int] = field(default_factory=list)  # entries that had a body and have none
    gone: dict[tuple[str, str, str], list[int]] = field(
        default_factory=dict
    )  # why, by whom, which day: how many, first
    erased: set[int] | None = None  # which documents an entry says that of, where whoever walks wants to know
    claims: list[tuple[int, int, str]] = field(default_factory=list)  # (entry, seq and digest of the other book's head)
    problems: list[dict[str, Any]] = field(default_factory=list)
    roots: Roots | None = None  # of a journal

    def found(self, seq: int, what: str) -> None:
        """Note a problem."""
        self.problems.append({"book": self.name, "seq": seq, "what": what})


def walk(book: Book, rows: Sequence[Row]) -> None:
    """The next entries, in order."""
    before, last = book.digest, book.seq
    fresh: list[bytes] = []
    encode, hashed = chain.encode, sha256
    for row in rows:
        seq, _, kind, about, _, _, body_hash, digest, salt, body = row
        try:  # the digest vouches for the types of what it is over, but where two say the same
            sound = (
                hashed(before + encode(row[:7])).digest() == digest
                and seq == last + 1
                and type(seq) is int
                and (about is None or type(about) is int)
            )
            if body is not None:
                book.bodies += 1
                sound = sound and type(body) is bytes and hashed(salt + body).digest() == body_hash
            elif body_hash is not None:
                book.bare.append(seq)
        except (TypeError, ValueError, AttributeError):  # what is no text, or no bytes; half a character in a text
            sound = False
        if not sound or kind in NOTABLE or seq == 1:
            book.digest, book.seq = before, last
            _grow(book, fresh)
            fresh = []
            _entry(book, row)
            before, last = book.digest, book.seq
        else:
            before, last = digest, seq
        fresh.append(before)
    book.digest, book.seq = before, last
    _grow(book, fresh)


def _grow(book: Book, fresh: list[bytes]) -> None:
    if book.roots is not None:
        book.roots.entries(fresh)


def _entry(book: Book, row: Row) -> None:
    """What is wrong with one entry, and what it says of other things."""
    seq, _, kind, about, _, facts, body_hash, digest, salt, body = row
    if not _is_entry(row):
        book.seq = seq if isinstance(seq, int) else book.seq + 1
        book.digest = digest if isinstance(digest, bytes) else chain.ZERO
        book.found(book.seq, "a column holds what no entry holds")
        return
    if seq != book.seq + 1:
        missing = f"entries {book.seq + 1} to {seq - 1} are missing" if seq > book.seq else "no entry has such a number"
        book.found(seq, missing)
    if _link(book.digest, row) != digest:
        book.found(seq, "the digest does not fit: this entry was altered, or the one before it")
    if body is not None and not (isinstance(body, bytes) and isinstance(salt, bytes)):
        book.found(seq, "the body is no bytes")
    elif body is not None and chain.body_hash(salt, body) != body_hash:
        book.found(seq, "the body was altered" if body_hash else "there is a body that the entry knows nothing of")
    if (kind == "created") != (seq == 1):
        book.found(seq, "a book begins with the entry that created it, and has only one of that kind")
    if book.roots is not None and seq == 1:
        book.roots.origin = roots.of(facts)
    if book.roots is not None and kind == "checkpoint" and about is None:
        book.roots.checkpoint(seq, facts)
    book.seq, book.digest = seq, digest
    says(book, row)


def says(book: Book, row: Row) -> None:
    """Note what an entry says of other things: the other book's head, a body that went."""
    if row[2] in VOUCHING:
        _vouches(book, row[0], row[5])
    if row[2] in ERASING and row[3] is not None:
        _erased(book, row)


def _erased(book: Book, row: Row) -> None:
    """Note that a body went, for whoever reads the verdict."""
    _, at, kind, about, _, facts = row[:6]
    try:
        by = str(json.loads(facts).get("by", "?"))
    except (ValueError, AttributeError, RecursionError):
        by = "?"
    book.gone.setdefault((kind, by, at[:10]), [0, about])[0] += 1
    if book.erased is not None:
        book.erased.add(about)


def _link(before: bytes, row: Row) -> bytes | None:
    try:
        return chain.link(before, chain.Row(*row[:7]))
    except ValueError:  # half a character: no such text is in UTF-8
        return None


def _is_entry(row: Row) -> bool:
    """Only what the tables of `schema.sql` let in."""
    seq, at, kind, about, external_id, facts, body_hash, digest = row[:8]
    return (
        type(seq) is int
        and type(at) is str
        and type(kind) is str
        and (about is None or type(about) is int)
        and (external_id is None or type(external_id) is str)
        and type(facts) is str
        and (body_hash is None or type(body_hash) is bytes)
        and type(digest) is bytes
    )


def _vouches(book: Book, seq: int, facts: str) -> None:
    """Note what this entry says of the other book's head."""
    try:
        other = json.loads(facts).get("other_book")
        entries, head = (other["entries"], other["head"]) if other else (0, "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    if isinstance(entries, int) and 0 < entries < 2**63:
        book.claims.append((seq, entries, str(head)))
        if seq == 1:
            book.born = entries
