"""Words for the till: what becomes of each document, in a file that is whole, and that never keeps a sale out."""

import json
import os
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redeeming import Counter
from standin import ENVIRONMENT, Omneo, Store, command, execute, sale
from test_docs import flags, of
from tills import Shop, wait_until
from tills import sale as file

from forwarder.replay import step
from journal import log, outcomes
from journal.outcomes import ADVICE, Outcomes, name_of


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "outcomes"
    directory.mkdir()
    return directory


def teller(store: Any, place: Path, days: float = 7, said: list[Any] | None = None) -> Outcomes:
    def say(event: str, **facts: Any) -> None:
        if said is not None:
            said.append((event, facts))

    return Outcomes(store.db, store.delivery, place, days=days, say=say)


def followed(words: Outcomes) -> None:
    while words.follow():
        pass


def told(place: Path, external_id: str) -> dict[str, Any]:
    return json.loads((place / name_of(external_id)).read_text())


def test_a_sale_is_journaled_then_delivered_with_omneos_id(
    store: Store, omneo: Omneo, token: Path, place: Path
) -> None:
    words = teller(store, place)
    followed(words)
    store.take(sale("S-1"))
    followed(words)
    first = told(place, "S-1")
    assert (first["state"], first["seq"], first["kind"], first["omneo_id"]) == ("waiting", 2, "sale", None)
    with store.forwarding(omneo.url, token=token) as run:
        step(run)
    followed(words)
    assert told(place, "S-1") == first | {
        "state": "delivered",
        "omneo_id": store.show("S-1")["omneo_id"],
        "settled_at": store.show("S-1")["settled_at"],
    }
    words.close()


def test_a_refused_sale_says_why_and_what_to_do(store: Store, omneo: Omneo, token: Path, place: Path) -> None:
    words = teller(store, place)
    followed(words)
    with store.forwarding(omneo.url, token=token) as run:
        store.take(sale("S-1", profile_id="nobody"))
        step(run)
    followed(words)
    found = told(place, "S-1")
    assert found["state"] == "refused"
    assert found["reason"]
    assert [(flag["flag"], flag["open"]) for flag in found["flags"]] == [("sale_refused", True)]
    assert found["flags"][0]["what_to_do"] == ADVICE["sale_refused"]
    book = log.open_book(store.db, "journal", write=True)
    flag = f"D{run_flags(store)[0][0]}"
    log.append(book, [log.Entry("resolution", 2, None, {"flag": flag, "by": "x", "note": "y"})])
    book.close()
    followed(words)
    assert [flag["open"] for flag in told(place, "S-1")["flags"]] == [False]
    words.close()


def run_flags(store: Store) -> list[tuple[int]]:
    with closing(log.open_book(store.delivery, "delivery", write=False)) as db:
        return db.execute("SELECT seq FROM log WHERE kind = 'flag'").fetchall()


def test_every_flag_has_its_advice() -> None:
    assert ADVICE.keys() == of(flags, "journal", "forwarder/")


def test_nothing_personal_is_in_them(counter: Counter, place: Path) -> None:
    store = counter.store
    words = teller(store, place)
    followed(words)
    store.take(counter.redemption("R-1", profile_id="jane@example.com", profile_id_handle="email"))
    store.take(sale("S-1", profile_id="jane@example.com", profile_id_handle="email", meta={"name": "Jane Doe"}))
    followed(words)
    said = "".join(path.read_text() for path in place.iterdir())
    assert "jane" not in said.lower()
    assert {path.name for path in place.iterdir()} >= {name_of("R-1"), name_of("S-1")}
    words.close()


@pytest.mark.parametrize(
    "external_id",
    ["..", ".hidden", "a/b/../c", "50%", "x" * 128, "é" * 128, "𝄞" * 128, "CON:1", "a b(1)", "-rf", "Ünïcode\\x"],
)
def test_a_name_is_safe_and_no_two_are_alike(shop: Shop, place: Path, external_id: str) -> None:
    name = name_of(external_id)
    assert "/" not in name
    assert name[0] != "."
    assert len(os.fsencode(f".{name}.new")) <= 255
    assert name != name_of(external_id[:-1] + "2")
    words = teller(shop, place)
    followed(words)
    shop.drop("a.json", file(external_id))
    shop.sweep()
    followed(words)
    assert told(place, external_id)["external_id"] == external_id
    words.close()


