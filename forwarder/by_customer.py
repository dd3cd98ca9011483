"""
Whose turn it is with `--ordering customer`.

A document is ready when nothing earlier waits that has a key in common with it: the customer, the receipt or the
redemption. Documents without a common key pass each other.
"""

import heapq
import time
from dataclasses import dataclass, field
from datetime import timedelta

from forwarder import known
from forwarder.books import TURN, Books, Document

AHEAD = 20_000  # documents that are looked at before any of them is settled: bounds memory
HURRIED = 4  # hurried documents in a row before a plain one gets its turn

Key = tuple[str, ...]


@dataclass(slots=True)
class _Waiting:
    """A document that waits, without its body."""

    seq: int
    keys: list[Key]
    closes_at: float = float("inf")  # when the window of a reversal in its lane closes (wall clock, seconds)
    not_before: float = 0.0  # after a failure of its own (monotonic)
    busy: bool = False
    failures: int = field(default=0)


class ByCustomer:
    """The lanes of `--ordering customer`."""

    def __init__(self, books: Books, window_s: float) -> None:
        self._books = books
        self._window_s = window_s
        self._read_upto = books.turn.settled
        self._waiting: dict[int, _Waiting] = {}
        self._queues: dict[Key, list[int]] = {}  # key → seqs in order
        self._same: dict[Key, Key] = {}  # a handle → Omneo's UUID, once waiting
        self._ready: list[int] = []  # seqs of ready heads, lowest first
        self._hurried: list[tuple[float, int]] = []
        self._streak = 0
        for seq in books.released():
            self._add(seq)

    def next_ready(self) -> Document | None:
        """A document whose turn it is and that is not on its way already."""
        self._fill()
        seq = self._pick()
        if seq is None:
            return None
        document = self._books.document(seq)
        assert document is not None
        return document

    def _pick(self) -> int | None:
        """Of the ready heads the one whose window closes first; every so often a plain one, so that none starves."""
        now = time.monotonic()
        later: list[tuple[float, int]] = []
        chosen = None
        while self._hurried and self._streak < HURRIED and chosen is None:
            closes_at, seq = heapq.heappop(self._hurried)
            if self._goes(seq, now):
                chosen = seq
            elif seq in self._waiting and self._waiting[seq].not_before > now:
                later.append((closes_at, seq))
        for each in later:
            heapq.heappush(self._hurried, each)
        if chosen is not None:
            self._streak += 1
            return chosen
        self._streak = 0
        kept: list[int] = []
        while self._ready and chosen is None:
            seq = heapq.heappop(self._ready)
            if self._goes(seq, now):
                chosen = seq
            elif seq in self._waiting and self._waiting[seq].not_before > now and not self._waiting[seq].busy:
                kept.append(seq)
        for seq in kept:
            heapq.heappush(self._ready, seq)
        return chosen

    def _goes(self, seq: int, now: float) -> bool:
        waiting = self._waiting.get(seq)
        return waiting is not None and not waiting.busy and waiting.not_before <= now and self._is_head(waiting)

    def take(self, document: Document) -> None:
        """It is on its way."""
        waiting = self._waiting.get(document.seq) or self._add(document.seq)
        waiting.busy = True

    def give_back(self, document: Document, wait_s: float = 0.0) -> None:
        """It came back unsettled: its turn comes again, after a while."""
        if (waiting := self._waiting.get(document.seq)) is not None:
            waiting.busy = False
            waiting.not_before = time.monotonic() + wait_s
            self._offer(waiting)

    def settle(self, document: Document, profile: str | None = None) -> None:
        """A document is settled: whoever waited behind it may be ready now."""
        waiting = self._waiting.pop(document.seq, None)
        if waiting is None:
            return
        for key in waiting.keys:
            queue = self._queues[self._canonical(key)]
            queue.remove(document.seq)
            if queue:
                self._offer(self._waiting[queue[0]])
            else:
                del self._queues[self._canonical(key)]
        if profile is not None:
            for key in waiting.keys:
                if key[0] == "customer":
                    self._merge(key, ("customer", "", profile))

    def put_back(self, document: Document) -> None:
        """A settled document waits again."""
        self._add(document.seq)

    @property
    def settled_upto(self) -> int:
        """Every document up to this journal seq is settled."""
        return min(self._waiting, default=self._read_upto + 1) - 1

    @property
    def next_due_s(self) -> float | None:
        """Seconds until the next document that failed may be tried again."""
        now = time.monotonic()
        due = [
            waiting.not_before - now
            for waiting in self._waiting.values()
            if waiting.not_before > now and not waiting.busy
        ]
        return min(due, default=None)

    def look_again(self) -> None:
        """Somebody may have released a document."""
        for seq in self._books.released():
            if seq not in self._waiting:
                self._add(seq)

    def _fill(self) -> None:
        """Look further ahead while there is room and nothing is ready."""
        while len(self._waiting) < AHEAD and len(self._ready) < TURN:
            piece = self._books.documents(self._read_upto, TURN)
            if not piece:
                return
            settled = self._books.settled(piece[0].seq, piece[-1].seq)
            for document in piece:
                if document.seq not in settled and document.seq not in self._waiting:
                    self._enter(document)
            self._read_upto = piece[-1].seq

    def _add(self, seq: int) -> _Waiting:
        document = self._books.document(seq)
        assert document is not None
        return self._enter(document)

    def _enter(self, document: Document) -> _Waiting:
        waiting = _Waiting(document.seq, list({self._canonical(key) for key in keys(document)}))
        self._waiting[waiting.seq] = waiting
        for key in waiting.keys:
            queue = self._queues.setdefault(key, [])
            if queue and queue[-1] > waiting.seq:
                queue.append(waiting.seq)
                queue.sort()
            else:
                queue.append(waiting.seq)
        if document.kind == "reversal":
            self._hurry(waiting, self._closes_at(document))
        self._offer(waiting)
        return waiting

    def _closes_at(self, reversal: Document) -> float:
        """When its window closes. A redemption that was not sent has no running clock: nothing is hurried for it."""
        name = known.named_by(reversal)
        assert name is not None
        _, state = known.redemption(self._books, name)
        created = (
            known.redeemed(self._books, name, reversal).made.created_at if state in {"delivered", "online"} else None
        )
        return (created + timedelta(seconds=self._window_s)).timestamp() if created else float("inf")

    def _hurry(self, waiting: _Waiting, closes_at: float) -> None:
        """A reversal, and whatever stands before it in its lanes."""
        todo, seen = [waiting], {waiting.seq}
        while todo:
            each = todo.pop()
            if closes_at >= each.closes_at:
                continue
            each.closes_at = closes_at
            self._offer(each)
            for key in each.keys:
                for seq in self._queues[self._canonical(key)]:
                    if seq < each.seq and seq not in seen:
                        seen.add(seq)
                        todo.append(self._waiting[seq])

    def _offer(self, waiting: _Waiting) -> None:
        """Put it among the ready ones, if it is the head of each of its lanes."""
        if waiting.busy or not self._is_head(waiting):
            return
        heapq.heappush(self._ready, waiting.seq)
        if waiting.closes_at < float("inf"):
            heapq.heappush(self._hurried, (waiting.closes_at, waiting.seq))

    def _is_head(self, waiting: _Waiting) -> bool:
        return all(self._queues[self._canonical(key)][0] == waiting.seq for key in waiting.keys)

    def _canonical(self, key: Key) -> Key:
        while key in self._same:
            key = self._same[key]
        return key

    def _merge(self, handle: Key, profile: Key) -> None:
        """Two handles are one customer, once both are waiting to be one profile: their queues become one."""
        handle, profile = self._canonical(handle), self._canonical(profile)
        if handle == profile:
            return
        self._same[handle] = profile
        moved = self._queues.pop(handle, [])
        if moved:
            self._queues[profile] = sorted({*self._queues.get(profile, []), *moved})
            for seq in moved:
                waiting = self._waiting[seq]
                waiting.keys = list({self._canonical(key) for key in waiting.keys})
            self._offer(self._waiting[self._queues[profile][0]])


def keys(document: Document) -> list[Key]:
    """What a document has in common with those that must not pass it. An anonymous sale without a receipt is free."""
    content = document.content
    found: list[Key] = []
    if content.get("profile_id") is not None:
        found.append(("customer", str(content.get("profile_id_handle") or ""), str(content["profile_id"])))
    found += [("receipt", str(content[name])) for name in ("receipt_ref", "linked_receipt_ref") if content.get(name)]
    name = f"external:{document.external_id}" if document.kind == "redemption" else known.named_by(document)
    if name is not None:
        found.append(("redemption", name))
    sale = document.external_id if document.kind == "sale" else content.get("transaction_external_id")
    if sale is not None:
        found.append(("sale", str(sale)))
    return found
