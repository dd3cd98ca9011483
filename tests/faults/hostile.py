"""Documents that nobody would write on purpose, and some that somebody would: by table, by mutation, by structure."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.campaign.drops import Doc, Tills, spell

CANARY = "Zoe.Canary"  # stands in many values: none may be quoted in what is said about a document
LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Paper:
    """A document's bytes, and whether it has to be taken (None: whatever a second reader says)."""

    body: bytes
    good: bool | None = None
    how: str = ""


TABLE: dict[str, Callable[[], bytes]] = {
    "lists, deep": lambda: b"[" * 100_000,
    "lists, deep and closed": lambda: b"[" * 100_000 + b"]" * 100_000,
    "objects, deep": lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a million": lambda: b"[" + b"0," * (LIMIT // 2 - 2) + b"0]",
    "many keys": lambda: b"{" + b",".join(b'"%d":1' % number for number in range(90_000)) + b"}",
    "many lists": lambda: b"[" + b"[]," * (LIMIT // 3 - 2) + b"[]]",
    "many fractions": lambda: b"[" + b"1.1," * (LIMIT // 4 - 2) + b"1.1]",
    "many NaN": lambda: b"[" + b"NaN," * (LIMIT // 4 - 2) + b"NaN]",
    "the same key again and again": lambda: b"{" + b'"a":1,' * (LIMIT // 6 - 2) + b'"a":1}',
    "one long text": lambda: b'"' + b"x" * (LIMIT - 2) + b'"',
    "one long text of escapes": lambda: b'"' + rb"\u0041" * (LIMIT // 6 - 2) + b'"',
    "half characters": lambda: b'"' + rb"\ud800" * (LIMIT // 6 - 2) + b'"',
    "backslashes": lambda: b'"' + b"\\" * (LIMIT - 3) + b'"',
    "digits": lambda: b"9" * LIMIT,
    "digits after a point": lambda: b"0." + b"9" * (LIMIT - 2),
    "an exponent of digits": lambda: b"1e" + b"9" * (LIMIT - 2),
    "noughts": lambda: b"0" * LIMIT,
    "nought with an exponent": lambda: b"0e" + b"9" * (LIMIT - 2),
    "minus signs": lambda: b"-" * LIMIT,
    "blanks": lambda: b" " * LIMIT,
    "blanks around nothing wrong": lambda: b" " * (LIMIT // 2) + b"{}" + b"\n" * (LIMIT // 2 - 2),
    "commas": lambda: b"[" + b"," * (LIMIT - 2) + b"]",
    "NUL": lambda: b"\0" * LIMIT,
    "byte-order marks": lambda: b"\xef\xbb\xbf" * (LIMIT // 3),
    "one bad line of many": lambda: _sale(items=[{"name": "x"}] * 15_000 + [{"name": 1}]),
    "all lines bad": lambda: _sale(items=[{"quantity": "x"}] * 15_000),
    "a long time": lambda: _sale(transacted_at="2" * 200_000),
    "a long fraction of a second": lambda: _sale(transacted_at=f"2025-06-15T14:32:00.{'1' * 200_000}Z"),
    "a long time zone": lambda: _sale(timezone="Europe/" * 100_000),
    "a time zone up the tree": lambda: _sale(timezone="../../../../etc/passwd"),
    "a time zone with NUL": lambda: _sale(timezone="Europe/\0Berlin"),
    "a long id": lambda: _sale(external_id="x" * 200_000),
    "an id of half characters": lambda: _sale().replace(b"S-1", rb"\ud800" * 100),
    "a money of digits": lambda: _sale().replace(b"12.5", b"9" * 300, 1),
    "a money of a hundred thousand digits": lambda: _sale().replace(b"12.5", b"1." + b"1" * 100_000, 1),
    "half of it": lambda: _sale()[:90],
    "twice": lambda: _sale() * 2,
    "a line each": lambda: _sale() + b"\n" + _sale(),
    "UTF-16": lambda: _sale().decode().encode("utf-16"),
    "UTF-32": lambda: _sale().decode().encode("utf-32"),
    "UTF-7": lambda: _sale(name="ä").decode().encode("utf-7"),
    "EBCDIC": lambda: _sale().decode().encode("cp500"),
    "gzip": lambda: b"\x1f\x8b\x08\x00" + bytes(range(256)) * 4,
    "overlong": lambda: b'{"a":"\xc0\xaf\xe0\x80\xaf"}',
    "comments": lambda: b'{/* a */"a":1 // b\n}',
    "single quotes": lambda: b"{'a':1}",
    "hexadecimal": lambda: b'{"a":0x10}',
    "numbers of other scripts": '{"a":١٢}'.encode,
    "a trailing comma": lambda: b'{"a":[1,],}',
    "a plus": lambda: b'{"a":+1}',
    "a bare point": lambda: b'{"a":.5}',
    "a line separator": '{"a":"\u2028\u2029"}'.encode,
    "prototype": lambda: _sale(__proto__={"total": 0}, constructor=1),
}


def _sale(**fields: object) -> bytes:
    content = {"kind": "sale", "external_id": "S-1", "total": 12.5, "transacted_at": "2025-06-15 14:32:00"}
    content |= {"timezone": "Australia/Melbourne", "items": [{"name": "Belt", "quantity": 1, "price_sell": 12.5}]}
    return json.dumps(content | fields).encode()


POISON = ("NaN", "-Infinity", "1e999", "1e-999", "9" * 400, '"\\ud800"', '"\\udc00\\ud800"', "01", "1.", "'x'", "tru")
ODD = ("0e99999999999999999999", "-0.0", "1E400", "1e308", "5e-324", '"\\u0000"', '"\\ud83d\\ude00"', '"\u202e"', "[]")
KEYS = ("a", "A", "\u0041", "é", "e\u0301", "", "kind", "external_id", "total", "\\u0061", "x" * 300, "~/")


class Press:
    """Makes papers, all by one seed."""

    def __init__(self, seed: object) -> None:
        self.dice = Random(str(seed))
        self.tills = Tills(self.dice)
        self.count = 0

    def paper(self) -> Paper:
        self.count += 1
        way = self.dice.random()
        if way < 0.2:
            return Paper(self.good(), good=True, how="good")
        if way < 0.6:
            return Paper(self.hurt(self.good()), how="hurt")
        if way < 0.75:
            return Paper(spell(self.bent(), self.dice).encode("utf-8", "replace"), how="bent")
        if way < 0.995:
            return Paper(self.grown(self.dice.choice((2, 4, 8, 70))).encode("utf-8", "surrogatepass"), how="grown")
        name = self.dice.choice(list(TABLE))
        return Paper(TABLE[name](), how=name)

    def document(self) -> Doc:
        self.tills.count += 1
        doc = self.tills._unnumbered_sale()
        return doc | {"staff_id": CANARY, "meta": {"who": CANARY, "n": self.count}}

    def good(self) -> bytes:
        body = spell(self.document(), self.dice, plain=self.dice.random() < 0.5).encode()
        return b"\xef\xbb\xbf" + body if self.dice.random() < 0.05 else body

    def hurt(self, body: bytes) -> bytes:
        """A few bytes changed, lost, doubled, moved."""
        raw = bytearray(body)
        for _ in range(self.dice.choice((1, 1, 2, 5))):
            at = self.dice.randrange(len(raw) + 1)
            match self.dice.randrange(7):
                case 0:
                    raw[at : at + 1] = bytes([self.dice.randrange(256)])
                case 1:
                    del raw[at : at + self.dice.choice((1, 1, 3, 50))]
                case 2:
                    raw[at:at] = self.dice.choice(
                        (b'"', b"\\", b",", b"}", b"[", b"\0", b"\xff", b"\xed\xa0\x80", b"1")
                    )
                case 3:
                    raw[at:at] = raw[at : at + self.dice.randrange(60)]
                case 4:
                    del raw[at:]
                case 5:
                    raw[at:at] = self.dice.choice(POISON + ODD).encode()
                case 6:
                    other = self.dice.randrange(len(raw) + 1)
                    raw[at:at] = raw[other : other + 20]
        return bytes(raw)

    def bent(self) -> Doc:
        """Whole JSON in which one thing is not as its schema asks."""
        doc = self.document()
        name = self.dice.choice(list(doc))
        odd = (None, True, "", CANARY, "12.50", -1, 10**40, [], {}, [CANARY], {CANARY: CANARY}, "\x07", "2025-02-30")
        doc[name] = self.dice.choice(odd)
        if self.dice.random() < 0.3:
            del doc[self.dice.choice(list(doc))]
        return doc

    def grown(self, depth: int) -> str:
        """Any JSON at all, with a poison somewhere, perhaps."""
        if depth == 0 or self.dice.random() < 0.25:
            value = self.dice.random()
            if value < 0.04:
                return self.dice.choice(POISON)
            return self.dice.choice((*ODD, "1", "true", "null", f'"{CANARY}"', "1.10"))
        children = range(1 if depth > 20 else self.dice.randrange(4))
        if self.dice.random() < 0.5:
            return f"[{','.join(self.grown(depth - 1) for _ in children)}]"
        return "{" + ",".join(f'"{self.dice.choice(KEYS)}":{self.grown(depth - 1)}' for _ in children) + "}"