def test_what_is_rejected_has_its_words_elsewhere(shop: Shop, place: Path) -> None:
    words = teller(shop, place)
    followed(words)
    shop.drop("a.json", file("S-1"))
    shop.drop("b.json", file("S-1", total=13))
    shop.drop("c.json", b"[]")
    shop.once()
    followed(words)
    assert [path.name for path in place.iterdir() if path.name[0] != "."] == [name_of("S-1")]
    assert told(place, "S-1")["state"] == "waiting"
    words.close()


def test_a_start_goes_on_where_the_last_run_was_and_a_little_before(shop: Shop, place: Path) -> None:
    shop.drop("old.json", file("S-old"))
    shop.sweep()
    first = teller(shop, place)
    followed(first)  # begins here
    first.close()
    shop.drop("a.json", file("S-1"))
    shop.sweep()
    (place / name_of("S-0")).write_text("torn")
    second = teller(shop, place)
    followed(second)
    second.close()
    assert told(place, "S-1")["state"] == "waiting"
    assert told(place, "S-old")["state"] == "waiting"


def test_a_backlog_is_told_in_pieces(shop: Shop, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "PIECE", 10)
    words = teller(shop, place)
    followed(words)
    for number in range(35):
        shop.drop(f"{number}.json", file(f"S-{number}"))
    shop.sweep()
    assert words.follow()
    assert 0 < len(list(place.glob("*.json"))) <= 10
    followed(words)
    assert len(list(place.glob("*.json"))) == 35
    words.close()


def test_old_files_go_and_only_ours(shop: Shop, place: Path) -> None:
    mine, other = place / name_of("S-1"), place / "sale.json"
    for path in (mine, other, place / name_of("S-2")):
        path.write_text("{}")
    for path in (mine, other):
        os.utime(path, (time.time() - 8 * 86400,) * 2)
    words = teller(shop, place)
    followed(words)
    words.close()
    assert {path.name for path in place.glob("*.json")} == {"sale.json", name_of("S-2")}


def test_a_directory_that_is_gone_is_said_once_and_taken_up_again(shop: Shop, place: Path) -> None:
    said: list[Any] = []
    words, stop = teller(shop, place, said=said), threading.Event()
    place.rmdir()
    thread = threading.Thread(target=words.run_until, args=(stop,))
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(outcomes, "LOOK_S", 0.02)
        thread.start()
        wait_until(lambda: said)
        shop.drop("a.json", file("S-1"))
        shop.sweep()  # a sale is taken whatever becomes of the words
        time.sleep(0.2)
        place.mkdir()
        shop.drop("b.json", file("S-2"))
        shop.sweep()
        wait_until(lambda: list(place.glob("*.json")) or list(place.glob(".position")))
        stop.set()
        thread.join()
    assert [event for event, _ in said] == ["no_outcomes"]


def test_the_program_tells_the_till_and_takes_no_directory_in_the_spool(
    store: Store, omneo: Omneo, token: Path, place: Path
) -> None:
    here = ["--db", store.db]
    ingest = [*here, "--spool", store.spool, "--outcomes"]
    wrong = execute("journal", "ingest", *ingest, store.spool)
    assert (wrong.code, "is in the spool" in wrong.err) == (78, True)
    delivering = [*here, "--url", omneo.url, "--token-file", token]
    with (
        subprocess.Popen(
            command("journal", "ingest", *ingest, place), env=ENVIRONMENT, stderr=subprocess.DEVNULL
        ) as first,
        subprocess.Popen(
            command("forwarder", "run", *delivering), env=ENVIRONMENT, stderr=subprocess.DEVNULL
        ) as second,
    ):
        try:
            wait_until((place / ".position").exists)
            store.drop(sale("S-1"))
            wait_until(lambda: (place / name_of("S-1")).exists() and told(place, "S-1")["state"] == "delivered")
        finally:
            first.terminate()
            second.terminate()
        assert (first.wait(20), second.wait(20)) == (0, 0)
