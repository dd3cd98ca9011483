"""The spool: what is seen, in which order, what is left alone, and that no file is lost while it is being taken."""

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tills import Shop, broken, sale, wait_until

from journal import ingest, leaving, measure, rejected, spool
from journal.files import Contents, File
from journal.log import NotNow
from journal.rejected import cut, printable
from journal.spool import QUIET_S, Spool


def names(shop: Shop) -> list[str]:
    return [file.path for file in shop.files.ready()]


def read_all(shop: Shop, now: float = 0.0) -> list[Contents]:
    return [contents for batch in shop.files.batches(shop.files.ready(), now) for contents in batch]


def only(shop: Shop) -> File:
    (contents,) = read_all(shop)
    return contents.file


# -- what is seen


def test_whole_files_here_and_one_directory_below_are_seen_oldest_first_then_by_path(shop: Shop) -> None:
    moment = 1_750_000_000
    for name, age in {"c.json": 3, "till-2/a.json": 2, "b.json": 1, "a.json": 1}.items():
        os.utime(shop.drop(name, b"{}"), (moment - age, moment - age))
    assert names(shop) == ["c.json", "till-2/a.json", "a.json", "b.json"]


def test_names_that_say_not_yet_are_left_alone(shop: Shop) -> None:
    for name in (".hidden.json", "draft.json.tmp", "note.txt", ".json"):
        (shop.spool / name).write_bytes(b"{}")
    (shop.spool / ".hidden").mkdir()
    (shop.spool / ".hidden" / "a.json").write_bytes(b"{}")
    assert names(shop) == []
    assert shop.said == []


def test_what_is_never_followed_is_reported_once(shop: Shop) -> None:
    (shop.spool / "link.json").symlink_to(shop.root / "elsewhere")
    (shop.spool / "till-3").symlink_to(shop.root)
    os.mkfifo(shop.spool / "pipe.json")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(shop.spool / "s.json"))
        (shop.spool / "till" / "deeper").mkdir(parents=True)
        (shop.spool / "till" / "deeper" / "a.json").write_bytes(b"{}")
        assert names(shop) == names(shop) == []
    said = sorted(facts["path"] for _, facts in shop.said)
    assert said == ["link.json", "pipe.json", "s.json", "till-3", "till/deeper"]


def test_a_link_that_takes_a_files_place_is_not_followed(shop: Shop) -> None:
    shop.drop("a.json", sale())
    found = shop.files.ready()
    (shop.spool / "a.json").rename(shop.root / "secret")
    (shop.spool / "a.json").symlink_to(shop.root / "secret")
    assert list(shop.files.batches(found, 0)) == []


