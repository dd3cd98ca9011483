"""
Signed notes and their keys: C2SP signed-note, with Ed25519 (https://c2sp.org/signed-note).

A note is text, an empty line, and a line for each signature. A key is one line of text: the public one
`NAME+ID+BASE64`, the private one with `PRIVATE+KEY+` before it (the form of Go's golang.org/x/mod/sumdb/note).
"""

import binascii
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from journal.book import Unusable, system_failed

ED25519 = b"\x01"  # the type of a signature
PRIVATE = "PRIVATE+KEY+"
MARK = "\u2014 "  # what a line with a signature begins with
KEY_BYTES = 32  # of a private or public Ed25519 key (RFC 8032)
MAX_BYTES = 64 * 1024  # of a note or a key that is read


class Bad(ValueError):  # noqa: N818 - says what is the matter
    """It is no note, or no key, or not signed by the keys that are trusted; the text says which."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of either kind."""

    name: str
    number: bytes  # the "key ID": four bytes that a signature begins with
    raw: bytes = field(repr=False)


def generate(name: str) -> tuple[str, str]:
    """A new pair of keys as text: the private one, the public one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    stem = f"{name}+{key_number(name, public).hex()}+"
    secret = b64encode(ED25519 + private.private_bytes_raw()).decode()
    return PRIVATE + stem + secret, stem + b64encode(ED25519 + public).decode()


def key_number(name: str, public: bytes) -> bytes:
    """The four bytes that stand for a public key."""
    return sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def private_key(text: str) -> Key:
    """Raises Bad."""
    if not text.startswith(PRIVATE):
        raise Bad("it is no private key")
    return _key(text.removeprefix(PRIVATE))


def public_key(text: str) -> Key:
    """Raises Bad."""
    if text.startswith(PRIVATE):
        raise Bad("it is a private key: take the public one, which keygen printed")
    key = _key(text)
    if key_number(key.name, key.raw) != key.number:
        raise Bad("it was mistyped or altered: its number does not belong to it")
    return key


def public_of(key: Key) -> Key:
    """The public half of a private key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Key(key.name, key.number, Ed25519PrivateKey.from_private_bytes(key.raw).public_key().public_bytes_raw())


def _key(text: str) -> Key:
    parts = text.strip().split("+", 2)
    if len(parts) != 3 or not good_name(parts[0]):
        raise Bad("it is no key")
    try:
        number, raw = bytes.fromhex(parts[1]), b64decode(parts[2], validate=True)
    except (ValueError, binascii.Error):
        raise Bad("it is no key") from None
    if len(number) != 4 or raw[:1] != ED25519 or len(raw) != 1 + KEY_BYTES:
        raise Bad("it is no Ed25519 key")
    return Key(parts[0], number, raw[1:])


def good_name(name: str) -> bool:
    """May a key have this name?"""
    return bool(name) and name.isprintable() and not any(each.isspace() or each == "+" for each in name)


def sign(text: str, key: Key) -> str:
    """The note: the text and one signature. The text ends in a line feed."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    signature = Ed25519PrivateKey.from_private_bytes(key.raw).sign(text.encode())
    return f"{text}\n{MARK}{key.name} {b64encode(key.number + signature).decode()}\n"


def text_of(note: str) -> str:
    """The text of a note, whoever signed it. Raises Bad."""
    return _parts(note)[0]


def read(note: str, keys: Iterable[Key]) -> str:
    """The text of a note that one of these keys has signed, and none of them wrongly. Raises Bad."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    text, signatures = _parts(note)
    known = {(key.name, key.number): key for key in keys}
    good = False
    for name, raw in signatures:
        key = known.get((name, raw[:4]))
        if key is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.raw).verify(raw[4:], text.encode())
        except InvalidSignature:
            raise Bad("its signature is false") from None
        good = True
    if not good:
        raise Bad("it is not signed with a key that was given")
    return text


def _parts(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Text and signatures."""
    text, found, lines = note.rpartition("\n\n")
    if not found or not lines.endswith("\n") or any(each < " " and each != "\n" for each in note):
        raise Bad("it is no signed note")
    signatures = []
    for line in lines[:-1].split("\n"):
        mark, name, encoded = [*line.split(" "), "", ""][:3]
        try:
            raw = b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        if mark + " " != MARK or line.count(" ") != 2 or not good_name(name) or len(raw) < 5:
            raise Bad("it is no signed note")
        signatures.append((name, raw))
    return text + "\n", signatures


def from_file(path: Path) -> str:
    """What stands in a small text file. Raises Unusable."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode()
    except OSError as error:
        raise system_failed(error, path) from error
    except UnicodeDecodeError:
        raise Unusable(f"{path} is no text: give the right file.") from None
    if len(raw) > MAX_BYTES:
        raise Unusable(f"{path} is too large: give the right file.")
    return text


def to_file(path: Path, text: str, mode: int = 0o640) -> None:
    """A new file. Raises Unusable when there is one already, or none can be."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise Unusable(f"There is already a file at {path}; it was left as it is.") from None
    except OSError as error:
        raise system_failed(error, path) from error
