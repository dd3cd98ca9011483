"""What somebody can do to the books behind the programs' back. Each deed says where it has to be found."""

import json
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from journal import chain, log, note, tree
from journal.checkpoint import Statement
from tests.tamper.judge import Places
from tests.tamper.shapes import Case, Maker, rows

Row = list[Any]
ANYWHERE: Places = set()


@dataclass(frozen=True, slots=True)
class Deed:
    """A case that was tampered with."""

    places: Places  # one of these has to be named; ANYWHERE: any will do
    taken: tuple[Path, ...] = ()  # only these checkpoints, kept by an auditor, can show it
    key: bool = False  # … or only who has the public key
    witness: bool = False  # … or only what Omneo holds
    what: str = field(default="", compare=False)


Do = Callable[[Case, random.Random], Deed | None]  # None: there is nothing of that kind to be spoilt


# -- tools of a forger


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A book without its triggers and checks; the triggers come back afterwards."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute("PRAGMA ignore_check_constraints = ON")
        yield db
        for _, sql in triggers:
            db.execute(sql)


def rechain(entries: Iterable[Row], public: bool = False, since: int = 1) -> list[Row]:
    """Every digest computed anew, and every checkpoint from some entry on with the root that fits, but unsigned."""
    before, grown, done = chain.ZERO, tree.Range(), []
    origin = ""
    for row in entries:
        origin = f"omneo-journal/{json.loads(row[5]).get('journal')}" if row[0] == 1 else origin
        if row[2] == "checkpoint" and row[0] >= since:
            told = {"size": grown.size, "root": grown.root().hex(), "range": [each.hex() for each in grown.hashes]}
            if public:
                private, _ = note.generate(origin)
                text = Statement(origin, grown.size, grown.root()).text()
                told["note"] = note.sign(text, note.private_key(private))
            row[5] = log.as_json(told)
        before = row[7] = chain.link(before, chain.Row(*row[:7]))
        grown.extend([before])
        done.append(row)
    return done


def put(path: Path, entries: list[Row]) -> None:
    """These entries instead of all that were there."""
    with opened(path) as db:
        db.execute("DELETE FROM log")
        db.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?)", entries)


def forge(entries: list[Row], dice: random.Random, low: int, high: int) -> int | None:
    """Some fact of an entry between two numbers is changed. Returns its number."""
    some = [row for row in entries if low < row[0] <= high and row[2] not in {"checkpoint", "created", "turn"}]
    if not some:
        return None
    row = dice.choice(some)
    told = json.loads(row[5])
    row[5] = log.as_json(told | {"total": "1.00", "by": "nobody"})
    return int(row[0])


def newest(case: Case) -> tuple[Path, int] | None:
    """The last checkpoint that was taken away, and its size."""
    sizes = [(int(path.read_text("utf-8").split("\n")[1]), path) for path in case.taken]
    return (max(sizes)[1], max(sizes)[0]) if sizes else None


def some_book(case: Case, dice: random.Random) -> tuple[str, Path]:
    books = [("journal", case.journal)] + [("delivery", case.delivery)] * case.delivery.exists()
    return dice.choice(books)


# -- inside one book


def a_bit(case: Case, dice: random.Random) -> Deed | None:
    """One bit of the file, where it changes what the book says."""
    name, path = some_book(case, dice)
    raw, before = path.read_bytes(), contents(path)
    for _ in range(60):
        spoilt, at = bytearray(raw), dice.randrange(100, len(raw))
        spoilt[at] ^= 1 << dice.randrange(8)
        path.write_bytes(spoilt)
        after = contents(path)
        if after != before:
            if after is None or before is None:
                return Deed(ANYWHERE)
            return Deed({(name, seq) for seq in differing(before, after)} or ANYWHERE)
    path.write_bytes(raw)
    return None


def contents(path: Path) -> tuple[list[Any], list[Any], list[Any]] | None:
    """All that a book says, without its indexes; None if that can't be read."""
    spoilt = suppress(sqlite3.Error, UnicodeDecodeError)  # SQLite quotes what it can't read
    with spoilt, closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        db.text_factory = bytes
        log_rows = db.execute("SELECT * FROM log NOT INDEXED ORDER BY seq").fetchall()
        bodies = db.execute("SELECT * FROM body NOT INDEXED ORDER BY seq").fetchall()
        return log_rows, bodies, db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    return None


