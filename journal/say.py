"""
How both programs speak to their operator: one structured line an event, on stderr. JSON unless a person reads along.

A line that can't be written (a log collector that is gone, a full disk) is dropped: it never stops the work.
"""

import sys
from contextlib import suppress
from typing import Any, Protocol


class Say(Protocol):
    """The seam: an event's name (docs/operating.md lists them all) and its facts, nothing personal among them."""

    def __call__(self, event: str, **facts: Any) -> None:
        """Write one line."""


def speak(program: str) -> Say:
    """Set up structlog for a daemon; tests pass their own function instead."""
    import structlog

    if sys.stderr is None:  # it was closed before we started
        return lambda event, **facts: None  # noqa: ARG005
    person = sys.stderr.isatty()
    render: Any = structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer(ensure_ascii=True)
    logger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[structlog.processors.TimeStamper(fmt="iso", utc=not person), render],
        program=program,
    )

    def say(event: str, **facts: Any) -> None:
        with suppress(OSError):
            logger.msg(event, **facts)

    return say
