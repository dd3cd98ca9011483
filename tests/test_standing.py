"""How things stand, in full: ages, speed, what is at stake at the tills, the disk; and what people are told of it."""

import json
import os
import pty
import signal
import subprocess
from contextlib import closing, suppress
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from standin import ENVIRONMENT, Omneo, Store, command, execute, sale
from tills import wait_until

from forwarder import standing, standing_text
from forwarder.exposure import Exposure
from forwarder.replay import step
from forwarder.sandbox.customers import JANE
from forwarder.status import status
from journal import log, reserve, story


def redemption(external_id: str, customer: str = "jane", terminal: str | None = "T1", **fields: Any) -> dict[str, Any]:
    worth = {} if "benefit_id" in fields else {"amount": Decimal(20), "strategies": ["rewards"]}
    moment = {"issued_at": "2025-06-15 14:59:40", "timezone": "Australia/Melbourne"}
    till = {"terminal": terminal} if terminal else {}
    return {"kind": "redemption", "external_id": external_id, "profile_id": customer} | till | moment | worth | fields


def reversal(external_id: str, of: str) -> dict[str, Any]:
    moment = {"issued_at": "2025-06-15 15:00:00", "timezone": "Australia/Melbourne", "reason": "declined"}
    return {"kind": "reversal", "external_id": external_id, "redemption_external_id": of} | moment


def look(store: Store, later_s: float = 0) -> dict[str, Any]:
    return standing.look(store.db, store.delivery, store.now() + timedelta(seconds=later_s))


def told(store: Store, later_s: float = 0) -> str:
    now = store.now() + timedelta(seconds=later_s)
    return "\n".join(standing_text.lines(standing.look(store.db, store.delivery, now), now))


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return log.utc_now() + self.ahead


def ages(store: Store, later_s: float = 0) -> list[int]:
    return [age["documents"] for age in look(store, later_s)["ages"]]


def test_what_waits_is_spread_by_age(store: Store) -> None:
    store.now = clock = Clock()
    for number, days_ago in enumerate((30, 3, 0.2, 0.02, 0.004)):
        clock.ahead = -timedelta(days=days_ago)
        store.take(*(sale(f"S-{number}-{each}") for each in range(number + 1)))
    clock.ahead = timedelta()
    store.take(sale("S-new"))
    assert ages(store) == [1, 5, 4, 3, 2, 1]
    assert look(store)["status"] == status(store.db, store.delivery, store.now()) | {
        "oldest_waiting_s": pytest.approx(30 * 86400, abs=60)
    }


def test_the_ages_are_of_what_still_waits_and_add_up(store: Store, omneo: Omneo, token: Path) -> None:
    """Settled ones in between don't count; one that was released waits again, from before the position on too."""
    store.now = clock = Clock()
    clock.ahead = -timedelta(days=2)
    store.take(sale("S-1"), sale("S-2"), sale("S-3"))
    omneo.fault("status", code=500, contains="S-2", count=1)
    with store.forwarding(omneo.url, token=token, poison_after=1, poison_for_s=0) as run:
        for _ in range(3):
            step(run)
        run.books.take_turn(run.lane.settled_upto, run.books.turn.upto)
    clock.ahead = timedelta()
    store.take(sale("S-4"))
    assert ages(store) == [1, 0, 0, 0, 0, 0]
    book = log.open_book(store.delivery, "delivery", write=True)
    log.append(book, [log.Entry("released", 3, "S-2")])
    book.close()
    assert ages(store) == [1, 0, 0, 0, 1, 0]
    assert sum(ages(store)) == look(store)["status"]["waiting"] == 2


@pytest.mark.parametrize("days", [-20000, 20000])
def test_the_ages_add_up_whatever_the_clock_does(store: Store, days: int) -> None:
    store.now = clock = Clock()
    for number in range(5):
        clock.ahead = timedelta(days=days) if number % 2 else timedelta()
        store.take(sale(f"S-{number}"))
    for ahead in (timedelta(), timedelta(days=days)):
        clock.ahead = ahead
        assert sum(ages(store)) == 5
        assert "5 waiting" in told(store)


