"""One request and its answer, as the routes see them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from forwarder.sandbox.state import Refusal, Row

# Money comes and goes digit by digit: a float in between would lose some of 33 digits, and comparisons are exact.
_decoder = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")

JSON = "application/json"
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked."""

    method: str
    route: str
    path: str
    origin: str
    params: Mapping[str, Any]
    query: str
    headers: Mapping[str, str]
    raw: bytes

    def fields(self) -> Row:
        """The body as an object; no body is an empty one (the SDK posts none at all to several routes)."""
        if not self.raw.strip():
            return {}
        try:
            parsed = _decoder.decode(self.raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(400, f"The request body is not valid JSON: {error}") from None
        if not isinstance(parsed, dict):
            raise Refusal(422, "The request body must be a JSON object.")
        return parsed

    def form(self) -> dict[str, str]:
        """Form-encoded fields: the token endpoint (dev-guides/core-setup/authentication)."""
        return dict(parse_qsl(self.raw.decode("utf-8", "replace"), keep_blank_values=True))

    def arguments(self) -> list[tuple[str, str]]:
        return parse_qsl(self.query, keep_blank_values=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    def head(self) -> list[tuple[bytes, bytes]]:
        pairs = [("content-type", self.content_type)] if self.status != 204 else []
        pairs += [("content-length", str(len(self.body)))] if self.status != 204 else []
        return [(name.encode(), value.encode("latin-1")) for name, value in [*pairs, *self.headers.items()]]


def json_answer(status: int, value: object, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, _encoder.encode(value), headers=headers or {})


def data(value: object, status: int = 200) -> Answer:
    """Omneo wraps everything in `data` (omneo-sdk, throughout)."""
    return json_answer(status, {"data": value})


def peek(raw: bytes) -> Row:
    """The body if it is an object, for those who only want to look."""
    try:
        parsed = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
