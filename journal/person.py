"""
Every document of one customer, by whatever handle they were given under.

Bodies have no index, so that nothing personal stands anywhere else: all of them are read, in short pieces, once for
each round of handles. A document that holds a handle brings in the customer that it names (`profile_id`), and the
redemption and sale that it belongs to; those bring in what belongs to them, and so on.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from decimal import Decimal
from json import loads
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from journal import archive, packed
from journal.document import NotJSON, parse
from journal.log import NoSuch

PIECE = 200  # bodies read at a time: bounds memory, and how long somebody who writes has to wait
SHORTEST = 3  # characters of a handle: less is found in anything
NUMBER = 6  # digits that a number needs to be a handle, where it is not a profile_id
# What stands under these names is a thing's, and nobody's handle, even if it looks like one.
THINGS = frozenset(
    {
        "external_id",
        "redemption_external_id",
        "transaction_external_id",
        "transaction_receipt_ref",
        "receipt_ref",
        "linked_receipt_ref",
        "terminal",
        "sequence",
        "location_id",
        "staff_id",
        "sku",
        "barcode",
        "product_id",
        "product_variant_id",
        "order_number",
        "order_id",
        "external_order_id",
        "organisation_id",
        "timezone",
        "currency",
        "kind",
    }
)
BELONGS = b"transaction_external_id"
ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")

Why = tuple[str, bool]  # where a handle was found; and does the document name this very customer, or only mention them


class Search:
    """From one handle to everything that hangs together with it."""

    def __init__(self, db: sqlite3.Connection, packs: Sequence[Path] = (), *, exact: bool = False) -> None:
        """`packs`: archived bodies to look through too. `exact`: only documents that hold the handle itself."""
        self._db = db
        self._packs = packs
        self._exact = exact
        self._new: list[str] = []  # handles that the bodies have not been searched for
        self._unread: set[int] = set()  # found, but their bodies are in a pack
        self._sales: dict[str, list[int]] = {}  # external_id of a sale → documents that say they belong to it
        self._to_link: list[tuple[int, str]] = []  # found, and not yet looked for among these
        self.handles: dict[str, str] = {}  # each with where it was learnt
        self.found: dict[int, str] = {}  # seq of a document → why

    def run(self, handle: str) -> None:
        """Look until nothing new turns up. Raises NoSuch if the handle is too short, or nowhere."""
        self._learn(handle, "was asked for")
        if not self._new:
            raise NoSuch(f"A handle has at least {SHORTEST} characters.")
        while self._new:
            needles, self._new = [Needle(value) for value in self._new], []
            first = not self._sales
            for seq, body in self.bodies():
                if first and BELONGS in body and isinstance(sale := (_object(body) or {}).get(BELONGS.decode()), str):
                    self._sales.setdefault(sale, []).append(seq)
                self._look_at(seq, body, needles)
            self._link()
            while self._unread and self._packs and not self._new:
                unread = len(self._unread)
                for seq, body in self.packed():
                    self._look_at(seq, body, [])
                self._link()
                if len(self._unread) == unread:
                    break
        if not self.found:
            raise NoSuch(
                "No document that has its bytes holds this handle. It may be written differently there, or archived:"
                " give the packs with --pack."
            )

    def bodies(self) -> Iterator[tuple[int, bytes]]:
        """Every body: the journal's in short pieces, then those of the packs."""
        last = 0
        query = "SELECT seq, bytes FROM body WHERE seq > ? ORDER BY seq LIMIT ?"
        while piece := self._db.execute(query, (last, PIECE)).fetchall():
            yield from piece
            last = piece[-1][0]
        yield from self.packed()

    def packed(self) -> Iterator[tuple[int, bytes]]:
        """Every body in the packs."""
        for path in self._packs:
            for document in packed.read(path):
                if document.body is not None:
                    yield document.row.seq, document.body

    def _learn(self, handle: str, where: str) -> None:
        """A handle of the same customer."""
        value = handle.strip().casefold()
        if len(value) >= SHORTEST and value not in self.handles:
            self.handles[value] = where
            self._new.append(value)

    def _look_at(self, seq: int, body: bytes, needles: Sequence["Needle"]) -> None:
        if seq in self._unread:
            self._unread.discard(seq)
            self._follow(seq, body)
            return
        if seq in self.found or not needles:
            return
        low, escapes = body.lower(), b"\\" in body
        for needle in needles:
            if (escapes or needle.may_be_in(low)) and (why := needle.find(body)) is not None:
                self.found[seq] = why[0]
                if why[1]:
                    self._follow(seq, body)
                return

    def _follow(self, seq: int, body: bytes) -> None:
        """Whom a document names, and what belongs to it; and so on with that."""
        todo = [(seq, body)]
        while todo and not self._exact:
            seq, body = todo.pop()
            if (content := _object(body)) is None:
                continue
            if content.get("profile_id") is not None:
                self._learn(str(content["profile_id"]), f"is the profile_id of entry {seq}")
            self._to_link.append((seq, str(content.get("external_id"))))
            for other, kind in self._belonging(content):
                if (found := self._add(other, kind, seq)) is not None:
                    todo.append((other, found))

    def _link(self) -> None:
        """What says of itself that it belongs to a sale that was found."""
        while self._to_link:
            seq, sale = self._to_link.pop()
            for other in self._sales.get(sale, ()):
                if (found := self._add(other, "", seq)) is not None:
                    self._follow(other, found)

    def _add(self, seq: int, kind: str, to: int) -> bytes | None:
        """A document that belongs to one that was found: its body, if it is new and has to be followed."""
        if seq in self.found:
            return None
        row = self._db.execute("SELECT bytes FROM body WHERE seq = ?", (seq,)).fetchone()
        if kind == "invalid" and (row is None or (_object(row[0]) or {}).get("profile_id") is not None):
            return None  # another customer's document may come under this one's id by mistake
        self.found[seq] = f"belongs to entry {to}"
        if row is None:
            self._unread.add(seq)
        return row[0] if row else None

    def _belonging(self, content: dict[str, Any]) -> Iterator[tuple[int, str]]:
        """(seq, kind) of its redemption, of what names the same one, of its sale, and of what came under its id."""
        names = [f"omneo:{content['redemption_id']}"] if content.get("redemption_id") is not None else []
        ids = [content.get("external_id"), content.get("transaction_external_id")]
        if content.get("redemption_external_id") is not None:
            names.append(f"external:{content['redemption_external_id']}")
            ids.append(content["redemption_external_id"])
        if content.get("kind") == "redemption":
            names.append(f"external:{content.get('external_id')}")
        for name in names:
            query = "SELECT seq, kind FROM log WHERE json_extract(facts, '$.names') = ?"
            yield from self._db.execute(query, (name,)).fetchall()
        for external_id in ids:
            if isinstance(external_id, str):
                query = "SELECT seq, kind FROM log WHERE external_id = ? AND about IS NULL"
                yield from self._db.execute(query, (external_id,)).fetchall()


