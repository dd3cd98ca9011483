"""What the forwarder says to Prometheus: how things stand, by the same look as `status`."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import prometheus_client

from forwarder.standing import Standing
from journal import log, story
from journal.gauges import Page, Writer
from journal.say import Say

FILE = "omneo-forwarder.prom"
LINKS = ("up", "down", "paused", "unknown")
DESCRIBED = {
    "omneo_forwarder_last_pass_timestamp_seconds": ("When the forwarder's loop last came by", ""),
    "omneo_line_state": ("1 for what the line to Omneo is now", "state"),
    "omneo_line_since_timestamp_seconds": ("Since when the line is what it is", ""),
    "omneo_waiting_documents": ("Documents in the journal that are not settled", ""),
    "omneo_waiting_oldest_seconds": ("Age of the oldest of them", ""),
    "omneo_waiting_documents_by_age": (
        "Of them, how many are of at most this age and older than the one before",
        "upto_s",
    ),
    "omneo_documents": ("Documents in each settled state", "state"),
    "omneo_settled_a_minute": ("Documents settled a minute, over the last five", ""),
    "omneo_came_a_minute": ("Documents that came in a minute, over the last five", ""),
    "omneo_catch_up_seconds": ("When nothing will wait any more, if it goes on so", ""),
    "omneo_flags_open": ("Open flags", "flag"),
    "omneo_exposure_redemptions": ("Redemptions granted at the tills that Omneo does not have", ""),
    "omneo_exposure_held": ("Of them, held for a person", ""),
    "omneo_exposure_value": ("What they are worth, by the currency that the till names", "currency"),
    "omneo_exposure_two_tills": ("Customers of whom two tills have such redemptions", ""),
    "omneo_disk_free_bytes": ("Free space where the books are, on the fuller of their disks", ""),
    "omneo_disk_days_left": ("Days until intake stops for want of that, at the last day's rate", ""),
    "omneo_whole_way_timestamp_seconds": ("When a document or a canary last went the whole way", ""),
    "omneo_canary_out_seconds": ("For how long a canary has been out; 0: none is", ""),
    "omneo_clock_set_timestamp_seconds": ("When this machine's clock was last set", ""),
}


def figures(told: dict[str, Any], now: float) -> dict[str, Any]:
    """The figures of a look."""
    brief, speed, exposure, clock = told["status"], told["speed"], told["exposure"], told["clock"]
    return {
        "omneo_forwarder_last_pass_timestamp_seconds": now,
        "omneo_line_state": {state: state == brief["link"] for state in LINKS},
        "omneo_line_since_timestamp_seconds": log.moment(told["since"]),
        "omneo_waiting_documents": brief["waiting"],
        "omneo_waiting_oldest_seconds": brief["oldest_waiting_s"] or 0,
        "omneo_waiting_documents_by_age": {age["upto_s"] or "+Inf": age["documents"] for age in told["ages"]},
        "omneo_documents": {state: brief[state] for state in ("delivered", "refused", "held", "invalid")},
        "omneo_settled_a_minute": speed["a_minute"],
        "omneo_came_a_minute": speed["came_a_minute"],
        "omneo_catch_up_seconds": speed["done_in_s"],
        "omneo_flags_open": told["flags"],
        "omneo_exposure_redemptions": exposure["redemptions"],
        "omneo_exposure_held": exposure["held"],
        "omneo_exposure_value": exposure["value"],
        "omneo_exposure_two_tills": len(exposure["two_tills"]),
        "omneo_disk_free_bytes": told["disk"]["free_bytes"],
        "omneo_disk_days_left": told["disk"]["days_left"],
        "omneo_whole_way_timestamp_seconds": log.moment(told["whole_way"]["at"]),
        "omneo_canary_out_seconds": told["whole_way"]["canary_out_s"] or 0,
        "omneo_clock_set_timestamp_seconds": log.moment(clock["at"]) if clock else None,
    }


def writer(
    books: tuple[Path, Path], directory: Path | None, port: int | None, *, say: Say, now: log.Clock = log.utc_now
) -> Callable[[], None]:
    """
    A chore for the forwarder's loop: into a directory, and for whoever asks on this machine's `port`.

    Whoever asks there gets what the loop last wrote, so that a loop that hangs shows there too.
    """
    standing, page = Standing(*books), Page(DESCRIBED)

    def look() -> dict[str, Any] | None:
        try:
            with closing(story.connect(*books)) as both:
                return figures(standing.look(both, now()), time.time())
        except (log.Unusable, log.NotNow, sqlite3.DatabaseError, OSError):
            return None  # the file grows old, which is the alarm; the loop itself says what is the matter

    if port is not None:
        prometheus_client.start_http_server(port, "127.0.0.1", page.registry)
    return Writer(page, directory / FILE if directory is not None else None, look, say)