def test_a_catch_up_has_a_speed_and_an_end(store: Store, omneo: Omneo, token: Path) -> None:
    store.now = clock = Clock()
    clock.ahead = -timedelta(hours=5)
    store.take(*(sale(f"S-{number}") for number in range(100)))
    clock.ahead = -timedelta(seconds=60)
    with store.forwarding(omneo.url, token=token) as run:
        for _ in range(60):
            step(run)
    clock.ahead = timedelta()
    speed = look(store)["speed"]
    assert speed["a_minute"] == pytest.approx(60, rel=0.1)
    assert speed["came_a_minute"] == 0
    assert speed["done_in_s"] == pytest.approx(40, rel=0.1)
    assert "done in about" in told(store)
    assert look(store, later_s=600)["speed"]["a_minute"] == 0  # it stands


def test_nothing_is_promised_while_more_comes_than_goes(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(*(sale(f"S-{number}") for number in range(100)))
    with store.forwarding(omneo.url, token=token) as run:
        for _ in range(3):
            step(run)
    assert look(store, later_s=200)["speed"]["done_in_s"] is None


def test_since_when_the_line_is_down_is_told_though_its_reason_changed(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"))
    with store.forwarding(omneo.url, token=token) as run:
        for mode in ("throttle", "portal"):
            omneo.fault(mode, count=1)
            step(run)
            run.line.settle()
    with story.both_books(store.db, store.delivery) as books:
        first, _ = books.execute("SELECT coalesce(since, at), link FROM line ORDER BY seq LIMIT 1").fetchone()
    assert look(store)["since"] == first
    assert "down since" in told(store)


# -- what is at stake -----------------------------------------------------------------------------------------------


def test_what_was_granted_and_is_not_at_omneo_is_summed(store: Store) -> None:
    store.take(
        redemption("R-1"),
        redemption("R-2", "kim", amount=Decimal("5.50")),
        redemption("R-3", "lee", benefit_id="b-1"),
        redemption("R-4", "max"),
        reversal("V-4", of="R-4"),
        sale("S-1"),
    )
    found = look(store)["exposure"]
    assert (found["redemptions"], found["held"], found["without_value"]) == (3, 0, 1)
    assert found["value"] == {"": Decimal("25.50")}
    assert found["two_tills"] == []
    assert "3 redemptions, 25.50, 1 without a value" in told(store)


def test_one_customer_at_two_tills_is_told_by_documents_never_by_name(store: Store) -> None:
    store.take(
        redemption("R-1", "Jane@example.com", "T1", profile_id_handle="email"),
        redemption("R-2", "jane@example.com", "T2", profile_id_handle="email"),
        redemption("R-3", "kim", "T1"),
        redemption("R-4", "kim", "T1"),  # two of one till: it knows what it does
        redemption("R-5", "lee", None),
        redemption("R-6", "lee", None),  # nobody knows which tills
    )
    found = look(store)["exposure"]
    assert [same["redemptions"] for same in found["two_tills"]] == [["R-1", "R-2"], ["R-5", "R-6"]]
    assert found["two_tills"][0]["value"] == {"": Decimal(40)}
    assert "one customer at two tills: R-1, R-2, 40.00" in told(store)
    assert "example.com" not in told(store) + json.dumps(found, default=str)


def test_exposure_follows_the_books_and_is_what_a_fresh_look_finds(store: Store, omneo: Omneo, token: Path) -> None:
    """The one that is kept reads only what is new; it must never come to something else than one that reads all."""
    kept = Exposure()

    def both() -> dict[str, Any]:
        held = status(store.db, store.delivery, store.now())["held"]
        with story.both_books(store.db, store.delivery) as books:
            found = kept.look(books.conn, 0, held)
            assert found == Exposure().look(books.conn, standing.last_turn(books.conn, "delivery").settled, held)
        return found

    omneo.fault("status", code=500, contains="R-2", count=1)
    with store.forwarding(omneo.url, token=token, poison_after=1, poison_for_s=0) as run:
        store.take(redemption("R-1", "nobody-1"), redemption("R-2", JANE), sale("S-1"))
        assert both()["redemptions"] == 2
        step(run)  # refused, there is no such customer
        run.books.flush()
        assert both()["redemptions"] == 1
        step(run)  # in doubt
        step(run)
        step(run)
        run.books.take_turn(run.lane.settled_upto, run.books.turn.upto)
        assert (both()["redemptions"], both()["held"]) == (1, 1)
    book = log.open_book(store.delivery, "delivery", write=True)
    for kind, expected in (("released", (1, 0)), ("held", (1, 1)), ("abandoned", (0, 0))):
        log.append(book, [log.Entry(kind, 3, "R-2")])
        assert (both()["redemptions"], both()["held"]) == expected
    book.close()


# -- the disk -------------------------------------------------------------------------------------------------------


def test_the_disk_lasts_for_as_long_as_it_grows_today(store: Store) -> None:
    assert look(store)["disk"]["days_left"] is not None  # it was created today
    store.now = clock = Clock()
    clock.ahead = timedelta(days=2)
    assert look(store)["disk"]["days_left"] is None
    store.take(*(sale(f"S-{number}") for number in range(500)))
    disk = look(store)["disk"]
    there = os.statvfs(store.root)
    assert disk["free_bytes"] == pytest.approx(there.f_bavail * there.f_frsize, rel=0.05)
    assert disk["grows_bytes_a_day"] == pytest.approx(store.db.stat().st_size, rel=0.05)
    assert disk["days_left"] == pytest.approx(disk["free_bytes"] / disk["grows_bytes_a_day"], rel=0.05)


@pytest.mark.parametrize(("over", "days"), [(2**20, True), (-(2**20), False)])
def test_the_disk_lasts_until_intake_stops(
    store: Store, monkeypatch: pytest.MonkeyPatch, over: int, days: bool
) -> None:
    store.take(*(sale(f"S-{number}") for number in range(20)))
    free = (reserve.BYTES + over) // 4096
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 10**9, free, free, 1, 1, 1, 0, 255)))
    disk = look(store)["disk"]
    assert disk["days_left"] == pytest.approx(over / disk["grows_bytes_a_day"] if days else 0, abs=0.1)
    assert disk["nearly_full"] is not days
    words = "68 MB free on disk, enough for" if days else "66 MB free on disk."
    assert words in told(store)


