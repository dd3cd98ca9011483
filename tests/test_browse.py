import asyncio
import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

import httpx
import pytest
from standin import ENVIRONMENT, Store, command, execute, sale

from journal import browse, log, story
from journal.log import Entry

QUESTIONS = 10


@pytest.fixture
def sold(store: Store) -> Store:
    """A few documents, a conflict, a held one that somebody released."""
    store.take(*(sale(f"S-{n}", terminal="T", sequence=n, currency="AUD") for n in (1, 2, 5)))
    store.take(sale("S-1", total=1))
    log.create(store.delivery, "delivery", {})
    with closing(log.open_book(store.delivery, "delivery", write=True)) as db:
        log.append(db, [Entry("delivered", 2, "S-1", {"omneo_id": 7}), Entry("held", 3, "S-2", {"reason": "why not"})])
        log.append(db, [Entry("released", 3, "S-2", {"by": "Ana", "note": "it is right"})])
    return store


@contextmanager
def browsing(store: Store) -> Iterator[httpx.Client]:
    """The command, started for real, and a client that has followed the address that it printed."""
    args = command("journal", "browse", "--db", store.db, "--port", 0)
    with Popen(args, stdout=PIPE, stderr=DEVNULL, text=True, env=ENVIRONMENT) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            origin, _, _ = address.partition("/?")
            with httpx.Client(base_url=origin, timeout=60) as client:
                assert client.get(address, follow_redirects=True).status_code == 200
                yield client
        finally:
            process.terminate()
            assert process.wait(timeout=10) == 0, "being told to stop is no failure"


def schema(store: Store) -> dict[str, set[str]]:
    """Tables and views that can be looked at, with their columns."""
    with closing(story.connect(store.db, store.delivery)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_temp_master WHERE type = 'view'")]
        return {name: {row[1] for row in db.execute(f"PRAGMA table_info({name})")} for name in [*names, "log", "body"]}


@pytest.fixture(scope="module")
def about() -> dict[str, Any]:
    import tomllib

    return tomllib.loads(Path(browse.__file__).with_name("browse.toml").read_text("utf-8"))["databases"]["books"]


def test_every_table_view_and_column_is_explained(sold: Store, about: dict[str, Any]) -> None:
    explained = {name: set(table["columns"]) for name, table in about["tables"].items()}
    assert explained == schema(sold)
    for name, table in about["tables"].items():
        assert table["description"]
        assert {*table.get("facets", []), table.get("sort_desc", "seq")} <= explained[name] | {"seq"}


def test_each_page_and_question_is_answered(sold: Store, about: dict[str, Any]) -> None:
    with browsing(sold) as client:
        for name in about["tables"]:
            page = client.get(f"/books/{name}")
            assert page.status_code == 200, name
            assert all(column in page.text for column in about["tables"][name]["columns"])
        assert len(about["queries"]) == QUESTIONS
        for name in about["queries"]:
            found = client.get(f"/books/{name}.json", params={"external_id": "S-1", "_shape": "array"})
            assert found.status_code == 200, found.text
        assert "What has Omneo not got" in client.get("/books").text
        facets = client.get("/books/documents.json", params={"_facet": "state"}).json()["facet_results"]
        assert {each["value"] for each in facets["state"]["results"]} == {"delivered", "waiting", "invalid"}


def test_the_questions_find_what_is_there(sold: Store) -> None:
    with browsing(sold) as client:

        def asked(name: str, **params: str) -> list[dict[str, Any]]:
            return client.get(f"/books/{name}.json", params=params | {"_shape": "array"}).json()

        (takings,) = asked("q01_takings_by_day")
        assert (takings["sales"], takings["sum"], takings["sum_at_omneo"]) == (3, "59.85", "19.95")
        assert [row["kind"] for row in asked("q02_one_document", external_id="S-2")] == ["sale", "held", "released"]
        assert [row["external_id"] for row in asked("q03_not_at_omneo")] == ["S-2", "S-5"]
        assert [(row["first_missing"], row["last_missing"]) for row in asked("q04_missing_numbers")] == [(3, 4)]
        assert [(row["external_id"], row["accepted_as"]) for row in asked("q05_set_aside")] == [("S-1", 2)]
        assert [(row["decided_by"], row["note"]) for row in asked("q08_decisions")] == [("Ana", "it is right")]
        assert {row["flag"] for row in asked("q09_open_flags")} == {"conflict", "sequence_gap"}
        assert asked("q10_bodies_that_are_gone") == []


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM log",
        "INSERT INTO body VALUES (1, 2, 3)",
        "WITH x AS (SELECT 1) DELETE FROM log",
        "PRAGMA query_only = 0",
        "ATTACH 'other.db' AS other",
        "SELECT 1; DROP TABLE log",
    ],
)
def test_nothing_can_be_changed(sold: Store, sql: str) -> None:
    before = [sha256(path.read_bytes()).digest() for path in (sold.db, sold.delivery)]
    with browsing(sold) as client:
        assert client.get("/books.json", params={"sql": sql}).status_code == 400
        assert client.post("/books", data={"sql": sql}).status_code == 405
    assert [sha256(path.read_bytes()).digest() for path in (sold.db, sold.delivery)] == before
    assert sorted(path.name for path in sold.root.iterdir()) == ["delivery.db", "journal.db", "spool"]
    with pytest.raises(log.Unusable):
        browse.Pair(None, sold.db, sold.delivery).connect(write=True)
    with closing(browse.Pair(None, sold.db, sold.delivery).connect()) as db:
        db.execute("PRAGMA query_only = 0")  # even so
        for book in ("main", "delivery"):
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                db.execute(f"INSERT INTO {book}.log SELECT * FROM {book}.log")


