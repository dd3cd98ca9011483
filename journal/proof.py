"""
Two proofs that show nothing of other documents: of one document, and that a journal only grew.

That of a document is its entry, its body and the audit path to a checkpoint, as a C2SP tlog-proof
(https://c2sp.org/tlog-proof); its `extra` line has the entry as JSON, since the leaf is the entry's digest. That of
growth ties a later checkpoint to an earlier one, in the form in which C2SP witnesses are told of a new checkpoint
(https://c2sp.org/tlog-witness).
"""

import sqlite3
from base64 import b64encode

from journal import checkpoint, log, note, tree
from journal.checkpoint import Leaves, Statement, Taken
from journal.evidence import ENTRIES, entry

FIRST = "c2sp.org/tlog-proof@v1"
SINCE = "old "


def make(db: sqlite3.Connection, name: str, taken: Taken | None) -> tuple[str, int]:
    """The proof, and the size of the checkpoint. `name`: external_id, or number of the entry. Raises log.NoSuch."""
    seq = _find(db, name)
    signed, said = _later(db, seq, taken)
    leaves = Leaves(db)
    if not seq <= said.size <= log.head(db)[0] or leaves.upto(said.size).root() != said.root:
        raise log.NoSuch(
            "That checkpoint does not cover this entry, or is not of this journal: omneo-journal verify tells."
        )
    row = db.execute(ENTRIES, (seq, seq)).fetchone()
    before = db.execute("SELECT digest FROM log WHERE seq = ?", (seq - 1,)).fetchone()
    told = entry(row[:8], row[8], row[9]) | {"before": (before[0] if before else bytes(32)).hex()}
    path = tree.inclusion(seq - 1, said.size, leaves.span)
    extra = b64encode(log.as_json(told).encode()).decode()
    lines = [FIRST, f"extra {extra}", f"index {seq - 1}", *(b64encode(each).decode() for each in path)]
    return "\n".join(lines) + "\n\n" + signed, said.size


def since(db: sqlite3.Connection, earlier: Taken, taken: Taken | None) -> tuple[str, int]:
    """That the tree of an earlier checkpoint is how a later one's begins. The size of that. Raises log.NoSuch."""
    signed, said = _later(db, earlier.size + 1, taken)
    leaves = Leaves(db)
    known = ((earlier.size, earlier.root), (said.size, said.root))
    if not 0 < earlier.size < said.size or any(leaves.upto(size).root() != root for size, root in known):
        raise log.NoSuch("The two checkpoints are not both of this journal, in this order: omneo-journal verify tells.")
    path = tree.consistency(earlier.size, said.size, leaves.span)
    return "\n".join(
        [f"{SINCE}{earlier.size}", *(b64encode(each).decode() for each in path)]
    ) + "\n\n" + signed, said.size


def _later(db: sqlite3.Connection, seq: int, taken: Taken | None) -> tuple[str, Statement]:
    """The checkpoint to prove against: the one that was given, else the newest."""
    signed = _newest(db, seq) if taken is None else taken.note
    if signed is None:
        raise log.NoSuch(
            "No signed checkpoint covers this entry yet. Make one with: omneo-journal checkpoint --key FILE."
        )
    return signed, checkpoint.parse(note.text_of(signed))


def _find(db: sqlite3.Connection, name: str) -> int:
    """An accepted document by external_id, else any entry by its number."""
    query = "SELECT seq FROM log WHERE external_id = ? AND about IS NULL ORDER BY kind = 'invalid', seq LIMIT 1"
    row = db.execute(query, (name,)).fetchone()
    if row is None and name.isascii() and name.isdigit() and len(name) < 19:
        row = db.execute("SELECT seq FROM log WHERE seq = ?", (int(name),)).fetchone()
    if row is None:
        raise log.NoSuch(f"There is no document {name} in this journal; `omneo-journal list` names all that there are.")
    return int(row[0])


def _newest(db: sqlite3.Connection, seq: int) -> str | None:
    """The newest checkpoint that was signed, if it is over this entry."""
    query = (
        "SELECT json_extract(facts, '$.note') AS note FROM log WHERE kind = 'checkpoint' AND about IS NULL"
        " AND external_id IS NULL AND seq > ? AND note IS NOT NULL ORDER BY seq DESC LIMIT 1"
    )
    row = db.execute(query, (seq,)).fetchone()
    return str(row[0]) if row else None
