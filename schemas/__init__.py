"""What a document of each kind looks like: the JSON Schemas that POS vendors read and the journal validates with."""

import json
from importlib import resources
from typing import Any

KINDS = ("sale", "redemption", "reversal", "return")


def load(kind: str) -> dict[str, Any]:
    """The schema of one kind, read anew each time: the caller may keep it or change it."""
    text = resources.files(__name__).joinpath(f"{kind}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
