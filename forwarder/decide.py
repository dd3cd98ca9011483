"""
What is written beside the forwarder, an entry each: a person lets a held document go after all, or never, or what Omneo
has lost once more; and what a comparison with Omneo came to.
"""

from collections.abc import Sequence
from typing import Any

from forwarder import known
from forwarder.books import Books, Document
from journal import log
from journal.log import Entry


def release(books: Books, name: str, by: str, note: str) -> Document:
    """It goes after all, with its full number of tries; a reversal that comes too late goes as a return."""
    with log.writing(books.delivery):
        document = held(books, name)
        log.append(books.delivery, [_entry("released", document, by, note)], now=books.now)
    return document


def abandon(books: Books, name: str, by: str, note: str) -> Document:
    """It never goes. Whatever was held because it was doubtful goes on without it."""
    with log.writing(books.delivery):
        document = held(books, name)
        entries = [_entry("abandoned", document, by, note)]
        if document.kind == "redemption":
            entries += [entry for _, entry in known.freed(books, document)]
        log.append(books.delivery, entries, now=books.now)
    return document


def send_again(books: Books, seqs: Sequence[int], by: str, note: str) -> list[int]:
    """
    What Omneo had, and has no more, waits again: looked for there when its turn comes, sent only if it is not there.

    In one commit, so that what belongs together goes in order. What is not delivered any more is left out. Returns what
    goes.
    """
    entries: dict[int, Entry] = {}
    with log.writing(books.delivery):
        for seq in seqs:
            document = books.document(seq) if books.state(seq) == "delivered" else None
            if document is not None and not document.gone:  # of which no body is kept: there may be many
                entries[seq] = _entry("released", document, by, note, was="delivered")
        log.append(books.delivery, list(entries.values()), now=books.now)
    return list(entries)


def reconciled(books: Books, facts: dict[str, Any]) -> int:
    """What a comparison with Omneo came to, for good. Returns the number of its entry."""
    return log.append(books.delivery, [Entry("reconciled", facts=facts)], now=books.now)


def held(books: Books, name: str) -> Document:
    """The held document of this external_id or journal seq. Raises log.NoSuch if there is none."""
    document = books.by_external_id(name)
    if document is None and name.isascii() and name.isdigit():
        document = books.document(int(name))
    if document is None:
        raise log.NoSuch(f"There is no document {name}; omneo-journal list --state held shows those that are held.")
    if (state := books.state(document.seq)) != "held":
        raise log.NoSuch(f"{name} is {state}, not held: there is nothing to decide.")
    return document


def _entry(kind: str, document: Document, by: str, note: str, **more: str) -> Entry:
    return Entry(kind, document.seq, document.external_id, {"by": by, "note": note} | more)
