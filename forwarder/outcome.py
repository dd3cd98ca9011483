"""
What a delivery attempt came to: a value, never an exception. Contract, section 6, as code.

`send` is the only line that touches the network. What it gives back is sorted by `meaning`, one table for every route.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx

RETRY_AFTER_MAX_S = 3600.0  # no server gets to stop a shop for longer than that

Meaning = Literal["yes", "no", "missing", "not_now", "lost", "not_omneo", "credentials", "route"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request, or what kept anything from coming back."""

    status: int | None  # None: no answer
    content: Any  # the JSON, numbers exact; None if it was none
    left: bool  # may anything of the request have reached Omneo?
    reason: str  # in words, nothing personal
    retry_after_s: float | None = None
    date: datetime | None = None  # Omneo's clock
    errors: tuple[str, ...] = ()  # which fields Omneo objected to
    html: bool = False  # a page for people: not Omneo, whatever its status says

    @property
    def data(self) -> dict[str, Any]:
        """The object in `{"data": {...}}`, or an empty one."""
        data = self.content.get("data") if isinstance(self.content, dict) else None
        return data if isinstance(data, dict) else {}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The list in `{"data": [...]}`, or an empty one."""
        data = self.content.get("data") if isinstance(self.content, dict) else None
        return [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []

    def ends(self, page: int) -> bool:
        """Is this page of a list its last? By `meta.last_page`, else by `links.next` (omneo-api, 1: list envelope)."""
        last = self._last_page
        return page >= last if last is not None else not self.rows or not self._links.get("next")

    @property
    def counted(self) -> bool:
        """Does this page of a list say whether there are others?"""
        return self._last_page is not None or "next" in self._links

    @property
    def _last_page(self) -> int | None:
        meta = self.content.get("meta") if isinstance(self.content, dict) else None
        last = str(meta.get("last_page")) if isinstance(meta, dict) else ""
        return int(last) if last.isdecimal() and len(last) < 10 else None

    @property
    def _links(self) -> dict[str, Any]:
        links = self.content.get("links") if isinstance(self.content, dict) else None
        return links if isinstance(links, dict) else {}


Settled = Literal["delivered", "refused", "held", "cancelled"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What became of a document for now.

    delivered, refused, held, cancelled settle it. deferred: not now, the same again later. paused: nothing can go until
    a person mends credentials or configuration. waits: for a redemption that has not come, and holds only its lane.
    """

    kind: Settled | Literal["deferred", "paused", "waits"]
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    flags: tuple[tuple[str, dict[str, Any]], ...] = ()
    look_up: bool = False  # something may have reached Omneo: ask before anything is sent again
    status: int | None = None
    retry_after_s: float | None = None
    date: datetime | None = None  # Omneo's clock in the answer that settled it
    profile: str | None = None  # Omneo's UUID of the customer, once known
    line: bool = True  # does a deferral say something about the line?

    @property
    def settles(self) -> bool:
        """Does the line move on?"""
        return self.kind not in {"deferred", "paused", "waits"}


# Nothing of the request can have reached Omneo. Every other transport error may mean that Omneo acted on it.
NOT_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


def send(transport: httpx.BaseTransport, request: httpx.Request, now: Callable[[], datetime]) -> Answer:
    """One request, one answer. No exception leaves for anything that a line or a server can do."""
    try:
        response = transport.handle_request(request)
        response.read()
    except NOT_LEFT as error:
        return Answer(None, None, left=False, reason=_unreachable(error))
    except httpx.TimeoutException:
        return Answer(None, None, left=True, reason="no answer in time")
    except (httpx.TransportError, httpx.DecodingError):
        return Answer(None, None, left=True, reason="the connection was lost before an answer")
    date = _date(response.headers.get("date"))
    content = _json(response)
    return Answer(
        response.status_code,
        content,
        left=True,
        reason=f"Omneo answered {response.status_code}",
        retry_after_s=_retry_after(response.headers.get("retry-after"), date or now()),
        date=date,
        errors=_errors(content),
        html=_is_page(response),
    )


