"""What goes wrong on demand: which request is hit, and by what. How the client sees it is in `wire`."""

from random import Random
from typing import Annotated, Any, Literal

import msgspec

Mode = Literal[
    "any",
    "down",
    "drop_after",
    "drop_before",
    "forbidden",
    "garbage",
    "hang",
    "hang_after",
    "portal",
    "portal_json",
    "redirect",
    "refuse",
    "skew",
    "status",
    "throttle",
    "trickle",
    "truncate",
    "unauthorized",
    "wrong_id",
]

# What `any` draws from: all that a line, a proxy or Omneo can do to one request. `down` is the whole server's.
ALL_MODES: tuple[Mode, ...] = (
    "drop_after",
    "drop_before",
    "forbidden",
    "garbage",
    "hang",
    "hang_after",
    "portal",
    "portal_json",
    "redirect",
    "refuse",
    "skew",
    "status",
    "throttle",
    "trickle",
    "truncate",
    "unauthorized",
    "wrong_id",
)
STATUSES = (408, 425, 500, 502, 503, 504)
# Modes in which the request has been applied by the time things go wrong, whatever `apply` says.
AFTER: frozenset[Mode] = frozenset({"drop_after", "hang_after", "trickle", "truncate", "skew"})
# Modes in which `apply` decides whether the answer hides a request that was carried out.
EITHER: frozenset[Mode] = frozenset({"status", "portal", "portal_json", "redirect", "garbage", "wrong_id"})


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fault, as switched on: how often (`count`, `skip`, `share`) and for whom (`path`, `method`, `contains`).

    `code`, `html`, `retry_after`, `as_date`, `seconds`, `interval`, `skew_s`, `reset` and `apply` say how, where a mode
    asks; `modes` is what `any` draws from.
    """

    mode: Mode
    count: int | None = None
    skip: int = 0
    share: float = 1.0
    seed: int = 0
    path: str = ""
    method: str | None = None
    contains: str = ""
    apply: bool = False
    code: Annotated[int, msgspec.Meta(ge=200, le=599)] = 503
    html: bool = False
    retry_after: int = 1
    as_date: bool = False
    seconds: float = 60.0
    interval: float = 0.05
    skew_s: float = 3600.0
    reset: bool = False
    modes: tuple[Mode, ...] = ALL_MODES

    def applies(self) -> bool:
        return self.mode in AFTER or (self.apply and self.mode in EITHER)


class Armed:
    """A rule and how much of it is left."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.left = rule.count
        self.skip = rule.skip
        self.dice = Random(rule.seed)
        self.fired = 0

    def strikes(self, method: str, path: str, body: bytes) -> bool:
        rule = self.rule
        if self.left == 0 or rule.path not in path or (rule.method or method).upper() != method:
            return False
        if rule.contains and rule.contains.encode() not in body:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.dice.random() >= rule.share:
            return False
        self.left = None if self.left is None else self.left - 1
        self.fired += 1
        return True

    def drawn(self) -> Rule:
        """Under `any`, one of its modes, by the rule's own dice: the same seed and requests, the same faults."""
        rule, dice = self.rule, self.dice
        if rule.mode != "any":
            return rule
        return msgspec.structs.replace(
            rule,
            mode=dice.choice(rule.modes),
            code=dice.choice(STATUSES),
            apply=dice.random() < 0.5,
            html=dice.random() < 0.5,
            as_date=dice.random() < 0.5,
            reset=dice.random() < 0.5,
        )


class Faults:
    """The rules that are switched on, first come first asked; one request is hit by one at most."""

    def __init__(self) -> None:
        self.armed: list[Armed] = []
        self.latency_s = 0.0

    def clear(self) -> None:
        self.armed.clear()

    def add(self, rule: Rule) -> None:
        self.armed.append(Armed(rule))

    def reads_body(self) -> bool:
        return any(each.rule.contains for each in self.armed)

    def pick(self, method: str, path: str, body: bytes) -> Rule | None:
        for each in self.armed:
            if each.strikes(method, path, body):
                return each.drawn()
        return None

    def describe(self) -> list[dict[str, Any]]:
        return [msgspec.to_builtins(each.rule) | {"left": each.left, "fired": each.fired} for each in self.armed]
