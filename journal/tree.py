"""
The Merkle tree over a book's entries: RFC 6962, section 2.1 (hashes, proofs), and RFC 9162, 2.1 (checking them).

A leaf is an entry's digest. A whole tree is never held: a `Range` is what is left of it when only its root matters,
and proofs are put together from a function that gives the root of any stretch of leaves.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

EMPTY = sha256(b"").digest()  # the root of no leaves
CHUNK = 1024  # leaves that are hashed in one go, a power of two

Span = Callable[[int, int], bytes]  # the root over leaves low to high (high excluded, low counted from 0)


def leaf(data: bytes) -> bytes:
    """Hash of a leaf."""
    return sha256(b"\0" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Hash of two hashes, whatever they are of."""
    return sha256(b"\1" + left + right).digest()


class Range:
    """
    A compact range: the roots of the perfect subtrees that a tree of this size is made of, the largest first.

    There is one for each bit that is set in `size`. It is all that has to be known to let the tree grow.
    """

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """Take up where an earlier one was left. Raises ValueError when these can't be the subtrees of such a tree."""
        if size < 0 or len(hashes) != size.bit_count() or any(len(each) != 32 for each in hashes):
            raise ValueError("no compact range has such a form")
        self.size = size
        self.hashes = list(hashes)

    def add(self, root: bytes, leaves: int = 1) -> None:
        """Add a perfect subtree (of one leaf, say) at the end. Its size has to be a divisor of the size so far."""
        left = self.size // leaves
        while left & 1:
            root = node(self.hashes.pop(), root)
            left >>= 1
        self.hashes.append(root)
        self.size += leaves

    def extend(self, data: Sequence[bytes]) -> None:
        """Add many leaves."""
        row = [sha256(b"\0" + each).digest() for each in data]
        for low, high in stretches(self.size, self.size + len(row)):
            part, row = row[: high - low], row[high - low :]
            while len(part) > 1:
                part = [sha256(b"\1" + a + b).digest() for a, b in zip(part[::2], part[1::2], strict=True)]
            self.add(part[0], high - low)

    def root(self) -> bytes:
        """Root of the tree."""
        if not self.hashes:
            return EMPTY
        root = self.hashes[-1]
        for left in self.hashes[-2::-1]:
            root = node(left, root)
        return root


def stretches(low: int, high: int, most: int = CHUNK) -> Iterator[tuple[int, int]]:
    """The perfect subtrees of at most so many leaves that lie between two leaves, in order."""
    while low < high:
        size = min(low & -low or most, most)
        while low + size > high:
            size //= 2
        yield low, low + size
        low += size


def over(leaves: Sequence[bytes]) -> Span:
    """The span over leaves (their hashes) that are all at hand."""

    def span(low: int, high: int) -> bytes:
        if high - low < 2:
            return leaves[low] if high > low else EMPTY
        middle = low + _split(high - low)
        return node(span(low, middle), span(middle, high))

    return span


def _split(size: int) -> int:
    """The largest power of two that is smaller than the size: so many leaves are in the left subtree."""
    return 1 << (size - 1).bit_length() - 1


def inclusion(index: int, size: int, span: Span) -> list[bytes]:
    """The audit path of one leaf: its sibling, then its parent's, up to the root's child (RFC 6962, 2.1.1)."""
    low, high, path = 0, size, []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(span(middle, high))
            high = middle
        else:
            path.append(span(low, middle))
            low = middle
    return path[::-1]


def consistency(old: int, size: int, span: Span) -> list[bytes]:
    """That a tree of `size` leaves begins with the tree of its first `old` leaves (RFC 6962, 2.1.2)."""
    if not 0 < old < size:
        return []
    low, high, whole, path = 0, size, True, []
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(span(middle, high))
            high = middle
        else:
            path.append(span(low, middle))
            low, whole = middle, False
    return ([] if whole else [span(low, high)]) + path[::-1]


def root_from(leaf_hash: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that follows from a leaf and its audit path (RFC 9162, 2.1.3); None if the path has another length."""
    if not 0 <= index < size:
        return None
    here, last, root = index, size - 1, leaf_hash
    for sibling in path:
        if last == 0:
            return None
        if here & 1 or here == last:
            root = node(sibling, root)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            root = node(root, sibling)
        here, last = here >> 1, last >> 1
    return root if last == 0 else None


def consistent(old: int, size: int, old_root: bytes, root: bytes, path: Sequence[bytes]) -> bool:
    """Does the path prove that the tree of `old` leaves is how the one of `size` leaves begins (RFC 9162, 2.1.4)?"""
    if old == size:
        return old_root == root and not path
    if not 0 < old < size:
        return False
    steps = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not steps:
        return False
    here, last = old - 1, size - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    first = second = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            first, second = node(step, first), node(step, second)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            second = node(second, step)
        here, last = here >> 1, last >> 1
    return first == old_root and second == root and last == 0
