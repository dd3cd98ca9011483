"""What the demo shows: sentences, and in a terminal two bars below them that move. In a pipe, plain lines only."""

import os
import sys
import textwrap
from contextlib import ExitStack
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

WIDTH = 80
INDENT = "   "


class Screen:
    """A terminal that can be redrawn, or any other place where lines can be written."""

    def __init__(self, out: TextIO | None = None) -> None:
        """On stdout, unless told otherwise."""
        out = out or sys.stdout
        self.live = out.isatty() and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}
        unicode = (getattr(out, "encoding", None) or "").lower().replace("-", "").startswith("utf")
        if not unicode and hasattr(out, "reconfigure"):
            out.reconfigure(errors="replace")  # an old terminal gets a question mark, never a traceback
        self.marks = {True: "✓", False: "✗"} if unicode else {True: "ok", False: "NO"}
        self.console = Console(file=out, force_terminal=self.live, highlight=False, markup=False, emoji=False)
        self._width = min(self.console.width, WIDTH)
        bars = (
            TextColumn("  {task.description}"),
            BarColumn(30),
            TextColumn("{task.completed:>3.0f}  {task.fields[note]}"),
        )
        self._progress = Progress(*bars, console=self.console)
        self._taken = self._progress.add_task("in the journal", total=1, note="")
        self._delivered = self._progress.add_task("at Omneo", total=1, note="")
        self._ticker = Text(no_wrap=True, overflow="ellipsis", style="dim")
        self._stack = ExitStack()

    def raise_curtain(self) -> None:
        """From now on the bars are there, if they can be."""
        if self.live:
            board = Group(Text(), self._ticker, self._progress)
            self._stack.enter_context(Live(board, console=self.console, refresh_per_second=12, transient=True))

    def drop_curtain(self) -> None:
        """The bars go; what was said stays."""
        self._stack.close()

    def heading(self, text: str) -> None:
        """A scene begins."""
        self.console.print()
        self.console.print(text, style="bold cyan", soft_wrap=True)

    def tell(self, text: str, style: str = "") -> None:
        """One sentence, or a few."""
        self._print(text, INDENT, INDENT, style)

    def quote(self, text: str) -> None:
        """What somebody else wrote, word by word."""
        self._print(text, INDENT * 2, INDENT * 2, "yellow")

    def check(self, ok: bool, text: str) -> None:
        """Something that was promised, and whether it was kept."""
        mark = self.marks[ok]
        self._print(text, f" {mark} ", " " * (len(mark) + 2), "green" if ok else "bold red")

    def commands(self, *lines: str) -> None:
        """Lines to copy: never broken."""
        self.console.print()
        for line in lines:
            self.console.print(INDENT + line, style="bold", soft_wrap=True)

    def ticker(self, text: str) -> None:
        """What just happened at the tills; only where it can be overwritten."""
        self._ticker.plain = f"  {text}"

    def board(self, standing: dict[str, Any], scale: int) -> None:
        """Where the documents are. The bars share a scale, so what waits is what one is longer than the other."""
        delivered, waiting = standing["delivered"], standing["waiting"]
        words = f"{waiting} waiting, line {standing['link']}" if waiting else f"line {standing['link']}"
        self._progress.update(self._taken, completed=delivered + waiting, total=scale)
        self._progress.update(self._delivered, completed=delivered, total=scale, note=words)

    def _print(self, text: str, first: str, then: str, style: str) -> None:
        folded = textwrap.fill(
            text,
            self._width,
            initial_indent=first,
            subsequent_indent=then,
            break_long_words=False,
            break_on_hyphens=False,
        )
        self.console.print(folded, style=style, soft_wrap=True)
