"""What is asked of each figure, with the words of the page that shows them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AT_LEAST, AT_MOST = ">=", "<="
FLOOR_MS = 3.0  # what one durable file costs where nobody else uses the disk


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table."""

    section: str
    figure: str
    most: str  # AT_LEAST or AT_MOST
    goal: float
    words: str
    steady: bool = False  # other work on the machine doesn't change it: nothing is forgiven
    held: float | None = None  # where it is not reached (docs/performance.md says why): what must not get worse

    def limit(self, leeway: float) -> float:
        """What will just do, where so many times worse will do."""
        leeway = 1.0 if self.steady else leeway
        if leeway != 1.0 and self.held is not None:
            return self.held
        return self.goal / leeway if self.most == AT_LEAST else self.goal * leeway

    def met(self, value: float, leeway: float = 1.0) -> bool:
        """Is it reached?"""
        limit = self.limit(leeway)
        return value >= limit if self.most == AT_LEAST else value <= limit


GOALS = (
    Goal("burst", "of_ideal_net", AT_LEAST, 0.6, "burst of waiting files, out of the spool: of I", held=0.1),
    Goal("burst", "times_naive_net", AT_LEAST, 4.0, "the same: times N", held=1.2),
    Goal("delivery", "times_naive", AT_LEAST, 2.5, "from the spool to all delivered, strict: times N"),
    Goal("delivery", "of_careful", AT_LEAST, 0.5, "the same: of S"),
    Goal("delivery", "ours_cpu_ms", AT_MOST, 0.6, "processor, spool to delivered: ms a file"),
    Goal("single", "gone_ms", AT_MOST, 2.5, "one file, rename to durable: median ms"),
    Goal("single", "gone_p95_ms", AT_MOST, 6.0, "the same: 95th percentile"),
    Goal("single", "draining_ms", AT_MOST, 2.5, "the same while a backlog drains: median ms"),
    Goal("single", "draining_p95_ms", AT_MOST, 6.0, "the same: 95th percentile"),
    Goal("single", "at_omneo_ms", AT_MOST, 5.0, "one file, rename to Omneo: median ms"),
    Goal("line", "strict_of_bare", AT_LEAST, 0.97, "strict at 50 ms a request: of 1/RTT, as a bare loop has it"),
    Goal("line", "lanes_8_of_rtt", AT_LEAST, 7.5, "customer, 8 lanes: times 1/RTT"),
    Goal("line", "lanes_32_of_rtt", AT_LEAST, 28.0, "customer, 32 lanes: times 1/RTT"),
    Goal("lanes", "ratio", AT_LEAST, 6.0, "60 customers, 8 lanes beside strict: times as fast"),
    Goal("reversals", "customer_in_time", AT_LEAST, 1.0, "reversals behind a backlog, customer: share in time"),
    Goal("reversals", "strict_lost", AT_MOST, 0.0, "the same in strict order: share neither in time nor flagged"),
    Goal("spool", "all_first_s", AT_MOST, 0.5, "100,000 waiting files: seconds to the first, start included"),
    Goal("spool", "growth_mb", AT_MOST, 2.0, "the same: memory beside that for a tenth of them, MB", steady=True),
    Goal("spool", "cpu_per_file_growth", AT_MOST, 1.2, "the same: processor a file beside that of a tenth"),
    Goal("verify", "of_bare", AT_LEAST, 0.7, "verify: of a bare SHA-256 loop over the same rows"),
    Goal("verify", "times_one_processor", AT_LEAST, 1.7, "the same on two processors: times that on one", held=0.8),
    Goal("verify", "growth_mb", AT_MOST, 2.0, "the same: memory beside that for a tenth of them, MB", steady=True),
    Goal("memory", "resident_mb", AT_MOST, 45.0, "resident, the worse program with a backlog, MB", steady=True),
    Goal("memory", "growth_mb", AT_MOST, 2.0, "the same: from the short to the long backlog, MB", steady=True),
    Goal("starts", "journal_help_s", AT_MOST, 0.12, "omneo-journal --help, seconds"),
    Goal("idle", "ingest_wakes", AT_MOST, 1.0, "idle: wake-ups a second, omneo-journal"),
    Goal("idle", "forwarder_wakes", AT_MOST, 1.0, "idle: wake-ups a second, omneo-forwarder"),
    Goal(
        "idle", "busier_ms_in_10_s", AT_MOST, 10.0, "idle: ms of processor in 10 s (a tick is 10), the busier program"
    ),
    Goal("idle", "down_ms_a_second", AT_MOST, 2.0, "line down: ms of processor a second"),
    Goal("back", "first_p95_s", AT_MOST, 0.5, "the line comes back: seconds to the first request, 95th percentile"),
    Goal("back", "tries_a_second_at_first", AT_MOST, 2.0, "tries a second in the ten seconds after the first"),
    Goal("back", "busiest_moment", AT_MOST, 1.5, "stores that lost it together: worst 50 ms beside the average"),
    Goal("week", "tries_in_30_s_after_an_hour", AT_MOST, 1.1, "tries in 30 s after an hour"),
    Goal("week", "rows_a_day", AT_MOST, 50.0, "a week offline: rows a day in the delivery book"),
    Goal("kill", "kills", AT_LEAST, 200.0, "kill -9 at random points of both programs: kills", steady=True),
    Goal("kill", "wrong", AT_MOST, 0.0, "the same: findings of all judges", steady=True),
    Goal("grow", "burst_of_empty", AT_LEAST, 0.9, "long journal: burst beside an empty one"),
    Goal("grow", "catch_up_of_empty", AT_LEAST, 0.9, "long journal: catch-up beside an empty one"),
    Goal("grow", "slowest_question_ms", AT_MOST, 5.0, "long journal: status, show, flags, next document; slowest, ms"),
    Goal("grow", "first_taken_s", AT_MOST, 0.5, "long journal: start to first document taken, seconds"),
    Goal(
        "grow", "verify_growth_mb", AT_MOST, 2.0, "long journal: memory of verify beside a short one, MB", steady=True
    ),
    Goal("bodies", "last_tenth_of_first", AT_LEAST, 0.6, "entries of 2 KB: last tenth inserted beside the first"),
    Goal("bodies", "disk_of_bodies", AT_MOST, 1.2, "entries of 2 KB: disk beside their bytes", steady=True),
)


def of(section: str) -> dict[str, Goal]:
    """What is asked of a section, by figure."""
    return {goal.figure: goal for goal in GOALS if goal.section == section}


def leeway(section: str, figures: Mapping[str, Any], given: float) -> float:
    """How far from its goals a section may be: farther where the disk is busy with others, if it may be at all."""
    if given != 1.0 and section == "single":
        return given * max(1.0, float(figures["floor_ms"]) / FLOOR_MS)
    return given
