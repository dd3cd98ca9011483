"""The loops around a step: what ends a wait, and what a journal means that can't be read just now."""

import itertools
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from typing import Any

import pytest
import tenacity
from standin import Omneo, Store, sale
from test_replay import Said

from forwarder import patience
from journal import command, log
from journal.log import NotNow

KILLED_IN_A_COMMIT = """
import os, pathlib, signal, sys
from journal import log
book = log.open_book(pathlib.Path(sys.argv[1]), "journal", write=True)
book.execute("PRAGMA cache_size = 2")
with log.writing(book):
    log.append(book, [log.Entry("line", body=b"x" * 4000) for _ in range(400)])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_in_the_middle_of_a_commit(store: Store) -> None:
    """
    A journal's writer dies when pages of a commit are in the file already: its rollback journal stays, hot.

    A program, no fork: beside a thread that is in SQLite a forked child waits for its mutexes for ever.
    """
    died = subprocess.run([sys.executable, "-c", KILLED_IN_A_COMMIT, store.db], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert store.db.with_name("journal.db-journal").stat().st_size > 0


@pytest.fixture
def said() -> Any:
    return Said()


def test_a_journal_whose_writer_was_killed_is_waited_for(store: Store, omneo: Omneo, token: Any, said: Any) -> None:
    """Once: SQLITE_READONLY_ROLLBACK at an open reader ended the forwarder with 78 and talk of a backup."""
    store.take(sale("S-1"))
    stop, wake = threading.Event(), threading.Event()
    with store.forwarding(omneo.url, token=token, say=said) as run:
        killed_in_the_middle_of_a_commit(store)
        with pytest.raises(NotNow, match="recovered"):
            patience.step_unless(stop, run)
        with pytest.raises(sqlite3.OperationalError):  # it is what SQLite says, and no accident of ours
            log.head(run.books.journal)

        def recover() -> None:
            store.sweep()
            store.take(sale("S-2"))

        recovery = threading.Timer(2.5, recover)
        recovery.start()
        watched = threading.Timer(0, lambda: _wait_for(omneo, 2, stop))
        watched.start()
        patience.run_until(run, stop, wake)
        watched.join()
        recovery.join()
    assert omneo.sales() == ["S-1", "S-2"]
    assert [event for event, _ in said.events].count("not_now") == 1
    store.verified()


def test_a_start_waits_for_a_writer_that_was_killed_since_its_book_was_opened(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: killed between the opening of the books and the first line of the log, it ended the forwarder with 78."""
    store.take(sale("S-1"))
    with closing(log.open_book(store.db, "journal", write=False)) as book:
        killed_in_the_middle_of_a_commit(store)
        with pytest.raises(sqlite3.OperationalError) as hot:
            log.head(book)
        assert command.verdict(hot.value) == (
            "A book has to be recovered by the program that writes it; start that program first.",
            75,
        )
        recovery = threading.Timer(0.5, store.sweep)
        recovery.start()
        assert patience.waited(lambda: log.head(book), store.db)[0] > 1
        recovery.join()
        killed_in_the_middle_of_a_commit(store)
        monkeypatch.setattr(patience, "START_WAIT_S", 0.3)
        with pytest.raises(NotNow, match="recovered"):
            patience.waited(lambda: log.head(book), store.db)
    with pytest.raises(sqlite3.OperationalError, match="no such table"):  # a mistake of ours is not waited for
        patience.waited(lambda: sqlite3.connect(":memory:").execute("SELECT 1 FROM nowhere"), store.db)


def _wait_for(omneo: Omneo, sales: int, stop: threading.Event) -> None:
    for _ in range(600):
        if len(omneo.sales()) >= sales or stop.wait(0.05):
            break
    stop.set()


def _waits(failures: int) -> float:
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = failures
    return float(patience.JITTER(state))


def test_a_line_is_tried_twice_a_second_at_first_and_once_in_half_a_minute_after_hours() -> None:
    firsts = [_waits(1) for _ in range(1000)]
    assert all(0.25 <= first <= 0.75 for first in firsts)
    assert all(0.45 <= _waits(failures) <= 0.55 for failures in range(2, patience.HURRIED + 1))
    assert all(0 <= _waits(patience.HURRIED + 1) <= 1.0 for _ in range(100))
    late = [_waits(500) for _ in range(1000)]
    assert max(late) <= 60
    assert 25 < sum(late) / len(late) < 35


def test_shops_that_lost_the_line_together_do_not_come_back_together() -> None:
    """The first pause spreads them over the half second between two tries; the later ones are all jitter."""
    for failures in (1, 500):
        waits = sorted(_waits(failures) for _ in range(1000))
        most = waits[-1] - waits[0]
        assert max(after - before for before, after in itertools.pairwise(waits)) < most / 20
