"""The pictures of a day's report: small SVG by hand, for a wide page and for a phone. Colours come from the page."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from typing import Any

from journal.day import Days
from journal.words import span

Row = dict[str, Any]
Scale = Callable[[float], float]

WIDE, NARROW = 920, 350  # pixels; the page shows the one that fits
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 24, 26  # room for the axes
LETTER = 6.6  # a letter's width in pixels, about
LADDER_S = (0.1, 1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400, 365 * 86400)
LABELS = 8  # documents that are named in a picture
QUARTER_S = 900


def tag(name: str, text: str = "", **attributes: object) -> str:
    """One element of SVG; an underscore in a name is a hyphen, `cls` is the class, numbers have one decimal."""
    said = {key.rstrip("_").replace("_", "-").replace("cls", "class"): value for key, value in attributes.items()}
    inside = " ".join(f'{key}="{_said(value)}"' for key, value in said.items())
    return f"<{name} {inside}>{text}</{name}>"


def _said(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else escape(str(value))


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture's room, and the hours along its foot."""

    days: Days
    begin: datetime
    end: datetime
    width: int
    height: int

    @property
    def foot(self) -> float:
        """Where the plot ends and the hours begin."""
        return float(self.height - BOTTOM)

    def x(self, at: str | datetime) -> float:
        """Where a moment stands; one outside the picture at its edge."""
        moment = self.days.local(at) if isinstance(at, str) else at
        part = (moment - self.begin) / (self.end - self.begin)
        return LEFT + min(1.0, max(0.0, part)) * (self.width - LEFT - RIGHT)

    def hours(self) -> str:
        """The axis of the time of day."""
        whole = round((self.end - self.begin) / timedelta(hours=1))
        room = (self.width - LEFT - RIGHT) / max(1, whole)
        each = next(step for step in (1, 2, 3, 4, 6, 12, 24) if step * room >= 44 or step == 24)
        parts = []
        for hour in range(0, whole + 1, each):
            moment = self.begin + timedelta(hours=hour)
            x = self.x(moment)
            parts.append(tag("line", cls="grid", x1=x, x2=x, y1=TOP, y2=self.foot))
            anchor = "end" if hour == whole and x > self.width - 20 else "middle"
            parts.append(tag("text", f"{moment:%H:%M}", cls="tick", x=x, y=self.foot + 17, text_anchor=anchor))
        return "".join(parts)

    def outages(self, rows: Sequence[Row]) -> str:
        """Shaded from top to foot; above, what it was and how long, as far as there is room for it."""
        parts: list[str] = []
        free = float(LEFT)
        for row in rows:
            left, right = self.x(row["began_at"]), self.x(row["ended_at"] or self.end)
            if right <= left and left in {float(LEFT), float(self.width - RIGHT)}:
                continue  # all of it is outside
            word = "down" if row["link"] == "down" else "paused"
            said = f"{word} {span(row['seconds'])}" if row["ended_at"] else f"{word}, not over"
            hint = tag("title", escape(f"{said} from {self.days.clock(row['began_at'])}: {row['reason']}"))
            size = {"x": left, "y": TOP, "width": max(2.0, right - left), "height": self.foot - TOP}
            parts.append(tag("rect", hint, cls="outage", **size))
            for words in (said, word):
                half = len(words) * LETTER / 2
                middle = min(max((left + right) / 2, LEFT + half), self.width - half)
                if middle - half >= free:
                    parts.append(tag("text", words, cls="note", x=middle, y=TOP - 8, text_anchor="middle"))
                    free = middle + half + LETTER
                    break
        return "".join(parts)

    def svg(self, title: str, *parts: str) -> str:
        """The whole picture."""
        kind = "wide" if self.width == WIDE else "narrow"
        box = f"0 0 {self.width} {self.height}"
        return tag("svg", "".join(parts), cls=kind, viewBox=box, width=self.width, role="img", aria_label=title)


def frames(told: Row, days: Days, height: int) -> list[Frame]:
    """A wide and a narrow room for the hours in which something happened; of an empty day, for all of it."""
    moments = [days.local(row["at"]) for row in told["quarters"]]
    begin = days.local(days.begin)
    end = days.local(days.end)
    if moments:
        first, last = min(moments), max(moments) + timedelta(seconds=QUARTER_S)
        begin = max(begin, first.replace(minute=0))
        end = min(end, last.replace(minute=0) + timedelta(hours=1 if last.minute else 0))
    return [Frame(days, begin, max(end, begin + timedelta(hours=1)), width, height) for width in (WIDE, NARROW)]


