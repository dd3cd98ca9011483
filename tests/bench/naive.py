"""
N, what anybody would write first, as the reference: a sorted glob, json.loads, one INSERT and commit a file, unlink;
then `requests.post` of each row, and a commit that says that it was delivered.

    python tests/bench/naive.py take SPOOL DB [delete|wal]
    python tests/bench/naive.py deliver DB URL
"""

import json
import sqlite3
import sys
from pathlib import Path

HEAD = {"Authorization": "Bearer sandbox", "Content-Type": "application/json"}


def take(spool: str, path: str, mode: str = "delete") -> None:
    """Take every file of the spool into a table, each in its own commit."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(
        "CREATE TABLE IF NOT EXISTS sale"
        " (seq INTEGER PRIMARY KEY, external_id TEXT UNIQUE, body TEXT, delivered INTEGER DEFAULT 0)"
    )
    for file in sorted(Path(spool).glob("*.json")):
        text = file.read_text(encoding="utf-8")
        row = (json.loads(text)["external_id"], text)
        db.execute("INSERT OR IGNORE INTO sale (external_id, body) VALUES (?, ?)", row)
        file.unlink()
    db.close()


def deliver(path: str, url: str) -> None:
    """Every row that was not delivered."""
    import requests

    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = FULL")
    for seq, body in db.execute("SELECT seq, body FROM sale WHERE delivered = 0 ORDER BY seq").fetchall():
        answer = requests.post(f"{url}/transactions/update-create", data=body.encode(), headers=HEAD, timeout=60)
        answer.raise_for_status()
        answer.json()
        db.execute("UPDATE sale SET delivered = 1 WHERE seq = ?", (seq,))
    db.close()


if __name__ == "__main__":
    {"take": take, "deliver": deliver}[sys.argv[1]](*sys.argv[2:])
