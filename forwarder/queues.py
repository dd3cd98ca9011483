"""
Documents that must not pass each other: one queue a key, in journal order, and a document in as many as it has keys.

Nothing here knows a book or a clock. No operation of the usual kind looks at a whole queue: what is gone is passed over
when it comes to the front.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import merge

NEVER = float("inf")
SAME = 5000  # handles of which it is remembered whose they are: bounds memory

Key = str


@dataclass(slots=True, eq=False)
class Waiting:
    """A document that waits, without its body."""

    seq: int
    queues: list["Queue"] = field(default_factory=list)
    released: bool = False  # it was settled once, and a person, or the end of a doubt, let it wait again
    reverses: str | None = None  # a reversal's redemption
    closes_at: float = NEVER  # when a window closes, its own or of what stands behind it (wall clock, seconds)
    not_before: float = 0.0  # after a failure of its own (monotonic)
    listed_as: float | None = None  # where it is listed as ready
    busy: bool = False  # on its way
    gone: bool = False  # settled

    def __lt__(self, other: "Waiting") -> bool:
        return self.seq < other.seq

    @property
    def is_ready(self) -> bool:
        """Nothing earlier waits in its queues, and nothing in them is on its way."""
        return not (self.busy or self.gone) and all(each.busy == 0 and each.head is self for each in self.queues)


@dataclass(slots=True, eq=False)
class Queue:
    """What has a key in common, in journal order."""

    keys: list[Key]
    _all: list[Waiting] = field(default_factory=list)
    _first: int = 0  # before it, everything is gone
    busy: int = 0  # so many of them are on their way

    @property
    def head(self) -> Waiting | None:
        """The first that waits."""
        while self._first < len(self._all) and self._all[self._first].gone:
            self._first += 1
        if self._first > 16 and 2 * self._first > len(self._all):
            del self._all[: self._first]
            self._first = 0
        return self._all[self._first] if self._first < len(self._all) else None

    @property
    def waiting(self) -> list[Waiting]:
        """All that wait."""
        return [each for each in self._all[self._first :] if not each.gone]

    def insert(self, waiting: Waiting) -> None:
        """Nearly always at the end."""
        if not self._all or self._all[-1].seq < waiting.seq:
            self._all.append(waiting)
        else:
            insort(self._all, waiting, lo=self._first)

    def before(self, waiting: Waiting) -> Waiting | None:
        """The nearest before it."""
        place = bisect_left(self._all, waiting, lo=self._first) - 1
        while place >= self._first and self._all[place].gone:
            place -= 1
        return self._all[place] if place >= self._first else None

    def after(self, waiting: Waiting) -> Waiting | None:
        """The nearest behind it."""
        place = bisect_left(self._all, waiting, lo=self._first)
        while place < len(self._all) and (self._all[place].gone or self._all[place] is waiting):
            place += 1
        return self._all[place] if place < len(self._all) else None

    def absorb(self, other: "Queue") -> None:
        """Two queues are one."""
        both = {each.seq: each for each in merge(self.waiting, other.waiting)}
        for each in both.values():
            each.queues = [queue for queue in each.queues if queue is not other and queue is not self] + [self]
        self._all, self._first = list(both.values()), 0
        self.busy = sum(each.busy for each in self._all)
        self.keys += other.keys


class Queues:
    """All queues, and which handles are one customer. `offer` is called with whatever may have become ready."""

    def __init__(self, offer: Callable[[Waiting], None]) -> None:
        self._offer = offer
        self._queues: dict[Key, Queue] = {}
        self._same: dict[Key, Key] = {}

    def waiting(self, key: Key) -> list[Waiting]:
        """All that wait with a key, in order."""
        queue = self._queues.get(self._one(key))
        return queue.waiting if queue is not None else []

    def join(self, waiting: Waiting, keys: Iterable[Key]) -> None:
        """Into these queues too. If something behind it is in a hurry, so is it."""
        for key in {self._one(key): None for key in keys}:
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = Queue([key])
            if queue in waiting.queues:
                continue
            queue.insert(waiting)
            queue.busy += waiting.busy
            waiting.queues.append(queue)
            behind, ahead = queue.after(waiting), queue.before(waiting)
            if behind is not None:
                self.hurry(waiting, behind.closes_at)
            if ahead is not None:
                self.hurry(ahead, waiting.closes_at)

    def leave(self, waiting: Waiting) -> None:
        """It is settled."""
        waiting.gone = True
        for queue in waiting.queues:
            queue.busy -= waiting.busy
            head = queue.head
            if head is not None:
                self._offer(head)
                continue
            for key in queue.keys:
                if self._queues.get(key) is queue:
                    del self._queues[key]

    def set_busy(self, waiting: Waiting, *, busy: bool) -> None:
        """It is on its way, or back."""
        for queue in waiting.queues:
            queue.busy += busy - waiting.busy
        waiting.busy = busy
        if not busy:
            self._offer(waiting)
            for queue in waiting.queues:
                if (head := queue.head) is not None:
                    self._offer(head)

    def hurry(self, waiting: Waiting, closes_at: float) -> None:
        """For a window's sake; and so whatever stands before it, as far as that isn't in as much of a hurry already."""
        todo = [waiting]
        while todo:
            each = todo.pop()
            if each.closes_at <= closes_at:
                continue
            each.closes_at = closes_at
            self._offer(each)
            todo += [ahead for queue in each.queues if (ahead := queue.before(each)) is not None]

    def merge(self, handle: Key, profile: Key) -> None:
        """Two handles are one customer: what waits for either must not pass each other from now on."""
        handle, profile = self._one(handle), self._one(profile)
        if handle == profile:
            return
        self._same[handle] = profile
        if len(self._same) > SAME:
            del self._same[next(iter(self._same))]
        moved, queue = self._queues.get(handle), self._queues.get(profile)
        if moved is None or moved is queue:
            return
        if queue is None:
            queue = self._queues[profile] = moved
            queue.keys.append(profile)
            return
        queue.absorb(moved)
        for key in moved.keys:
            self._queues[key] = queue
        closes_at = NEVER
        for each in reversed(queue.waiting):
            self.hurry(each, closes_at)
            closes_at = min(closes_at, each.closes_at)
        if (head := queue.head) is not None:
            self._offer(head)

    def _one(self, key: Key) -> Key:
        """The one key of a customer of whom several are known."""
        while key in self._same:
            key = self._same[key]
        return key