def differing(one: tuple[list[Any], ...], two: tuple[list[Any], ...]) -> set[int]:
    """Numbers of entries that are not as they were, and of those after them."""
    if one[2] != two[2]:
        return {0}
    seqs = {row[0] for a, b in zip(one[:2], two[:2], strict=False) for row in {*a} ^ {*b}}
    return seqs | {seq + 1 for seq in seqs if isinstance(seq, int)}


def bytes_of_the_file(case: Case, dice: random.Random) -> Deed | None:
    """A handful of bytes, at a place where entries stand."""
    name, path = some_book(case, dice)
    raw, before = path.read_bytes(), contents(path)
    places = [raw.find(row[7]) for row in rows(path)]
    at = dice.choice([each for each in places if each > 0])
    at = max(100, at + dice.randrange(-80, 20))
    path.write_bytes(raw[:at] + dice.randbytes(dice.choice([1, 2, 8])) + raw[at + 8 :][: len(raw) - at - 8])
    after = contents(path)
    if after == before:
        return None
    return Deed({(name, seq) for seq in differing(before, after)} if before and after else ANYWHERE)


COLUMN = {
    "at": "'2025-06-01T00:00:00.000Z'",
    "kind": "'invalid'",
    "about": "coalesce(about, 0) + 1",
    "external_id": "coalesce(external_id, '') || 'x'",
    "facts": """json_set(facts, '$.total', '0.01')""",
    "body_hash": "randomblob(32)",
    "digest": "randomblob(32)",
}


def a_column(case: Case, dice: random.Random) -> Deed | None:
    """One column of one entry, by SQL."""
    name, path = some_book(case, dice)
    before = rows(path)
    seq, column = dice.choice(before)[0], dice.choice(list(COLUMN))
    with opened(path) as db:
        db.execute(f"UPDATE log SET {column} = {COLUMN[column]} WHERE seq = ?", (seq,))
    return Deed({(name, seq)}) if rows(path) != before else None  # an invalid file was made an invalid one


def a_type(case: Case, dice: random.Random) -> Deed | None:
    """A column says the same, but as another type."""
    name, path = some_book(case, dice)
    seq, column = dice.choice(rows(path))[0], dice.choice(["at", "kind", "facts"])
    with opened(path) as db:
        db.execute(f"UPDATE log SET {column} = CAST({column} AS BLOB) WHERE seq = ?", (seq,))
    return Deed({(name, seq)})


def an_entry_out(case: Case, dice: random.Random) -> Deed | None:
    """One entry is deleted, but not the last."""
    name, path = some_book(case, dice)
    seqs = [row[0] for row in rows(path)][:-1]
    if not seqs:
        return None
    seq = dice.choice(seqs)
    with opened(path) as db:
        db.execute("DELETE FROM log WHERE seq = ?", (seq,))
        db.execute("DELETE FROM body WHERE seq = ?", (seq,))
    return Deed({(name, seq + 1)})


def an_entry_in(case: Case, dice: random.Random) -> Deed | None:
    """An entry is put at the end without knowing the rule."""
    name, path = some_book(case, dice)
    row = list(dice.choice(rows(path)))
    row[0] = len(rows(path)) + 1
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    return Deed({(name, row[0])})


def the_order(case: Case, dice: random.Random) -> Deed | None:
    """Two entries change places."""
    name, path = some_book(case, dice)
    seqs = [row[0] for row in rows(path)]
    if len(seqs) < 2:
        return None
    one, two = sorted(dice.sample(seqs, 2))
    with opened(path) as db:
        db.execute("UPDATE log SET seq = -1 WHERE seq = ?", (one,))
        db.execute("UPDATE log SET seq = ? WHERE seq = ?", (one, two))
        db.execute("UPDATE log SET seq = ? WHERE seq = -1", (two,))
    return Deed({(name, one)})


def a_body(case: Case, dice: random.Random) -> Deed | None:
    """A body is changed, or its salt, or it goes."""
    with opened(case.journal) as db:
        seqs = [seq for (seq,) in db.execute("SELECT seq FROM body")]
        if not seqs:
            return None
        seq = dice.choice(seqs)
        act = dice.choice(
            [
                "UPDATE body SET bytes = CAST(replace(CAST(bytes AS TEXT), '1', '2') || ' ' AS BLOB) WHERE seq = ?",
                "UPDATE body SET salt = randomblob(16) WHERE seq = ?",
                "UPDATE body SET bytes = CAST(bytes AS TEXT) WHERE seq = ?",
                "DELETE FROM body WHERE seq = ?",
            ]
        )
        db.execute(act, (seq,))
    return Deed({("journal", seq)})


