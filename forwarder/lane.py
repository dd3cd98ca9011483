"""
Whose turn it is with `--ordering strict`: one document at a time, in journal order, when every earlier one is settled.

What a person has released goes first: it stands earlier in the journal than anything that still waits there.
"""

from collections import deque

from forwarder.books import TURN, Books, Document
from journal import log


class Strict:
    """The one lane of `--ordering strict`. Holds at most a turn's worth of documents in memory."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._ahead: deque[Document] = deque()
        self._read_upto = books.turn.settled  # documents up to here were looked at
        self._done: set[int] = set()  # settled before their turn came
        self._released: deque[int] = deque(books.released())
        self._others_version = self._version()

    def next_ready(self) -> Document | None:
        """The document whose turn it is; None when nothing waits. The same one again until `settle`."""
        if (version := self._version()) != self._others_version:  # a person released or abandoned something
            self._others_version = version
            self._books.flush()
            self._released = deque(self._books.released())
        while self._released:
            if (document := self._books.document(self._released[0])) is not None:
                return document
            self._released.popleft()
        while not self._ahead:
            piece = self._books.documents(self._read_upto, TURN)
            if not piece:
                return None
            settled = self._books.settled(piece[0].seq, piece[-1].seq)
            self._done &= {document.seq for document in piece} | {seq for seq in self._done if seq > piece[-1].seq}
            settled |= self._done
            self._ahead.extend(document for document in piece if document.seq not in settled)
            self._read_upto = piece[-1].seq
        first = self._ahead[0]
        if log.has_body(self._books.journal, first.seq):
            return first
        return self._books.document(first.seq)  # redacted since it was read: its bytes are gone

    def settle(self, document: Document, profile: str | None = None) -> None:  # noqa: ARG002
        """A document is settled: the one whose turn it was, or one that had to go before it."""
        if document.seq in self._released:
            self._released.remove(document.seq)
        elif self._ahead and self._ahead[0].seq == document.seq:
            self._ahead.popleft()
        else:
            self._done.add(document.seq)
        while self._ahead and self._ahead[0].seq in self._done:
            self._done.discard(self._ahead.popleft().seq)

    def put_back(self, document: Document) -> None:
        """A settled document waits again: it stands earlier than whatever waits now."""
        self._released.append(document.seq)

    @property
    def settled_upto(self) -> int:
        """Every document up to this journal seq is settled, but for released ones."""
        return self._ahead[0].seq - 1 if self._ahead else self._read_upto

    def _version(self) -> int:
        """Changes when another connection has committed to the delivery book (sqlite.org/pragma.html)."""
        return int(self._books.delivery.execute("PRAGMA data_version").fetchone()[0])
