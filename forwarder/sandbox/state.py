"""What the stand-in tenant holds: rows, numbers and a clock. No HTTP here, and no time but the one handed in."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

Row = dict[str, Any]

# "Any Redemption created within the last 10 minutes": api-reference/return-strategy/add-redemption-reversal.
REVERSAL_WINDOW = timedelta(minutes=10)

# Ids of different things start far apart, so that a client that mixes them up is found out.
FIRST_IDS = {
    "transaction": 50001,
    "item": 900001,
    "redemption": 7001,
    "redemption_item": 8001,
    "reward": 301,
    "credit": 501,
    "benefit": 401,
    "definition": 94,
    "identity": 1,
}


class Refusal(Exception):  # noqa: N818 - an answer, not a mistake
    """Omneo says no: a status, a message and, for 422, what is wrong with which field (Laravel's form)."""

    def __init__(self, status: int, message: str, errors: dict[str, list[str]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors

    def body(self) -> Row:
        return {"message": self.message} | ({"errors": self.errors} if self.errors else {})


def invalid(errors: dict[str, list[str]]) -> Refusal:
    """422 as Laravel words it: the first complaint, and how many more there are."""
    first, *more = [text for texts in errors.values() for text in texts]
    rest = f" (and {len(more)} more error{'s' if len(more) > 1 else ''})" if more else ""
    return Refusal(422, first + rest, errors)


def missing(what: str, identifier: object) -> Refusal:
    return Refusal(404, f"No query results for model [{what}] {identifier}")


class Entry(msgspec.Struct):
    """One request in the sandbox's own journal: what it asked, what became of it, and whether the client was told."""

    n: int
    at: str
    method: str
    route: str
    path: str
    external_id: str | None = None
    status: int | None = None
    applied: bool = False
    answered: bool = False
    fault: str | None = None


@dataclass(slots=True)
class Wallet:
    """What one customer can spend."""

    points: Decimal = Decimal(0)
    rewards: list[Row] = field(default_factory=list)
    credits: list[Row] = field(default_factory=list)
    benefits: list[Row] = field(default_factory=list)


def stamp(moment: datetime) -> str:
    """UTC, to the second: how Omneo writes created_at (api-reference/transaction-item)."""
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def utc_now() -> datetime:
    return datetime.now(UTC)


class Tenant:
    """Everything Omneo remembers. The rooms beside this one (transactions, profiles, redemptions) change it."""

    def __init__(self, now: Callable[[], datetime] = utc_now) -> None:
        self._clock = now
        self.clear()

    def clear(self) -> None:
        """An empty tenant, its clock right, its numbers plain, nothing delayed."""
        self.offset = timedelta()
        self.date_skew = timedelta()
        self.lag = timedelta()
        self.numbers_as_strings = False
        self.transactions: dict[int, Row] = {}
        self.posted: dict[int, Row] = {}
        self.by_external: dict[str, list[int]] = {}
        self.profiles: dict[str, Row] = {}
        self.wallets: dict[str, Wallet] = {}
        self.merged: dict[str, str] = {}
        self.emails: dict[str, str] = {}
        self.identities: dict[tuple[str, str], Row] = {}
        self.definitions: dict[str, Row] = {}
        self.redemptions: dict[int, Row] = {}
        self.moments: dict[int, datetime] = {}
        self.undone: dict[int, list[Row]] = {}
        self.counts: Counter[str] = Counter()
        self.journal: list[Entry] = []
        self._ids = dict(FIRST_IDS)

    def now(self) -> datetime:
        return self._clock() + self.offset

    def stamp(self) -> str:
        return stamp(self.now())

    def next_id(self, what: str) -> int:
        """Ids only rise and are never used again, as in any SQL table."""
        identifier = self._ids[what]
        self._ids[what] = identifier + 1
        return identifier

    def note(self, method: str, route: str, path: str, external_id: str | None) -> Entry:
        """Every request gets a line, in the order of arrival."""
        entry = Entry(len(self.journal) + 1, self.stamp(), method, route, path, external_id)
        self.journal.append(entry)
        return entry

    def visible(self, rows: Iterable[Row]) -> list[Row]:
        """Redemptions that a list shows by now: eventual consistency is undocumented, so it can be switched on."""
        if not self.lag:
            return list(rows)
        horizon = self.now() - self.lag
        return [row for row in rows if self.moments[row["id"]] <= horizon]

    def number(self, value: Decimal) -> Decimal | str:
        """Omneo's generated types say string and its SDK says number: a client must take both."""
        return str(value) if self.numbers_as_strings else value


def reference(fields: Row) -> str | None:
    """The client's own id in a body, wherever its route lets it put one."""
    meta = fields.get("meta")
    own = fields.get("external_id")
    if own is None and isinstance(meta, dict):
        own = meta.get("external_id")
    return None if own is None else str(own)
