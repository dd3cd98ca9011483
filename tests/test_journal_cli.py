"""`omneo-journal` from outside: exit codes, what stands on stdout and stderr, no traceback for an operator's slips."""

import errno
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlite_utils
from click.testing import CliRunner
from tills import PROGRAM, Shop, broken, fork, sale

from journal import ingest as way
from journal import log, story
from journal.cli import cli, main
from journal.command import verdict
from journal.verify import verify as walk

SECRET = "zoe.secret@example.com"


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def refused(done: subprocess.CompletedProcess[str], code: int) -> None:
    """One or two sentences on stderr, nothing on stdout, no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert 0 < len(done.stderr.strip().splitlines()) <= 4
    assert done.stderr.strip().endswith((".", "'."))


@pytest.fixture
def sold(shop: Shop) -> Shop:
    """A sale, its conflict, and a broken file."""
    shop.drop("1.json", sale("S-1", profile_id=SECRET), age=5)
    shop.drop("2.json", sale("S-1", total=13, profile_id=SECRET), age=4)
    shop.drop("3.json", broken("B-1", profile_id=SECRET), age=3)
    return shop


# -- a day, as an operator sees it


def test_a_day_from_init_to_close(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.book.close()
    shop.db.unlink()
    shop.spool.rmdir()
    made = shop.run("init")
    assert made.returncode == 0
    assert shop.spool.is_dir()
    shop.drop("1.json", sale("S-1"))
    took = shop.run("ingest", "--once")
    assert took.returncode == 0
    assert took.stdout == ""
    assert "swept" in [line["event"] for line in lines(took.stderr)]
    (row,) = lines(shop.run("list", "--json").stdout)
    assert set(row) == {"seq", "kind", "external_id", "state", "received_at", "settled_at", "omneo_id"}
    assert (row["external_id"], row["state"]) == ("S-1", "waiting")
    assert "S-1" in shop.run("list").stdout
    told = json.loads(shop.run("show", "S-1", "--json").stdout)
    assert told["body"] == json.loads(sale("S-1"))
    assert shop.run("show", str(row["seq"])).stdout.startswith("sale S-1")
    assert json.loads(shop.run("verify", "--json").stdout)["ok"]
    closing_time = shop.run("close-check", "--json")
    assert (closing_time.returncode, json.loads(closing_time.stdout)["waiting"]) == (1, 1)


def test_an_empty_day_can_be_closed(shop: Shop) -> None:
    assert shop.run("close-check").returncode == 0
    assert shop.run("verify").returncode == 0
    assert shop.run("list", "--json").stdout == ""


def test_flags_are_listed_and_resolved(sold: Shop) -> None:
    sold.sweep()
    raised = lines(sold.run("flags", "--json").stdout)
    assert {flag["flag"] for flag in raised} == {"conflict", "invalid"}
    assert set(raised[0]) >= {"id", "flag", "external_id", "raised_at", "detail", "resolved"}
    done = sold.run("resolve", raised[0]["id"], "--by", "Ana", "--note", "seen it")
    assert done.returncode == 0
    assert len(lines(sold.run("flags", "--json").stdout)) == 1
    assert len(lines(sold.run("flags", "--all", "--json").stdout)) == 2
    refused(sold.run("resolve", raised[0]["id"], "--by", "Ana", "--note", "again"), 1)
    refused(sold.run("resolve", "J999", "--by", "Ana", "--note", "x"), 1)
    assert sold.run("resolve", raised[1]["id"], "--by", " ", "--note", "x").returncode == 2
    assert sold.problems() == []


def test_a_note_of_any_bytes_can_be_entered_and_read(sold: Shop) -> None:
    sold.sweep()
    note = os.fsdecode(b"line\nbell\x07 \xff \xc3\xa9")
    flag = lines(sold.run("flags", "--json").stdout)[0]["id"]
    assert sold.run("resolve", flag, "--by", "Ana", "--note", note).returncode == 0
    assert "line\\nbell\\x07 \\xff é" in " ".join(sold.run("flags", "--all").stdout.split())


def test_money_is_shown_as_the_till_wrote_it(shop: Shop) -> None:
    shop.drop("1.json", sale("S-1", meta={"big": 10**40}).replace(b"12.5", b"12.50", 1))
    shop.sweep()
    assert '"total":12.50,' in shop.run("show", "S-1", "--json").stdout
    assert str(10**40) in shop.run("show", "S-1").stdout


def test_what_a_terminal_would_obey_is_shown_and_not_sent(shop: Shop) -> None:
    shop.drop("\x1b[2Jx.json", b'"\x1b[31m\n\x07"', age=9)
    assert shop.run("ingest", "--once").returncode == 0
    seq = shop.entries("invalid")[0]["seq"]
    shown = shop.run("show", str(seq)).stdout + shop.run("flags").stdout + shop.run("list").stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown
    shop.drop("1.json", sale("S-1", meta={"note": "\x9b2J\u202e"}))
    shop.sweep()
    body = shop.run("show", "S-1").stdout.partition("\n\n")[2]
    assert body.isascii()
    assert json.loads(body)["meta"] == {"note": "\x9b2J\u202e"}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_a_terminal_has_no_letters_for_is_spelt_out_for_people_and_utf_8_for_machines(
    shop: Shop, encoding: str
) -> None:
    shop.drop("1.json", sale("Zoë-日本", total=13, meta={"note": "€"}))
    shop.sweep()
    environment = shop.environment() | {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    for command in (["list"], ["show", "Zoë-日本"], ["flags"]):
        ran = [
            subprocess.run([*PROGRAM, *command, *how], env=environment, capture_output=True, timeout=30, check=True)
            for how in ([], ["--json"])
        ]
        spelt = "Zoë-日本".encode(encoding, "backslashreplace")
        assert spelt in ran[0].stdout, command
        assert "Zoë-日本".encode() in ran[1].stdout, command
    missing = subprocess.run([*PROGRAM, "show", "日"], env=environment, capture_output=True, timeout=30, check=False)
    assert (missing.returncode, missing.stderr[:27]) == (1, b"There is no document \\u65e5")


def test_an_output_that_can_not_be_written_is_not_now(sold: Shop) -> None:
    sold.sweep()
    for args in (["list"], ["list", "--json"], ["show", "S-1"], ["--help"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*PROGRAM, *args], env=sold.environment(), stdout=full, stderr=subprocess.PIPE, timeout=30, check=False
            )
        assert done.returncode == 75
        assert done.stderr.startswith(b"The output can't be written: No space left on device.")
    with Path("/dev/full").open("w") as full:
        ran = [*PROGRAM, "list", "--db", "nope"]
        assert subprocess.run(ran, env=sold.environment(), stderr=full, timeout=30, check=False).returncode == 78


def test_flags_and_stories_fit_80_columns(shop: Shop) -> None:
    shop.drop("1.json", sale("S-" + "x" * 126, total=99), age=2)
    shop.drop("2.json", b'{"kind": "nonsense"}')
    shop.sweep()
    flag = lines(shop.run("flags", "--json").stdout)[0]["id"]
    assert shop.run("resolve", flag, "--by", "Ana", "--note", "word " * 60).returncode == 0
    story = shop.run("show", "2").stdout.partition("\n\n")[0]
    shown = [*shop.run("flags", "--all").stdout.splitlines(), *story.splitlines()]
    assert len(shown) > 12
    assert max(map(len, shown)) <= 80
    assert f"entry {shop.entries('invalid')[0]['seq']}" in shop.run("flags").stdout


def test_times_are_shown_as_the_clock_on_the_wall(shop: Shop) -> None:
    shop.drop("1.json", sale("S-1", total=99))
    shop.sweep()
    environment = shop.environment() | {"TZ": "Etc/GMT-9"}
    for command in (["list"], ["show", "S-1"], ["flags"]):
        said = subprocess.run(
            [*PROGRAM, *command], env=environment, capture_output=True, text=True, timeout=30, check=True
        ).stdout
        assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+09", said), command
        assert not re.search(r"T\d\d:\d\d:\d\d\.\d+Z", said), command


def test_whoever_stops_reading_a_list_gets_no_traceback(shop: Shop) -> None:
    for number in range(3000):
        shop.drop(f"{number}.json", sale(f"S-{number}"))
    shop.sweep()
    with subprocess.Popen(
        [*PROGRAM, "list"], env=shop.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.readline()
        listing.stdout.close()
        assert listing.stderr.read() == b""
        assert listing.wait(timeout=10) == 0


def test_neither_logs_nor_lists_hold_anything_personal(sold: Shop) -> None:
    done = sold.run("ingest", "--once")
    said = done.stderr + sold.run("list").stdout + sold.run("flags").stdout + sold.run("verify").stdout
    assert "rejected" in said
    assert SECRET not in said


# -- bad news: 1


def test_an_alteration_is_bad_news(sold: Shop) -> None:
    sold.sweep()
    sold.book.execute("DROP TRIGGER log_no_update")
    sold.book.execute("UPDATE log SET external_id = 'X' WHERE seq = 2")
    done = sold.run("verify", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["ok"], told["problems"][-1]["book"], told["problems"][-1]["seq"]) == (False, "journal", 2)
    assert "journal entry 2" in sold.run("verify").stdout


@pytest.mark.parametrize("name", ["nope", "999", os.fsdecode(b"\xff")])
def test_what_is_not_there_can_not_be_shown(shop: Shop, name: str) -> None:
    refused(shop.run("show", name), 1)


def test_check_says_what_ingest_would_and_touches_nothing(tmp_path: Path) -> None:
    """Without a journal, and without harm from what stands in a file's place."""
    good, bad, big, pipe = (tmp_path / name for name in ("good.json", "bad.json", "big.json", "pipe.json"))
    good.write_bytes(sale())
    bad.write_bytes(broken())
    big.write_bytes(sale(meta={"x": "y" * 3000}))
    os.mkfifo(pipe)

    def check(*args: str | Path) -> tuple[int, list[dict[str, Any]]]:
        done = CliRunner().invoke(cli, ["check", "--json", *map(str, args)])
        return done.exit_code, lines(done.stdout)

    assert check(good)[0] == 0
    code, (first, second) = check(bad, good)
    assert (code, first["ok"], second["ok"]) == (1, False, True)
    assert first["problems"][0]["pointer"] == "/total"
    assert first["reason"] == "breaks its schema: /total must be a number"
    assert check(big)[0] == 0
    code, (over,) = check("--max-bytes", "2000", big)
    assert (code, over["reason"]) == (1, "over the size limit")
    link = tmp_path / "link.json"
    link.symlink_to(good)
    for other in (pipe, link, tmp_path, tmp_path / "missing"):
        code, (told,) = check(other)
        assert (code, told["ok"]) == (1, False)
        assert told["reason"]
    link.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.json", "big.json", "good.json", "pipe.json"]
    said = CliRunner().invoke(cli, ["check", str(bad)]).stdout
    assert said == f"{bad}: bad, breaks its schema\n    /total: must be a number\n"
    assert "good, a sale (S-1)" in CliRunner().invoke(cli, ["check", str(good)]).stdout


