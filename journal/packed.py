"""
A pack: bodies that left the journal, each with its entry, in one zip file that anybody can open and check.

The same documents give the same bytes. `docs/format.md` tells a stranger what stands in it.
"""

import base64
import errno
import json
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import Any

from journal import chain, note
from journal.log import Unusable, as_json

DOCUMENTS, MANIFEST, SIGNATURE, README = "documents.jsonl", "pack.json", "pack.json.sig", "README.txt"
LINE_MAX = 512 * 1024 * 1024  # no line of a real pack is longer; one that somebody made may be
WORDS = """Bodies of a journal of omneo-journal, moved out of it by `omneo-journal archive`.

documents.jsonl: one document a line: its entry in the journal (seq, at, kind, about, external_id, facts, body_hash,
digest; hashes in hex), what became of it (state, omneo_id), and its body: salt (hex) and bytes (base64).
A body is genuine when SHA-256(salt + bytes) is body_hash, and the entry is when the journal holds it with this digest.
salt and bytes are null where the body was redacted since.
pack.json: which journal, how many documents, and the SHA-256 of documents.jsonl.
pack.json.sig, if it is there: pack.json as a signed note (c2sp.org/signed-note), by the key of the journal's
checkpoints.
"""

# What zip, decompression, JSON and our own reading of it can stumble over.
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,
    ArithmeticError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    MemoryError,
)


class Broken(Unusable):
    """The file is no pack, or a damaged one."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One document of a pack."""

    row: chain.Row
    digest: bytes
    state: str  # when it was archived
    omneo_id: Any
    salt: bytes | None  # None: redacted since
    body: bytes | None

    @property
    def genuine(self) -> bool:
        """Is the body what its entry covers?"""
        if self.salt is None or self.body is None:
            return False
        return chain.body_hash(self.salt, self.body) == self.row.body_hash

    def without_body(self) -> "Packed":
        """The same after a redaction."""
        return replace(self, salt=None, body=None)


def write(path: Path, documents: Iterable[Packed], manifest: dict[str, Any], key: note.Key | None = None) -> str:
    """Write a whole pack, durably, under a name that nobody looks for yet. Returns the SHA-256 of the file."""
    count, hashed = 0, sha256()
    with path.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as pack:
            pack.writestr(_member(README), WORDS)
            with pack.open(_member(DOCUMENTS), "w", force_zip64=True) as lines:
                for document in documents:
                    line = as_json(_told(document)).encode() + b"\n"
                    hashed.update(line)
                    lines.write(line)
                    count += 1
            said = as_json({**manifest, "pack": 1, "documents": count, "sha256": hashed.hexdigest()}) + "\n"
            pack.writestr(_member(MANIFEST), said)
            if key is not None:
                pack.writestr(_member(SIGNATURE), note.sign(said, key))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # whoever reads it next reads the disk
    return hash_of(path)


def hash_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    hashed = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            hashed.update(piece)
    return hashed.hexdigest()


def manifest(path: Path) -> dict[str, Any]:
    """What a pack says of itself. Raises Broken."""
    with _whole(path), zipfile.ZipFile(path) as whole, whole.open(MANIFEST) as file:
        said = json.loads(file.read(LINE_MAX))
    if not isinstance(said, dict) or said.get("pack") != 1:
        raise Broken(f"{path.name} is no pack that this version knows")
    return said


def is_signed(path: Path) -> bool:
    """Did somebody sign it? Raises Broken."""
    with _whole(path), zipfile.ZipFile(path) as whole:
        return SIGNATURE in whole.namelist()


def signature(path: Path, keys: Sequence[note.Key]) -> str:
    """What is wrong with a pack's signature, by these keys if there are any; "" if nothing is. Raises Broken."""
    if not is_signed(path):
        return ""
    with _whole(path), zipfile.ZipFile(path) as whole:
        said, signed = (_text(whole, name) for name in (MANIFEST, SIGNATURE))
    try:
        text = note.read(signed, keys) if keys else note.text_of(signed)
    except note.Bad as bad:
        return f"its signature is not to be trusted: {bad}"
    return "" if text == said else "what was signed is something else than what the pack says"


def _text(whole: zipfile.ZipFile, name: str) -> str:
    with whole.open(name) as file:
        return file.read(note.MAX_BYTES).decode()


def read(path: Path) -> Iterator[Packed]:
    """Every document of a pack, one after the other. Raises Broken where it can't be read on."""
    said = manifest(path)
    count, hashed = 0, sha256()
    with ExitStack() as opened:
        with _whole(path):
            whole = opened.enter_context(zipfile.ZipFile(path))
            member: Any = opened.enter_context(whole.open(DOCUMENTS))
            lines = opened.enter_context(BufferedReader(member, 1 << 20))
        while True:
            with _whole(path):
                line = lines.readline(LINE_MAX)
                document = _understood(json.loads(line)) if line else None
            if document is None:
                break
            hashed.update(line)
            count += 1
            yield document
    if (count, hashed.hexdigest()) != (said.get("documents"), said.get("sha256")):
        raise Broken(f"{path.name} does not hold the documents that it says")


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file that somebody hands us, it is the file that is broken. A failing disk is not."""
    try:
        yield
    except UNREADABLE as error:
        raise Broken(f"{path.name} is no pack, or a damaged one") from error
    except OSError as error:
        if error.errno in {None, errno.EINVAL}:  # a decompressor's, or a place before the file's begin
            raise Broken(f"{path.name} is no pack, or a damaged one") from error
        raise


def _member(name: str) -> zipfile.ZipInfo:
    """Nothing of the moment or the machine goes into the file."""
    member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o640 << 16
    member.create_system = 3
    return member


def _told(document: Packed) -> dict[str, Any]:
    row = document.row
    return {
        **row._asdict(),
        "body_hash": row.body_hash.hex() if row.body_hash is not None else None,
        "digest": document.digest.hex(),
        "state": document.state,
        "omneo_id": document.omneo_id,
        "salt": document.salt.hex() if document.salt is not None else None,
        "bytes": base64.b64encode(document.body).decode() if document.body is not None else None,
    }


def _understood(said: dict[str, Any]) -> Packed:
    hashed, salt, body = said["body_hash"], said["salt"], said["bytes"]
    row = chain.Row(
        int(said["seq"]),
        said["at"],
        said["kind"],
        said["about"],
        said["external_id"],
        said["facts"],
        bytes.fromhex(hashed) if hashed is not None else None,
    )
    return Packed(
        row,
        bytes.fromhex(said["digest"]),
        str(said["state"]),
        said["omneo_id"],
        bytes.fromhex(salt) if salt is not None else None,
        base64.b64decode(body, validate=True) if body is not None else None,
    )