# -- what hangs -----------------------------------------------------------------------------------------------------


def test_a_canary_that_does_not_come_back_is_told(store: Store, omneo: Omneo, token: Path) -> None:
    with store.forwarding(omneo.url, token=token) as run:
        assert look(store)["whole_way"] == {"at": None, "canary_out_s": None}
        with closing(log.open_book(store.db, "journal", write=True)) as book:
            log.append(book, [log.Entry("canary", facts={"canary": 1})])
            run.chores.canary.answer()
            assert look(store)["whole_way"]["at"] is not None
            assert look(store)["whole_way"]["canary_out_s"] is None
            log.append(book, [log.Entry("canary", facts={"canary": number}) for number in (2, 3)])
    assert look(store, later_s=60)["whole_way"]["canary_out_s"] == pytest.approx(60, abs=30)
    assert "the forwarder does not follow" not in told(store, later_s=60)
    assert "A canary has been out for 10 min" in told(store, later_s=620)
    assert "went the whole way 10 min" in told(store, later_s=620)


def test_which_program_runs_is_known_without_touching_its_lock(store: Store) -> None:
    assert look(store)["at_work"] == {"ingest": False, "forwarder": False}
    with log.only_instance(store.db, "omneo-journal ingest"):
        assert look(store)["at_work"] == {"ingest": True, "forwarder": False}
        assert "omneo-journal ingest is not running" not in told(store)
    assert look(store)["at_work"]["ingest"] is False


