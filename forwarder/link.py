"""The link to Omneo: who we are there, how fast we may ask, and one request after the other."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

import httpx

from forwarder import outcome
from forwarder.omneo import Request
from forwarder.outcome import Answer
from forwarder.window import Instant, Omneo
from journal.log import Unusable, boot_facts, utc_now

SLOW_S = 0.002  # a commit takes about one
URLS = 16  # parsed ones that are kept: sales all have the same
PAGES = 50  # of 100 redemptions of one customer; of whoever has more nothing is taken for absent


def check_url(url: str) -> httpx.URL:
    """API base. `http://` only to this machine: a token never crosses a network in the clear. Raises Unusable."""
    try:
        parsed = httpx.URL(url.rstrip("/"))
    except httpx.InvalidURL:
        raise Unusable(f"{url!r} is no URL; give Omneo's API base with --url.") from None
    if parsed.query or parsed.fragment:
        raise Unusable("--url must be Omneo's API base alone, without a query or fragment.")
    if parsed.scheme == "https" and parsed.host and not parsed.userinfo:
        return parsed
    if parsed.scheme == "http" and _is_loopback(parsed.host):
        return parsed
    raise Unusable("--url must be an https:// address without a user name; http:// is taken only for this machine.")


_url = lru_cache(maxsize=URLS)(httpx.URL)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the secret is. It is read when it is needed, so that a new one is enough to go on; never logged."""

    file: Path | None  # None: the environment

    @classmethod
    def find(cls, option: Path | None) -> "Credentials":
        """`--token-file`, else the systemd credential `omneo-token`, else OMNEO_TOKEN. Raises Unusable."""
        if option is not None:
            found = cls(option)
        elif (directory := os.environ.get("CREDENTIALS_DIRECTORY")) and (Path(directory) / "omneo-token").exists():
            found = cls(Path(directory) / "omneo-token")
        else:
            found = cls(None)
        found.oauth()
        return found

    def read(self) -> str:
        """The token, or the JSON object of an OAuth client. Raises Unusable when there is nothing to read."""
        if self.file is None:
            text = os.environ.get("OMNEO_TOKEN", "")
        else:
            try:
                text = self.file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                raise Unusable(f"The token file {self.file} can't be read; check --token-file.") from None
        text = text.strip()
        if not text:
            raise Unusable("There is no token: give --token-file, the credential omneo-token, or OMNEO_TOKEN.")
        if not text.startswith("{") and not can_be_a_token(text):
            raise Unusable("The token holds characters that no token has; write it into the file again.")
        return text

    def oauth(self) -> dict[str, str] | None:
        """The fields for the token endpoint, if this is OAuth (omneo-api, 1.3)."""
        text = self.read()
        if not text.startswith("{"):
            return None
        try:
            fields = json.loads(text)
            names = ("client_id", "client_secret", "username", "password")
            form = {name: str(fields[name]) for name in names if name in fields}
            form["client_id"], form["client_secret"]
        except (ValueError, KeyError, TypeError):
            raise Unusable("The OAuth credential must be a JSON object with client_id and client_secret.") from None
        form["grant_type"] = str(fields.get("grant_type", "client_credentials"))
        form["scope"] = str(fields.get("scope", "*"))
        return form


def can_be_a_token(text: str) -> bool:
    """Can a header carry it? Only then is it sent."""
    return text.isascii() and text.isprintable() and " " not in text and text != ""


class Sleep(Protocol):
    """Waits so many seconds, or shorter when the program is to stop."""

    def __call__(self, seconds: float) -> object:
        """Wait."""