def two_bodies(case: Case, dice: random.Random) -> Deed | None:
    """Two bodies change places."""
    with opened(case.journal) as db:
        seqs = [seq for (seq,) in db.execute("SELECT seq FROM body")]
        if len(seqs) < 2:
            return None
        one, two = dice.sample(seqs, 2)
        db.execute("UPDATE body SET seq = -1 WHERE seq = ?", (one,))
        db.execute("UPDATE body SET seq = ? WHERE seq = ?", (one, two))
        db.execute("UPDATE body SET seq = ? WHERE seq = -1", (two,))
    return Deed({("journal", one), ("journal", two)})


def a_body_from_nowhere(case: Case, dice: random.Random) -> Deed | None:
    """A body for an entry that has none, or for no entry."""
    with opened(case.journal) as db:
        bare = [seq for (seq,) in db.execute("SELECT seq FROM log WHERE body_hash IS NULL")]
        seq = dice.choice([*bare, 10_000])
        db.execute("INSERT INTO body VALUES (?, randomblob(16), x'7b7d')", (seq,))
    return Deed({("journal", seq)})


RULES = (
    "DROP TRIGGER log_no_update",
    "DROP INDEX log_about",
    "CREATE TABLE notes (text)",
    "CREATE TRIGGER more AFTER INSERT ON log BEGIN SELECT 1; END",
    "ALTER TABLE body ADD COLUMN note TEXT",
    "DROP TABLE body",
    "CREATE VIEW v AS SELECT 1",
)


def the_rules(case: Case, dice: random.Random) -> Deed | None:
    """Tables, triggers and indexes are not what they were."""
    name, path = some_book(case, dice)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(dice.choice(RULES))
    return Deed({(name, 0)})


def a_hidden_entry(case: Case, dice: random.Random) -> Deed | None:
    """An index is made to overlook an entry, so that the same sale would be taken again."""
    seqs = [row[0] for row in rows(case.journal) if row[4] is not None and row[3] is None]
    if not seqs:
        return None
    seq = dice.choice(seqs)
    with closing(sqlite3.connect(case.journal, isolation_level=None)) as db:
        sql = db.execute("SELECT sql FROM sqlite_master WHERE name = 'log_external_id'").fetchone()[0]
        db.execute("DROP INDEX log_external_id")
        db.execute(f"{sql} AND seq <> {seq}")
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'log_external_id'", (sql,))
    return Deed({("journal", seq)})


def one_digest(case: Case, dice: random.Random) -> Deed | None:
    """An entry is changed and its own digest made to fit; the next one's covers the old one."""
    name, path = some_book(case, dice)
    entries = [list(row) for row in rows(path)]
    seq = forge(entries, dice, 0, len(entries) - 1)
    if seq is None:
        return None
    row = entries[seq - 1]
    before = entries[seq - 2][7] if seq > 1 else chain.ZERO
    row[7] = chain.link(before, chain.Row(*row[:7]))
    put(path, entries)
    return Deed({(name, seq + 1)})


# -- what the chain alone can't show


def a_rewritten_journal(case: Case, dice: random.Random) -> Deed | None:
    """Changed, and everything after it computed anew: checkpoints in the journal, and what the delivery book says."""
    taken = newest(case)
    if taken is None:
        return None
    entries = [list(row) for row in rows(case.journal)]
    if forge(entries, dice, 0, taken[1]) is None:
        return None
    put(case.journal, rechain(entries))
    if case.delivery.exists():
        put(case.delivery, adapt([list(row) for row in rows(case.delivery)], entries))
    entries = readapt(entries)
    put(case.journal, rechain(entries))
    return Deed({("journal", taken[1])}, (taken[0],))


def adapt(delivery: list[Row], journal: list[Row]) -> list[Row]:
    """The delivery book says of the journal's head what the forger wants."""
    for row in delivery:
        told = json.loads(row[5])
        if told.get("other_book"):
            seen = told["other_book"]["entries"]
            if 0 < seen <= len(journal):
                told["other_book"]["head"] = journal[seen - 1][7].hex()
                row[5] = log.as_json(told)
    return rechain(delivery)


