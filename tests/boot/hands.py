"""What every scene uses inside of the machine: promises, commands, sales, the stand-in Omneo, and its clock."""

import json
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ACT = Path("/act")
UNITS = ("omneo-journal", "omneo-forwarder")
JOBS = ("checkpoint", "report", "backup", "archive")
SPOOL, TILL = Path("/var/spool/omneo"), Path("/var/spool/omneo/till-1")
JOURNAL, DELIVERY = Path("/var/lib/omneo-journal/journal.db"), Path("/var/lib/omneo-forwarder/delivery.db")
BASE = "http://127.0.0.1:8080"
STORE = Path("/etc/credstore")

failed = 0
clocks: dict[str, str] = {}  # what lets a program go by clocks that scenes set (clocks.c)
dropped = 0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def check(what: str, found: object, wanted: object = True) -> None:
    """A promise, and what was found of it."""
    global failed  # noqa: PLW0603
    if found == wanted:
        say(f"ok {what}")
    else:
        failed += 1
        say(f"FAILED {what}: {repr(found)[:600]}, not {repr(wanted)[:200]}")


def run(
    *command: str | Path, user: str = "", given: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    prefix: list[str | Path] = []
    if user:
        group = "omneo" if user.startswith("omneo-") else user
        prefix = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups"]
    around = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"} | clocks | environment
    return subprocess.run([*prefix, *command], input=given, env=around, capture_output=True, text=True, check=False)


def must(*command: str | Path, **how: Any) -> str:
    done = run(*command, **how)
    if done.returncode:
        check(
            f"{' '.join(map(str, command))} succeeds", (done.returncode, done.stdout[-300:], done.stderr[-600:]), (0,)
        )
    return done.stdout


def shown(unit: str, name: str) -> str:
    return must("systemctl", "show", unit, "-p", name, "--value").strip()


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    give_up = time.monotonic() + seconds
    while not (value := true()) and time.monotonic() < give_up:
        time.sleep(0.05)
    return value


def both_up(seconds: float = 60) -> bool:
    up = until(lambda: all(shown(unit, "ActiveState") == "active" for unit in UNITS), seconds)
    if not up:
        say(must("journalctl", "-b", "--no-pager", "-q", "-n", "30", *(f"--unit={unit}" for unit in UNITS)))
    return bool(up)


def drop(number: int, directory: Path = TILL) -> list[str]:
    """Sales of a till, written as the till's own user: under another name, then renamed."""
    global dropped  # noqa: PLW0603
    names = []
    script = ["set -e"]
    for _ in range(number):
        dropped += 1
        name = f"S-{dropped}"
        content = {
            "kind": "sale",
            "external_id": name,
            "terminal": "T1",
            "sequence": dropped,
            "total": 12.5,
            "transacted_at": "2025-06-15 14:32:00",
            "timezone": "Australia/Melbourne",
            "items": [{"name": "Belt", "quantity": 1, "price_sell": 12.5}],
        }
        script.append(
            f"cat >{directory}/.{name} <<'E'\n{json.dumps(content)}\nE\nmv {directory}/.{name} {directory}/{name}.json"
        )
        names.append(name)
    must("sh", user="till", given="\n".join(script))
    return names


def asked(path: str, data: dict[str, Any] | None = None) -> Any:
    body = None if data is None else json.dumps(data).encode()
    with urllib.request.urlopen(urllib.request.Request(BASE + path, body), timeout=10) as answer:
        return json.load(answer)


def at_omneo() -> list[str]:
    """External ids of the sales that the stand-in has, each as often as it has it."""
    return [row["external_id"] for row in asked("/_sandbox/state")["transactions"]]


def arrived(names: Iterable[str], seconds: float = 90) -> bool:
    wanted = set(names)
    return bool(until(lambda: wanted <= set(at_omneo()), seconds))


def everything_is_there_once(what: str) -> None:
    names = [f"S-{number}" for number in range(1, dropped + 1)]
    arrived(names)
    check(f"{what}: every sale is at Omneo, once", sorted(at_omneo()), sorted(names))
    check(f"{what}: the spool is empty", [path.name for path in SPOOL.rglob("*") if path.is_file()], [])
    done = run("omneo-journal", "verify", "--json")
    check(f"{what}: verify finds nothing", (done.returncode, json.loads(done.stdout or "{}").get("problems")), (0, []))


def told_by(clock: str) -> str:
    """Lines of a unit whose program goes by this clock; none where no such clock could be made."""
    if not (ACT / "clocks.so").exists():
        return ""
    file = ACT / f"clocks.{clock}"
    if not file.exists():
        file.write_bytes(struct.pack("4d", 0, 0, 1, 0))
    return f"Environment=LD_PRELOAD={ACT}/clocks.so CLOCKS={file}\n"


def stand_in(up: bool = True) -> None:
    """The sandbox, as a service of its own that no restart of ours touches. It forgets everything when it ends."""
    if not up:
        must("systemctl", "stop", "sandbox")
        return
    unit = Path("/run/systemd/system/sandbox.service")
    command = "/opt/omneo-journal/bin/omneo-forwarder sandbox --port 8080"
    unit.write_text(f"[Service]\nDynamicUser=yes\n{told_by('omneo')}ExecStart={command}\n")
    must("systemctl", "daemon-reload")
    must("systemctl", "start", "sandbox")

    def answers() -> bool:
        try:
            return bool(asked("/_sandbox/counts"))
        except OSError:
            return False

    check("the sandbox answers", bool(until(answers, 30)))


def package(name: str = "first.deb") -> None:
    done = run("dpkg", "--install", ACT / name)
    check(f"dpkg --install {name}", (done.returncode, done.stderr[-500:] if done.returncode else ""), (0, ""))


def kill(unit: str, how: str = "KILL") -> None:
    run("systemctl", "kill", "--signal", how, "--kill-whom", "main", unit)


def calm() -> None:
    """As if both had been up for long: the next start is the first in a row."""
    for unit in UNITS:
        Path(f"/run/{unit}/starts").unlink(missing_ok=True)
