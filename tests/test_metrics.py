"""Figures for Prometheus: what they say, that a file of them is always whole, and that a hanging loop lets it age."""

import re
import stat
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from standin import ENVIRONMENT, Omneo, Store, command, sale
from test_standing import redemption
from tills import Shop, wait_until
from tills import sale as file

from forwarder import metrics
from forwarder.replay import step
from forwarder.standing import look
from journal import gauges, log
from journal import metrics as journal_metrics
from journal.gauges import Page, Writer

PAGE = Path(__file__).parents[1] / "docs/metrics.md"


def read(path: Path) -> dict[str, Any]:
    """A file of figures, by Prometheus' own parser: name → value, or → {label: value}."""
    found: dict[str, Any] = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            if sample.labels:
                found.setdefault(sample.name, {})[next(iter(sample.labels.values()))] = sample.value
            else:
                found[sample.name] = sample.value
    return found


def written(store: Store, tmp_path: Path, later_s: float = 0) -> dict[str, Any]:
    def now() -> Any:
        return store.now() + timedelta(seconds=later_s)

    metrics.writer((store.db, store.delivery), tmp_path, None, say=lambda *_, **__: None, now=now)()
    return read(tmp_path / metrics.FILE)


def test_the_forwarders_figures_are_those_of_status(store: Store, omneo: Omneo, token: Path, tmp_path: Path) -> None:
    with store.forwarding(omneo.url, token=token) as run:
        store.take(sale("S-1"), b"[]")
        step(run)
    store.take(sale("S-2"), redemption("R-1", terminal="T1"), redemption("R-2", terminal="T2"))
    found, told = written(store, tmp_path, later_s=120), look(store.db, store.delivery, store.now())
    assert found["omneo_line_state"] == {"up": 1, "down": 0, "paused": 0, "unknown": 0}
    assert found["omneo_waiting_documents"] == told["status"]["waiting"] == 3
    assert found["omneo_documents"] == {"delivered": 1, "refused": 0, "held": 0, "invalid": 1}
    assert found["omneo_waiting_documents_by_age"]["600"] == 3
    assert sum(found["omneo_waiting_documents_by_age"].values()) == 3
    assert found["omneo_flags_open"] == {"invalid": 1}
    assert found["omneo_exposure_value"] == {"": 40}
    assert found["omneo_exposure_two_tills"] == 1
    assert 0 <= log.utc_now().timestamp() - found["omneo_whole_way_timestamp_seconds"] < 60


def test_what_is_not_known_is_not_there(store: Store, tmp_path: Path) -> None:
    found = written(store, tmp_path)
    assert found["omneo_line_state"]["unknown"] == 1
    for name in ("whole_way_timestamp_seconds", "clock_set_timestamp_seconds", "catch_up_seconds"):
        assert f"omneo_{name}" not in found


def test_nothing_personal_is_in_it(store: Store, tmp_path: Path) -> None:
    store.take(redemption("R-1", "jane@example.com"), redemption("R-2", "jane@example.com", "T2"))
    written(store, tmp_path)
    said = (tmp_path / metrics.FILE).read_text()
    assert not re.search(r"jane|R-1|T2", said)
    assert stat.S_IMODE((tmp_path / metrics.FILE).stat().st_mode) & 0o007 in {0, 0o004}


def test_a_label_that_is_gone_is_gone(tmp_path: Path) -> None:
    page = Page({"a": ("an a", "of"), "b": ("a b", "")})
    figures: list[dict[str, Any]] = [{"a": {"x": 1, "y": 2}, "b": True}, {"a": {"y": 3}, "b": None}]
    writer = Writer(page, tmp_path / "f.prom", lambda: figures.pop(0), lambda *_, **__: None)
    for expected in ({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}}):
        writer._written_at = -100
        writer()
        assert read(tmp_path / "f.prom") == expected
    assert list(tmp_path.iterdir()) == [tmp_path / "f.prom"]


def test_it_is_written_every_so_often_and_not_at_each_pass(tmp_path: Path) -> None:
    looks: list[int] = []
    writer = Writer(Page({}), tmp_path / "f.prom", lambda: looks.append(1) or {}, lambda *_, **__: None)
    for _ in range(50):
        writer()
    assert len(looks) == 1


def test_a_directory_that_is_not_there_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    said: list[tuple[str, dict[str, Any]]] = []
    place = tmp_path / "gone"
    writer = Writer(Page({}), place / "f.prom", dict, lambda event, **facts: said.append((event, facts)))
    for _ in range(3):
        writer._written_at = -100
        writer()
    assert said == [("no_metrics", {"reason": "No such file or directory"})]
    place.mkdir()
    writer._written_at = -100
    writer()
    assert (place / "f.prom").exists()