class Needle:
    """One handle, to be found in bodies."""

    def __init__(self, value: str) -> None:
        """A handle without regard to case."""
        self.value = value
        self._raw = value.encode() if value.isascii() else b""  # other letters may be written in many ways
        self._word = re.compile(rf"(?<!\w){re.escape(value)}(?!\w)")

    def may_be_in(self, low: bytes) -> bool:
        """A quick look at a body in small letters."""
        return self._raw in low

    def find(self, body: bytes) -> Why | None:
        """Where it stands in a body, and whether it stands there alone."""
        mentioned = None
        try:
            content = parse(body)
        except NotJSON as no:
            content = no.value
            if self._word.search(_text(body).casefold()):
                mentioned = ("its text holds it", False)
        for pointer, name, value in leaves(content):
            if name in THINGS:
                continue
            if isinstance(value, str):
                text = value.strip().casefold()
                if text == self.value:
                    return f"{pointer} is it", True
                if mentioned is None and self._word.search(text):
                    mentioned = (f"{pointer} mentions it", False)
            elif (name == "profile_id" or len(str(value)) >= NUMBER) and str(value) == self.value:
                return f"{pointer} is it", True
        return mentioned


def leaves(value: Any, pointer: str = "", name: str = "") -> Iterator[tuple[str, str, str | int | Decimal]]:
    """Texts and numbers of a document: (pointer, name of the member that they stand under, value)."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{pointer}/{key}", key)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from leaves(part, f"{pointer}/{index}", name)
    elif isinstance(value, str | int | Decimal) and not isinstance(value, bool):
        yield pointer, name, value


def told(books: Database, search: Search) -> Iterator[dict[str, Any]]:
    """Everything that was found, one document at a time, as `person --json` prints it."""
    rows = {}
    for seq in sorted(search.found):
        columns = "seq, kind, external_id, state, received_at, settled_at, omneo_id"
        (row,) = books.query(f"SELECT {columns} FROM documents WHERE seq = ?", [seq])
        where = _where(books.conn, seq)
        rows[seq] = row | {"why": search.found[seq], "where": where}
        if where == "journal":
            (body,) = books.execute("SELECT bytes FROM main.body WHERE seq = ?", [seq]).fetchone()
            yield rows.pop(seq) | {"body": _value(body)}
    for seq, body in search.packed() if rows else ():
        if seq in rows:
            yield rows.pop(seq) | {"body": _value(body)}
    yield from (row | {"body": None} for row in rows.values())


def _where(db: sqlite3.Connection, seq: int) -> str:
    """Where the bytes of a document are: journal, the name of a pack, or gone."""
    if db.execute("SELECT 1 FROM main.body WHERE seq = ?", (seq,)).fetchone():
        return "journal"
    rows = dict(db.execute("SELECT kind, facts FROM main.log WHERE about = ? ORDER BY seq", (seq,)).fetchall())
    if "redaction" in rows:
        return "redacted"
    return str(loads(rows["archived"])["pack"]) if "archived" in rows else "gone"


def unsearched(db: sqlite3.Connection, packs: Sequence[Path]) -> list[str]:
    """Names of packs that hold bodies of this journal and were not looked through."""
    return sorted({facts["pack"] for facts in archive.known(db)} - {path.name for path in packs})


def files(spool: Path, search: Search) -> list[Path]:
    """Files below the spool (rejected ones, mostly) that hold one of the handles."""
    needles = [Needle(value) for value in search.handles]
    paths = sorted(path for path in spool.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in paths if any(needle.find(path.read_bytes()) is not None for needle in needles)]


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        content = parse(body)
    except NotJSON:
        return None
    return content if isinstance(content, dict) else None


def _value(body: bytes) -> Any:
    try:
        return parse(body)
    except NotJSON:
        return body.decode("utf-8", "backslashreplace")


def _text(body: bytes) -> str:
    wide = body[:2] in {b"\xff\xfe", b"\xfe\xff"}
    text = body.decode("utf-16" if wide else "utf-8", "replace")
    return ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
