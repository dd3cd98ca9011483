"""The chain on one page that stands alone: the very queries of the Grafana dashboard, for where there is no Grafana."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg

from journal.log import NotNow, Unusable, system_failed

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --bad: #c62828 }
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; max-width: 110rem }
main { display: grid; grid-template-columns: repeat(24, 1fr); gap: 1rem }
section { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .9rem; overflow-x: auto }
section { grid-column: span var(--w) }
h1 { font-size: 1.3rem; margin: 0 0 .2rem } h2 { font-size: 1rem; margin: 0 0 .4rem }
p { margin: .1rem 0 .6rem; opacity: .7 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .15rem .6rem .15rem 0; border-bottom: 1px solid var(--soft); vertical-align: top }
th { font-weight: 600 } th, .n, .t { white-space: nowrap } .n { text-align: right }
dl { display: flex; gap: 2rem; margin: 0; flex-wrap: wrap }
dt { opacity: .7 } dd { margin: 0; font-size: 1.7rem } .bad { color: var(--bad); font-weight: 600 }
@media (max-width: 70rem) { section { grid-column: 1 / -1 } }
"""
TITLE = "The chain's ledger"
# Columns whose every figure but 0 is a matter.
ALARMING = {"down", "paused", "silent", "with_findings", "held", "found"}


def panels() -> list[dict[str, Any]]:
    """What the dashboard asks, panel by panel."""
    text = (files("forwarder") / "headoffice" / "dashboard.json").read_text("utf-8")
    return [
        {
            "title": each["title"],
            "words": each.get("description", ""),
            "kind": each["type"],
            "width": each["gridPos"]["w"],
            "sql": each["targets"][0]["rawSql"],
        }
        for each in json.loads(text)["panels"]
    ]


def write(url: str, path: Path) -> None:
    """The page as the ledger is now, in place of the last one. Raises NotNow and Unusable."""
    try:
        with psycopg.connect(url, connect_timeout=10) as db:
            db.execute("SET TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ")
            page = _page([(panel, *_asked(db, panel["sql"])) for panel in panels()], datetime.now(UTC))
    except psycopg.OperationalError as error:
        raise NotNow(f"The ledger can't be reached now ({error.sqlstate or 'no connection'}).") from None
    except psycopg.errors.InsufficientPrivilege:
        raise Unusable("The ledger doesn't let this role read: grant it omneo_reader.") from None
    except psycopg.Error as error:
        words = f"The ledger's page can't be made ({error.sqlstate or type(error).__name__})"
        raise Unusable(f"{words}: this ledger may be of another version than this program.") from None
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.write_text(page, "utf-8")
        draft.replace(path)
    except OSError as error:
        raise system_failed(error, path) from error


def _asked(db: "psycopg.Connection[Any]", sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    cursor = db.execute(sql.encode())
    return [column.name for column in cursor.description or ()], cursor.fetchall()


def _page(found: Sequence[tuple[dict[str, Any], list[str], list[tuple[Any, ...]]]], now: datetime) -> str:
    parts = []
    for panel, names, rows in found:
        words = f"<p>{escape(panel['words'])}</p>" if panel["words"] else ""
        inner = _figures(names, rows[0]) if panel["kind"] == "stat" and rows else _table(names, rows)
        parts.append(f"<section style='--w:{panel['width']}'><h2>{escape(panel['title'])}</h2>{words}{inner}</section>")
    head = "<meta charset=utf-8><meta name=viewport content='width=device-width'>"
    head += f"<title>{TITLE}</title><style>{STYLE}</style>"
    moment = now.strftime("%Y-%m-%d %H:%M:%S UTC")
    body = f"<h1>{TITLE}</h1><p>as of {moment}</p><main>{''.join(parts)}</main>"
    return f"<!doctype html><html lang=en>{head}{body}</html>\n"


def _figures(names: Sequence[str], row: tuple[Any, ...]) -> str:
    return (
        "<dl>"
        + "".join(
            f"<div><dt>{escape(_label(name))}</dt><dd{_class(_mark(name, value))}>{escape(_said(value))}</dd></div>"
            for name, value in zip(names, row, strict=True)
        )
        + "</dl>"
    )


def _table(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> str:
    if not rows:
        return "<p>nothing</p>"
    sides = [_side(column) for column in zip(*rows, strict=True)]
    head = "".join(f"<th{_class(side)}>{escape(_label(name))}</th>" for side, name in zip(sides, names, strict=True))
    body = "".join(
        "<tr>" + "".join(_cell(*each) for each in zip(sides, names, row, strict=True)) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(side: str, name: str, value: Any) -> str:
    return f"<td{_class(side, _mark(name, value))}>{escape(_said(value))}</td>"


def _class(*names: str) -> str:
    worn = " ".join(filter(None, names))
    return f' class="{worn}"' if worn else ""


def _side(column: Sequence[Any]) -> str:
    """Figures stand at the right, days and moments in one line."""
    return "n" if any(map(_counts, column)) else "t" if any(isinstance(value, date) for value in column) else ""


def _counts(value: Any) -> bool:
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool)


def _mark(name: str, value: Any) -> str:
    return "bad" if (name in ALARMING and value) or value in {"silent", "down", "paused", "never seen"} else ""


def _label(name: str) -> str:
    return name.replace("_", " ")


def _said(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, (int, Decimal)) else str(value)
