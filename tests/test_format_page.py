"""`docs/format.md` is enough: what it says is done here with the standard library; our programs read its examples."""

import base64
import hashlib
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from journal import checkpoint, note, standalone
from tests.tamper.deeds import IN_BOOKS
from tests.tamper.judge import copy
from tests.tamper.shapes import Case, rich

PAGE = (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")
EXAMPLE, _, TREE = PAGE.partition("## A worked example")[2].partition("## The same example, its tree")


def netstring(column: Any) -> bytes:
    if column is None:
        return b"-,"
    raw = column if isinstance(column, bytes) else str(column).encode()
    return str(len(raw)).encode() + b":" + raw + b","


def breaks(rows: Iterable[tuple[Any, ...]], bodies: dict[int, tuple[bytes, bytes]]) -> list[int]:
    """The entries that do not fit, by the page's rule."""
    found, before = [], bytes(32)
    for *columns, digest in rows:
        before = hashlib.sha256(before + b"".join(map(netstring, columns))).digest()
        salt, body = bodies.get(columns[0], (b"", b""))
        sound = hashlib.sha256(salt + body).digest() == columns[6] if columns[6] else not body
        found += [] if digest == before and sound else [columns[0]]
        before = digest
    return found


def cell(name: str, text: str) -> Any:
    if text == "NULL":
        return None
    if name in {"seq", "about"}:
        return int(text)
    return bytes.fromhex(text) if name in {"body_hash", "digest"} else text


def example() -> tuple[list[tuple[Any, ...]], dict[int, tuple[bytes, bytes]]]:
    lines = [
        [part.strip().strip("`") for part in line.split("|")[1:-1]] for line in EXAMPLE.splitlines() if "|" in line
    ]
    names = next(line for line in lines if line[0] == "seq")
    rows = [tuple(map(cell, names, line)) for line in lines if line[0].isdigit()]
    pairs = {line[0]: bytes.fromhex(line[1]) for line in lines if line[0] in {"salt", "bytes"}}
    return rows, {2: (pairs["salt"], pairs["bytes"])}


def test_the_worked_example_is_right() -> None:
    rows, bodies = example()
    assert [row[0] for row in rows] == [1, 2, 3]
    assert breaks(rows, bodies) == []
    assert breaks([rows[0], (*rows[1][:5], "{}", *rows[1][6:]), rows[2]], bodies) == [2]


def test_the_bytes_that_are_hashed_are_shown_right() -> None:
    rows, _ = example()
    shown = [bytes.fromhex(line.strip()) for line in EXAMPLE.splitlines() if re.fullmatch(r"    [0-9a-f]+", line)]
    assert shown[0] == rows[0][7]
    assert shown[1:] == [netstring(column) for column in rows[1][:7]]
    assert hashlib.sha256(b"".join(shown)).digest() == rows[1][7]


def test_the_tree_of_the_example_is_right() -> None:
    digests = [row[7] for row in example()[0]]
    leaves = [hashlib.sha256(b"\0" + digest).digest() for digest in digests]
    node = hashlib.sha256(b"\1" + leaves[0] + leaves[1]).digest()
    root = hashlib.sha256(b"\1" + node + leaves[2]).digest()
    assert re.findall(r"`([0-9a-f]{64})`", TREE) == [each.hex() for each in (*leaves, node, root)]
    assert f"\n3\n{base64.b64encode(root).decode()}\n\n" in TREE
    assert "".join(re.findall(r"[0-9a-f]{4} [0-9a-f]{4} [0-9a-f]{4} [0-9a-f]{4}", TREE)).replace(" ", "") == root.hex()


def test_the_checkpoint_of_the_example_is_what_the_program_reads(tmp_path: Path) -> None:
    signed, other = re.findall(r"^```\n(.*?)^```$", TREE, re.DOTALL | re.MULTILINE)
    public, printed = other.split("\n\n")
    paper = tmp_path / "paper.txt"
    paper.write_text(printed, "utf-8")
    said = checkpoint.parse(note.read(signed, [note.public_key(public)]))
    assert said.printed() + "\n" == printed
    assert checkpoint.taken(paper).root == said.root
    assert standalone.trusted(signed, public)
    assert not standalone.trusted(signed.replace("\n3\n", "\n4\n"), public)


def test_a_real_journal_is_sound_by_this_page_alone(tmp_path: Path) -> None:
    """Made by the program, in another process; read with sqlite3."""
    spool, db = tmp_path / "spool", tmp_path / "journal.db"
    run = [sys.executable, "-c", "from journal.cli import main; main()"]
    options = {"OMNEO_JOURNAL_DB": str(db), "OMNEO_JOURNAL_SPOOL": str(spool)}
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | options
    subprocess.run([*run, "init"], env=environment, check=True, capture_output=True)
    sale = {"kind": "sale", "total": 1, "transacted_at": "2025-06-15 14:32:00", "timezone": "UTC", "items": []}
    for number in range(5):
        name = "S-1" if number == 4 else f"Zoë-{number}"
        (spool / f"{number}.json").write_text(json.dumps(sale | {"external_id": name}), encoding="utf-8")
    (spool / "5.json").write_text('{"kind": "nothing"}')
    subprocess.run([*run, "ingest", "--once"], env=environment, check=True, capture_output=True)
    (script,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    by_hand = [sys.executable, "-c", script, str(db)]
    told = subprocess.run(by_hand, check=True, capture_output=True, text=True).stdout
    assert "Zoë-3" in told
    with closing(sqlite3.connect(db)) as book:
        rows = book.execute("SELECT * FROM log ORDER BY seq").fetchall()
        bodies = {seq: (salt, body) for seq, salt, body in book.execute("SELECT * FROM body")}
        settings = {name: book.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")}
        shape = {table: [row[1] for row in book.execute(f"PRAGMA table_info({table})")] for table in ("log", "body")}
    assert len(rows) >= 9
    assert told.splitlines()[-1] == f"{db}: {len(rows)} entries, head {rows[-1][7].hex()}"
    assert breaks(rows, bodies) == []
    assert f"`0x{settings['application_id']:08X}`" in PAGE
    assert f"| `user_version` | {settings['user_version']}:" in PAGE
    for column in shape["log"] + shape["body"]:
        assert f"| `{column}` |" in PAGE
    for row in rows:
        assert f"`{row[2]}`" in PAGE
        for fact in json.loads(row[5]):
            assert f"`{fact}`" in PAGE, f"the page does not tell of {fact} in {row[2]}"


def test_the_page_s_own_script_finds_what_was_altered(tmp_path: Path) -> None:
    """The books of the tampering campaign, read with what the page prints and nothing else."""
    (script,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(script.splitlines()) < 100
    case = rich(random.Random(4), tmp_path / "shop")

    def by_hand(*paths: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script, *map(str, paths)], check=False, capture_output=True, text=True
        )

    assert by_hand(case.journal, case.delivery).returncode == 0, by_hand(case.journal, case.delivery).stderr
    found = set()
    for number in range(30):
        name = ("a column", "a body", "an entry taken out", "the order", "the delivery book rewritten")[number % 5]
        paths = copy([case.journal, case.delivery], tmp_path / "tampered")
        deed = IN_BOOKS[name](Case(paths[0], paths[1], case.public, case.taken), random.Random(number))
        with closing(sqlite3.connect(paths[0])) as book:
            left = book.execute("SELECT count(*) FROM body").fetchone()[0]
        with closing(sqlite3.connect(case.journal)) as book:
            gone = book.execute("SELECT count(*) FROM body").fetchone()[0] - left
        if deed is not None and not (name == "a body" and gone):  # rule 6 is not in it
            assert by_hand(*paths).returncode == 1, (name, number)
            found.add(name)
    assert len(found) == 5