def test_books_that_can_not_be_read_let_the_file_grow_old(store: Store, tmp_path: Path) -> None:
    chore = metrics.writer((store.db, store.delivery), tmp_path, None, say=lambda *_, **__: None)
    chore()
    before = (tmp_path / metrics.FILE).stat().st_mtime_ns
    store.db.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    chore._written_at = -100  # type: ignore[attr-defined]
    chore()
    assert (tmp_path / metrics.FILE).stat().st_mtime_ns == before


def test_the_ingest_program_tells_what_it_leaves(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def figures() -> dict[str, Any]:
        chore._written_at = -100  # type: ignore[attr-defined]
        chore()
        return read(tmp_path / journal_metrics.FILE)

    chore = journal_metrics.writer(tmp_path, shop.book, shop.db, shop.files, shop.say)
    assert "omneo_journal_last_sweep_timestamp_seconds" not in figures()
    shop.drop("a.json", file("S-1"))
    shop.drop("b.json", b"{")
    shop.sweep()
    found = figures()
    assert found["omneo_spool_files_left"] == 1
    assert found["omneo_journal_entries"] == log.head(shop.book)[0]
    assert found["omneo_journal_last_pass_timestamp_seconds"] >= found["omneo_journal_last_sweep_timestamp_seconds"]
    assert figures()["omneo_spool_left_seconds"] > found["omneo_spool_left_seconds"]
    (shop.spool / "b.json").unlink()
    shop.sweep()
    assert figures()["omneo_spool_files_left"] == 0
    monkeypatch.setattr(log, "append", _full)
    shop.drop("c.json", file("S-3"))
    with pytest.raises(log.NotNow):
        shop.sweep()
    assert figures()["omneo_spool_files_left"] == 1


def _full(*_: object, **__: object) -> int:
    raise log.NotNow("full")


def test_both_programs_write_their_files_and_the_forwarder_answers_on_loopback(
    store: Store, omneo: Omneo, token: Path, tmp_path: Path, unused_port: int
) -> None:
    import subprocess

    directory = tmp_path / "node"
    directory.mkdir()
    here = ["--db", store.db, "--metrics", directory]
    programs = (
        command("journal", "ingest", *here, "--spool", store.spool),
        command("forwarder", "run", *here, "--url", omneo.url, "--token-file", token, "--metrics-port", unused_port),
    )
    with (
        subprocess.Popen(programs[0], env=ENVIRONMENT, stderr=subprocess.DEVNULL) as first,
        subprocess.Popen(programs[1], env=ENVIRONMENT, stderr=subprocess.DEVNULL) as second,
    ):
        try:
            files = {directory / journal_metrics.FILE, directory / metrics.FILE}
            wait_until(lambda: set(directory.iterdir()) == files)
            answer = httpx.get(f"http://127.0.0.1:{unused_port}/metrics")
            assert "omneo_line_state" in answer.text
        finally:
            first.terminate()
            second.terminate()
        assert (first.wait(20), second.wait(20)) == (0, 0)
    assert stat.S_IMODE((directory / metrics.FILE).stat().st_mode) == 0o640


@pytest.fixture
def unused_port() -> int:
    import socket

    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# -- the page -------------------------------------------------------------------------------------------------------


def rows(heading: str) -> dict[str, str]:
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (?:`(\w+)`)? ?\|", section, re.MULTILINE))


@pytest.mark.parametrize(
    ("heading", "described"),
    [
        ("The ingest program's figures", journal_metrics.DESCRIBED),
        ("The forwarder's figures", metrics.DESCRIBED),
    ],
)
def test_the_page_has_every_metric_with_its_label_and_no_other(heading: str, described: gauges.Described) -> None:
    assert rows(heading) == {name: label for name, (_, label) in described.items()}


def test_the_rules_speak_of_metrics_that_there_are() -> None:
    rules = PAGE.read_text().split("```yaml\n")[1].split("```")[0]
    named = set(re.findall(r"\b(?:omneo|node)_\w+", "\n".join(re.findall(r"expr: (.*)", rules))))
    assert named - {"node_textfile_mtime_seconds"} <= {*metrics.DESCRIBED, *journal_metrics.DESCRIBED}
    assert len(named) > 8
    for state in re.findall(r'omneo_line_state\{state="(\w+)"', rules):
        assert state in metrics.LINKS
    assert rules.count("- alert:") == rules.count("expr:") == rules.count("summary:")