def readapt(journal: list[Row]) -> list[Row]:
    """What the journal says of the delivery book is taken out: both can't be made to fit each other in full."""
    for row in journal:
        told = json.loads(row[5])
        if told.pop("other_book", None):
            row[5] = log.as_json(told)
    return journal


def a_new_key(case: Case, dice: random.Random) -> Deed | None:
    """The same, with every checkpoint of the journal signed anew: with a key that isn't the shop's."""
    entries = [list(row) for row in rows(case.journal)]
    signed = [row[0] for row in entries if row[2] == "checkpoint"]
    if not case.public or not signed:
        return None
    case.delivery.unlink(missing_ok=True)
    if forge(entries, dice, 0, len(entries)) is None:
        return None
    put(case.journal, rechain(entries, public=True))
    return Deed({("journal", seq) for seq in signed}, key=True)


def no_signature(case: Case, dice: random.Random) -> Deed | None:
    """The same, with checkpoints that nobody signed: only who has the key misses a signature."""
    entries = [list(row) for row in rows(case.journal)]
    if not case.public or not any(row[2] == "checkpoint" for row in entries):
        return None
    case.delivery.unlink(missing_ok=True)
    if forge(entries, dice, 0, len(entries)) is None:
        return None
    put(case.journal, rechain(entries))
    return Deed({("journal", 0)}, key=True)


def a_forged_resolution(case: Case, dice: random.Random) -> Deed | None:
    """An entry becomes a resolution that nobody made, and everything after it is computed anew."""
    taken = newest(case)
    case.delivery.unlink(missing_ok=True)
    entries = [list(row) for row in rows(case.journal)]
    some = [row for row in entries[1:] if row[6] is None and row[2] != "checkpoint" and taken and row[0] <= taken[1]]
    if taken is None or not some:
        return None
    row = dice.choice(some)
    row[2], row[5] = "resolution", log.as_json({"flag": "J3", "by": "Ann", "note": "all is well"})
    put(case.journal, rechain(entries))
    return Deed({("journal", taken[1])}, (taken[0],))


def an_edited_resolution(case: Case, dice: random.Random) -> Deed | None:
    """Somebody else is said to have resolved a flag."""
    some = [row for row in rows(case.journal) if row[2] == "resolution"]
    if not some:
        return None
    seq = dice.choice(some)[0]
    with opened(case.journal) as db:
        db.execute("UPDATE log SET facts = json_set(facts, '$.by', 'Bob') WHERE seq = ?", (seq,))
    return Deed({("journal", seq)})


def the_end_of_the_journal(case: Case, dice: random.Random) -> Deed | None:
    """The last entries are cut off, cleanly."""
    taken = newest(case)
    if taken is None or taken[1] < 2:
        return None
    case.delivery.unlink(missing_ok=True)
    keep = dice.randrange(1, taken[1])
    with opened(case.journal) as db:
        db.execute("DELETE FROM log WHERE seq > ?", (keep,))
        db.execute("DELETE FROM body WHERE seq > ?", (keep,))
    return Deed({("journal", keep + 1)}, (taken[0],))


# -- what nobody has kept anything against, but Omneo


def rewritten_unseen(case: Case, dice: random.Random) -> Deed | None:
    """Changed, and everything after it computed anew. No checkpoint was kept, and the delivery book is lost."""
    seqs = sorted(each.seq for each in case.seen)
    entries = [list(row) for row in rows(case.journal)]
    seq = forge(entries, dice, 0, seqs[-1]) if seqs else None
    if seq is None:
        return None
    case.delivery.unlink(missing_ok=True)
    put(case.journal, rechain(entries, since=seq))
    return Deed({("journal", min(each for each in seqs if each >= seq))}, witness=True)