# -- wrong usage: 2


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["bogus"],
        ["list", "--state", "bogus"],
        ["list", "--kind", "bogus"],
        ["list", "--bogus"],
        ["ingest", "--max-bytes", "0"],
        ["ingest", "--max-bytes", "many"],
        ["show"],
        ["resolve", "J1"],
        ["check"],
    ],
)
def test_wrong_usage_is_2(shop: Shop, args: list[str]) -> None:
    done = shop.run(*args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_journal_must_be_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "list"],
        env={name: value for name, value in os.environ.items() if not name.startswith("OMNEO_")},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "--db" in done.stderr
    assert not list(tmp_path.iterdir())


def test_help_is_no_error(shop: Shop) -> None:
    assert shop.run("--help").returncode == 0
    assert shop.run("ingest", "--help").returncode == 0


# -- not now: 75


def test_a_second_instance_is_not_now(shop: Shop) -> None:
    with shop.start().ready():
        refused(shop.run("ingest", "--once"), 75)
        refused(shop.run("ingest"), 75)
        assert shop.run("list").returncode == 0
        assert shop.run("verify").returncode == 0


def test_a_file_that_stays_makes_once_say_not_now(shop: Shop) -> None:
    (shop.spool / "rejected").touch()
    shop.drop("a.json", broken())
    done = shop.run("ingest", "--once")
    assert done.returncode == 75
    assert "left for the next run" in done.stderr.splitlines()[-1]
    assert shop.waiting() == ["a.json", "rejected"]


