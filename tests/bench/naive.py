"""
What anybody would write first, as the reference: a sorted glob, json.loads, one INSERT and commit a file, unlink.

    python tests/bench/naive.py SPOOL DB [delete|wal]
"""

import json
import sqlite3
import sys
from pathlib import Path


def main(spool: str, path: str, mode: str = "delete") -> None:
    """Take every file of the spool into a table, each in its own commit."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE IF NOT EXISTS sale (seq INTEGER PRIMARY KEY, external_id TEXT UNIQUE, body TEXT)")
    for file in sorted(Path(spool).glob("*.json")):
        text = file.read_text(encoding="utf-8")
        row = (json.loads(text)["external_id"], text)
        db.execute("INSERT OR IGNORE INTO sale (external_id, body) VALUES (?, ?)", row)
        file.unlink()
    db.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
