"""A head office on the same machine, as docs/ledger.md has it made: PostgreSQL, the ledger, and the unit that ships."""

import json
import secrets
import sqlite3
from pathlib import Path

from hands import DELIVERY, JOURNAL, STORE, check, drop, everything_is_there_once, kill, must, run, say, shown, until

UNIT, PORT, ROLE = "omneo-ledger", "5433", "store_0001"
PLACE = Path("/run/headoffice")
SETTINGS = Path("/etc/omneo/omneo.env")


def headoffice() -> None:
    """The unit ships what is there and what comes; kills, an outage and a wrong password cost nothing."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        say("(without PostgreSQL's programs nothing is shipped here)")
        return
    owner, store = secrets.token_hex(16), secrets.token_hex(16)

    def server(deed: str) -> None:
        must(programs / "pg_ctl", deed, "-w", "-D", PLACE / "data", "-l", PLACE / "log", user="postgres")

    def asked(query: str, database: str = "ledger") -> str:
        at = ("-h", "127.0.0.1", "-p", PORT, "-U", "head", "-d", database, "-Atqc", query)
        return must(programs / "psql", *at, PGPASSWORD=owner).strip()

    def all_there() -> bool:
        wanted = [f"journal|{_entries(JOURNAL)}", f"delivery|{_entries(DELIVERY)}"]
        counted = "SELECT c.book, count(*) FROM ledger.chain AS c JOIN ledger.entry AS e ON e.chain = c.id"
        return asked(f"{counted} GROUP BY 1 ORDER BY 1 DESC").splitlines() == wanted

    PLACE.mkdir()
    must("chown", "postgres:", PLACE)
    must("sh", "-c", f"cat > {PLACE}/secret", user="postgres", given=owner)
    how = ("--username=head", f"--pwfile={PLACE}/secret", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C")
    must(programs / "initdb", "-D", PLACE / "data", *how, user="postgres")
    with (PLACE / "data/postgresql.conf").open("a") as settings:
        settings.write(f"port = {PORT}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{PLACE}'\n")
    server("start")
    asked("CREATE DATABASE ledger", "postgres")
    address = f"@127.0.0.1:{PORT}/ledger"
    must("omneo-forwarder", "ledger", "--to", f"postgresql://head{address}", PGPASSWORD=owner)
    asked(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{store}' CONNECTION LIMIT 2")
    asked(f"SELECT ledger.enrol('{ROLE}', 'Bourke Street', 'Melbourne', 'Australia/Melbourne')")

    SETTINGS.write_text(f"{SETTINGS.read_text()}OMNEO_LEDGER=postgresql://{ROLE}{address}\nOMNEO_LEDGER_EVERY=0.2\n")
    _credential("omneo-ledger-password", "wrong")
    _credential("omneo-customer-key", secrets.token_hex(32))
    must("systemctl", "enable", "--now", UNIT)
    check("with a wrong password it is up and goes on trying", _told("ledger_down"))
    _credential("omneo-ledger-password", store)
    must("systemctl", "restart", UNIT)
    check("what was there before is at head office", bool(until(all_there)))
    for how_killed in ("KILL", "KILL", "ABRT"):
        drop(20)
        kill(UNIT, how_killed)
    everything_is_there_once("while the shipper died")
    check("and at head office, each entry once", bool(until(all_there)))
    starts = shown(UNIT, "NRestarts")
    server("stop")
    drop(5)
    everything_is_there_once("while head office was away")
    check("the shipper waits for it", (shown(UNIT, "ActiveState"), shown(UNIT, "NRestarts")), ("active", starts))
    server("start")
    check("and brings what came meanwhile", bool(until(all_there, 150)))
    check("nothing is found", asked("SELECT count(*) FROM ledger.findings"), "0")
    check("nothing has to be recomputed", asked(f"SELECT count(*) FROM ledger.recheck('{ROLE}', 'journal')"), "0")
    check("the store's role reads nothing", _as_store(programs, store, "SELECT * FROM ledger.entry"), False)
    told = must("journalctl", "-b", "--no-pager", "-q", f"--unit={UNIT}") + must("ps", "-eo", "args")
    check("its secrets are in no log and no list", [word for word in (owner, store) if word in told], [])
    limits = {name: shown(UNIT, name) for name in ("MemoryMax", "TasksMax", "ProtectSystem")}
    check("it has limits", ("infinity" not in limits.values(), limits["ProtectSystem"]), (True, "strict"))
    must("systemctl", "disable", "--now", UNIT)
    server("stop")


def _entries(book: Path) -> int:
    with sqlite3.connect(f"file:{book}?mode=ro", uri=True) as db:
        return int(db.execute("SELECT max(seq) FROM log").fetchone()[0])


def _credential(name: str, secret: str) -> None:
    (STORE / name).write_text(f"{secret}\n")
    (STORE / name).chmod(0o600)


def _told(event: str) -> bool:
    def heard() -> bool:
        lines = must("journalctl", "-b", "--no-pager", "-q", "-o", "cat", f"--unit={UNIT}").splitlines()
        return any(json.loads(line).get("event") == event for line in lines if line.startswith("{"))

    return bool(until(heard)) and shown(UNIT, "ActiveState") == "active"


def _as_store(programs: Path, password: str, query: str) -> bool:
    at = ("-h", "127.0.0.1", "-p", PORT, "-U", ROLE, "-d", "ledger", "-c", query)
    return run(programs / "psql", *at, PGPASSWORD=password).returncode == 0
