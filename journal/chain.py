"""The chain: the link from an entry to the one before it. `docs/format.md` tells the same to a stranger."""

from hashlib import sha256
from typing import NamedTuple

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


def encode(row: Row) -> bytes:
    """
    Say a row in bytes, in one way only.

    Each column is a netstring (`length:bytes,`; integers in decimal digits, text in UTF-8), NULL is `-,`:
    no two different rows give the same bytes, whatever stands in their texts.
    """
    parts = []
    for column in row:
        if column is None:
            parts.append(b"-,")
            continue
        raw = column if isinstance(column, bytes) else str(column).encode()
        parts.append(b"%d:%s," % (len(raw), raw))
    return b"".join(parts)


def link(before: bytes, row: Row) -> bytes:
    """Digest of a row: SHA-256 over the 32 bytes of the digest before it and the row."""
    return sha256(before + encode(row)).digest()


def body_hash(salt: bytes, body: bytes) -> bytes:
    """What the chain covers of a body. The salt goes when the body is redacted, so that nobody can guess it back."""
    return sha256(salt + body).digest()
