"""
Strict JSON: bytes to values, or the reason why not. Pure, and no bytes make it raise anything else.

JSON is read more strictly than Python reads it, because whatever two readers could understand differently (a key that
stands twice, NaN, half a character, a number no double can hold) must not become a sale. Money stays decimal.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import islice
from math import isinf
from typing import Any

EMPTY = "empty"
NOT_UTF8 = "not UTF-8"
NOT_JSON = "not JSON"
NOT_STRICT = "not strict JSON"
TOO_DEEP = "nested too deep"

DEPTH = 64  # containers inside one another
PROBLEMS = 20  # more than these help nobody
POINTER = 256  # characters; a longer one names the nearest parent that fits

BOM = b"\xef\xbb\xbf"
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong and where (RFC 6901). Says what was expected; holds no value from the document."""

    pointer: str
    message: str


@dataclass(frozen=True, slots=True)
class _Fault:
    """Stands, while parsing, where a value should be that no strict reader takes."""

    message: str


class NotJSON(ValueError):  # noqa: N818 - it says what the bytes are
    """These bytes are not one strict JSON text."""

    def __init__(self, reason: str, *problems: Problem, whole: bool, value: Any = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.problems = problems
        self.whole = whole
        self.value = value  # what could be read all the same; not to be trusted beyond its external_id

    @property
    def problem(self) -> Problem:
        """The first thing that is wrong."""
        return self.problems[0]


def parse(body: bytes) -> Any:
    """The value of one strict JSON text; numbers are int or Decimal. Raises NotJSON."""
    text = _text(body)
    faults: list[_Fault] = []
    try:
        value = _decoder(faults).decode(text)
    except json.JSONDecodeError as error:
        where = f"is not JSON from line {error.lineno}, column {error.colno} on"
        raise NotJSON(NOT_JSON, Problem("", where), whole=False) from None
    except RecursionError:  # far too deep; whether it is whole too cannot be told, so let it be waited for
        raise NotJSON(TOO_DEEP, _too_deep(), whole=False) from None
    if text.count("{") + text.count("[") > DEPTH and _deeper(value, DEPTH):
        raise NotJSON(TOO_DEEP, _too_deep(), whole=True)
    if (faults or ESCAPED_SURROGATE.search(text)) and (problems := tuple(islice(_faults(value, ()), PROBLEMS))):
        raise NotJSON(NOT_STRICT, *problems, whole=True, value=value)
    return value


def _text(body: bytes) -> str:
    try:
        text = body.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        where = Problem("", f"must be UTF-8, which ends at byte {error.start}")
        raise NotJSON(NOT_UTF8, where, whole=_would_be_json(body.decode(errors="replace"))) from None
    if not text or text.isspace():
        raise NotJSON(EMPTY, Problem("", "must be one JSON object"), whole=False)
    return text


def _would_be_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=str)
    except (ValueError, RecursionError):
        return False
    return True


def _decoder(faults: list[_Fault]) -> json.JSONDecoder:
    """A decoder that notes what a strict reader refuses instead of stopping there.

    Only the end of the text shows whether it is whole, and a file that is still being written must be left alone.
    """
    return json.JSONDecoder(
        object_pairs_hook=partial(_object, faults),
        parse_float=partial(_decimal, faults),
        parse_int=partial(_integer, faults),
        parse_constant=lambda _: _note(faults, "must be a number: NaN and Infinity are not JSON"),
    )


def _note(faults: list[_Fault], message: str) -> _Fault:
    faults.append(_Fault(message))
    return faults[-1]


def _object(faults: list[_Fault], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                members[key] = _note(faults, "must stand only once in its object")
            seen.add(key)
    return members


def _decimal(faults: list[_Fault], text: str) -> Decimal | _Fault:
    double = float(text)
    if double and not isinf(double):
        return Decimal(text)
    mantissa = text.lower().partition("e")[0]
    if isinf(double) or mantissa.strip("-.0"):
        return _note(faults, "must be a number that a double can hold")
    return Decimal(mantissa)  # nought, whatever its exponent, which may be more than Decimal takes


def _integer(faults: list[_Fault], text: str) -> int | _Fault:
    if len(text) > 300 and isinf(float(text)):
        return _note(faults, "must be a number that a double can hold")
    return int(text)


def _deeper(value: Any, limit: int) -> bool:
    """Whether containers stand deeper in one another than the limit; level by level, so that it cannot recurse."""
    level = [value]
    for _ in range(limit):
        level = [child for node in level if isinstance(node, (dict, list)) for child in _children(node)]
    return any(isinstance(node, (dict, list)) for node in level)


def _children(node: dict[str, Any] | list[Any]) -> list[Any]:
    return list(node.values()) if isinstance(node, dict) else node


def _too_deep() -> Problem:
    return Problem("", f"must not nest deeper than {DEPTH}")


def _faults(value: Any, path: tuple[str | int, ...]) -> Iterator[Problem]:
    """Where the faults are, and every text that holds half a character."""
    if isinstance(value, _Fault):
        yield Problem(pointer(path), value.message)
    elif isinstance(value, str) and HALF_CHARACTER.search(value):
        yield Problem(pointer(path), "must be whole characters: a surrogate has no partner")
    elif isinstance(value, list):
        for at, child in enumerate(value):
            yield from _faults(child, (*path, at))
    elif isinstance(value, dict):
        for key, child in value.items():
            if HALF_CHARACTER.search(key):
                yield Problem(pointer(path), "must have keys of whole characters: a surrogate has no partner")
            yield from _faults(child, (*path, key))


def pointer(path: tuple[str | int, ...] | list[str | int]) -> str:
    """RFC 6901; stops at the parent of a key that is too long, or that a terminal or UTF-8 could not bear."""
    told = ""
    for step in path:
        token = str(step)
        if not token.isprintable() or len(told) + len(token) >= POINTER:
            break
        told += "/" + token.replace("~", "~0").replace("/", "~1")
    return told