# -- configuration: 78


def test_what_the_system_refuses_without_naming_a_file_is_a_sentence_too() -> None:
    assert verdict(OSError(errno.ENOLCK, "No locks available")) == (
        "The system refuses: No locks available. Check the paths, and that this user may use them.",
        78,
    )


COMMANDS: list[list[str]] = [
    ["ingest", "--once"],
    ["ingest"],
    ["list"],
    ["show", "S-1"],
    ["flags"],
    ["resolve", "J1", "--by", "a", "--note", "b"],
    ["verify"],
    ["close-check"],
]


def spoil(shop: Shop, how: str) -> None:
    shop.book.close()
    if how == "foreign":
        shop.db.unlink()
        with closing(sqlite3.connect(shop.db)) as db:
            db.execute("CREATE TABLE log (seq)")
        return
    if how == "newer":
        with closing(sqlite3.connect(shop.db)) as db:
            db.execute("PRAGMA user_version = 99")
        return
    shop.db.unlink()
    if how == "text":
        shop.db.write_text("x" * 5000)
    if how == "a directory":
        shop.db.mkdir()


@pytest.mark.parametrize("how", ["missing", "foreign", "newer", "text", "a directory"])
def test_every_command_refuses_what_is_no_journal_of_ours(
    shop: Shop, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, as eight commands times five files would take long otherwise."""
    from journal import command

    spoil(shop, how)
    monkeypatch.setenv("OMNEO_JOURNAL_DB", str(shop.db))
    monkeypatch.setenv("OMNEO_JOURNAL_SPOOL", str(shop.spool))
    for args in COMMANDS:
        done = CliRunner().invoke(cli, args)
        assert isinstance(done.exception, log.Unusable), args
        assert command.verdict(done.exception)[1] == 78
    refused(shop.run("verify", "--json"), 78)


def test_a_second_init_changes_nothing(shop: Shop) -> None:
    before = shop.db.read_bytes()
    refused(shop.run("init"), 78)
    assert shop.db.read_bytes() == before


def test_init_where_nothing_can_be_made_is_a_sentence(shop: Shop) -> None:
    (shop.root / "file").touch()
    refused(shop.run("init", "--db", str(shop.root / "file" / "journal.db")), 78)
    done = shop.run("init", "--db", str(shop.root / "new.db"), "--spool", str(shop.root / "file"))
    refused(done, 78)
    assert not (shop.root / "new.db").exists()  # so that the same command works once the slip is mended
    refused(shop.run("init", "--spool", str(shop.root / "other")), 78)
    assert not (shop.root / "other").exists()


@pytest.mark.parametrize("spool", ["missing", "file"])
def test_a_spool_that_is_not_there_is_a_matter_of_configuration(shop: Shop, spool: str) -> None:
    (shop.root / "file").touch()
    for args in (["--once"], []):
        refused(shop.run("ingest", *args, "--spool", str(shop.root / spool)), 78)


@pytest.mark.parametrize("keep", [0, 60, 20_000])
def test_a_truncated_journal_is_bad_news_to_verify_and_unusable_to_all_others(shop: Shop, keep: int) -> None:
    for number in range(60):
        shop.drop(f"{number}.json", sale(f"S-{number}", meta={"note": "x" * 3000}))
    shop.sweep()
    shop.book.close()
    with shop.db.open("r+b") as file:
        file.truncate(keep)
    done = shop.run("verify", "--json")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (1, False)
    shop.drop("new.json", sale("S-new"))
    for args in (["list"], ["ingest", "--once"]):
        done = shop.run(*args)
        assert done.returncode == 78, (args, done.stderr)
        assert "Traceback" not in done.stderr
    assert shop.waiting() == ["new.json"]


def as_nobody(shop: Shop, *args: str) -> subprocess.CompletedProcess[str]:
    """A child of ours, as the interpreter may stand where nobody may go. What it imports later is imported first."""
    assert sqlite_utils
    assert story
    assert walk
    assert way
    out, err = shop.root / "out", shop.root / "err"

    def become() -> None:
        for stream, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ |= shop.environment()
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        sys.argv = ["omneo-journal", *args]
        try:
            main()
        except SystemExit as end:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))

    code = os.waitstatus_to_exitcode(fork(become))
    return subprocess.CompletedProcess(args, code, out.read_text(), err.read_text())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_may_not_is_told_so_and_who_may_read_can_read_all(sold: Shop) -> None:
    sold.sweep()
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        sold.root = sold.root.rename(Path(open_to_all) / "shop")
        sold.db, sold.spool = sold.root / "journal.db", sold.root / "spool"
        sold.root.chmod(0o755)
        sold.db.chmod(0o644)
        for args in (["list"], ["show", "S-1"], ["flags"], ["verify"]):
            assert as_nobody(sold, *args).returncode == 0, args
        refused(as_nobody(sold, "resolve", "J3", "--by", "a", "--note", "b"), 78)
        refused(as_nobody(sold, "ingest", "--once"), 78)
        refused(as_nobody(sold, "init", "--db", str(sold.root / "other.db")), 78)
        sold.db.chmod(0o600)
        refused(as_nobody(sold, "list"), 78)
        sold.db.chmod(0o644)
        sold.root.chmod(0o700)
        refused(as_nobody(sold, "list"), 78)
        refused(as_nobody(sold, "ingest", "--once"), 78)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_spool_or_file_that_this_user_may_not_use_stays_as_it_is(shop: Shop) -> None:
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        shop.root = shop.root.rename(Path(open_to_all) / "shop")
        shop.db, shop.spool = shop.root / "journal.db", shop.root / "spool"
        for path in (shop.root, shop.db, shop.spool):
            os.chown(path, 65534, 65534)
        shop.drop("a.json", sale("S-1")).chmod(0o600)
        done = as_nobody(shop, "ingest", "--once")
        assert done.returncode == 75
        assert "can't be read: Permission denied" in done.stderr
        (told,) = lines(as_nobody(shop, "check", str(shop.spool / "a.json"), "--json").stdout)
        assert told["reason"] == "can't be read: Permission denied"
        (shop.spool / "a.json").chmod(0o644)
        os.chown(shop.spool, 0, 0)
        shop.spool.chmod(0o755)
        done = as_nobody(shop, "ingest", "--once")
        assert done.returncode == 75
        assert "is in the journal but can't be removed" in done.stderr
        shop.spool.chmod(0o700)
        assert as_nobody(shop, "ingest", "--once").returncode == 78
        assert shop.waiting() == ["a.json"]
        assert shop.sales() == ["S-1"]
