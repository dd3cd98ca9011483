"""
Figures in Prometheus' text format: what a program last said of itself, as a file for node_exporter's collector.

The programs' own loops write it, every so often. A loop that hangs lets its file grow old, which is an alarm of itself.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from journal.say import Say

EVERY_S = 30.0

Figures = Mapping[str, Any]  # name → number or bool, or label → number; None: not known
Described = Mapping[str, tuple[str, str]]  # name → what it is, and its label ("": none)


class Page(Collector):
    """The last figures, for whoever asks for them."""

    def __init__(self, described: Described) -> None:
        """`described`: every figure that there can be."""
        self._described = described
        self.figures: Figures = {}
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """What the library asks for."""
        figures = self.figures
        for name, (words, label) in self._described.items():
            if (value := figures.get(name)) is None:
                continue
            family = GaugeMetricFamily(name, words, labels=[label] if label else [])
            for key, number in value.items() if isinstance(value, Mapping) else [(None, value)]:
                family.add_metric([] if key is None else [str(key)], float(number))
            yield family


class Writer:
    """Writes a page into a directory now and then, atomically. What keeps it from that is said once."""

    def __init__(self, page: Page, path: Path | None, look: Callable[[], Figures | None], say: Say) -> None:
        """`look` gives the figures, or None when they can't be had just now; without `path` they are only kept."""
        self._page, self._path, self._look, self._say = page, path, look, say
        self._written_at = -EVERY_S  # monotonic
        self._told = ""

    def __call__(self) -> None:
        """Write if it is time."""
        if time.monotonic() - self._written_at < EVERY_S:
            return
        self._written_at = time.monotonic()
        figures = self._look()
        if figures is None:
            return
        self._page.figures = figures
        if self._path is None:
            return
        draft = self._path.with_name(f".{self._path.name}.new")  # node_exporter reads *.prom only
        try:
            draft.write_bytes(generate_latest(self._page.registry))
            draft.rename(self._path)
            self._told = ""
        except OSError as error:
            reason = error.strerror or str(error)
            if reason != self._told:
                self._say("no_metrics", reason=reason)
            self._told = reason
            with suppress(OSError):
                os.unlink(draft)  # noqa: PTH108
