#!/usr/bin/env python3
"""
Checks the books of omneo-journal with nothing but Python's standard library. The rules stand in docs/format.md.

    python3 verify.py                                      the evidence that lies beside this file, unpacked
    python3 verify.py EVIDENCE.zip | SALE.tlog-proof       a file that `evidence` or `prove` has written
    python3 verify.py GROWTH --checkpoint NOTE             that the journal only grew since that checkpoint
    python3 verify.py journal.db [delivery.db]             the books themselves, copied or in use
    … --key KEY                                            look at signatures too, with this public key

Says what is wrong, and where; ends with 0 when nothing is. It writes nothing and needs no network.
"""

import json
import sqlite3
import sys
import zipfile
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any

COLUMNS = ("seq", "at", "kind", "about", "external_id", "facts", "body_hash", "digest")
DOCUMENTS = ("sale", "redemption", "reversal", "return", "invalid")
BOOKS = {"journal": 0x4F4D4A31, "delivery": 0x4F4D4431}  # application_id
# SHA-256 of tables, triggers and indexes, as they are now and as the first form had them before.
RULES = (
    "0c5d40bf0966093e3a2fdd1c2aa2c902f75fe28af706ae508d8e38ff3ffb3409",
    "ee06fa3a950b5d71826e0d45a270790a34cae07fd8d1134b40dc23ddeb11ad76",
    "5c8df8631c01f2495b44b7aaff1c432cabf932f95008945cc8dfeb2fd3647e74",
)
SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT IN ('sqlite_stat1', 'sqlite_stat4')"
ENTRIES = (
    "SELECT log.seq, at, kind, about, external_id, facts, body_hash, digest, salt, bytes FROM log NOT INDEXED"
    " LEFT JOIN body ON body.seq = log.seq WHERE log.seq > ? ORDER BY log.seq LIMIT 1"
)
OVERLOOKED = (
    "SELECT seq FROM log AS e NOT INDEXED WHERE {} AND NOT EXISTS (SELECT 1 FROM log AS i INDEXED BY {} WHERE {})"
)
IDS = (
    "external_id IS NOT NULL AND about IS NULL",
    "log_external_id",
    "i.external_id = e.external_id AND i.about IS NULL",
)
INDEXES = (IDS, ("about IS NOT NULL", "log_about", "i.about = e.about"))


# -- hashes, the tree (RFC 6962), signatures (RFC 8032)


def sha(*parts: bytes) -> bytes:
    return sha256(b"".join(parts)).digest()


def netstring(column: Any) -> bytes:
    raw = column if isinstance(column, bytes) else str(column).encode()
    return b"-," if column is None else b"%d:%b," % (len(raw), raw)


class Tree:
    """The subtrees that a tree of this size is made of, the largest first."""

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self.size, self.hashes = size, list(hashes)
        if type(size) is not int or size < 0 or bin(size).count("1") != len(self.hashes):
            raise ValueError("no such tree")

    def add(self, root: bytes, leaves: int = 1) -> None:
        left = self.size // leaves
        while left & 1:
            root, left = sha(b"\1", self.hashes.pop(), root), left >> 1
        self.hashes.append(root)
        self.size += leaves

    def root(self) -> bytes:
        root = self.hashes[-1] if self.hashes else sha()
        for left in self.hashes[-2::-1]:
            root = sha(b"\1", left, root)
        return root