def test_only_who_has_the_key_comes_in(sold: Store) -> None:
    with browsing(sold) as client:
        stranger = httpx.Client(base_url=client.base_url)
        with stranger:
            assert stranger.get("/books").status_code == 403
            assert stranger.get("/?key=wrong").status_code == 403
            assert stranger.get("/-/databases.json").status_code == 403
        assert client.get("/books", headers={"host": "rebound.example"}).status_code == 403
        assert client.get("/-/databases.json").json()[0]["is_mutable"], "never opened as immutable"


def test_both_programs_go_on_writing_while_somebody_looks(sold: Store) -> None:
    wrote, late, looked, stop = 0, 0, [0], threading.Event()
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n, log"

    def look(client: httpx.Client) -> None:
        while not stop.is_set():
            client.get("/books/documents")
            client.get("/books.json", params={"sql": slow})  # until it is cut off
            looked[0] += 1

    with browsing(sold) as client:
        lookers = [threading.Thread(target=look, args=[client]) for _ in range(2)]
        for each in lookers:
            each.start()
        with (
            closing(log.open_book(sold.db, "journal", write=True)) as journal,
            closing(log.open_book(sold.delivery, "delivery", write=True)) as delivery,
        ):
            end = time.monotonic() + 5
            while time.monotonic() < end:
                for book in (journal, delivery):
                    try:
                        log.append(book, [Entry("opened")])
                        wrote += 1
                    except log.NotNow:  # both programs try again, as they do whenever a book is held
                        late += 1
                time.sleep(0.02)
        stop.set()
        for each in lookers:
            each.join()
        count = client.get("/books.json", params={"sql": "SELECT count(*) AS n FROM log", "_shape": "array"}).json()
    print(f"{wrote} commits, {late} late, {looked[0]} looks")
    assert min(wrote, looked[0]) > 1
    assert late <= wrote / 4, "looking must not keep them from writing"
    assert count[0]["n"] > wrote / 2
    sold.verified()


def test_a_shop_without_a_delivery_book_can_be_looked_at(store: Store) -> None:
    store.take(sale("S"))
    with browsing(store) as client:
        assert client.get("/books/documents.json?_shape=array").json()[0]["state"] == "waiting"
    assert not store.delivery.exists()


def test_what_can_not_be_had_is_told(sold: Store, tmp_path: Path) -> None:
    import socket

    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        done = execute("journal", "browse", "--db", sold.db, "--port", taken.getsockname()[1])
    assert (done.code, done.out) == (78, "")
    assert "--port" in done.err
    assert execute("journal", "browse", "--db", tmp_path / "none.db").code == 78


def test_without_the_extra_its_name_is_told(sold: Store, tmp_path: Path) -> None:
    (tmp_path / "datasette.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'datasette'\", name='datasette')"
    )
    path = f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"
    done = execute("journal", "browse", "--db", sold.db, PYTHONPATH=path)
    assert (done.code, "omneo-journal[browse]" in done.err) == (78, True)


@pytest.mark.parametrize(
    ("values", "total"), [(["0.10", "0.20"], "0.30"), (["1e300", "0.01"], f"1{'0' * 300}.01"), ([None, "x"], "0")]
)
def test_sums_in_sql_are_exact(values: list[object], total: str) -> None:
    summed = browse.ExactSum()
    for value in values:
        summed.step(value)
    assert summed.finalize() == total


def test_the_door_sends_on_without_the_key() -> None:
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    door = browse.Door(None, 8080)
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/books",
        "query_string": f"a=1&key={door.key}".encode(),
        "headers": [(b"host", b"127.0.0.1:8080")],
    }
    asyncio.run(door(scope, None, send))
    headers = dict(said[0]["headers"])
    assert (said[0]["status"], headers[b"location"]) == (303, b"/books?a=1")
    assert re.search(rb"HttpOnly; SameSite=Strict", headers[b"set-cookie"])
    assert json.dumps(str(headers[b"location"])).find(door.key) == -1
