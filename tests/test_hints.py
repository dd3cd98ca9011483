"""What wakes a loop, and that a directory may go, come back, and not be there at all."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tills import wait_until

from journal import hints
from journal.hints import Hints


@pytest.fixture
def wake() -> threading.Event:
    return threading.Event()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def events(wake: threading.Event, said: list[str]) -> Iterator[Hints]:
    hopeful = lambda name: name.endswith(b".json")  # noqa: E731
    with hints.watching(wake, hopeful, hints.NEW, lambda what, **_: said.append(what)) as found:
        yield found


def wakes(wake: threading.Event) -> bool:
    """Did something wake the loop? It sleeps again."""
    woken = wake.wait(5)
    wake.clear()
    return woken


def test_a_new_file_wakes_and_so_does_one_that_was_moved_here_or_linked(
    tmp_path: Path, wake: threading.Event, events: Hints
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    events.look_at([spool])
    assert wakes(wake)  # what came before the watch began
    (tmp_path / "draft").write_bytes(b"{}")
    (tmp_path / "draft").rename(spool / "a.json")
    assert wakes(wake)
    (spool / "b.json").hardlink_to(spool / "a.json")
    assert wakes(wake)
    (spool / "till-1").mkdir()
    assert wakes(wake)


def test_what_is_not_hopeful_wakes_nobody(tmp_path: Path, wake: threading.Event, events: Hints) -> None:
    events.look_at([tmp_path])
    wake.clear()
    (tmp_path / "a.tmp").write_bytes(b"{}")
    events.look_at([tmp_path])  # the same as before
    assert not wake.is_set()
    (tmp_path / "a.tmp").rename(tmp_path / "a.json")  # told after what came before it
    assert wakes(wake)


def test_what_goes_wakes_where_that_is_asked_for(tmp_path: Path, wake: threading.Event) -> None:
    (tmp_path / "journal.db-journal").touch()
    with hints.watching(wake, b"journal.db-journal".__eq__, hints.GONE, lambda *_, **__: None) as events:
        events.look_at([tmp_path])
        wake.clear()
        (tmp_path / "journal.db-journal").unlink()
        assert wakes(wake)


def test_a_directory_that_takes_another_s_place_is_watched_and_the_other_no_longer(
    tmp_path: Path, wake: threading.Event, events: Hints
) -> None:
    spool, away = tmp_path / "spool", tmp_path / "away"
    spool.mkdir()
    events.look_at([spool])
    spool.rename(away)
    spool.mkdir()
    wake.clear()
    events.look_at([spool])
    assert wakes(wake)
    (away / "a.json").touch()
    (spool / "b.tmp").touch()
    assert not wake.is_set()
    (spool / "b.json").touch()
    assert wakes(wake)


def test_a_directory_under_another_name_is_still_watched(tmp_path: Path, wake: threading.Event, events: Hints) -> None:
    old, new = tmp_path / "till-1", tmp_path / "till-2"
    old.mkdir()
    events.look_at([old])
    old.rename(new)
    events.look_at([new])
    wake.clear()
    (new / "a.json").touch()
    assert wakes(wake)


def test_one_that_is_not_there_is_said_once_and_watched_when_it_comes(
    tmp_path: Path, wake: threading.Event, events: Hints, said: list[str]
) -> None:
    missing = tmp_path / "spool"
    for _ in range(3):
        events.look_at([missing])
    assert said == ["no_file_events"]
    assert not wake.is_set()
    missing.mkdir()
    events.look_at([missing])
    assert wakes(wake)
    missing.rmdir()
    events.look_at([missing])
    missing.mkdir()
    events.look_at([missing])
    assert wakes(wake)
    assert said == ["no_file_events"]


def test_a_system_without_a_free_watch_is_said_and_stops_nobody(
    tmp_path: Path, events: Hints, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr(hints, "InotifyFD", refused)
    events.look_at([tmp_path])
    assert said == ["no_file_events"]


def test_events_that_were_lost_wake(wake: threading.Event, events: Hints) -> None:
    events.on_queue_overflow()
    assert wake.is_set()


def test_nothing_is_heard_after_the_end(tmp_path: Path, wake: threading.Event) -> None:
    before = threading.active_count()
    with hints.watching(wake, lambda _: True, hints.NEW, lambda *_, **__: None) as events:
        events.look_at([tmp_path])
        wait_until(lambda: threading.active_count() > before)
    assert threading.active_count() == before