def steps(most: float) -> list[int]:
    """Round numbers from 0 to at least `most`, four or five of them."""
    size = 10 ** max(0, math.floor(math.log10(max(1.0, most))) - 1)
    each = next(step * size for step in (1, 2, 5, 10, 20, 50) if step * size * 4 >= most)
    return [each * n for n in range(math.ceil(max(1.0, most) / each) + 1)]


def flow(told: Row, days: Days) -> str:
    """What came (up) and what Omneo got (down), by quarters of an hour."""
    return "".join(_flow(frame, told) for frame in frames(told, days, 280))


def _flow(frame: Frame, told: Row) -> str:
    up = steps(max([row["arrived"] for row in told["quarters"]], default=1))
    down = steps(max([row["delivered"] for row in told["quarters"]], default=1))
    unit = (frame.foot - TOP) / (up[-1] + down[-1])
    zero = TOP + up[-1] * unit
    parts = [frame.hours(), frame.outages(told["outages"])]
    levels = [value for value in {*up, *(-each for each in down)} if abs(value) * unit >= 16 or not value]
    parts += [_level(frame, zero - value * unit, str(abs(value))) for value in levels]
    wide = (frame.x(frame.begin + timedelta(seconds=QUARTER_S)) - LEFT) - 1
    for row in told["quarters"]:
        clock, x = frame.days.clock(row["at"], "%H:%M"), frame.x(row["at"]) + 0.5
        bars = (("came", "arrived", zero - row["arrived"] * unit), ("went", "delivered", zero))
        for cls, name, y in bars:
            if row[name]:
                hint = tag("title", f"{clock}: {row[name]} {name}")
                parts.append(tag("rect", hint, cls=cls, x=x, y=y, width=max(1.0, wide), height=row[name] * unit))
    parts.append(tag("line", cls="zero", x1=LEFT, x2=frame.width - RIGHT, y1=zero, y2=zero))
    return frame.svg("Documents that came, and that were delivered, by quarters of an hour", *parts)


def _level(frame: Frame, y: float, words: str) -> str:
    line = tag("line", cls="grid", x1=LEFT, x2=frame.width - RIGHT, y1=y, y2=y)
    return line + tag("text", words, cls="tick", x=LEFT - 6, y=y + 4, text_anchor="end")


def backlog(told: Row, days: Days) -> str:
    """How many documents waited."""
    return "".join(_backlog(frame, told) for frame in frames(told, days, 210))


def _backlog(frame: Frame, told: Row) -> str:
    levels = steps(max(waiting for _, waiting in told["backlog"]))
    unit = (frame.foot - TOP) / levels[-1]
    parts = [frame.hours(), frame.outages(told["outages"])]
    parts += [_level(frame, frame.foot - value * unit, str(value)) for value in levels]
    path, at_y = [f"M{LEFT},{frame.foot:.1f}"], frame.foot
    for at, waiting in told["backlog"]:
        y = frame.foot - waiting * unit
        path.append(f"L{frame.x(at):.1f},{at_y:.1f}L{frame.x(at):.1f},{y:.1f}")
        at_y = y
    edge = frame.width - RIGHT
    drawn = "".join([*path, f"L{edge},{at_y:.1f}"])
    parts += [tag("path", cls="waited", d=f"{drawn}L{edge},{frame.foot:.1f}Z"), tag("path", cls="edge", d=drawn)]
    at, most = max(told["backlog"], key=lambda point: point[1])
    if most:
        x = frame.x(at)
        anchor, gap = ("end", -6) if x > LEFT + 90 else ("start", 6)
        words = f"{most} at {frame.days.clock(at, '%H:%M')}"
        parts.append(tag("text", words, cls="note", x=x + gap, y=frame.foot - most * unit + 11, text_anchor=anchor))
    return frame.svg("Documents that waited", *parts)


def ages(told: Row, days: Days) -> str:
    """How old documents were when Omneo got them: from the fastest to the slowest of a quarter, a dot at the middle."""
    return "".join(_ages(frame, told) for frame in frames(told, days, 230))


