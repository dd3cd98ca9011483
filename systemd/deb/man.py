"""Man pages from what the commands say of themselves: `python man.py DIRECTORY`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from forwarder.cli import cli as forwarder
from journal.cli import cli as journal

PROGRAMS = {"omneo-journal": journal, "omneo-forwarder": forwarder}
EXITS = (
    ("0", "done"),
    ("1", "done, and the answer is bad news"),
    ("2", "wrong usage"),
    ("75", "not now, try again: something still waits, or another instance holds the lock"),
    ("78", "configuration: no journal there, no token, a foreign or newer file"),
    ("130", "stopped from the keyboard"),
)
FILES = (
    ("/etc/omneo/omneo.env", "options for both programs"),
    ("/etc/credstore/omneo-token", "the token, for root only"),
    ("/etc/credstore/omneo-journal-key", "the key for checkpoints, for root only"),
    ("/var/spool/omneo", "where tills put their files"),
    ("/var/lib/omneo-journal/journal.db", "the journal"),
    ("/var/lib/omneo-forwarder/delivery.db", "the delivery book"),
)


def plain(text: str) -> str:
    """Text that roff takes as it stands."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("`", r"\(ga")
    return "\n".join(rf"\&{line}" if line[:1] in {".", "'"} else line for line in escaped.splitlines())


def listed(rows: Iterator[tuple[str, str]] | tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, meaning in rows:
        yield f".TP\n.B {plain(name)}\n{plain(meaning)}"


def options(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    context = click.Context(command, info_name=name)
    for parameter in command.params:
        if record := parameter.get_help_record(context):
            variable = getattr(parameter, "envvar", None)
            yield record[0], record[1] + (f" Environment: {variable}." if variable else "")


def page(name: str, group: click.Group, version: str) -> str:
    """One program's page."""
    said = [
        f'.TH {name.upper()} 1 "" "{name} {version}" "Omneo journal"',
        ".SH NAME",
        f"{plain(name)} \\- {plain(str(group.help).rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {plain(name)}\n.I command\n[options]",
        ".SH COMMANDS",
    ]
    for verb, command in sorted(group.commands.items()):
        usage = " ".join(command.collect_usage_pieces(click.Context(command)))
        said += [f".SS {plain(verb)} {plain(usage)}", plain(str(command.help)), *listed(options(command, verb))]
    said += [".SH EXIT STATUS", *listed(EXITS), ".SH FILES", *listed(FILES), ".SH SEE ALSO"]
    (other,) = PROGRAMS.keys() - {name}
    said.append(f".BR {plain(other)} (1),\n/usr/share/doc/omneo\\-journal")
    return "\n".join(said) + "\n"


if __name__ == "__main__":
    where, version = Path(sys.argv[1]), sys.argv[2]
    for name, group in PROGRAMS.items():
        (where / f"{name}.1").write_text(page(name, group, version), "utf-8")
