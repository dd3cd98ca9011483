"""
Redemptions, reversals, returns and their sales, in either order, on a line that does what it likes.

Never: value spent twice, or for something cancelled; a reversal sent outside the window; a sale linked to a reversed
redemption; a customer's documents out of order; a late redemption without its flag; a document that is lost.

`make machine EXAMPLES=20000 SEED=1` is the long run.
"""

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from hypothesis import Phase
from hypothesis.stateful import run_state_machine_as_test
from shop_machine import Machine, one_world, profile

from forwarder import by_customer, errand, known, lookup, window
from forwarder.books import Books

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "250"))


@pytest.fixture(scope="module", autouse=True)
def _one_world() -> Iterator[None]:
    with one_world():
        yield


TestRedemptions = Machine.TestCase
TestRedemptions.settings = profile(EXAMPLES, print_blob=True)


# ── A machine that can't find a bug proves nothing ──


def never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may have left is sent again without a look-up."""
    monkeypatch.setattr(lookup, "redemption", lambda *_, **__: None)


def forgets_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart, nothing is known to have left."""
    monkeypatch.setattr(Books, "attempted", lambda *_: False)


def believes_its_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict comes from this machine's wall clock."""
    monkeypatch.setattr(window.Instant, "until_s", lambda at, later: (later.wall - at.wall).total_seconds())
    monkeypatch.setattr(window, "_by_omneo", lambda *_: None)


def overlooks_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redemption leaves though its reversal is here already."""
    monkeypatch.setattr(errand, "known", SimpleNamespace(**vars(known) | {"naming": lambda *_: []}))


def drops_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """A late redemption is not flagged."""
    on_time = window.Verdict("in", {"seconds": 0.0})
    monkeypatch.setattr(window, "lateness", lambda *_: on_time)


def links_what_was_reversed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sale is linked, whatever became of its redemption since."""
    monkeypatch.setattr(known, "reversing", lambda *_: False)


def has_no_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `customer` ordering, everything passes everything."""
    monkeypatch.setattr(by_customer, "keys", lambda _: [])


def overlooks_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person releases waits for ever."""
    monkeypatch.setattr(Books, "released", lambda _: [])


BUGS = [
    (never_looks, "twice at Omneo|was used"),
    (forgets_attempts, "twice at Omneo|was used|left, though|value spent"),
    (believes_its_wall_clock, "a reversal came"),
    (overlooks_pairs, "left, though"),
    (drops_the_flag, "late without its flag"),
    (links_what_was_reversed, "was reversed"),
    (has_no_lanes, "was at Omneo before"),
    (overlooks_releases, "is waiting for good"),
]


@pytest.mark.parametrize(("bug", "words"), BUGS, ids=[bug.__name__ for bug, _ in BUGS])
def test_the_machine_finds(bug: Callable[..., None], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    how = profile(3000, phases=[Phase.generate], database=None, derandomize=True)
    with pytest.raises(AssertionError, match=words):
        run_state_machine_as_test(Machine, settings=how)
