"""A box in trouble: a disk that is full, read-only or spoilt, a line that is gone for weeks. Nothing is made worse."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from standin import ENVIRONMENT, Omneo, Store, command, execute, sale
from tills import Shop, wait_until
from tills import sale as file

from forwarder import ballast, line
from forwarder.replay import step
from journal import ingest, log, reserve
from journal.verify import verify

MIB = 1024 * 1024
SIZE = 96 * MIB


@contextmanager
def mounted(place: Path, size: int) -> Iterator[Path]:
    """A file system of its own, of so many bytes."""
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", SIZE) as place:
        yield place


def free(place: Path) -> int:
    there = os.statvfs(place)
    return there.f_bavail * there.f_frsize


def fill(place: Path, leave: int) -> Path:
    """Somebody else's file takes all but so many bytes."""
    filler = place / "somebody-elses"
    with filler.open("wb") as other, suppress(OSError):
        while (more := free(place) - leave) > 0:  # others write meanwhile
            os.posix_fallocate(other.fileno(), filler.stat().st_size, min(more, max(more - 65536, 4096)))
    return filler


@contextmanager
def failing(root: Path) -> Iterator[Path]:
    """A real ext4, on a file, that a test can let fail as one does whose disk gives up: read-only from then on."""
    image, place = root / "image", root / "ext4"
    image.touch()
    os.truncate(image, 32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    place.mkdir()
    if subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


# -- nearly full ----------------------------------------------------------------------------------------------------


def test_intake_stops_while_there_is_still_room_and_goes_on_by_itself(disk: Path) -> None:
    shop = Shop(disk / "shop")
    room = reserve.Reserve(shop.db)

    def sweep() -> ingest.Swept:
        return ingest.sweep(shop.files, shop.book, say=shop.say, room=room)

    shop.drop("a.json", file("S-1"))
    assert sweep().taken == 1
    filler = fill(disk, leave=SIZE // reserve.SHARE - 100_000)
    shop.drop("b.json", file("S-2"))
    with pytest.raises(log.NotNow, match="nearly full"):
        sweep()
    assert shop.waiting() == ["b.json"]
    log.append(shop.book, [log.Entry("resolution", 2, None, {"flag": "D1", "by": "x", "note": "y" * 1000})])  # a person
    os.truncate(filler, filler.stat().st_size - 200_000)
    with pytest.raises(log.NotNow):  # a little more is not enough: it would stop and go
        sweep()
    filler.unlink()
    assert sweep().taken == 1
    assert shop.problems() == []
    shop.book.close()


def test_the_program_says_it_once_and_then_that_it_goes_on(disk: Path) -> None:
    shop = Shop(disk / "shop")
    with shop.start() as daemon:
        daemon.ready()
        filler = fill(disk, leave=MIB)
        shop.drop("a.json", file("S-1"))
        wait_until(lambda: daemon.events("not_now"))
        shop.drop("b.json", file("S-2"))
        filler.unlink()
        wait_until(lambda: len(shop.sales()) == 2)
        wait_until(lambda: daemon.events("going_on"))
        assert daemon.stop() == 0
        (event,) = daemon.events("not_now")
    assert "Files stay in the spool" in event["reason"]
    shop.book.close()


def test_of_a_large_disk_it_keeps_no_more_than_it_needs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    room = reserve.Reserve(shop.db)
    huge = os.statvfs_result((4096, 4096, 10**9, reserve.BYTES // 4096 + 1, reserve.BYTES // 4096 + 1, 1, 1, 1, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: huge)
    room()


# -- full -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordering", ["strict", "customer"])
def test_the_forwarder_drains_on_a_disk_that_somebody_else_has_filled(
    disk: Path, omneo: Omneo, token: Path, ordering: str
) -> None:
    (disk / "shop").mkdir()
    store = Store(disk / "shop")
    store.take(*(sale(f"S-{number}") for number in range(20)))
    here = ["--db", store.db, "--url", omneo.url, "--token-file", token, "--ordering", ordering, "--rate", "0"]
    omneo.fault("status", code=503)
    with subprocess.Popen(command("forwarder", "run", *here), env=ENVIRONMENT, stderr=subprocess.PIPE) as program:
        try:
            kept = store.delivery.with_name("delivery.db.ballast")
            wait_until(kept.exists)
            fill(disk, leave=0)
            omneo.mend()
            wait_until(lambda: len(omneo.sales()) == 20)
            # A commit that was under way while the disk was filled may have left room enough for one more.
            wait_until(lambda: not kept.exists() or set(store.states().values()) == {"delivered"})
            wait_until(lambda: set(store.states().values()) == {"delivered"})
        finally:
            program.terminate()
        assert program.wait(20) == 0
    store.verified()


def test_a_forwarder_that_starts_on_a_full_disk_gives_up_its_ballast_and_drains(
    disk: Path, omneo: Omneo, token: Path
) -> None:
    """The power went while the disk was full: what is in hand needs no person either."""
    (disk / "shop").mkdir()
    store = Store(disk / "shop")
    here = ["--db", store.db, "--url", omneo.url, "--token-file", token, "--rate", "0"]
    kept = store.delivery.with_name("delivery.db.ballast")
    with subprocess.Popen(command("forwarder", "run", *here), env=ENVIRONMENT, stderr=subprocess.PIPE) as program:
        try:
            wait_until(kept.exists)
        finally:
            program.kill()
    store.take(*(sale(f"S-{number}") for number in range(200)))
    fill(disk, leave=0)
    assert execute("forwarder", "run", "--once", *here).code == 0
    assert not kept.exists()
    assert len(omneo.sales()) == 200
    store.verified()


def test_with_nothing_left_to_give_up_nothing_leaves_and_all_goes_on_when_there_is_space(
    disk: Path, omneo: Omneo, token: Path
) -> None:
    (disk / "shop").mkdir()
    store = Store(disk / "shop")
    store.take(*(sale(f"S-{number}") for number in range(200)))
    here = ["--db", store.db, "--url", omneo.url, "--token-file", token, "--rate", "0"]
    assert execute("forwarder", "run", "--once", *here).code == 0
    store.take(*(sale(f"T-{number}") for number in range(200)))
    filler = fill(disk, leave=0)
    with subprocess.Popen(command("forwarder", "run", *here), env=ENVIRONMENT, stderr=subprocess.PIPE) as program:
        assert program.wait(30) == 75  # its first entry can't be written: the supervisor tries again
    assert len(omneo.sales()) == 200
    filler.unlink()
    assert execute("forwarder", "run", "--once", *here).code == 0
    assert len(omneo.sales()) == 400
    store.verified()


def test_a_ballast_is_made_only_where_there_is_plenty_and_given_up_only_when_it_helps(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ballast, "BYTES", 4 * MIB)
    kept = ballast.Ballast(disk / "delivery.db")
    kept.keep()
    assert free(disk) < SIZE - 3 * MIB
    assert not kept.give_up()  # the disk is not full
    filler = fill(disk, leave=0)
    assert kept.give_up()
    assert free(disk) >= 4 * MIB
    assert not kept.give_up()
    kept._looked_at = -100
    kept.keep()  # there is not enough for it now
    assert free(disk) >= 4 * MIB
    filler.unlink()
    kept._looked_at = -100
    kept.keep()
    assert (disk / "delivery.db.ballast").stat().st_size == 4 * MIB


# -- read-only, spoilt ----------------------------------------------------------------------------------------------


def test_a_disk_that_has_turned_read_only_keeps_the_files_and_says_so(tmp_path: Path) -> None:
    outside = tmp_path / "spool"
    outside.mkdir()

    def drop(name: str) -> None:
        (outside / ".draft").write_bytes(file(name))
        (outside / ".draft").rename(outside / f"{name}.json")

    with failing(tmp_path) as disk:
        shop = Shop(disk / "shop")
        shop.book.close()
        shop.root = tmp_path  # its logs
        with shop.start("--spool", str(outside)) as daemon:
            daemon.ready()
            drop("S-1")
            wait_until(lambda: shop.sales() == ["S-1"])
            subprocess.run(["mount", "-o", "remount,abort", disk], check=True)
            drop("S-2")
            wait_until(lambda: daemon.events("not_now") or daemon.process.poll() is not None)
            assert (outside / "S-2.json").exists()
            if daemon.process.poll() is None:
                assert daemon.stop() == 0
            assert daemon.process.returncode in {0, 75}
            assert "Traceback" not in daemon.log.read_text()
        subprocess.run(["umount", disk], check=True)
        subprocess.run(["fsck.ext4", "-fp", tmp_path / "image"], capture_output=True, check=False)
        subprocess.run(["mount", "-o", "loop", tmp_path / "image", disk], check=True)
        with shop.start("--spool", str(outside)) as daemon:
            wait_until(lambda: shop.sales() == ["S-1", "S-2"])
            assert daemon.stop() == 0
        assert shop.problems() == []


@pytest.mark.parametrize("program", ["journal", "forwarder"])
def test_a_damaged_book_ends_the_program_with_clear_words_and_the_spool_keeps_the_sales(
    store: Store, omneo: Omneo, token: Path, program: str
) -> None:
    """A page in the middle is overwritten, as a dying disk does; the book stays as it is, as evidence."""
    store.take(*(sale(f"S-{number}") for number in range(300)))
    with store.db.open("r+b") as book:
        for page in range(1, store.db.stat().st_size // 16384):
            book.seek(page * 16384)
            book.write(b"\x55" * 16384)
    before = store.db.read_bytes()
    store.drop(sale("S-new"))
    here = {
        "journal": ["ingest", "--spool", store.spool, "--db", store.db],
        "forwarder": ["run", "--db", store.db, "--url", omneo.url, "--token-file", token],
    }[program]
    done = execute(program, *here)
    assert done.code == 78
    assert "Traceback" not in done.err
    assert "verify" in done.err or "damaged" in done.err, done.err
    assert store.db.read_bytes() == before
    assert len(list(store.spool.glob("*.json"))) == 1
    assert omneo.sales() == []


# -- weeks offline --------------------------------------------------------------------------------------------------


class Weeks:
    """A monotonic clock that runs as told."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize("reasons", [("portal",), ("portal", "throttle")])
def test_three_weeks_without_a_line_are_a_few_rows_a_day_and_no_row_a_try(
    store: Store, omneo: Omneo, token: Path, monkeypatch: pytest.MonkeyPatch, reasons: tuple[str, ...]
) -> None:
    """A captive portal, or one that takes turns with a router that throttles: a try every half minute."""
    said: list[str] = []
    weeks = Weeks()
    monkeypatch.setattr(line, "time", weeks)
    store.take(sale("S-1"), {"kind": "redemption", **_redemption()})
    tries = 21 * 24 * 120 // 10  # a tenth of three weeks' tries, each ten times as far from the next
    with store.forwarding(omneo.url, token=token, say=lambda event, **_: said.append(event)) as run:
        began = log.head(run.books.delivery)[0]
        for number in range(tries):
            if number % 100 == 0:
                omneo.mend()
                omneo.fault(reasons[number // 100 % len(reasons)])
            weeks.now += 300.0
            step(run)
        rows = log.head(run.books.delivery)[0] - began
        assert rows <= 2 + len(reasons) * 21 * 24
        assert rows <= (4 if len(reasons) == 1 else tries // 100 + 4)
        assert len(said) <= rows + 2
        assert len(run.memory.doubt) + len(run.memory.unsent) <= 4
    store.verified()


def _redemption() -> dict[str, Any]:
    moment = {"issued_at": "2025-06-15 14:59:40", "timezone": "Australia/Melbourne"}
    return {"external_id": "R-1", "profile_id": "jane", "amount": 10, "strategies": ["rewards"]} | moment


def test_a_portal_at_every_boot_delivers_nothing_and_loses_nothing(store: Store, omneo: Omneo, token: Path) -> None:
    here = ["--db", store.db, "--url", omneo.url, "--token-file", token]
    for boot in range(3):
        store.take(sale(f"S-{boot}"))
        omneo.fault("portal")
        assert execute("forwarder", "run", "--once", *here).code == 75
        assert omneo.sales() == [f"S-{each}" for each in range(boot)]
        omneo.mend()
        assert execute("forwarder", "run", "--once", *here).code == 0
    assert omneo.sales() == ["S-0", "S-1", "S-2"]
    assert verify(store.db, store.delivery)["ok"]
    with closing(sqlite3.connect(store.delivery)) as book:
        assert book.execute("SELECT count(*) FROM log WHERE kind IN ('attempt', 'deferred')").fetchone() == (0,)
