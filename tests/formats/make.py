"""
Books as an earlier version wrote them, by that version's own programs: `python tests/formats/make.py NAME COMMIT`.

Run once for each form that was given out, from a checkout with its history; the result is kept in this directory. In
each pair: two sales delivered, one refused, a gap, a bad file, and two sales that came while Omneo was down.
"""

import gzip
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
HOME = HERE.parents[1]
RUN = "from {}.cli import main; main()"


def sale(number: int, **fields: object) -> dict[str, object]:
    return {
        "kind": "sale",
        "external_id": f"S-{number}",
        "terminal": "T1",
        "sequence": number,
        "total": 12.5,
        "transacted_at": "2025-06-15 14:32:00",
        "timezone": "Australia/Melbourne",
        "items": [{"name": "Belt", "quantity": 1, "price_sell": 12.5}],
    } | fields


def main() -> None:
    name, commit = sys.argv[1:]
    with TemporaryDirectory() as scratch:
        place = Path(scratch)
        tree = place / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", tree, commit], cwd=HOME, check=True, capture_output=True)
        try:
            make(place, tree, name)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=HOME, check=True)


def make(place: Path, tree: Path, name: str) -> None:
    db, spool = place / "journal.db", place / "spool"

    def run(package: str, *words: str | Path, fails: bool = False) -> None:
        command = [sys.executable, "-c", RUN.format(package), *words]
        done = subprocess.run(
            command, cwd=tree, env={"PYTHONPATH": str(tree)}, capture_output=True, text=True, check=False
        )
        assert fails or done.returncode == 0, done.stderr

    def drop(*documents: dict[str, object]) -> None:
        for document in documents:
            (spool / f"{document['external_id']}.json").write_text(json.dumps(document), "utf-8")
            time.sleep(0.01)
        run("journal", "ingest", "--once", "--db", db, "--spool", spool)

    run("journal", "init", "--db", db, "--spool", spool)
    drop(sale(1), sale(2), sale(4, profile_id="nobody@example.com", profile_id_handle="email"), sale(5, total="much"))
    sandbox = subprocess.Popen(
        [sys.executable, "-c", RUN.format("forwarder"), "sandbox", "--port", "0"],
        env={"PYTHONPATH": str(HOME), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert sandbox.stdout is not None
        url = sandbox.stdout.readline().split()[-1]
        (place / "token").write_text("sandbox")
        forward = ("forwarder", "run", "--once", "--db", db, "--url", url, "--token-file", place / "token")
        run(*forward)
        body = json.dumps({"mode": "refuse"}).encode()
        urllib.request.urlopen(url.replace("/api/v3", "/_sandbox/faults"), body, timeout=5).close()
        drop(sale(6), sale(7))
        run(*forward, fails=True)
    finally:
        sandbox.terminate()
        sandbox.wait()
    for book in ("journal", "delivery"):
        data = (place / f"{book}.db").read_bytes()
        (HERE / f"{name}.{book}.db.gz").write_bytes(gzip.compress(data, mtime=0))


if __name__ == "__main__":
    main()
