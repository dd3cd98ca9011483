"""Evidence and proofs: deterministic, whole, shut against whoever edits them, and checked without any code of ours."""

import hashlib
import json
import random
import subprocess
import sys
import zipfile
from contextlib import closing
from datetime import date
from importlib.resources import files
from pathlib import Path

import pytest

from journal import evidence, log, proof, standalone
from tests.tamper import papers
from tests.tamper.judge import judge
from tests.tamper.shapes import Case, Maker, rich, rows


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A journal of several days, with a key and checkpoints."""
    return rich(random.Random(5), tmp_path_factory.mktemp("case"))


def days(case: Case) -> list[str]:
    return sorted({row[1][:10] for row in rows(case.journal)})


def write(case: Case, out: Path, first: str, last: str) -> Path:
    evidence.write(case.journal, case.delivery, date.fromisoformat(first), date.fromisoformat(last), out)
    return out


def test_the_same_books_give_the_same_bytes(case: Case, tmp_path: Path) -> None:
    first, last = days(case)[0], days(case)[-1]
    one, two = write(case, tmp_path / "1.zip", first, last), write(case, tmp_path / "2.zip", first, last)
    assert one.read_bytes() == two.read_bytes()
    with pytest.raises(log.Unusable, match="already"):
        write(case, one, first, last)


def test_it_holds_the_entries_of_its_days_and_one_on_either_side(case: Case, tmp_path: Path) -> None:
    day = days(case)[1]
    packed = papers.unpack(write(case, tmp_path / "e.zip", day, day))
    there = [json.loads(line) for line in packed["journal.jsonl"].splitlines()]
    manifest = json.loads(packed["manifest.json"])
    within = [row for row in rows(case.journal) if manifest["low"] <= row[1] < manifest["high"]]
    assert {row[0] for row in within} <= {each["seq"] for each in there}
    assert [each["seq"] for each in there] == list(range(within[0][0] - 1, within[-1][0] + 2))
    assert there[0]["body"] is None
    assert all(not (manifest["low"] <= each["at"] < manifest["high"]) for each in (there[0], there[-1]))
    with closing(log.open_book(case.journal, "journal", write=False)) as db:
        bodies = dict(db.execute("SELECT seq, bytes FROM body").fetchall())
    for each in there[1:-1]:
        if each["seq"] in bodies and manifest["low"] <= each["at"] < manifest["high"]:
            assert (each["body"] or "").encode() == bodies[each["seq"]] or "base64" in each


def test_it_has_the_schemas_and_the_verifier(case: Case, tmp_path: Path) -> None:
    packed = papers.unpack(write(case, tmp_path / "e.zip", days(case)[0], days(case)[0]))
    assert packed["verify.py"].decode() == (files("journal") / "standalone.py").read_text("utf-8")
    assert {"README.txt", "schema.sql", "schemas/sale.schema.json", "SHA256SUMS"} <= packed.keys()
    assert days(case)[0] in packed["README.txt"].decode()


def test_days_without_entries_have_no_evidence(case: Case, tmp_path: Path) -> None:
    with pytest.raises(log.NoSuch):
        write(case, tmp_path / "e.zip", "1999-01-01", "1999-01-02")
    assert list(tmp_path.iterdir()) == []


def test_the_verifier_runs_unpacked_with_nothing_of_ours(case: Case, tmp_path: Path) -> None:
    """-I: no environment, no user site, no directory of ours; -S: no installed package either."""
    pack = write(case, tmp_path / "e.zip", days(case)[0], days(case)[-1])
    with zipfile.ZipFile(pack) as opened:
        opened.extractall(tmp_path / "unpacked")
    program = [sys.executable, "-I", "-S", str(tmp_path / "unpacked" / "verify.py")]
    for arguments in ([], [str(pack)], [str(case.journal), str(case.delivery)], ["--key", case.public]):
        done = subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Nothing was altered."), done.stdout
    lines = (tmp_path / "unpacked" / "journal.jsonl").read_text("utf-8").replace("139.65", "139.66", 1)
    (tmp_path / "unpacked" / "journal.jsonl").write_text(lines, "utf-8")
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "the digest does not fit" in done.stdout or "the body was altered" in done.stdout


def test_a_redaction_that_came_later_is_proven(tmp_path: Path) -> None:
    maker = Maker(random.Random(3), tmp_path / "shop")
    maker.documents()
    day = maker.time.date().isoformat()
    for _ in range(4):
        maker.time = maker.time.replace(day=maker.time.day + 1)
        maker.start()
    maker.redact()
    maker.sign()
    pack = write(maker.case, tmp_path / "e.zip", day, day)
    assert b"redaction" in papers.unpack(pack)["later.jsonl"]
    found = judge([pack], (), maker.case.public)
    assert (found.ours, found.theirs) == (set(), set())
    packed = papers.unpack(pack)
    packed["later.jsonl"] = b""
    papers.pack(pack, packed)
    found = judge([pack])
    assert found.ours
    assert found.agree


def test_a_proof_shows_one_document_and_no_other(case: Case, tmp_path: Path) -> None:
    with closing(log.open_book(case.journal, "journal", write=False)) as db:
        seq, name = db.execute("SELECT seq, external_id FROM log WHERE kind = 'sale' ORDER BY seq").fetchone()
        text, size = proof.make(db, name, None)
        with pytest.raises(log.NoSuch, match="no document"):
            proof.make(db, "nobody", None)
        with pytest.raises(log.NoSuch, match="No signed checkpoint"):
            proof.make(db, str(log.head(db)[0]), None)
    assert text.startswith("c2sp.org/tlog-proof@v1\nextra ")
    assert f"\nindex {seq - 1}\n" in text
    assert len(text.split("\n\n")[0].splitlines()) <= 3 + size.bit_length()
    path = tmp_path / "a.tlog-proof"
    path.write_text(text, "utf-8")
    found = judge([path], (), case.public)
    assert (found.ours, found.theirs) == (set(), set())


def test_the_verifier_knows_the_tables(tmp_path: Path) -> None:
    """The one constant in it that has to follow schema.sql."""
    log.create(tmp_path / "journal.db", "journal", {"journal": "x"})
    with closing(log.open_book(tmp_path / "journal.db", "journal", write=False)) as db:
        schema = sorted(db.execute(standalone.SCHEMA).fetchall(), key=str)
    assert hashlib.sha256(repr(schema).encode()).hexdigest() == standalone.RULES[0]


@pytest.mark.parametrize("raw", [b"", b"x", b"PK\x03\x04", b"c2sp.org/tlog-proof@v1\n", b"c2sp.org/tlog-proof@v1\n\n"])
def test_what_is_neither_is_found(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(raw)
    found = judge([path])
    assert found.ours == {("journal", 0)}
    assert found.theirs
