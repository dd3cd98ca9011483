"""Who may come in: the personal access token `sandbox`, and what the token endpoint hands out."""

from datetime import datetime, timedelta

from forwarder.sandbox.exchange import Answer, Call, data, json_answer
from forwarder.sandbox.state import Refusal, Row, Tenant

PAT = "sandbox"
CLIENT = ("sandbox", "sandbox")
GRANTS = ("client_credentials", "password", "refresh_token")


class Tokens:
    """Bearer tokens and how long each is good for (None: until revoked). Omneo's own lifetime is undocumented."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.good: dict[str, datetime | None] = {PAT: None}
        self.refresh: set[str] = set()
        self.expires_in = 3600
        self.issued = 0

    def issue(self, now: datetime) -> Row:
        """The shape of Laravel Passport, on which Omneo stands; the docs only name access_token."""
        self.issued += 1
        access, refresh = f"sandbox-access-{self.issued}", f"sandbox-refresh-{self.issued}"
        self.good[access] = now + timedelta(seconds=self.expires_in)
        self.refresh.add(refresh)
        kind = {"token_type": "Bearer", "expires_in": self.expires_in}
        return kind | {"access_token": access, "refresh_token": refresh}

    def admit(self, authorization: str, now: datetime) -> None:
        scheme, _, token = authorization.partition(" ")
        until = self.good.get(token.strip(), now)
        if scheme.lower() != "bearer" or (until is not None and until <= now):
            raise Refusal(401, "Unauthenticated.")

    def revoke(self, token: str | None, *, access_only: bool) -> None:
        """One token, or all of them; `access_only` leaves the refresh tokens, as when access tokens run out."""
        gone = [token] if token is not None else [each for each in self.good if not access_only or each != PAT]
        for each in gone:
            self.good.pop(each, None)
            self.refresh.discard(each)
        if token is None and not access_only:
            self.refresh.clear()


def grant(tokens: Tokens, tenant: Tenant, call: Call) -> Answer:
    """`POST /auth/token`, form-encoded; samples say client_credentials and the prose password, so both will do."""
    form = call.form()
    if form.get("grant_type") not in GRANTS:
        raise Refusal(400, "The authorization grant type is not supported by the authorization server.")
    if form["grant_type"] == "refresh_token":
        return _refreshed(tokens, tenant, form.get("refresh_token"))
    if (form.get("client_id"), form.get("client_secret")) != CLIENT:
        raise Refusal(401, "Client authentication failed")
    return json_answer(200, tokens.issue(tenant.now()))


def refresh(tokens: Tokens, tenant: Tenant, call: Call) -> Answer:
    """`POST /auth/token/refresh`: its body is undocumented, so a form and JSON are both taken."""
    given = call.fields() if call.headers.get("content-type", "").startswith("application/json") else call.form()
    return _refreshed(tokens, tenant, given.get("refresh_token"))


def verify(_tenant: Tenant, _call: Call) -> Answer:
    """`GET /auth/verify` (omneo-sdk, verify-token.test.ts): reaching this is the answer."""
    return data({"valid": True})


def _refreshed(tokens: Tokens, tenant: Tenant, given: str | None) -> Answer:
    """A refresh token is good once."""
    if given not in tokens.refresh:
        raise Refusal(401, "The refresh token is invalid.")
    tokens.refresh.discard(given)
    return json_answer(200, tokens.issue(tenant.now()))
