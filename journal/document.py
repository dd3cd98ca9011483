"""A document: a file's bytes, read. Pure: no file, no network, no clock, and no bytes that make it raise.

JSON is read more strictly than Python reads it, because whatever two readers could understand differently (a key that
stands twice, NaN, half a character, a number no double can hold) must not become a sale. Money stays decimal.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, available_timezones

import schemas
from journal.strict import (
    EMPTY,
    HALF_CHARACTER,
    NOT_JSON,
    NOT_STRICT,
    NOT_UTF8,
    PROBLEMS,
    TOO_DEEP,
    NotJSON,
    Problem,
    parse,
    pointer,
)
from schemas import KINDS

if TYPE_CHECKING:
    import jsonschema_rs

__all__ = ["KINDS", "REASONS", "Document", "NotJSON", "Problem", "local_time", "parse", "read", "same"]

NOT_OBJECT = "not one JSON object"
NO_KIND = "of no known kind"
BREAKS_SCHEMA = "breaks its schema"
REASONS = (EMPTY, NOT_UTF8, NOT_JSON, NOT_STRICT, TOO_DEEP, NOT_OBJECT, NO_KIND, BREAKS_SCHEMA)

# The same rule as $defs/time in the schemas; fromisoformat alone takes week dates, bare dates and much else.
TIME = re.compile(r"\d{4}-\d\d-\d\d(?: \d\d:\d\d:\d\d|[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d))", re.ASCII)
NO_ZONES = {"localtime", "Factory"}  # files beside the zones that name none


@dataclass(frozen=True, slots=True)
class Document:
    """What a file turned out to be."""

    name: str  # the file's path below the spool
    body: bytes  # its exact bytes
    kind: str  # one of KINDS, or "invalid"
    external_id: str | None  # of an invalid document too, where it is there and well-formed
    content: dict[str, Any] | None  # numbers are int or Decimal; there too when the object only breaks its schema
    reason: str = ""  # one of REASONS; "" when valid
    problems: tuple[Problem, ...] = ()
    whole: bool = True  # False: not (yet) one whole JSON text, so the writer may not have finished


def read(name: str, body: bytes) -> Document:
    """The document in a file's bytes, whatever they are."""
    try:
        content = parse(body)
    except NotJSON as no:
        return Document(name, body, "invalid", _readable_id(no.value), None, no.reason, no.problems, no.whole)
    if not isinstance(content, dict):
        return Document(name, body, "invalid", None, None, NOT_OBJECT, (Problem("", "must be one JSON object"),))
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        unknown = Problem("/kind", f"must be one of: {', '.join(KINDS)}")
        return Document(name, body, "invalid", _readable_id(content), content, NO_KIND, (unknown,))
    if problems := _problems(kind, content):
        return Document(name, body, "invalid", _readable_id(content), content, BREAKS_SCHEMA, problems)
    return Document(name, body, kind, content["external_id"], content)


# What its kind asks of it


@dataclass(frozen=True, slots=True)
class _Rules:
    """One kind's schema, compiled, and what a schema cannot say."""

    schema: dict[str, Any]
    validator: "jsonschema_rs.Draft202012Validator"
    times: tuple[str, ...]


@lru_cache
def _rules(kind: str) -> _Rules:
    import jsonschema_rs  # 3 MB, which the forwarder has no use for

    schema = schemas.load(kind)
    times = tuple(name for name, rule in schema["properties"].items() if rule.get("$ref") == "#/$defs/time")
    return _Rules(schema, jsonschema_rs.Draft202012Validator(schema), times)


@lru_cache
def _id_pattern() -> re.Pattern[str]:
    return re.compile(_rules(KINDS[0]).schema["$defs"]["id"]["pattern"])


@lru_cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - NO_ZONES)


def _readable_id(content: Any) -> str | None:
    """The external_id of something that may be wrong in any other way."""
    found = content.get("external_id") if isinstance(content, dict) else None
    if not isinstance(found, str) or HALF_CHARACTER.search(found):
        return None
    return found if _id_pattern().fullmatch(found) else None