class Link:
    """One way to Omneo, for one or more lanes: a token, a rate, a transport."""

    def __init__(
        self,
        url: httpx.URL,
        credentials: Credentials,
        transport: httpx.BaseTransport,
        *,
        rate: float,
        sleep: Sleep,
        now: Callable[[], datetime] = utc_now,
        instant: Callable[[], Instant] | None = None,
    ) -> None:
        """`rate` in requests a second, 0 for no limit. `instant`: this machine's clocks, if not the kernel's."""
        self._base = str(url)
        self._credentials = credentials
        self._transport = transport
        self._spacing_s = 1 / rate if rate else 0.0
        self._sleep = sleep
        self._now = now
        self._instant = instant
        self._token = ""
        self._next = 0.0
        self._lock = threading.Lock()
        self._refresh = threading.Lock()
        self.slow = False  # did the last request take longer than a commit, without what we did meanwhile?
        self._meanwhile_s = 0.0
        self.omneo_clock: Omneo | None = None  # Omneo's `Date` as last seen in this run

    def ask(self, request: Request, within_s: float | None = None) -> Answer:
        """
        Send a request; after a 401 once more with a fresh token (nothing was done with the first).

        `within_s`: it leaves so soon or not at all, whatever the rate and a 401 cost.
        """
        until_s = None if within_s is None else self.instant().since_boot_s + within_s
        if not self._token and (refused := self._fetch_token_or_pause(self._token)) is not None:
            return refused
        token = self._token
        answer = self._send(request, token, until_s)
        if answer.status != 401 or answer.html:
            return answer
        return self._fetch_token_or_pause(token) or self._send(request, self._token, until_s)

    def meanwhile(self, act: Callable[[], object]) -> None:
        """Do something while the answer to a request is waited for: that doesn't make the line a slow one."""
        began = time.monotonic()
        act()
        self._meanwhile_s = time.monotonic() - began

    def pages(self, request: Callable[[int], Request]) -> Iterator[Answer]:
        """Every page of a list, up to the first that isn't answered well, and no more than PAGES."""
        for page in range(1, PAGES + 1):
            answer = self.ask(request(page))
            yield answer
            if outcome.meaning(answer) != "yes" or answer.ends(page):
                return

    def _fetch_token_or_pause(self, spent: str) -> Answer | None:
        """A new token, unless another lane has one already. A file that can't be read is just being written: paused."""
        try:
            with self._refresh:
                return self._fetch_token() if self._token == spent else None
        except Unusable as reason:
            return Answer(401, {}, left=False, reason=str(reason))

    def _send(self, request: Request, token: str, until_s: float | None) -> Answer:
        method, path, body = request
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",  # Laravel redirects to a login page otherwise (omneo-api, 1.2)
            "Accept-Encoding": "identity",
            "User-Agent": "omneo-forwarder",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        elif method == "POST":
            body = b""
        self._pace()
        if until_s is not None and self.instant().since_boot_s > until_s:
            return Answer(None, None, left=False, reason="it could not leave in time")
        full = httpx.Request(method, _url(self._base + path), headers=headers, content=body)
        self._meanwhile_s = 0.0
        began, left = time.monotonic(), self.instant()
        answer = outcome.send(self._transport, full, self._now)
        self.slow = time.monotonic() - began - self._meanwhile_s > SLOW_S
        if answer.date is not None and outcome.meaning(answer) not in {"not_omneo", "lost"}:
            self.omneo_clock = Omneo(answer.date, left)  # it may have been said as early as that
        return answer

    def instant(self) -> Instant:
        """Now, on this machine."""
        if self._instant is not None:
            return self._instant()
        facts = boot_facts()
        return Instant(facts["boot"], facts["since_boot_s"], self._now())

    def _fetch_token(self) -> Answer | None:
        """Read the credential again; for OAuth, get a token with it. None when there is a token to try."""
        form = self._credentials.oauth()
        if form is None:
            self._token = self._credentials.read()
            return None
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        self._pace()
        request = httpx.Request("POST", self._base + "/auth/token", headers=headers, content=urlencode(form).encode())
        answer = outcome.send(self._transport, request, self._now)
        token = answer.content.get("access_token") if isinstance(answer.content, dict) else None
        if outcome.meaning(answer) == "yes" and isinstance(token, str) and can_be_a_token(token):
            self._token = token
            return None
        if outcome.meaning(answer) in {"no", "credentials"}:
            return Answer(401, {}, left=False, reason="Omneo does not accept the OAuth credential")
        if outcome.meaning(answer) == "yes":
            return Answer(answer.status, None, left=False, reason=outcome.NOT_OMNEO, html=True)
        return replace(answer, left=False)

    def _pace(self) -> None:
        """Keep to the rate, whichever lane asks."""
        if not self._spacing_s:
            return
        with self._lock:
            now = time.monotonic()
            mine = max(now, self._next)
            self._next = mine + self._spacing_s
        if mine > now:
            self._sleep(mine - now)