def _ages(frame: Frame, told: Row) -> str:
    rows = [row for row in told["quarters"] if row["age"]]
    y, grid = ladder(frame, max([row["age"]["max_s"] for row in rows], default=1))
    parts = [frame.hours(), frame.outages(told["outages"]), grid]
    half = (frame.x(frame.begin + timedelta(seconds=QUARTER_S)) - LEFT) / 2
    for row in rows:
        age, x = row["age"], frame.x(row["at"]) + half
        words = f"half within {span(age['median_s'])}, the slowest {span(age['max_s'])}"
        hint = tag("title", f"{frame.days.clock(row['at'], '%H:%M')}: {words}")
        parts.append(tag("line", hint, cls="range", x1=x, x2=x, y1=y(age["min_s"]), y2=y(age["max_s"])))
        parts.append(tag("circle", hint, cls="dot", cx=x, cy=y(age["median_s"]), r=min(3.2, max(2.0, half - 1))))
    return frame.svg("Age of documents when they were delivered", *parts)


def ladder(frame: Frame, most_s: float, least_s: float = LADDER_S[0]) -> tuple[Scale, str]:
    """A scale of lengths of time on which each step is about ten times the one before, and its lines."""
    top = next((step for step in LADDER_S[3:] if step >= most_s), LADDER_S[-1])
    low, high = math.log10(least_s), math.log10(top)

    def y(seconds: float) -> float:
        part = (math.log10(min(top, max(least_s, seconds))) - low) / (high - low)
        return frame.foot - part * (frame.foot - TOP)

    shown = [step for step in LADDER_S if least_s <= step <= top]
    words = [f"{step} s" if step <= 10 else span(step) for step in shown]
    words[0] = f"≤ {words[0]}"
    return y, "".join(_level(frame, y(step), said) for step, said in zip(shown, words, strict=True))


def redemptions(told: Row, days: Days) -> str:
    """How long each took to Omneo, and from there to its reversal, against the window."""
    return "".join(_redemptions(frame, told) for frame in frames(told, days, 250))


def _redemptions(frame: Frame, told: Row) -> str:
    rows, window = told["redemptions"], told["window_s"]
    known = [row[name] for row in rows for name in ("late_s", "reversed_after_s") if row[name] is not None]
    y, grid = ladder(frame, max([window * 2, *known]), 1)
    parts = [tag("rect", cls="out", x=LEFT, y=TOP, width=frame.width - LEFT - RIGHT, height=max(0.0, y(window) - TOP))]
    parts += [frame.hours(), grid]
    parts.append(tag("line", cls="window", x1=LEFT, x2=frame.width - RIGHT, y1=y(window), y2=y(window)))
    named: list[tuple[float, float]] = []
    for row in rows:
        x = frame.x(row["issued_at"] or row["created_at"] or frame.begin)
        name = str(row["external_id"])
        if row["late_s"] is None:
            hint = tag("title", escape(f"{name}: {row['state']}"))
            parts.append(tag("circle", hint, cls="never", cx=x, cy=frame.foot - 4, r=4))
            continue
        hint = tag("title", escape(f"{name}: {span(row['late_s'])} to Omneo"))
        parts.append(tag("circle", hint, cls="made", cx=x, cy=y(row["late_s"]), r=4))
        if row["late_s"] > window and len(named) < LABELS:
            parts.append(_name(frame, name, x, y(row["late_s"]) - 3, named))
        if row["reversed_after_s"] is not None:
            hint = tag("title", escape(f"{name}: reversed after {span(row['reversed_after_s'])}"))
            top = y(row["reversed_after_s"])
            parts.append(tag("line", cls="tie", x1=x, x2=x, y1=y(row["late_s"]) - 4, y2=top + 5))
            parts.append(tag("path", hint, cls="undone", d=f"M{x:.1f},{top - 5:.1f}l5,5l-5,5l-5,-5Z"))
    return frame.svg("Redemptions against their window", *parts)


def _name(frame: Frame, name: str, x: float, y: float, named: list[tuple[float, float]]) -> str:
    """A name beside its mark, unless another stands there already."""
    short = name if len(name) <= 14 else name[:13] + "…"
    wide = len(short) * LETTER
    left = x + 8 if x + 8 + wide < frame.width - RIGHT else x - 8 - wide
    if any(abs(y - other_y) < 13 and abs(left - other) < wide + 6 for other, other_y in named):
        return ""
    named.append((left, y))
    return tag("text", escape(short), cls="note", x=left, y=y + 4)
