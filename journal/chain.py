"""The chain: the link from an entry to the one before it. `docs/format.md` tells the same to a stranger."""

from hashlib import sha256
from typing import Any, NamedTuple

ZERO = bytes(32)  # what the first entry is linked to


class Row(NamedTuple):
    """The columns that a digest covers, in the order in which it covers them."""

    seq: int
    at: str
    kind: str
    about: int | None
    external_id: str | None
    facts: str
    body_hash: bytes | None


def encode(row: Row | tuple[Any, ...]) -> bytes:
    """
    Say a row in bytes, in one way only.

    Each column is a netstring (`length:bytes,`; integers in decimal digits, text in UTF-8), NULL is `-,`:
    no two different rows give the same bytes, whatever stands in their texts.
    """
    seq, at, kind, about, external_id, facts, hashed = row
    one, two, three, six = b"%d" % seq, at.encode(), kind.encode(), facts.encode()
    four = b"-" if about is None else _of(b"%d" % about)
    five = b"-" if external_id is None else _of(external_id.encode())
    seven = b"-" if hashed is None else _of(hashed)
    lengths = len(one), len(two), len(three), len(six)
    return b"%d:%b,%d:%b,%d:%b,%b,%b,%d:%b,%b," % (
        lengths[0],
        one,
        lengths[1],
        two,
        lengths[2],
        three,
        four,
        five,
        lengths[3],
        six,
        seven,
    )


def _of(raw: bytes) -> bytes:
    return b"%d:%b" % (len(raw), raw)


def link(before: bytes, row: Row) -> bytes:
    """Digest of a row: SHA-256 over the 32 bytes of the digest before it and the row."""
    return sha256(before + encode(row)).digest()


def body_hash(salt: bytes, body: bytes) -> bytes:
    """What the chain covers of a body. The salt goes when the body is redacted, so that nobody can guess it back."""
    return sha256(salt + body).digest()
