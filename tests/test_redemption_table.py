"""The table of docs/redemptions.md, played row by row against the stand-in Omneo: states, flags, money to the cent."""

from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from redeeming import Counter

PAGE = Path(__file__).parents[1] / "docs" / "redemptions.md"
MADE = ("offline", "online")
REVERSAL = ("before sending", "in window", "late", "never")
ANSWER = ("arrived", "lost before", "lost after")
CRASH = ("before", "after")
WINDOW_S = 600
AT_FIRST = Decimal(25)  # what the customer has in rewards; 20.00 of it are spent


@dataclass(frozen=True)
class Row:
    """One row of the table: a situation, and what comes of it."""

    made: str
    reversal: str
    answer: str
    crash: str
    states: tuple[str, str, str]  # of the redemption, the reversal and the sale; a dash where there is none
    flags: str
    at_omneo: str
    balance: Decimal
    words: str

    @property
    def situation(self) -> tuple[str, str, str, str]:
        return self.made, self.reversal, self.answer, self.crash


def read_table() -> list[Row]:
    """The rows of the one table on the page whose first column counts them."""
    rows = []
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells[0].isdigit():
            assert int(cells[0]) == len(rows) + 1
            situation, (redeemed, reversed_, sale, flags, at_omneo, balance, words) = cells[1:5], cells[5:]
            states = (redeemed, reversed_, sale)
            rows.append(Row(*situation, states, flags, at_omneo, Decimal(balance), words))
    return rows


TABLE = read_table()
EVERY_ROW = pytest.mark.parametrize("row", TABLE, ids=lambda row: " · ".join(row.situation))


def test_the_table_has_one_row_for_each_situation() -> None:
    assert [row.situation for row in TABLE] == list(product(MADE, REVERSAL, ANSWER, CRASH))
    assert all(row.words for row in TABLE)


@dataclass
class Play:
    """One row, for real. `victims`: the requests whose answer meets the row's fate."""

    counter: Counter
    row: Row
    victims: tuple[str, ...] = ("/redeem", "/reversal", "/update-create")

    def begin(self) -> None:
        """The line is set to lose what the row says. A forwarder runs before the first document comes."""
        mode = {"arrived": None, "lost before": "drop_before", "lost after": "drop_after"}[self.row.answer]
        for path in self.victims if mode else ():
            self.counter.omneo.fault(mode, path=path, method="POST", count=1)
        self.counter.open()
        self.doomed = set(self.victims)  # requests beside whose first answer the process goes

    def until_sent(self) -> None:
        """As far as the first request that changes something, and its fate."""
        before = len(self.counter.sent)
        while len(self.counter.sent) == before and self.turn():
            pass

    def to_the_end(self) -> None:
        while self.turn():
            assert len(self.counter.sent) < 20
        self.counter.open().books.flush()

    def turn(self) -> bool:
        """One step, and the crash that is due in it. False when nothing more moves."""
        counter = self.counter
        counter.cut_at = self.doomed if self.row.crash == "before" else set()
        before = len(counter.sent)
        result = counter.step()
        hit = {path for path in self.doomed if any(sent.endswith(path) for sent in counter.sent[before:])}
        self.doomed -= hit
        if hit and self.row.crash == "after":
            counter.open().books.flush()
            counter.crash()
        return result is not None or bool(hit)


def reversal_of(counter: Counter, name: dict[str, Any], redeemed_at: str | None) -> dict[str, Any]:
    return counter.reversal(**name, **({"redeemed_at": redeemed_at} if redeemed_at else {}))


def play(counter: Counter, row: Row, *, patiently: bool = False, victims: tuple[str, ...] | None = None) -> None:
    """Make the situation, and go on until nothing moves. `patiently`: doubt is settled before the till goes on."""
    scene = Play(counter, row, *([victims] if victims else []))
    redeemed_at = None
    if row.made == "online":
        number, redeemed_at = counter.online()
        name: dict[str, Any] = {"redemption_id": number}
    else:
        name = {"redemption_external_id": "R"}
    scene.begin()
    later = [] if row.reversal == "never" else [reversal_of(counter, name, redeemed_at)]
    if row.made == "offline":
        counter.store.take(counter.redemption(transaction_external_id="S"))
        if row.reversal != "before sending":
            scene.to_the_end() if patiently else scene.until_sent()
    if row.reversal in {"in window", "late"}:
        counter.box.passes(60 if row.reversal == "in window" else WINDOW_S + 60)
        later = [reversal_of(counter, name, redeemed_at)]
    counter.store.take(*later, counter.sale(**name))
    scene.to_the_end()


def came_of(counter: Counter) -> tuple[Any, ...]:
    """What there is in the end, as the table says it."""
    states, there = counter.store.states(), counter.at_omneo()
    sold = there.sale()
    if states["S"] == "delivered":
        states["S"] += ", linked" if sold["redemption_id"] is not None else ", without it"
    flags = ", ".join(sorted(counter.flags())).replace(" R", "").replace(" V", "").replace(" S", "")
    at_omneo = ", ".join(there.redemptions())
    return tuple(states.get(name, "–") for name in "RVS"), flags or "–", at_omneo or "–", there.balance()


@EVERY_ROW
def test_what_the_table_says_is_what_happens(counter: Counter, row: Row) -> None:
    play(counter, row)
    assert came_of(counter) == (row.states, row.flags, row.at_omneo, row.balance)
    assert counter.crashes == len(set(counter.sent))  # beside each request that changes something
    if row.at_omneo != "–":
        assert counter.at_omneo().row()["total"] == 20  # once, and all of it


@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.made == "offline"], ids=lambda row: " · ".join(row.situation)
)
def test_a_till_that_goes_on_after_the_doubt_is_settled_finds_it_redeemed(counter: Counter, row: Row) -> None:
    """A lost answer then makes no difference any more: the row of an answer that arrived holds."""
    play(counter, row, patiently=True)
    like = next(each for each in TABLE if each.situation == (row.made, row.reversal, "arrived", row.crash))
    assert came_of(counter) == (like.states, like.flags, like.at_omneo, like.balance)


HITS = [(row, path) for row in TABLE for path in ("/redeem", "/reversal", "/update-create") if row.answer != "arrived"]


@pytest.mark.parametrize(
    ("row", "victim"), HITS, ids=lambda value: " · ".join(value.situation) if isinstance(value, Row) else value
)
def test_whichever_answer_is_lost_the_money_is_right(counter: Counter, row: Row, victim: str) -> None:
    """Spent once, or not at all, just as the states say; and no sale goes with what was reversed."""
    play(counter, row, victims=(victim,))
    (redeemed, reversed_, sold), _, at_omneo, balance = came_of(counter)
    spent = reversed_ != "delivered" and redeemed != "cancelled"
    assert balance == (AT_FIRST - 20 if spent else AT_FIRST)
    assert sold == ("delivered, linked" if spent else "delivered, without it")
    assert reversed_ in {"delivered", "cancelled"} or row.reversal in {"late", "never"}
    assert at_omneo == {"cancelled": "–", "delivered": "redeem, reversal"}.get(reversed_, "redeem")
