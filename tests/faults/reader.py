"""
A second reader of strict JSON, to hold ours against: the grammar of RFC 8259 token by token, no line of it shared.

What contract and README add to the grammar: a byte-order mark is tolerated, keys stand once, numbers fit a double (and
don't vanish in one), text is whole characters, containers stand at most 64 deep.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

TOKEN = re.compile(
    r"""[ \t\n\r]*(?:
    (?P<text>"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+")
    |(?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)
    |(?P<word>true|false|null)|(?P<mark>[{}\[\],:])|(?P<end>$(?!\n)))""",
    re.VERBOSE,
)
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "/": "/"}
WORDS = {"true": True, "false": False, "null": None}
DEPTH = 64


class Refused(Exception):  # noqa: N818 - it says what the bytes are
    """Not one strict JSON text."""


def read(body: bytes) -> Any:
    """The value. Raises Refused, and nothing else."""
    try:
        text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("not UTF-8") from None
    tokens = _tokens(text)
    value = _value(tokens)
    if next(tokens)[0] != "end":
        raise Refused("something after the end")
    return value


def _tokens(text: str) -> Iterator[tuple[str, Any]]:
    at = 0
    while True:
        found = TOKEN.match(text, at)
        if found is None:
            raise Refused(f"no token at {at}")
        at, kind = found.end(), str(found.lastgroup)
        token = found[kind]
        match kind:
            case "text":
                yield kind, _text(token[1:-1])
            case "number":
                yield kind, _number(token)
            case "word":
                yield kind, WORDS[token]
            case _:
                yield kind, token
        if kind == "end":
            return


def _text(raw: str) -> str:
    units = ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else SHORT[found[2]], raw)
    try:
        return units.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise Refused("half a character") from None


def _number(raw: str) -> int | Decimal:
    double = float(raw)
    nought = not raw.lower().partition("e")[0].strip("-.0")
    if double in {float("inf"), float("-inf")} or (double == 0 and not nought):
        raise Refused("no double")
    if nought:
        return 0
    return Decimal(raw) if {".", "e", "E"} & set(raw) else int(raw)


def _value(tokens: Iterator[tuple[str, Any]]) -> Any:
    """One value, without recursion: what stands open is a stack."""
    root: list[Any] = []
    open_: list[list[Any] | dict[str, Any]] = [root]
    key: list[str] = []
    while True:
        kind, token = next(tokens)
        here = open_[-1]
        closes = token == ("}" if isinstance(here, dict) else "]") and kind == "mark"
        if isinstance(here, dict) and not (closes and not here):
            if kind != "text" or token in here or next(tokens) != ("mark", ":"):
                raise Refused("no new key")
            key.append(token)
            here[token] = None
            kind, token = next(tokens)
            closes = False
        if closes and here is not root and not here:
            open_.pop()
        else:
            value: Any = token
            if kind == "mark" and token in "{[":
                value = {} if token == "{" else []
            elif kind in {"mark", "end"}:
                raise Refused("no value")
            if isinstance(here, dict):
                here[key.pop()] = value
            else:
                here.append(value)
            if isinstance(value, (dict, list)):
                open_.append(value)
                if len(open_) > DEPTH + 1:
                    raise Refused("too deep")
                continue
        while len(open_) > 1:  # a value is whole: what comes after it?
            kind, token = next(tokens)
            if (kind, token) == ("mark", ","):
                break
            if (kind, token) != ("mark", "}" if isinstance(open_[-1], dict) else "]"):
                raise Refused("neither a comma nor the end")
            open_.pop()
        if len(open_) == 1:
            return root[0]
        if isinstance(open_[-1], list):
            continue
