"""A store's local day: when it begins and ends, what its clock says, and which entries of a book fall into it."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from journal import log

LOOK = 20_000  # entries looked at in one go: some milliseconds, during which the writer has to wait
PIECE = 2000  # entries handed on in one go


@dataclass(frozen=True, slots=True)
class Days:
    """From the beginning of one local day to the end of another (or the same one)."""

    first: date
    last: date
    zone: ZoneInfo | None  # None: this machine's

    @property
    def begin(self) -> str:
        """As the books write moments."""
        return log.stamp(_midnight(self.first, self.zone))

    @property
    def end(self) -> str:
        """The first moment after."""
        return log.stamp(_midnight(self.last + timedelta(days=1), self.zone))

    @property
    def zone_name(self) -> str:
        """For readers."""
        if self.zone is not None:
            return self.zone.key
        return f"this machine's, {_midnight(self.first, None) + timedelta(hours=12):%Z}"

    def local(self, at: str) -> datetime:
        """A book's moment on the shop's clock. Raises ValueError for what is no moment."""
        return datetime.fromisoformat(at).astimezone(self.zone)

    def clock(self, at: str | None, form: str = "%H:%M:%S") -> str:
        """The same in words; a moment of another day with its date, and what is no moment as it stands."""
        if at is None:
            return "-"
        try:
            local = self.local(at)
        except (TypeError, ValueError, OverflowError):
            return str(at)
        return local.strftime(form if self.first <= local.date() <= self.last else f"%Y-%m-%d {form}")


def today(zone: ZoneInfo | None) -> date:
    """What the calendar in the shop says."""
    return datetime.now(UTC).astimezone(zone).date()


def _midnight(day: date, zone: ZoneInfo | None) -> datetime:
    midnight = datetime.combine(day, time(), tzinfo=zone)
    return midnight if zone else midnight.astimezone()


def between(db: sqlite3.Connection, book: str, begin: str, end: str) -> Iterator[tuple[int, int]]:
    """
    Entries of a book ("main" or "delivery") written in a period, as pieces: (first, last). Others may stand between.

    The whole book is looked through, since a clock that was set back puts entries of a day where nobody expects them.
    """
    last = log.head(db, book)[0]
    for low in range(1, last + 1, LOOK):
        first, final = db.execute(
            f"SELECT min(seq), max(seq) FROM {book}.log WHERE seq BETWEEN ? AND ? AND at >= ? AND at < ?",
            (low, low + LOOK - 1, begin, end),
        ).fetchone()
        if first is not None:
            yield from ((piece, min(piece + PIECE - 1, final)) for piece in range(first, final + 1, PIECE))


def before(db: sqlite3.Connection, book: str, begin: str) -> int:
    """The last entry before a moment, taking it that a book's moments rise; 0 if there is none."""
    low, high = 0, log.head(db, book)[0]
    while low < high:
        middle = (low + high + 1) // 2
        (earlier,) = db.execute(f"SELECT at < ? FROM {book}.log WHERE seq = ?", (begin, middle)).fetchone() or (0,)
        low, high = (middle, high) if earlier else (low, middle - 1)
    return low
