"""What a person decides of a held document: it goes after all, or never. One entry each in the delivery book."""

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


def _entry(kind: str, document: Document, by: str, note: str) -> Entry:
    return Entry(kind, document.seq, document.external_id, {"by": by, "note": note})
