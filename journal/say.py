"""How both programs speak to their operator: one structured line an event, on stderr. JSON unless a person reads along."""

import sys
from typing import Any, Protocol


class Say(Protocol):
    """The seam: an event's name (docs/operating.md lists them all) and its facts, nothing personal among them."""

    def __call__(self, event: str, **facts: Any) -> None:
        """Write one line."""


def speak(program: str) -> Say:
    """Set up structlog for a daemon; tests pass their own function instead."""
    import structlog

    person = sys.stderr.isatty()
    render: Any = structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer(ensure_ascii=True)
    logger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[structlog.processors.TimeStamper(fmt="iso", utc=not person), render],
        program=program,
    )

    def say(event: str, **facts: Any) -> None:
        logger.msg(event, **facts)

    return say
