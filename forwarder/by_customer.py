"""
Whose turn it is with `--ordering customer`.

A document is ready when nothing earlier waits, and nothing is on its way, that has a key in common with it: the
customer, the receipt, the redemption or the sale. Documents without a common key pass each other. All of this is only
in memory, bounded, and built anew from the two books after a restart.
"""

import time
from datetime import timedelta
from heapq import heappop, heappush

from forwarder import known
from forwarder.books import TURN, Books, Document
from forwarder.queues import NEVER, Key, Queues, Waiting

AHEAD = 2000  # documents that are looked at before any of them is settled: bounds memory, at a kilobyte each
HURRIED = 4  # hurried documents in a row before a plain one gets its turn
LATER = -1.0  # listed among those whose time has not come

Heap = list[tuple[float, Waiting]]


class ByCustomer:
    """The lanes of `--ordering customer`."""

    def __init__(self, books: Books, window_s: float) -> None:
        self._books = books
        self._window_s = window_s
        self._read_upto = books.turn.settled
        self._waiting: dict[int, Waiting] = {}
        self._order: list[Waiting] = []  # the same, oldest first, but for released ones
        self._queues = Queues(self._offer)
        self._plain: Heap = []  # ready, oldest first
        self._hurried: Heap = []  # ready, and a window closes: the first to close first
        self._missed: Heap = []  # the same, where it has closed by this machine's clock (which may be wrong)
        self._later: Heap = []  # ready, but not before a moment
        self._streak = 0
        self._unjudged: list[tuple[Waiting, Document | None]] = []  # reversals whose window has to be looked up
        self._others_version = -1

    # -- whose turn -------------------------------------------------------------------------------------------------

    def next_ready(self) -> Document | None:
        """A document whose turn it is; of those that aren't on their way, the same one again until `take`."""
        self.look_again()
        self._read_ahead()
        while True:
            self._judge()
            if (waiting := self._pick()) is not None:
                return self._books.document(waiting.seq)  # read anew: it may have been redacted since
            if not self._read_ahead():
                return None

    def closes_at(self, document: Document) -> float | None:
        """For the sake of which window (wall clock, seconds) it goes before others; None if it doesn't."""
        waiting = self._waiting.get(document.seq)
        return None if waiting is None or waiting.closes_at == NEVER else waiting.closes_at

    def _pick(self) -> Waiting | None:
        """Of the ready heads the one whose window closes first; every so often a plain one, so that none starves."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            waiting = heappop(self._later)[1]
            waiting.listed_as = None
            self._offer(waiting)
        plain = self._top(self._plain)
        if plain is not None and self._streak >= HURRIED:
            self._streak = 0
            return plain
        wall = self._books.now().timestamp()
        while (hurried := self._top(self._hurried)) is not None and hurried.closes_at <= wall:
            heappush(self._missed, heappop(self._hurried))
        hurried = hurried or self._top(self._missed)
        self._streak = self._streak + 1 if hurried is not None else 0
        return hurried or plain

    def _top(self, heap: Heap) -> Waiting | None:
        """The first of a heap that may go now; what may not (any more) leaves the heap."""
        while heap:
            rank, waiting = heap[0]
            as_listed = waiting.closes_at == (NEVER if heap is self._plain else rank)
            if as_listed and waiting.is_ready and waiting.not_before <= time.monotonic():
                return waiting
            heappop(heap)
            if as_listed and waiting.listed_as == waiting.closes_at:
                waiting.listed_as = None
                self._offer(waiting)  # perhaps for later
        return None

    def _offer(self, waiting: Waiting) -> None:
        """Put it among the ready ones, if it is the head of each of its queues and isn't there already."""
        if not waiting.is_ready:
            return
        if waiting.not_before > time.monotonic():
            if waiting.listed_as != LATER and waiting.not_before < NEVER:
                waiting.listed_as = LATER
                heappush(self._later, (waiting.not_before, waiting))
        elif waiting.listed_as != waiting.closes_at:
            waiting.listed_as = waiting.closes_at
            if waiting.closes_at == NEVER:
                heappush(self._plain, (waiting.seq, waiting))
            else:
                heappush(self._hurried, (waiting.closes_at, waiting))

    # -- what becomes of it -----------------------------------------------------------------------------------------

    def take(self, document: Document) -> None:
        """It is on its way."""
        waiting = self._waiting.get(document.seq) or self._enter(document)
        self._queues.set_busy(waiting, busy=True)

    def may_go_before(self, document: Document, due: Document) -> bool:
        """May a redemption go on behalf of the document whose turn it is, as far as its own customer is concerned?"""
        first = self._waiting.get(document.seq) or self._enter(document)
        both = (first, self._waiting.get(due.seq))
        return all(
            queue.head in both and queue.busy == sum(each.busy for each in both if each and queue in each.queues)
            for queue in first.queues
        )

    def give_back(self, document: Document, wait_s: float = 0.0) -> None:
        """It came back unsettled: its turn comes again, after a while."""
        if (waiting := self._waiting.get(document.seq)) is not None:
            waiting.not_before = time.monotonic() + wait_s
            self._queues.set_busy(waiting, busy=False)

    def settle(self, document: Document, profile: str | None = None) -> None:
        """A document is settled: whoever waited behind it may be ready now."""
        if (waiting := self._waiting.get(document.seq)) is not None:
            self._remove(waiting)
        if profile is not None and (customer := customer_of(document)) is not None:
            self._queues.merge(customer, customer_key("", profile))
        if document.kind == "redemption":  # now its clock runs, if Omneo made it
            naming = self._queues.waiting(redemption_key(f"external:{document.external_id}"))
            self._unjudged += [(each, None) for each in naming if each.reverses is not None]

    def put_back(self, document: Document) -> None:
        """A settled document waits again."""
        if document.seq not in self._waiting:
            self._enter(document, released=True)

    @property
    def waits(self) -> bool:
        """Does anything wait, as far as was read?"""
        return bool(self._waiting)

    @property
    def settled_upto(self) -> int:
        """Every document up to this journal seq is settled, but for released ones."""
        while self._order and self._order[0].gone:
            heappop(self._order)
        return min(self._order[0].seq - 1, self._read_upto) if self._order else self._read_upto

    @property
    def next_due_s(self) -> float | None:
        """Seconds until the next document that failed may be tried again."""
        while self._later and not self._later[0][1].is_ready:
            heappop(self._later)[1].listed_as = None
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    # -- what waits -------------------------------------------------------------------------------------------------

    def _read_ahead(self) -> bool:
        """Look a piece further while there is room: a reversal far back may be in a hurry."""
        if len(self._waiting) >= AHEAD:
            return False
        piece = self._books.documents(self._read_upto, TURN)
        if not piece:
            return False
        settled = self._books.settled(piece[0].seq, piece[-1].seq)
        for document in piece:
            if document.seq not in settled and document.seq not in self._waiting:
                self._enter(document)
        self._read_upto = piece[-1].seq
        return True

    def look_again(self) -> None:
        """Another connection has committed to the delivery book: a person may have released or abandoned something."""
        version = int(self._books.delivery.execute("PRAGMA data_version").fetchone()[0])
        if version == self._others_version:
            return
        released = self._books.released()
        for document in (self._books.document(seq) for seq in released if seq not in self._waiting):
            if document is not None:
                self._enter(document, released=True)
        still = {*released, *(entry.about for entry in self._books.pending if entry.kind == "released")}
        for waiting in list(self._waiting.values()):
            if waiting.released and not waiting.busy and waiting.seq not in still:
                self._remove(waiting)
        self._others_version = version

    def _enter(self, document: Document, *, released: bool = False) -> Waiting:
        wanted = keys(document) + self._keys_of_redemption(document)  # reads, and may fail: before anything changes
        waiting = Waiting(document.seq, released=released)
        self._waiting[waiting.seq] = waiting
        if not released:
            heappush(self._order, waiting)
        if document.kind == "redemption":
            self._let_first(wanted, document)
        self._queues.join(waiting, wanted)
        if document.kind == "reversal":
            waiting.reverses = known.named_by(document)
            self._unjudged.append((waiting, document))
        self._offer(waiting)
        return waiting

    def _keys_of_redemption(self, document: Document) -> list[Key]:
        """What names a redemption belongs to that one's customer and sale too, whoever it names itself."""
        name = known.named_by(document)
        redemption = known.redemption(self._books, name)[0] if name is not None else None
        return keys(redemption) if redemption is not None else []

    def _let_first(self, wanted: list[Key], redemption: Document) -> None:
        """Documents that named a redemption before it came belong to its customer now, and need not wait longer."""
        for naming in self._queues.waiting(redemption_key(f"external:{redemption.external_id}")):
            self._queues.join(naming, wanted)
            naming.not_before = 0.0
            self._offer(naming)

    def _remove(self, waiting: Waiting) -> None:
        del self._waiting[waiting.seq]
        self._queues.leave(waiting)

    # -- windows ----------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Reversals whose window closes go before others, with whatever stands before them."""
        while self._unjudged:
            waiting, document = self._unjudged[-1]
            if not waiting.gone:
                self._queues.hurry(waiting, self._closes_at(str(waiting.reverses), document))
            self._unjudged.pop()

    def _closes_at(self, name: str, reversal: Document | None) -> float:
        """A redemption of which nothing has left has no running clock: nothing is hurried for it."""
        redemption, state = known.redemption(self._books, name)
        since = None
        if state in {"delivered", "online"}:
            made = known.redeemed(self._books, name, reversal).made
            since = made.created_at or made.date or (made.left.wall if made.left else None)
        elif state == "waiting" and redemption is not None:  # on its way, or its answer was lost: it may be made
            left = known.left(self._books, redemption)
            since = left.wall if left else None
        return (since + timedelta(seconds=self._window_s)).timestamp() if since is not None else NEVER


# -- keys -----------------------------------------------------------------------------------------------------------


def keys(document: Document) -> list[Key]:
    """What a document has in common with those that must not pass it. An anonymous sale without a receipt is free."""
    content = document.content
    customer = customer_of(document)
    found = [customer] if customer is not None else []
    found += [f"receipt {content[name]}" for name in ("receipt_ref", "linked_receipt_ref") if content.get(name)]
    name = f"external:{document.external_id}" if document.kind == "redemption" else known.named_by(document)
    if name is not None:
        found.append(redemption_key(name))
    sale = document.external_id if document.kind == "sale" else content.get("transaction_external_id")
    if sale is not None:
        found.append(f"sale {sale}")
    return found


def customer_of(document: Document) -> Key | None:
    """The customer as the document names them."""
    content = document.content
    if content.get("profile_id") is None:
        return None
    return customer_key(str(content.get("profile_id_handle") or ""), str(content["profile_id"]))


def customer_key(handle: str, value: str) -> Key:
    """One handle of a customer; an empty handle is Omneo's own UUID."""
    return f"customer {handle}\0{value}"


def redemption_key(name: str) -> Key:
    """A redemption, by the name that both books give it."""
    return f"redemption {name}"