def meaning(answer: Answer) -> Meaning:
    """Sort an answer (contract, section 6). `yes` still has to name what it is a yes to."""
    status = answer.status
    if status is None:
        return "lost" if answer.left else "not_now"
    if status in {408, 425, 429} or status >= 500:
        return "not_now"
    if answer.html or status < 200 or 300 <= status < 400:
        return "not_omneo"
    if status in {401, 403}:
        return "credentials"
    if status == 404:
        return "missing" if answer.content is not None else "route"
    if status == 405:
        return "route"
    if status >= 400:
        return "no"
    return "yes" if answer.content is not None else "not_omneo"


def nothing_found(answer: Answer) -> bool:
    """A look-up that was answered, by Omneo, with nothing."""
    said = meaning(answer)
    empty = isinstance(answer.content, dict) and answer.content.get("data") == []
    return said == "missing" or (said == "yes" and empty)


def deferred(answer: Answer, reason: str | None = None) -> Outcome:
    """Not now; whether to look first depends on whether anything may have been done with the request."""
    refused_work = {
        408,
        425,
        429,
        401,
        403,
        404,
        405,
    }  # says itself that it did nothing, except 408, which may not know
    return Outcome(
        "deferred",
        reason or answer.reason,
        look_up=answer.left and (answer.status not in refused_work or answer.status == 408),
        status=answer.status,
        retry_after_s=answer.retry_after_s,
    )


NOT_OMNEO = "not Omneo: a captive portal or proxy answered"
CREDENTIALS = "Omneo does not accept our credentials: check the token and its scopes"
ROUTE = "Omneo has no such route: check --url and --routes"


def otherwise(answer: Answer) -> Outcome:
    """What an answer means that is neither a yes nor a no to the document."""
    match meaning(answer):
        case "credentials":
            return Outcome("paused", CREDENTIALS, status=answer.status)
        case "missing" | "route":
            return Outcome("paused", ROUTE, status=answer.status)
        case "yes" | "not_omneo":
            return deferred(answer, NOT_OMNEO)
        case _:
            return deferred(answer)


def moment(value: Any) -> datetime | None:
    """A moment as Omneo writes them in answers: UTC, `YYYY-MM-DD HH:MM:SS` or RFC 3339 (omneo-api, 2.9)."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _json(response: httpx.Response) -> Any:
    """The JSON of an answer, whatever its content type says; None for anything else (HTML above all)."""
    try:
        content = json.loads(response.content, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError):  # not JSON, or a number that nobody can hold
        return None
    return content if isinstance(content, dict) else None


def _is_page(response: httpx.Response) -> bool:
    return "html" in response.headers.get("content-type", "").lower() or response.content.lstrip()[:1] == b"<"


def _errors(content: Any) -> tuple[str, ...]:
    """Names of the fields that a 422 complains of; its texts may quote a customer, so they stay out of the logs."""
    errors = content.get("errors") if isinstance(content, dict) else None
    return tuple(sorted(str(name)[:64] for name in errors)) if isinstance(errors, dict) else ()


def _date(value: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(value) if value else None
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date is None or date.tzinfo else date.replace(tzinfo=UTC)


def _retry_after(value: str | None, now: datetime) -> float | None:
    """Both forms (RFC 9110, 10.2.3), capped; a date is read against the server's own clock."""
    if not value:
        return None
    seconds = value.strip()
    if seconds.isascii() and seconds.isdigit():
        return min(float(seconds[:9]), RETRY_AFTER_MAX_S)
    date = _date(value)
    return None if date is None else min(max(0.0, (date - now).total_seconds()), RETRY_AFTER_MAX_S)


def _unreachable(error: Exception) -> str:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "TLS: the certificate can't be trusted; check this machine's clock and who answers there"
    if "SSL" in text or "TLS" in text:
        return "TLS: no secure connection could be made"
    if "Name or service" in text or "name resolution" in text or "nodename" in text:
        return "the name of Omneo's host can't be resolved"
    return "no connection"
