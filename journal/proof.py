"""
The proof of one document: its entry, its body, and the audit path to a checkpoint. Nothing of any other is in it.

The form is a C2SP tlog-proof (https://c2sp.org/tlog-proof); its `extra` line has the entry as JSON, since the leaf
that is proven is the entry's digest.
"""

import json
import sqlite3
from base64 import b64encode

from journal import checkpoint, log, note, tree
from journal.checkpoint import Leaves, Statement, Taken
from journal.evidence import ENTRIES, entry

FIRST = "c2sp.org/tlog-proof@v1"


def make(db: sqlite3.Connection, name: str, taken: Taken | None) -> tuple[str, int]:
    """The proof, and the size of the checkpoint. `name`: external_id, or number of the entry. Raises log.NoSuch."""
    seq = _find(db, name)
    signed, said = (
        (_covering(db, seq)) if taken is None else (taken.note, Statement(taken.origin, taken.size, taken.root))
    )
    if signed is None or said is None:
        raise log.NoSuch(
            "No signed checkpoint covers this entry yet. Make one with: omneo-journal checkpoint --key FILE."
        )
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


def _find(db: sqlite3.Connection, name: str) -> int:
    """An accepted document by external_id, else any entry by its number."""
    query = "SELECT seq FROM log WHERE external_id = ? AND about IS NULL ORDER BY kind = 'invalid', seq LIMIT 1"
    row = db.execute(query, (name,)).fetchone()
    if row is None and name.isascii() and name.isdigit() and len(name) < 19:
        row = db.execute("SELECT seq FROM log WHERE seq = ?", (int(name),)).fetchone()
    if row is None:
        raise log.NoSuch(f"There is no document {name} in this journal; `omneo-journal list` names all that there are.")
    return int(row[0])


def _covering(db: sqlite3.Connection, seq: int) -> tuple[str | None, Statement | None]:
    """The newest signed checkpoint, if it is over this entry."""
    query = (
        "SELECT seq, facts FROM log WHERE kind = 'checkpoint' AND about IS NULL AND external_id IS NULL AND seq > ?"
        " AND json_extract(facts, '$.note') IS NOT NULL ORDER BY seq DESC LIMIT 1"
    )
    row = db.execute(query, (seq,)).fetchone()
    if row is None:
        return None, None
    signed = json.loads(row[1])["note"]
    return signed, checkpoint.parse(note.text_of(signed))
