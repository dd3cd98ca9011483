"""
The way to Omneo, step by step: `omneo-forwarder doctor`. Reads, asks harmless questions, never sends a document.

A step that failed makes those behind it meaningless: they are told as not tried.
"""

import socket
import time
from collections.abc import Iterator

import httpx

from forwarder import doctor_box, omneo, outcome, status
from forwarder.doctor_box import Finding, Ill, Patient, in_turn
from forwarder.link import Credentials, Link, check_url

__all__ = ["Finding", "Patient", "examine"]

SKEW_S = 120
NOWHERE = "omneo-journal-doctor"  # an external_id that nobody has


def examine(patient: Patient, transport: httpx.BaseTransport) -> Iterator[Finding]:
    """One finding a step, in the order in which a sale goes. `transport` reaches Omneo."""
    yield from in_turn(
        ("SQLite", doctor_box.sqlite),
        ("journal", doctor_box.journal),
        ("delivery book", doctor_box.delivery),
        patient=patient,
    )
    yield from in_turn(("disk space", doctor_box.space), ("disk speed", doctor_box.sync), patient=patient)
    if patient.spool is not None:
        yield from in_turn(("spool", doctor_box.spool), patient=patient)
    asked = _Asked(patient, transport)
    steps = (
        ("address", asked.address),
        ("token", asked.credentials),
        ("name", asked.name),
        ("connection", asked.connection),
        ("answer", asked.answer),
        ("clock", asked.clock),
        ("routes", asked.routes),
    )
    yield from in_turn(*steps, patient=patient)
    yield from in_turn(("programs", doctor_box.programs), ("backlog", asked.backlog), patient=patient)


def _wait(seconds: float) -> None:
    time.sleep(seconds)


class _Asked:
    """The steps that need Omneo, and what they learn for each other."""

    def __init__(self, patient: Patient, transport: httpx.BaseTransport) -> None:
        self._patient = patient
        self._transport = transport
        self._round_trip_s: float | None = None
        self._skew_s: float | None = None

    def address(self, patient: Patient) -> str:
        self._url = check_url(patient.url)
        return f"{self._url.scheme}://{self._url.netloc.decode()}{self._url.path}"

    def credentials(self, patient: Patient) -> str:
        found = Credentials.find(patient.token_file)
        self._link = Link(self._url, found, self._transport, rate=0, sleep=_wait, now=patient.now)
        kind = "an OAuth credential" if found.oauth() else "a bearer token"
        return f"{kind} in {found.file or 'OMNEO_TOKEN'}"

    def name(self, _: Patient) -> str:
        try:
            found = socket.getaddrinfo(self._url.host, self._url.port or 443, type=socket.SOCK_STREAM)
        except OSError as error:
            advice = "see to the line and the name server, or to --url"
            raise Ill(f"{self._url.host} can't be resolved: {error.strerror}", advice) from None
        return f"{self._url.host} is {found[0][4][0]}"

    def connection(self, patient: Patient) -> str:
        """Somebody answers, and over TLS proves to be who is meant. Without a token: nobody else shall see it."""
        wanted = httpx.Request("GET", str(self._url), headers={"Accept": "application/json"})
        answer = outcome.send(self._transport, wanted, patient.now)
        if answer.status is None:
            advice = "see to the line, and to what stands between"
            if answer.reason.startswith("TLS"):
                advice = "check this machine's clock first, then who answers there: a proxy, a portal's sign-in page"
            raise Ill(answer.reason, advice)
        return "TLS holds, the certificate is good" if self._url.scheme == "https" else "connected, without TLS"

    def answer(self, patient: Patient) -> str:
        began = time.monotonic()
        answer = self._link.ask(omneo.verify_token())
        self._round_trip_s = time.monotonic() - began
        if (meaning := outcome.meaning(answer)) != "yes":
            raise Ill(outcome.otherwise(answer).reason, ADVICE.get(meaning, "try again later"))
        if answer.date is not None:
            self._skew_s = (patient.now() - answer.date).total_seconds()
        return f"Omneo knows this token, and answered in {self._round_trip_s * 1000:.0f} ms"

    def clock(self, _: Patient) -> str:
        if self._skew_s is None:
            return "Omneo does not tell its time"
        if abs(self._skew_s) > SKEW_S:
            ahead = "ahead of" if self._skew_s > 0 else "behind"
            advice = "set this machine's clock, and see to its time synchronisation"
            raise Ill(f"this machine's clock is {abs(self._skew_s):.0f} s {ahead} Omneo's", advice)
        return f"within {abs(self._skew_s):.0f} s of Omneo's"

    def routes(self, patient: Patient) -> str:
        """The three look-ups that everything rests on: may this token make them, and does Omneo know them?"""
        asked = {
            "sales": omneo.find_sale(NOWHERE),
            "customers": omneo.read_profile(NOWHERE, "email", patient.routes),
            "redemptions": omneo.redemptions_of_sale(NOWHERE, 1),
        }
        for what, request in asked.items():
            answer = self._link.ask(request)
            if outcome.meaning(answer) not in {"yes", "missing", "no"}:
                reason = outcome.otherwise(answer).reason
                raise Ill(f"{what} can't be looked up: {reason}", "check the token's scopes, --url and --routes")
        return f"{', '.join(asked)} can be looked up"

    def backlog(self, patient: Patient) -> str:
        standing = status.status(patient.db, patient.delivery, patient.now())
        waiting = standing["waiting"]
        if not waiting or self._round_trip_s is None or standing["link"] in {"down", "paused"}:
            return f"{waiting} documents wait"
        each_s = max(self._round_trip_s, 1 / patient.rate if patient.rate else 0.0)
        return f"{waiting} documents wait: about {max(1, round(waiting * each_s / 60))} min at this speed"


ADVICE = {
    "not_now": "see to the router and the line; nothing is lost meanwhile",
    "lost": "see to the line; nothing is lost meanwhile",
    "not_omneo": "sign in to the network, or let the proxy pass Omneo's host",
    "credentials": "write a good token into the token file; under systemd, then restart omneo-forwarder",
    "missing": "check --url",
    "route": "check --url, which ends in /api/v3, then try --routes guide",
    "no": "check --url, and the token",
}