def taken_out_unseen(case: Case, dice: random.Random) -> Deed | None:
    """An entry that is no document is taken out, what follows moves up, and everything is computed anew."""
    seqs = sorted(each.seq for each in case.seen)
    entries = [list(row) for row in rows(case.journal)]
    loose = {"opened", "line", "flag", "resolution", "vouched"}
    some = [row[0] for row in entries if row[2] in loose and seqs and row[0] < seqs[-1]]
    if not some:
        return None
    seq = dice.choice(some)
    case.delivery.unlink(missing_ok=True)
    del entries[seq - 1]
    with opened(case.journal) as db:
        db.execute("UPDATE body SET seq = -seq WHERE seq > ?", (seq,))
        db.execute("UPDATE body SET seq = -seq - 1 WHERE seq < 0")
    for number, row in enumerate(entries, 1):
        row[0] = number
        row[3] = row[3] - 1 if row[3] is not None and row[3] > seq else row[3]
    put(case.journal, rechain(entries, since=seq))
    return Deed({("journal", min(each for each in seqs if each >= seq))}, witness=True)


def cut_off_unseen(case: Case, dice: random.Random) -> Deed | None:
    """The last entries are cut off, cleanly. No checkpoint was kept, and the delivery book is lost."""
    seqs = sorted(each.seq for each in case.seen)
    if not seqs:
        return None
    case.delivery.unlink(missing_ok=True)
    keep = dice.randrange(1, seqs[-1])
    with opened(case.journal) as db:
        db.execute("DELETE FROM log WHERE seq > ?", (keep,))
        db.execute("DELETE FROM body WHERE seq > ?", (keep,))
    return Deed({("journal", min(each for each in seqs if each > keep))}, witness=True)


def vouched(case: Case) -> int:
    """How many entries of the delivery book the journal vouches for."""
    told = [json.loads(row[5]).get("other_book") for row in rows(case.journal)[1:]]
    known = [each["entries"] for each in told if each]
    born = json.loads(rows(case.delivery)[0][5])["other_book"]["entries"]
    after = [json.loads(row[5])["other_book"]["entries"] for row in rows(case.journal)[born:] if "other_book" in row[5]]
    return max(after, default=0) if known else 0


def the_end_of_the_delivery_book(case: Case, dice: random.Random) -> Deed | None:
    """An older copy is put in its place."""
    if not case.delivery.exists() or (seen := vouched(case)) < 2:
        return None
    keep = dice.randrange(1, seen)
    with opened(case.delivery) as db:
        db.execute("DELETE FROM log WHERE seq > ?", (keep,))
    return Deed({("delivery", seq) for seq in range(keep + 1, seen + 1)})


def a_rewritten_delivery_book(case: Case, dice: random.Random) -> Deed | None:
    """A refusal becomes a delivery, and everything after it is computed anew."""
    if not case.delivery.exists() or (seen := vouched(case)) < 2:
        return None
    entries = [list(row) for row in rows(case.delivery)]
    seq = forge(entries, dice, 1, seen)
    if seq is None:
        return None
    put(case.delivery, rechain(entries))
    return Deed({("delivery", each) for each in range(seq, seen + 1)})


def another_delivery_book(case: Case, dice: random.Random) -> Deed | None:
    """Another shop's delivery book is put in its place."""
    maker = Maker(random.Random(dice.random()), case.journal.parent / "another")
    for act in (Maker.documents, Maker.deliver, Maker.documents, Maker.deliver):
        act(maker)
    maker.case.delivery.replace(case.delivery)
    return Deed(ANYWHERE)


IN_BOOKS: dict[str, Do] = {
    "a bit": a_bit,
    "bytes": bytes_of_the_file,
    "a column": a_column,
    "a type": a_type,
    "an entry taken out": an_entry_out,
    "an entry put in": an_entry_in,
    "the order": the_order,
    "a body": a_body,
    "two bodies swapped": two_bodies,
    "a body from nowhere": a_body_from_nowhere,
    "dropped or changed rules": the_rules,
    "a hidden entry": a_hidden_entry,
    "one digest made to fit": one_digest,
    "an edited resolution": an_edited_resolution,
    "the journal rewritten": a_rewritten_journal,
    "the journal rewritten and signed with another key": a_new_key,
    "the journal rewritten, its signatures left out": no_signature,
    "a forged resolution, rewritten": a_forged_resolution,
    "the journal's end cut off": the_end_of_the_journal,
    "unseen but by Omneo: the journal rewritten": rewritten_unseen,
    "unseen but by Omneo: an entry taken out": taken_out_unseen,
    "unseen but by Omneo: the journal's end cut off": cut_off_unseen,
    "the delivery book's end cut off": the_end_of_the_delivery_book,
    "the delivery book rewritten": a_rewritten_delivery_book,
    "another delivery book": another_delivery_book,
}