def root_from(root: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root that follows from a leaf and its audit path (RFC 9162, 2.1.3)."""
    last = size - 1
    for sibling in path:
        if index & 1 or index == last:
            root = sha(b"\1", sibling, root)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            root = sha(b"\1", root, sibling)
        index, last = index >> 1, last >> 1
    return root if last == 0 else b""


def consistent(old: int, size: int, old_root: bytes, root: bytes, path: list[bytes]) -> bool:
    """Is the tree of `old` leaves how that of `size` leaves begins (RFC 9162, 2.1.4)?"""
    here, last = old - 1, size - 1
    path = [old_root, *path] if old & old - 1 == 0 else path
    if not 0 < old < size or not path:
        return False
    while here & 1:
        here, last = here >> 1, last >> 1
    first = second = path[0]
    for step in path[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            first, second = sha(b"\1", step, first), sha(b"\1", step, second)
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            second = sha(b"\1", second, step)
        here, last = here >> 1, last >> 1
    return (first, second, last) == (old_root, root, 0)


P, ORDER = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
Point = tuple[int, int, int, int]


def plus(one: Point, two: Point) -> Point:
    a, b = (one[1] - one[0]) * (two[1] - two[0]), (one[1] + one[0]) * (two[1] + two[0])
    c, d = 2 * one[3] * two[3] * D, 2 * one[2] * two[2]
    return (b - a) * (d - c) % P, (d + c) * (b + a) % P, (d - c) * (d + c) % P, (b - a) * (b + a) % P


def times(number: int, point: Point) -> Point:
    result = (0, 1, 1, 0)
    while number:
        result, point, number = plus(result, point) if number & 1 else result, plus(point, point), number >> 1
    return result


def point(raw: bytes) -> Point:
    y = int.from_bytes(raw, "little")
    odd, y = y >> 255, y % 2**255
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        raise ValueError("no key")
    return (x, y, 1, x * y % P) if x & 1 == odd else (P - x, y, 1, (P - x) * y % P)


Row = tuple[Any, ...]
BASE = point(bytes([0x58]) + bytes([0x66]) * 31)


def signed(public: bytes, text: bytes, signature: bytes) -> bool:
    x, y, z, t = point(public)
    s = int.from_bytes(signature[32:], "little")
    h = int.from_bytes(sha512(signature[:32] + public + text).digest(), "little") % ORDER
    x, y, z, _ = plus(times(s, BASE), times(h, (P - x, y, z, P - t)))
    x, y = x * pow(z, P - 2, P) % P, y * pow(z, P - 2, P) % P
    return len(signature) == 64 and s < ORDER and signature[:32] == (y + ((x & 1) << 255)).to_bytes(32, "little")


def note_text(note: str) -> str:
    """The text of a signed note (C2SP signed-note); one without a signature is all text."""
    text, gap, lines = note.rpartition("\n\n")
    good = all(line.startswith("\u2014 ") and line.count(" ") == 2 for line in lines[:-1].split("\n"))
    if gap and not (good and lines.endswith("\n")):
        raise ValueError("no signed note")
    return text + "\n" if gap else note


def trusted(note: str, key: str) -> bool:
    """Is the note signed with this key (NAME+NUMBER+KEY)?"""
    name, number, public = key.strip().split("+", 2)
    mine = [b64decode(line.split(" ")[2]) for line in note.split("\n") if line.startswith(f"\u2014 {name} ")]
    raws = [raw[4:] for raw in mine if raw[:4].hex() == number]
    return bool(raws) and all(signed(b64decode(public)[1:], note_text(note).encode(), raw) for raw in raws)


# -- what a sound book is


def link(before: bytes, row: Row) -> bytes:
    try:
        return sha(before, *map(netstring, row[:7]))
    except ValueError:  # half a character
        return b""


def fact(facts: str, name: str) -> Any:
    try:
        return json.loads(facts).get(name)
    except (ValueError, AttributeError, RecursionError):
        return None


class Book:
    """One book: the walk so far, and what is wrong."""

    def __init__(self, name: str, wanted: Iterable[int] = (), key: str = "") -> None:
        self.name, self.key, self.origin, self.shown = name, key, "", ""
        self.rooted = name == "journal"  # has a tree that checkpoints are over
        self.seq, self.digest, self.tree = 0, bytes(32), Tree()
        self.first, self.entries, self.whole = 1, 0, False  # entries: of the whole book, where this is a part of it
        self.vouched = False  # a signature with the key covers some of it
        self.born = 0  # of a delivery book: the journal's head when it was begun
        self.roots = dict.fromkeys(wanted, b"")  # by size, of the tree
        self.digests: dict[int, bytes] = {}
        self.claims: list[tuple[int, int, str]] = []  # entry, number and digest of the other book's head
        self.abouts: list[tuple[int, int]] = []
        self.documents: set[int] = set()
        self.bare: set[int] = set()
        self.gone: set[int] = set()
        self.problems: list[tuple[str, int, str]] = []

    def found(self, seq: int, what: str) -> None:
        self.problems.append((self.name, seq, what))

    def entry(self, row: Row, salt: Any, body: Any) -> None:
        """One entry, given the one before it."""
        seq, kind, about, facts, body_hash, digest = (row[place] for place in (0, 2, 3, 5, 6, 7))
        self.notes(seq, kind, about, body_hash, body)
        types = zip(row, (int, str, str, int, str, str, bytes, bytes), (0, 0, 0, 1, 1, 0, 1, 0))
        if not all(type(column) is wanted or (null and column is None) for column, wanted, null in types):
            self.seq = seq if type(seq) is int else self.seq + 1
            self.digest = self.digests[self.seq] = digest if type(digest) is bytes else bytes(32)
            self.found(self.seq, "a column holds what no entry holds")
            self.grow(sha(b"\0", self.digest))
            return
        if seq != self.seq + 1:
            self.found(seq, "entries before it are missing, or it is not in its place")
        if link(self.digest, row) != digest:
            self.found(seq, "the digest does not fit: this entry was altered, or the one before it")
        if body is not None and ((type(body), type(salt)) != (bytes, bytes) or sha(salt, body) != body_hash):
            self.found(seq, "the body was altered, or is not of this entry")
        if (kind == "created") != (seq == 1):
            self.found(seq, "a book begins with the entry that created it, and has only one of that kind")
        if seq == 1:
            self.origin = f"omneo-journal/{fact(facts, 'journal')}"
        if kind == "checkpoint" and about is None and self.rooted:
            self.checkpoint(seq, facts)
        self.seq, self.digest, self.digests[seq] = seq, digest, digest
        self.vouches(seq, kind, facts)
        self.grow(sha(b"\0", digest))

    def grow(self, root: bytes, leaves: int = 1) -> None:
        self.tree.add(root, leaves)
        self.look()

    def look(self) -> None:
        if self.tree.size in self.roots:
            self.roots[self.tree.size] = self.tree.root()

    def notes(self, seq: int, kind: str, about: Any, body_hash: Any, body: Any) -> None:
        """What has to be known for the rules over several entries."""
        if about is None and kind in DOCUMENTS:
            self.documents.add(seq)
        if about is not None:
            self.abouts.append((seq, about))
            self.gone |= {about} if kind in ("redaction", "archived") else set()
        if body is None and body_hash is not None:
            self.bare.add(seq)

    def vouches(self, seq: int, kind: str, facts: str) -> None:
        """What an entry says of the other book's head."""
        other = fact(facts, "other_book") if kind in ("created", "opened", "turn", "vouched", "reconciled") else None
        try:
            if other and isinstance(other["entries"], int) and 0 < other["entries"] < 2**63:
                self.claims.append((seq, other["entries"], str(other["head"])))
                self.born = other["entries"] if seq == 1 else self.born
        except (KeyError, TypeError):
            pass

    def checkpoint(self, seq: int, facts: str) -> None:
        """Is it over the entries before it, and signed? If not, later ones are judged from what it says they were."""
        try:
            told = json.loads(facts)
            size, root, note = told["size"], bytes.fromhex(told["root"]), told.get("note")
            claimed = Tree(size, [bytes.fromhex(each) for each in told["range"]])
            said = f"{self.origin}\n{size}\n{b64encode(root).decode()}\n"
            sound = (size, claimed.root()) == (seq - 1, root) and (note is None or note_text(note) != note)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            sound = False
        if not sound:
            self.found(seq, "this checkpoint makes no sense")
            return
        if note is not None and note_text(note) != said:
            self.found(seq, "what was signed here is something else than what the checkpoint says")
        elif note is not None and self.key:
            self.trust(seq, note, "this checkpoint")
        if (self.tree.size, self.tree.root()) != (size, root):
            self.found(seq, "this checkpoint is not over the entries before it: one was altered, taken out or put in")
            self.tree = claimed
            self.look()

    def compare(self, name: str, note: str, entries: int) -> None:
        """A checkpoint from outside; `roots` had to know its size before the walk."""
        origin, size, root = note_text(note).split("\n")[:3]
        if origin != self.origin:
            self.found(0, f"{name} is of another journal")
        elif int(size) > entries:
            self.found(entries + 1, f"{name} saw {size} entries, there are {entries}: the end was cut off")
        elif self.roots[int(size)] != b64decode(root) and int(size):
            self.found(int(size), f"{name} saw other entries up to here: the journal was rewritten")
        if self.key and note_text(note) != note:
            self.trust(int(size), note, name)

    def trust(self, seq: int, note: str, name: str) -> None:
        if trusted(note, self.key):
            self.vouched = True
        else:
            self.found(seq, f"{name} has no good signature")

    def lacks(self, seq: int) -> bool:
        """Is it an entry of the book that is not here, so that nothing can be said of it?"""
        return seq < self.first or self.seq < seq <= self.entries


def together(journal: Book, delivery: Book) -> None:
    """What the books say of each other. One that could not be read to its end is asked nothing."""
    for book in (journal, delivery):
        for seq in book.bare - book.gone:
            book.found(seq, "the body is gone, and no entry says why")
    told = [claim for claim in journal.claims if claim[0] > delivery.born]
    for book, claims in ((delivery, told), (journal, delivery.claims)):
        for entry, seq, head in claims if book.whole else ():
            if not book.lacks(seq) and book.digests.get(seq, b"").hex() != head:
                book.found(seq, f"entry {entry} of the other book saw another one here: it was rewritten, or cut off")
                break
    for seq, about in delivery.abouts if journal.whole and delivery.whole else ():
        if not journal.lacks(about) and about not in journal.documents:
            delivery.found(seq, f"speaks of entry {about}, which is no document of this journal")


# -- the three things that can be checked


class Garbled(str):
    """What is in a column for text, and is none."""

    __slots__ = ()


def text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Garbled(f"\udcff{raw!r}")


def file(path: Path, book: Book) -> Book:
    """A book in its SQLite file."""
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        db.text_factory = text
        number = db.execute("PRAGMA application_id").fetchone()[0]
        form = db.execute("PRAGMA user_version").fetchone()[0]
        if number != BOOKS[book.name] or form not in (1, 2):
            book.found(0, "this is no such book")
            return book
        schema = sorted(db.execute(SCHEMA), key=str)
        if sha(repr(schema).encode()).hex() not in RULES[: 3 if form == 1 else 1]:
            book.found(0, "its tables, triggers and indexes are not those of such a book")
        if {("table", "log"), ("table", "body")} - {row[:2] for row in schema}:
            return book
        last: Any = -(2**63)
        while row := db.execute(ENTRIES, (last,)).fetchone():
            if (type(row[0]), type(last)) == (int, int) and row[0] <= last:
                raise sqlite3.DatabaseError("entries follow one another in circles")
            book.entry(row[:8], *row[8:])
            last = row[0]
        for which, index, same in INDEXES if not book.problems or book.problems[0][1] else ():
            for (seq,) in db.execute(OVERLOOKED.format(which, index, f"{same} AND i.seq = e.seq")):
                book.found(seq, "an index does not hold this entry, so that the programs overlook it")
        for (seq,) in db.execute("SELECT seq FROM body WHERE seq NOT IN (SELECT seq FROM log)"):
            book.found(seq, "there is a body without an entry")
        if not book.seq:
            book.found(0, "there is no entry in it")
        book.whole = True
    except sqlite3.Error as error:
        book.found(book.seq + 1, f"can't be read from here on: {error}")
    return book


def lines(file: Any) -> Iterator[tuple[dict[str, Any], Row, Any, Any]]:
    """Entries as JSON lines: what stands there, the columns, salt and body."""
    for line in file:
        told = json.loads(line)
        hashes = [told[name] and bytes.fromhex(told[name]) for name in ("body_hash", "digest", "salt")]
        body = b64decode(told["base64"]) if "base64" in told else told["body"] and told["body"].encode()
        yield told, (*(told[name] for name in COLUMNS[:6]), *hashes[:2]), hashes[2], body


def pack(root: Any, notes: dict[str, str], key: str) -> list[Book]:
    """An evidence pack: some days of both books, and what ties them to checkpoints."""
    journal, delivery = Book("journal", (), key), Book("delivery")
    sums = dict(line.split("  ")[::-1] for line in (root / "SHA256SUMS").read_text("utf-8").split("\n")[:-1])
    for name, digest in sums.items():
        if sha((root / name).read_bytes()).hex() != digest:
            journal.found(0, f"{name} is not the file that was packed")
    about = json.loads((root / "manifest.json").read_text("utf-8"))
    notes = {**{name: (root / name).read_text("utf-8") for name in sums if name.startswith("checkpoints/")}, **notes}
    journal.roots = {int(note_text(note).split("\n")[1]): b"" for note in notes.values()}
    for book in [journal, delivery] if about["delivery"] else [journal]:
        place = about[book.name]
        book.first, book.entries = place["first"], place["entries"]
        book.seq, book.digest = place["first"] - 1, bytes.fromhex(place["before"])
        book.origin, book.born = about["origin"], place.get("born", 0)
        if book is journal:
            book.tree = Tree(book.seq, map(bytes.fromhex, place["range"]))
            book.look()
        ends: list[bool] = []
        for _, row, salt, body in lines((root / f"{book.name}.jsonl").open("rb")):
            book.entry(row, salt, body)
            ends = [*ends[:1], about["low"] <= row[1] < about["high"]]
            if not ends[-1]:
                book.bare.discard(row[0])  # it is here to show where the days begin and end: its body is not
        if book is journal and ((book.first > 1 and ends[0]) or (book.seq < place["entries"] and ends[-1])):
            book.found(book.seq, "the days that this is to be evidence of are not whole")
        book.whole = True
    entries, last = about["journal"]["entries"], journal.seq
    for leaves, root_hash in about["journal"]["after"]:
        journal.grow(bytes.fromhex(root_hash), leaves)
    if (journal.tree.size, journal.tree.root().hex()) != (entries, about["journal"]["root"]):
        journal.found(last, "these are not the entries of that journal: one was altered, taken out or put in")
    for told, row, _, _ in lines((root / "later.jsonl").open("rb")):
        path = [bytes.fromhex(each) for each in told["path"]]
        fits = link(bytes.fromhex(told["before"]), row) == row[7]
        if not fits or root_from(sha(b"\0", row[7]), row[0] - 1, entries, path).hex() != about["journal"]["root"]:
            journal.found(row[0], "no such entry is in that journal")
        journal.gone |= {row[3]} if row[2] in ("redaction", "archived") else set()
        journal.vouches(row[0], row[2], row[5])
    for name, note in notes.items():
        journal.compare(name, note, entries)
    return [journal, delivery]


def proof(path: Path, key: str) -> Book:
    """One document, its entry, and the audit path to a checkpoint (C2SP tlog-proof)."""
    book = Book("journal", (), key)
    head, _, note = path.read_text("utf-8").partition("\n\n")
    _, extra, index, *hashes = head.split("\n")
    told, row, salt, body = next(lines([b64decode(extra.split(" ")[1])]))
    book.rooted, book.seq, book.digest = False, row[0] - 1, bytes.fromhex(told["before"])
    book.entry(row, salt, body)
    book.origin, size, root = note_text(note).split("\n")[:3]
    place = int(index.split(" ")[1])
    if (
        place != row[0] - 1
        or b64encode(root_from(sha(b"\0", row[7]), place, int(size), [*map(b64decode, hashes)])).decode() != root
    ):
        book.found(row[0], "the checkpoint is not over this entry")
    if key:
        book.trust(int(size), note, "the checkpoint")
    book.shown = f"Entry {row[0]} of {book.origin}, written {row[1]}: {row[2]} {row[4]} {row[5]}"
    return book


def growth(path: Path, notes: dict[str, str], key: str) -> Book:
    """That the journal of an earlier checkpoint, which has to be given, only grew (as C2SP tlog-witness says it)."""
    book = Book("journal", (), key)
    head, _, note = path.read_text("utf-8").partition("\n\n")
    old, *hashes = head.split("\n")
    origin, size, root = note_text(note).split("\n")[:3]
    earlier = [note_text(each).split("\n")[:3] for each in notes.values()]
    seen = [b64decode(each[2]) for each in earlier if each[:2] == [origin, old.split(" ")[1]]]
    begun, way = int(old.split(" ")[1]), [*map(b64decode, hashes)]
    if not seen or not all(consistent(begun, int(size), each, b64decode(root), way) for each in seen):
        book.found(begun, "the later checkpoint is not over what an earlier one saw, or none was given (--checkpoint)")
    if key:
        book.trust(int(size), note, "the checkpoint")
    book.shown = f"{origin} had {begun} entries, and {size} later: none of those {begun} was changed or taken out."
    return book


def examine(paths: list[Path], notes: dict[str, str], key: str = "") -> list[Book]:
    """Whatever these paths are. Never raises: what can't be read is not what was written."""
    try:
        if paths[0].is_dir() or zipfile.is_zipfile(paths[0]):
            books = pack(paths[0] if paths[0].is_dir() else zipfile.Path(paths[0]), notes, key)
        elif paths[0].read_bytes()[:9] == b"c2sp.org/":
            return [proof(paths[0], key)]
        elif paths[0].read_bytes()[:4] == b"old ":
            return [growth(paths[0], notes, key)]
        else:
            sizes = [int(note_text(note).split("\n")[1]) for note in notes.values()]
            books = [file(paths[0], Book("journal", sizes, key)), Book("delivery")]
            books[1:] = [file(path, Book("delivery")) for path in paths[1:]] or books[1:]
            for name, note in notes.items():
                books[0].compare(name, note, books[0].seq)
        if key and not books[0].vouched:
            books[0].found(0, "no checkpoint is signed with the key that was given")
        together(*books)
    except Exception as error:
        books = [Book("journal")]
        books[0].found(0, f"can't be read: {error!r}")
    return books


def main(arguments: list[str]) -> int:
    given: dict[str, str] = {}
    for option in ("--key", "--checkpoint"):
        if option in arguments[:-1]:
            place = arguments.index(option)
            given[option] = arguments[place + 1]
            del arguments[place : place + 2]
    notes = {name: Path(name).read_text("utf-8") for option, name in given.items() if option == "--checkpoint"}
    paths = [Path(name) for name in arguments] or [Path(__file__).parent]
    books = examine(paths, notes, given.get("--key", ""))
    problems = [problem for book in books for problem in book.problems]
    for name, seq, what in problems:
        print(f"{name} entry {seq}: {what}")
    for book in books:
        print(book.shown or f"{book.name}: up to entry {book.seq}, head {book.digest.hex()}")
    print(f"{len(problems)} problems." if problems else "Nothing was altered.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
