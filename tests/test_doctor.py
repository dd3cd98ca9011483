"""The way to Omneo, examined: each step well and ill, and nothing is ever sent."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from standin import Done, Listen, Omneo, Store, execute, sale, says

from journal import log

STEPS = ["SQLite", "journal", "delivery book", "disk space", "disk speed"]
ASKED = ["address", "token", "name", "connection", "answer", "clock", "routes", "programs", "backlog"]


def doctor(store: Store, omneo_url: str, token: Path, *options: object) -> Done:
    given = ["--db", store.db, "--url", omneo_url, "--token-file", token, *options]
    return execute("forwarder", "doctor", *given)


def findings(store: Store, url: str, token: Path, *options: object) -> dict[str, dict[str, Any]]:
    done = doctor(store, url, token, "--json", *options)
    assert "Traceback" not in done.err, done.err
    found = {row["step"]: row for row in map(json.loads, done.out.splitlines())}
    assert done.code == (1 if any(row["ok"] is False for row in found.values()) else 0)
    return found


def ill(found: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name, row in found.items() if row["ok"] is False and name != "disk speed"]


def test_all_is_well(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(*(sale(f"S-{n}") for n in range(3)))
    before = store.db.read_bytes()
    found = findings(store, omneo.url, token)
    assert (list(found), ill(found)) == ([*STEPS, *ASKED], [])
    assert "3 documents wait" in found["backlog"]["found"]
    assert "none yet" in found["delivery book"]["found"]
    assert not store.delivery.exists()
    assert store.db.read_bytes() == before
    assert omneo.sales() == []
    assert {line.split()[0] for line in omneo.asked()} == {"GET"}
    told = doctor(store, omneo.url, token).out
    assert "✓ journal" in told


def test_it_speaks_of_the_delivery_book_once_there_is_one(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"))
    done = execute("forwarder", "run", "--once", "--db", store.db, "--url", omneo.url, "--token-file", token)
    assert done.code == 0, done.err
    found = findings(store, omneo.url, token, "--routes", "guide")
    assert ill(found) == []
    assert "it belongs to this journal" in found["delivery book"]["found"]


def test_no_journal(store: Store, omneo: Omneo, token: Path) -> None:
    store.db.unlink()
    found = findings(store, omneo.url, token)
    assert "There is no journal" in found["journal"]["found"]
    assert found["delivery book"]["ok"] is None
    assert found["answer"]["ok"] is True  # the way to Omneo is examined all the same


def test_an_altered_entry(store: Store, omneo: Omneo, token: Path) -> None:
    import sqlite3

    store.take(sale("S-1"))
    with sqlite3.connect(store.db) as book:
        book.execute("DROP TRIGGER log_no_update")
        book.execute("UPDATE log SET at = '2020-01-01T00:00:00.000Z' WHERE seq = 2")
    book.close()
    found = findings(store, omneo.url, token)
    assert "entry 2 was altered" in found["journal"]["found"]
    assert "verify" in found["journal"]["advice"]


@pytest.mark.parametrize(
    ("mode", "step", "words"),
    [
        ("portal", "answer", "captive portal"),
        ("redirect", "answer", "captive portal"),
        ("unauthorized", "answer", "credentials"),
        ("status", "answer", "503"),
        ("refuse", "connection", "lost"),
    ],
)
def test_what_stands_in_the_way(store: Store, omneo: Omneo, token: Path, mode: str, step: str, words: str) -> None:
    omneo.fault(mode)
    found = findings(store, omneo.url, token)
    assert (ill(found), words in found[step]["found"]) == ([step], True), found[step]
    assert found[step]["advice"]
    assert found["routes"]["ok"] is None
    assert found["backlog"]["ok"] is True


def test_a_scope_that_is_missing(store: Store, omneo: Omneo, token: Path) -> None:
    omneo.fault("forbidden", path="/redemptions")
    found = findings(store, omneo.url, token)
    assert ill(found) == ["routes"]
    assert "redemptions can't be looked up" in found["routes"]["found"]


def test_a_wrong_clock_is_told_and_the_rest_examined(store: Store, omneo: Omneo, token: Path) -> None:
    omneo.control("/date", skew_s=-7200)
    found = findings(store, omneo.url, token)
    assert ill(found) == ["clock"]
    assert "ahead of Omneo's" in found["clock"]["found"]
    assert found["routes"]["ok"] is True


def test_addresses_and_tokens(store: Store, omneo: Omneo, token: Path, tmp_path: Path) -> None:
    assert ill(findings(store, "http://omneo.example/api/v3", token)) == ["address"]
    assert ill(findings(store, omneo.url, tmp_path / "nowhere")) == ["token"]
    nobody = findings(store, "https://nobody.invalid/api/v3", token)
    assert ill(nobody) == ["name"]
    assert "can't be resolved" in nobody["name"]["found"]


def test_the_spool_is_looked_at_when_it_is_given(store: Store, omneo: Omneo, token: Path, tmp_path: Path) -> None:
    assert "spool" not in findings(store, omneo.url, token)
    store.drop(sale("S-1"))
    (store.spool / ".taken-7-000000.json").write_bytes(b"{}")  # in the journal, and has only to be unlinked
    found = findings(store, omneo.url, token, "--spool", store.spool)
    assert ill(found) == []
    assert "1 files wait, file events arrive" in found["spool"]["found"]
    assert sorted(path.name for path in store.spool.iterdir()) == [".taken-7-000000.json", "000001.json"]
    assert ill(findings(store, omneo.url, token, "--spool", tmp_path / "nowhere")) == ["spool"]


def test_it_knows_which_programs_run_and_that_one_does_not_follow(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"))
    found = findings(store, omneo.url, token)
    assert "omneo-forwarder run" in found["programs"]["found"]
    assert execute("forwarder", "run", "--once", "--db", store.db, "--url", omneo.url, "--token-file", token).code == 0
    book = log.open_book(store.db, "journal", write=True)
    log.append(book, [log.Entry("canary", facts={"canary": 1})], now=lambda: log.utc_now() - timedelta(minutes=9))
    book.close()
    with log.only_instance(store.db, "omneo-journal ingest"):
        found = findings(store, omneo.url, token)
        assert (ill(found), found["programs"]["found"]) == (["programs"], "omneo-forwarder run is not running")
        with log.only_instance(store.delivery, "omneo-forwarder run"):  # it runs, and hangs
            found = findings(store, omneo.url, token)
    assert ill(found) == ["programs"]
    assert "not followed the journal for 9 min" in found["programs"]["found"]


def test_a_certificate_that_is_not_good_is_told_before_the_token_leaves(
    store: Store, token: Path, listen: Listen
) -> None:
    """Something that speaks no TLS at all; the token is never shown to it."""
    speaker = listen(says(b"HTTP/1.1 200 OK\r\n\r\n"))
    found = findings(store, speaker.url.replace("http://", "https://"), token)
    assert ill(found) == ["connection"]
    assert "TLS" in found["connection"]["found"]
    assert "clock" in found["connection"]["advice"]
    assert not any(b"Bearer" in heard for heard in speaker.requests)


def test_a_damaged_book_is_a_finding_and_the_rest_is_examined(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(*(sale(f"S-{n}") for n in range(200)))
    with store.db.open("r+b") as book:
        book.seek(16384)
        book.write(b"\x55" * (store.db.stat().st_size - 16384))
    found = findings(store, omneo.url, token)
    assert "journal" in ill(found)
    assert "verify" in found["journal"]["advice"] + found["journal"]["found"]
    assert found["answer"]["ok"] is True