def test_a_directory_that_can_not_be_read_does_not_keep_the_others_waiting(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.drop("till-1/a.json", sale())
    shop.drop("till-2/b.json", sale("S-2"))
    monkeypatch.setattr(os, "scandir", failing(os.scandir, "till-1"))  # root may read everything
    assert names(shop) == ["till-2/b.json"]
    assert shop.said == [("passed_over", {"path": "till-1", "why": "can't be looked into: Permission denied"})]


def failing(real: Callable[..., Any], where: str) -> Callable[..., Any]:
    """The system call says no for paths that hold these letters."""

    def call(path: Any, *args: Any, **options: Any) -> Any:
        if where in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    return call


def test_a_burst_comes_in_bounded_batches(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2100):
        (shop.spool / f"{number}.json").write_bytes(b"{}")
    sizes = [len(batch) for batch in shop.files.batches(shop.files.ready(), 0)]
    assert sizes == [256] * 8 + [52]
    monkeypatch.setattr(spool, "BATCH_BYTES", 100)
    assert {len(batch) for batch in shop.files.batches(shop.files.ready(), 0)} == {50}


def test_a_file_over_the_limit_is_hashed_and_not_kept(shop: Shop) -> None:
    shop.files.max_bytes = 3
    shop.drop("big.json", b"four")
    shop.drop("fits.json", b"{} ")
    assert [contents.body for contents in read_all(shop)] == [b"{} "]  # the big one is watched first
    watched = shop.files.next_due(0)
    assert watched is not None
    shop.files._restless = {path: (file, since - QUIET_S) for path, (file, since) in shop.files._restless.items()}
    big = next(contents for contents in read_all(shop, 1e9) if contents.file.path == "big.json")
    assert (big.body, big.file.size) == (None, 4)
    assert big.sha256 == "04efaf080f5a3e74e1c29d1ca6a48569382cbbcd324e8d59d2b83ef21c039f00"


def still(shop: Shop) -> None:
    """All that is watched has stood still for long enough."""
    shop.files._restless = {path: (file, since - QUIET_S) for path, (file, since) in shop.files._restless.items()}


def test_nobody_waits_for_a_file_far_over_the_limit(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: it was hashed to its end before the next file was looked at, and a hole of some terabytes costs nothing."""
    giant = shop.drop("giant.json", b"", age=1000)
    os.truncate(giant, 8 * 1024**4)
    shop.drop("a.json", sale("S-1"))
    assert shop.sweep().taken == 1
    still(shop)
    for number in range(2, 5):
        shop.drop(f"{number}.json", sale(f"S-{number}"))
        began = time.process_time()
        assert shop.sweep().taken == 1
        assert time.process_time() - began < 2
        assert shop.files.next_due(time.monotonic()) == 0
    monkeypatch.setattr(measure, "PIECE_BYTES", 1000)
    body = bytes(range(256)) * 5000
    giant.write_bytes(body)
    shop.sweep()
    still(shop)
    shop.files.max_bytes = len(body) - 1
    for _ in range(len(body) // 1000 + 1):
        assert shop.entries("invalid") == []
        shop.sweep()
    (entry,) = shop.entries("invalid")
    assert sha256(body).hexdigest() in str(entry)
    assert shop.rejected() == ["giant.json", "giant.json.error.json"]


def test_what_was_measured_of_a_file_that_changed_or_went_is_forgotten(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "PIECE_BYTES", 1000)
    shop.files.max_bytes = 3
    path = shop.drop("big.json", b"x" * 1500)
    shop.sweep()
    still(shop)
    shop.sweep()
    assert shop.files.measure.going
    path.write_bytes(b"y" * 1500)
    shop.sweep()
    assert not shop.files.measure.going
    for _ in range(3):
        still(shop)
        shop.sweep()
    assert sha256(b"y" * 1500).hexdigest() in str(shop.entries("invalid"))


# -- standing still


def test_only_our_own_clock_says_that_a_file_stands_still(shop: Shop) -> None:
    path = shop.drop("a.json", b"{", age=100_000)
    file = only(shop)
    assert not shop.files.stands_still(file, 10.0)
    assert not shop.files.stands_still(file, 10.0 + QUIET_S - 0.1)
    assert shop.files.next_due(11.0) == pytest.approx(QUIET_S - 1)
    assert shop.files.stands_still(file, 10.0 + QUIET_S)
    path.write_bytes(b'{"')
    assert not shop.files.stands_still(only(shop), 20.0)


def test_a_file_that_was_just_looked_at_is_not_read_again(shop: Shop) -> None:
    shop.drop("a.json", b"{")
    shop.files.stands_still(only(shop), 10.0)
    assert read_all(shop, 11.0) == []
    assert len(read_all(shop, 12.1)) == 1


def test_a_file_that_has_gone_is_waited_for_no_more(shop: Shop) -> None:
    path = shop.drop("a.json", b"{")
    shop.files.stands_still(only(shop), 10.0)
    path.unlink()
    assert shop.files.ready() == []
    assert shop.files.next_due(10.0) is None


# -- taking


def test_a_retired_file_is_gone_and_leaves_nothing(shop: Shop) -> None:
    shop.drop("till-1/a.json", sale())
    assert shop.files.retire(only(shop))
    assert not (shop.spool / "till-1/a.json").exists()
    assert shop.files.ready() == []
    shop.files.let_go()
    assert shop.waiting() == []


def test_new_files_go_before_what_only_has_to_be_unlinked(shop: Shop) -> None:
    wake = threading.Event()
    files = Spool(shop.spool, 1024 * 1024, lambda *_: None, wake=wake)
    shop.drop("a.json", sale())
    assert files.retire(files.ready()[0])
    wake.set()  # something has come
    files.let_go()
    assert len(shop.waiting()) == 1
    assert files.ready() == []
    wake.clear()
    files.let_go()
    assert shop.waiting() == []


def test_what_somebody_still_writes_to_is_not_unlinked(shop: Shop) -> None:
    """A till that does not rename, and went on writing after its file had been taken: what came late is found."""
    path = shop.drop("a.json", sale("S-1"))
    with path.open("ab") as late:
        assert shop.files.retire(only(shop))
        late.write(b"\n" + sale("S-2"))
    shop.files.let_go()
    assert [contents.body for contents in read_all(shop)] == [sale("S-1") + b"\n" + sale("S-2")]


def test_what_a_crash_left_to_be_unlinked_is_a_repeat(shop: Shop) -> None:
    shop.drop("a.json", sale("S-1"))
    ingest.sweep(busy(shop), shop.book, say=shop.say)
    assert shop.waiting() != []
    assert shop.sweep().repeated == 1
    assert shop.waiting() == []
    assert shop.sales() == ["S-1"]


def busy(shop: Shop) -> Spool:
    """A spool into which something new comes all the while."""
    wake = threading.Event()
    wake.set()
    return Spool(shop.spool, 1024 * 1024, lambda path, why: shop.say("passed_over", path=path, why=why), wake=wake)


@pytest.mark.parametrize(("bound", "most"), [("MOST", 3), ("MOST_BYTES", 3 * len(sale("S-1")))])
def test_only_so_much_waits_to_be_unlinked(shop: Shop, monkeypatch: pytest.MonkeyPatch, bound: str, most: int) -> None:
    monkeypatch.setattr(leaving, bound, most)
    monkeypatch.setattr(spool, "BATCH_FILES", 1)
    files = busy(shop)
    for number in range(1, 7):
        shop.drop(f"{number}.json", sale(f"S-{number}"), age=10 - number)
        ingest.sweep(files, shop.book, say=shop.say)
    assert shop.sales() == [f"S-{number}" for number in range(1, 7)]
    assert sorted(name.rpartition("-")[2] for name in shop.waiting()) == ["5.json", "6.json"]


def test_a_disk_without_room_gets_what_only_had_to_be_unlinked(shop: Shop) -> None:
    """Even while new files come all the time: they can't be taken before."""

    def full() -> None:
        raise NotNow("no room")

    files = busy(shop)
    shop.drop("a.json", sale("S-1"))
    ingest.sweep(files, shop.book, say=shop.say)
    assert len(shop.waiting()) == 1
    shop.drop("b.json", sale("S-2"))
    with pytest.raises(NotNow):
        ingest.sweep(files, shop.book, say=shop.say, room=full)
    assert shop.waiting() == ["b.json"]


@pytest.mark.parametrize(("seconds", "left"), [(5.0, 0), (-1.0, 1)])
def test_an_end_waits_for_the_disk_but_not_for_long(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, seconds: float, left: int
) -> None:
    """What is left is a repeat; and systemd would not wait either."""
    monkeypatch.setattr(ingest, "LAST_S", seconds)
    stop, wake = threading.Event(), threading.Event()
    files = Spool(shop.spool, 1024 * 1024, lambda *_: None, stop, wake)

    def ends() -> None:
        stop.set()
        wake.set()

    shop.drop("a.json", sale("S-1"))
    ingest.run(files, shop.book, shop.delivery, stop, wake, say=shop.say, room=ends)
    assert shop.sales() == ["S-1"]
    assert len(shop.waiting()) == left


def test_what_cannot_be_unlinked_is_said_once_and_tried_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.drop("a.json", sale("S-1"))
    shop.drop("till-1/b.json", sale("S-2"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", failing(os.unlink, "till-1"))
        for _ in range(3):
            shop.sweep()
    assert [event for event, _ in shop.said] == ["passed_over", "swept"]
    assert shop.said[0][1]["path"] == "till-1/b.json"
    assert len(shop.waiting()) == 1
    shop.sweep()
    assert shop.waiting() == []
    assert shop.sales() == ["S-1", "S-2"]


@pytest.mark.parametrize(
    "name",
    [
        "n" * 250 + ".json",
        "é" * 125 + ".json",
        os.fsdecode(b"not utf-8 \xff\xfe.json"),
        "new\nline.json",
        "-rf *.json",
        "till-1/" + "n" * 250 + ".json",
    ],
)
def test_any_name_can_be_taken_and_rejected(shop: Shop, name: str) -> None:
    shop.drop(name, sale())
    assert shop.sweep().taken == 1
    shop.drop(name, broken())
    assert shop.sweep().rejected == 1
    assert shop.waiting() == []
    assert len(shop.rejected()) == 2
    assert shop.files._told == set()


def test_a_file_replaced_after_it_was_read_is_not_removed(shop: Shop) -> None:
    """Neither is lost: the new one waits under a private name."""
    shop.drop("a.json", sale("S-1"))
    file = only(shop)
    shop.drop("a.json", sale("S-2"))
    assert not shop.files.retire(file)
    (contents,) = read_all(shop)
    assert (contents.body, contents.file.name) == (sale("S-2"), "a.json")
    assert shop.files.next_due(time.monotonic()) == 0


def test_a_replaced_file_is_not_rejected_in_the_others_place(shop: Shop) -> None:
    shop.drop("a.json", broken())
    file = only(shop)
    shop.drop("a.json", sale("S-2"))
    assert not shop.files.reject(file, {"reason": "x", "problems": [], "seq": 1})
    assert shop.rejected() == []
    assert only(shop).name == "a.json"


def test_a_file_that_grew_after_it_was_read_is_not_removed(shop: Shop) -> None:
    path = shop.drop("a.json", sale("S-1"))
    file = only(shop)
    with path.open("ab") as more:
        more.write(b"\n")
    assert not shop.files.retire(file)
    assert only(shop).size == file.size + 1


def test_a_half_taken_file_does_not_lose_to_one_of_the_same_name_and_inode(shop: Shop) -> None:
    """What a power cut left under a private name is never overwritten."""
    shop.drop("a.json", sale("S-2"))
    file = only(shop)
    left = shop.spool / f".taken-{file.inode}-a.json"
    left.write_bytes(sale("S-1"))
    assert shop.files.retire(file)
    assert [contents.body for contents in read_all(shop)] == [sale("S-1")]


def test_a_file_that_can_not_be_removed_stays_and_is_reported_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.drop("till-1/a.json", sale())
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", failing(os.rename, "till-1"))  # as in a directory that is read-only
        assert shop.sweep().taken == 1
        shop.files._restless.clear()
        assert shop.sweep().repeated == 0
        assert shop.waiting() == ["till-1/a.json"]
        assert [event for event, _ in shop.said] == ["passed_over", "swept"]
    shop.files._restless.clear()
    assert shop.sweep().repeated == 1
    assert shop.sales() == ["S-1"]
    assert shop.waiting() == []


def test_a_file_that_can_not_be_read_stays(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.drop("a.json", sale())
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", failing(os.open, "a.json"))
        shop.sweep()
        assert shop.said == [("passed_over", {"path": "a.json", "why": "can't be read: Permission denied"})]
    assert shop.waiting() == ["a.json"]
    assert shop.rejected() == []


# -- rejecting


def test_a_rejected_file_keeps_its_directory_and_bytes_beside_its_words(shop: Shop) -> None:
    shop.drop("till-1/a.json", b"bad")
    assert shop.files.reject(only(shop), {"reason": "why", "problems": [], "seq": 7})
    assert shop.rejected() == ["till-1/a.json", "till-1/a.json.error.json"]
    assert (shop.spool / "rejected/till-1/a.json").read_bytes() == b"bad"
    words = (shop.spool / "rejected/till-1/a.json.error.json").read_text()
    assert '"file": "a.json"' in words
    assert '"seq": 7' in words


def test_names_in_rejected_never_collide(shop: Shop) -> None:
    for _ in range(3):
        shop.drop("a.json", b"bad")
        shop.files.reject(only(shop), {})
    shop.drop("a.json.error.json", b"this one too")
    shop.files.reject(only(shop), {})
    assert [name for name in shop.rejected() if not name.endswith(".error.json")] == [
        "a-2.json",
        "a-3.json",
        "a.json",
        "a.json.error-2.json",
    ]
    assert (shop.spool / "rejected/a.json.error-2.json").read_bytes() == b"this one too"


def test_words_never_overwrite_a_rejected_file_of_that_name(shop: Shop) -> None:
    shop.drop("a.json.error.json", b"evidence")
    shop.files.reject(only(shop), {})
    shop.drop("a.json", b"bad")
    shop.files.reject(only(shop), {})
    assert (shop.spool / "rejected/a.json.error.json").read_bytes() == b"evidence"
    assert (shop.spool / "rejected/a-2.json").read_bytes() == b"bad"


def test_where_rejected_can_not_be_written_the_file_stays_and_this_is_said_once(shop: Shop) -> None:
    (shop.spool / "rejected").write_text("a file stands where the directory should be")
    shop.drop("a.json", broken())
    shop.sweep()
    shop.files._restless.clear()
    shop.sweep()
    assert shop.waiting() == ["a.json", "rejected"]
    assert [facts["path"] for event, facts in shop.said if event == "passed_over"] == ["a.json"]
    assert len(shop.entries("invalid")) == 1
    (shop.spool / "rejected").unlink()
    shop.files._restless.clear()
    assert shop.sweep().rejected == 1
    assert len(shop.entries("invalid")) == 1


@pytest.mark.parametrize("link", ["rejected", "rejected/till-1"])
def test_nothing_is_written_behind_a_link(shop: Shop, tmp_path: Path, link: str) -> None:
    """Once: whoever may write to the spool could have words and files written wherever ingest may write."""
    (outside := tmp_path / "outside").mkdir()
    (shop.spool / link).parent.mkdir(exist_ok=True)
    (shop.spool / link).symlink_to(outside)
    shop.drop("till-1/a.json", broken())
    shop.sweep()
    assert list(outside.iterdir()) == []
    assert shop.waiting()[0] in {"rejected", "till-1/a.json"}
    assert "a link stands there" in [facts["why"] for event, facts in shop.said if event == "passed_over"][-1]
    (shop.spool / link).unlink()
    shop.files._restless.clear()
    assert shop.sweep().rejected == 1
    assert shop.rejected() == ["till-1/a.json", "till-1/a.json.error.json"]


def test_where_the_move_to_rejected_fails_the_file_gets_its_own_name_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rejected/` may stand on another disk."""
    shop.drop("a.json", broken())
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        if "rejected" in str(target):
            raise OSError(18, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    shop.sweep()
    assert shop.waiting() == ["a.json"]
    assert shop.rejected() == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_words_that_can_not_be_written_leave_no_draft(shop: Shop, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        rejected.write_words(shop.spool, "a.json", {})
    assert shop.rejected() == []


def test_a_name_is_cut_between_characters() -> None:
    assert cut("éé", 3) == "é"
    assert cut("abc", 3) == "abc"


def test_a_name_is_said_in_a_way_that_no_terminal_obeys() -> None:
    assert printable(os.fsdecode(b"a\x1b[2J\n\xff \xc3\xa9")) == "a\\x1b[2J\\n\\xff é"


def test_new_directories_are_closed_to_others(shop: Shop) -> None:
    old = os.umask(0o027)
    try:
        shop.drop("a.json", b"bad")
        shop.files.reject(only(shop), {})
    finally:
        os.umask(old)
    for path in (shop.spool / "rejected", Path(shop.spool / "rejected/a.json.error.json")):
        assert path.stat().st_mode & 0o027 == 0


# -- very many files


def test_of_very_many_the_oldest_are_seen_and_all_are_taken_in_order(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "MOST", 10)
    for number in range(35):
        shop.drop(f"till-{number % 3}/{number}.json", sale(f"S-{number:02d}"), age=100 - number)
    assert len(shop.files.ready()) == 10
    assert (shop.files.more, shop.files.left) == (True, 35)
    assert shop.once()
    assert shop.sales() == [f"S-{number:02d}" for number in range(35)]
    assert (shop.files.more, shop.files.left) == (False, 0)


def test_the_daemon_takes_very_many_without_waiting_in_between(shop: Shop) -> None:
    for number in range(spool.MOST + 500):
        (shop.spool / f"{number}.json").write_bytes(sale(f"S-{number}"))
    with shop.start() as daemon:
        wait_until(lambda: len(daemon.events("swept")) == 2)
        first, second = (datetime.fromisoformat(event["timestamp"]) for event in daemon.events("swept"))
        assert daemon.stop() == 0
    assert len(shop.sales()) == spool.MOST + 500
    assert first < second


def test_many_that_can_not_be_taken_keep_no_other_from_being_seen(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older than the good one, and more of them than a scan remembers."""
    monkeypatch.setattr(spool, "MOST", 10)
    for number in range(30):
        shop.drop(f"{number}.json", b"{", age=1000)  # not whole: the writer may come back
    shop.drop("good.json", sale("S-1"))
    for _ in range(4):
        shop.sweep()
    assert shop.sales() == ["S-1"]
    assert not shop.files.more  # none of them is due: no reason to look again at once
    assert shop.files.left == 30
