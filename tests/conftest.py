"""Fixtures of all rooms."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redeeming import counter
from standin import listen, omneo, open_place, sandbox, store, token
from tills import Shop

# For tests that use a campaign's parts. At the end, so that the programs are still those that are installed.
sys.path.append(str(Path(__file__).parent.parent))

# Whoever starts the tests in the background has SIGINT ignored, and so would the programs that are started here.
signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = [
    "counter",
    "listen",
    "omneo",
    "open_place",
    "sandbox",
    "shop",
    "store",
    "token",
]  # fixtures of the forwarder's tests


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """An empty spool and a new journal."""
    new = Shop(tmp_path / "shop")
    yield new
    new.book.close()