def _problems(kind: str, content: dict[str, Any]) -> tuple[Problem, ...]:
    """What breaks the schema, then what it cannot express; at most one problem at a place."""
    rules = _rules(kind)
    broken: Iterator[Problem] = iter(())
    if not rules.validator.is_valid(content):
        broken = (_said(error, rules.schema) for error in rules.validator.iter_errors(content))
    first: dict[str, Problem] = {}
    for problem in chain(broken, _wrong_times(rules, content)):
        first.setdefault(problem.pointer, problem)
        if len(first) == PROBLEMS:
            break
    return tuple(first.values())


def _wrong_times(rules: _Rules, content: dict[str, Any]) -> Iterator[Problem]:
    zone = content.get("timezone")
    if not isinstance(zone, str) or zone not in _zones():
        yield Problem("/timezone", "must be an IANA time zone name, such as Australia/Melbourne")
        zone = "UTC"  # the dates can still be judged
    for name in rules.times:
        value = content.get(name)
        if isinstance(value, str) and not _exists(value, zone):
            yield Problem(f"/{name}", "must be a date and time that exists")


def _exists(value: str, zone: str) -> bool:
    try:
        local_time(value, zone)
    except ValueError:
        return False
    return True


TYPES = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}


def _said(error: "jsonschema_rs.ValidationError", schema: dict[str, Any]) -> Problem:
    """A validator's finding in our words: its own quote the document. The schema's titles say what a value must be."""
    import jsonschema_rs

    keyword = str(error.schema_path[-1])
    rule: Any = schema
    for step in error.schema_path[:-1]:
        rule = rule[step]
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
        return Problem(pointer([*error.instance_path, error.kind.property]), "is required")
    wanted = rule.get(keyword)
    match keyword:
        case "type":
            names = [wanted] if isinstance(wanted, str) else wanted or []
            message = "must be " + " or ".join(TYPES[name] for name in names if name in TYPES)
        case "enum":
            message = "must be one of: " + ", ".join(str(choice) for choice in wanted or [] if choice is not None)
        case "minItems":
            message = f"must hold at least {wanted}"
        case "minimum":
            message = f"must be at least {wanted}"
        case "maximum":
            message = f"must be at most {wanted}"
        case "exclusiveMinimum":
            message = f"must be more than {wanted}"
        case _:
            message = f"must be {rule['title']}" if "title" in rule else rule.get("description", "must fit its schema")
    return Problem(pointer(error.instance_path), message)


# What a document's values mean


def local_time(value: str, timezone: str) -> datetime:
    """A document's time, in its zone. Of a local time that comes twice (clocks go back) the first is meant."""
    if timezone not in _zones() or not TIME.fullmatch(value):
        raise ValueError("not a time and zone that a document can hold")
    zone = ZoneInfo(timezone)
    try:
        time = datetime.fromisoformat(value.upper())
        local = time.astimezone(zone) if time.tzinfo else time.replace(tzinfo=zone)
        local.astimezone(UTC)  # at the ends of the calendar the moment may lie outside it
    except (ValueError, OverflowError):  # Python's own words would quote the value
        raise ValueError("not a time that the calendar holds") from None
    return local


def same(a: Any, b: Any) -> bool:
    """Equal as JSON values: numbers as numbers (1 is 1.0 but not true), members in any order."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (int, float, Decimal)):
        return isinstance(b, (int, float, Decimal)) and a == b
    return type(a) is type(b) and bool(a == b)


def names(kind: str, content: dict[str, Any]) -> str | None:
    """The redemption that a document names: `external:…` for an intent of this journal, `omneo:…` for one online."""
    if kind == "redemption":
        return None
    if content.get("redemption_external_id") is not None:
        return f"external:{content['redemption_external_id']}"
    return f"omneo:{int(content['redemption_id'])}" if content.get("redemption_id") is not None else None