def test_a_clock_that_was_set_is_told_for_a_week(store: Store) -> None:
    with closing(log.open_book(store.db, "journal", write=True)) as book:
        log.append(book, [log.Entry("clock", facts={"was": "1970-01-01T00:00:00.000Z", "seconds": 1e9})])
    assert "clock was set at" in told(store)
    assert "clock was set at" not in told(store, later_s=8 * 86400)


# -- for people and machines ----------------------------------------------------------------------------------------


def test_an_empty_shop_is_told_in_a_few_calm_lines(store: Store) -> None:
    said = told(store)
    assert said.splitlines()[:2] == ["Nothing has been sent to Omneo yet.", "Nothing waits."]
    assert "No open flags." in said
    assert "omneo-journal ingest is not running" in said
    assert len(said.splitlines()) <= 7


@pytest.mark.parametrize("link", ["up", "down", "paused", "unknown"])
def test_the_line_is_told_first(store: Store, link: str) -> None:
    found = look(store)
    found["status"] |= {"link": link, "reason": "because" if link in {"down", "paused"} else ""}
    first = standing_text.lines(found, store.now())[0]
    assert link in first or link == "unknown"
    assert ("because" in first) == (link in {"down", "paused"})


def test_machines_get_the_contracts_keys_and_everything_only_when_they_ask(store: Store) -> None:
    store.take(sale("S-1"), redemption("R-1"))
    brief = execute("forwarder", "status", "--db", store.db, "--json").json
    full = execute("forwarder", "status", "--db", store.db, "--json", "--full").json
    assert full["status"].keys() == brief.keys()
    assert full["exposure"]["value"] == {"": 20}
    assert full["flags"] == {}
    assert sum(age["documents"] for age in full["ages"]) == 2


def test_watching_shows_what_comes_until_it_is_stopped(store: Store) -> None:
    """In a real terminal: it redraws, and leaves the cursor as it found it."""
    screen, inside = pty.openpty()
    watching = command("forwarder", "status", "--db", store.db, "--watch")
    shown = b""
    with subprocess.Popen(watching, env=ENVIRONMENT | {"TERM": "xterm"}, stdout=inside, stderr=inside) as process:
        os.close(inside)
        os.set_blocking(screen, False)

        def sees(words: bytes) -> bool:
            nonlocal shown
            with suppress(BlockingIOError):
                shown += os.read(screen, 65536)
            return words in shown

        try:
            wait_until(lambda: sees(b"Nothing waits."))
            store.take(sale("S-1"))
            wait_until(lambda: sees(b"1 waiting"))
            process.send_signal(signal.SIGINT)
            wait_until(lambda: sees(b"\x1b[?25h"))
            assert process.wait(20) == 130
        finally:
            process.kill()
    os.close(screen)
    assert b"Traceback" not in shown


def test_files_in_the_spool_are_counted_and_a_spool_that_is_not_there_is_named(store: Store, tmp_path: Path) -> None:
    """Once: nothing waited and no flag was open, in a shop whose spool was gone."""
    spool = tmp_path / "tills"
    for name in ("a.json", "till-2/b.json", "till-2/.c.json", "rejected/d.json", "e.txt"):
        (spool / name).parent.mkdir(parents=True, exist_ok=True)
        (spool / name).write_text("{}")

    def said(given: Path | None) -> str:
        now = store.now()
        return "\n".join(standing_text.lines(standing.look(store.db, store.delivery, now, given), now))

    assert "2 files in the spool, not in the journal yet." in said(spool)
    assert "! The spool is not there" in said(tmp_path / "nowhere")
    assert "spool" not in said(None)


def test_watching_into_a_file_is_plain_text(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    watching = command("forwarder", "status", "--db", store.db, "--watch")
    with (
        out.open("wb") as file,
        subprocess.Popen(watching, env=ENVIRONMENT, stdout=file, stderr=file) as process,
    ):
        try:
            wait_until(lambda: b"waiting" in out.read_bytes())
            process.send_signal(signal.SIGINT)
            process.wait(20)
        finally:
            process.kill()
    assert b"\x1b" not in out.read_bytes()
