"""Questions to Omneo that change nothing: one until it is answered, and its lists from their first page to the last."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from forwarder import omneo, outcome
from forwarder.link import Link
from forwarder.outcome import Answer
from journal import log

TRIES = 4  # of the first question; somebody may be watching …
PATIENCE = 10  # … and of each later one, in some three minutes: what was heard so far may have taken an hour
REST_S = 30.0  # between two of them; who wants us to wait longer is asked another time
PAGES = 1000  # of 100 rows of Omneo's list
SETTLE_S = 2.0  # before what Omneo does not have is asked for once more

Rest = Callable[[float], object]


@dataclass(frozen=True, slots=True)
class Asking:
    """The way to ask, and to wait. `first` is called before each question: whoever goes before us may want the line."""

    link: Link
    rest: Rest
    first: Callable[[], object] = lambda: None

    def ask(self, request: omneo.Request, tries: int = PATIENCE) -> Answer:
        """An answer that says something: yes, no, or that it isn't there. Raises log.NotNow and log.Unusable."""
        answer = self._heard(request, tries)
        if outcome.meaning(answer) in {"credentials", "route"}:
            raise log.Unusable(f"{outcome.otherwise(answer).reason}.")
        return answer

    def may_see(self, request: omneo.Request) -> Answer | None:
        """The same of what a token need not be allowed to see; None if it isn't. Raises log.NotNow."""
        answer = self._heard(request, PATIENCE)
        return None if outcome.meaning(answer) in {"credentials", "route"} else answer

    def _heard(self, request: omneo.Request, tries: int) -> Answer:
        for turn in range(1, tries + 1):
            self.first()
            answer = self.link.ask(request)
            if outcome.meaning(answer) in {"yes", "no", "missing", "credentials", "route"}:
                return answer
            wait_s = answer.retry_after_s or min(2.0 ** (turn - 1), REST_S)
            if wait_s > REST_S:
                break
            if turn < tries:
                self.rest(wait_s)
        raise not_now(answer)

    def known_there(self) -> None:
        """Does Omneo know us? Whoever then says that something isn't there may else not know. Raises log.Unusable."""
        if outcome.meaning(self.ask(omneo.verify_token(), TRIES)) != "yes":
            raise log.Unusable(f"{outcome.ROUTE}.")

    def sale(self, name: str) -> dict[str, Any] | None:
        """One sale by its external_id; None if Omneo does not have it."""
        answer = self.ask(omneo.find_sale(name))
        row = omneo.found_sale(answer, name)
        if row is None and not outcome.nothing_found(answer):
            raise not_now(answer)
        return row


@dataclass(slots=True)
class Listing:
    """One of Omneo's lists, row by row; afterwards, whether that was all: "yes", "no", or only its "beginning"."""

    asking: Asking
    request: Callable[[int], omneo.Request]
    shown: str = "no"

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each row as Omneo shows it."""
        for page in range(1, PAGES + 1):
            answer = self.asking.ask(self.request(page))
            if outcome.meaning(answer) != "yes" or not isinstance(answer.content.get("data"), list):
                return  # it has no such list for us
            yield from answer.rows
            if answer.ends(page):
                self.shown = "yes" if answer.counted or not answer.rows else "beginning"
                return
        self.shown = "beginning"


def sales_between(begin: str, end: str | None, page: int) -> omneo.Request:
    """`GET /transactions` whose local time is in a period (sdk: TransactionFilters, FilterOperator)."""
    until = f"&filter[transacted_at][lt]={quote(end)}" if end is not None else ""
    return "GET", f"/transactions?filter[transacted_at][gte]={quote(begin)}{until}&{omneo.paged(page)}", None


def sales_named(external_id: str) -> omneo.Request:
    """Every transaction of an external_id: `POST /transactions` makes a second one (omneo-api, 2.7)."""
    return "GET", f"/transactions?filter[external_id]={quote(external_id, safe='')}&{omneo.paged(1)}", None


def redemptions_between(begin: str, end: str, page: int) -> omneo.Request:
    """`GET /redemptions` that Omneo made in a period, by its clock (sdk: RequestQueryRedemption, FilterOperator)."""
    period = f"filter[created_at][gte]={quote(begin)}&filter[created_at][lt]={quote(end)}"
    return "GET", f"/redemptions?{period}&{omneo.paged(page)}", None


def read_balances(profile: str) -> omneo.Request:
    """`GET /profiles/{id}/balances`."""
    return "GET", f"/profiles/{quote(profile, safe='')}/balances", None


def not_now(answer: Answer) -> log.NotNow:
    """Raised when an answer says nothing."""
    return log.NotNow(f"Omneo can't be asked now: {outcome.otherwise(answer).reason}. Try again later.")
