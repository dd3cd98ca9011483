"""The tree as a walk through the journal rebuilds it: checkpoints among the entries, and those that were taken away."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from journal import checkpoint, note, tree
from journal.checkpoint import Statement, Taken

OTHER_ROOT = "this checkpoint is not over the entries before it: one of them was altered, taken out or put in"
UNSIGNED = "no checkpoint is signed with the key that was given: nothing shows that this wasn't all computed anew"
Found = Callable[[int, str], None]


@dataclass(slots=True)
class Roots:
    """The tree so far, and what it is compared with."""

    found: Found
    keys: Sequence[note.Key] = ()
    taken: Sequence[Taken] = ()
    origin: str = ""
    grown: tree.Range = field(default_factory=tree.Range)
    seen: dict[int, bytes] = field(default_factory=dict)  # size → root, where a taken one asks for it
    signed: int = 0  # checkpoints among the entries that bear a signature of one of the keys
    covered: int = 0  # entries that a signature of one of the keys covers, wherever the checkpoint was

    def entries(self, digests: Sequence[bytes]) -> None:
        """Let the tree grow."""
        for size in sorted({each.size for each in self.taken}):
            reach = size - self.grown.size
            if 0 <= reach <= len(digests):
                self.grown.extend(digests[:reach])
                digests = digests[reach:]
                self.seen[size] = self.grown.root()
        self.grown.extend(digests)

    def add(self, root: bytes, leaves: int) -> None:
        """Let it grow by a perfect subtree of which only the root is known."""
        self.grown.add(root, leaves)
        self.entries([])

    def checkpoint(self, seq: int, facts: str) -> None:
        """An entry of that kind, before the tree has grown over it."""
        try:
            told = json.loads(facts)
            said = Statement(self.origin, told["size"], bytes.fromhex(told["root"]))
            if type(said.size) is not int:
                raise TypeError  # noqa: TRY301 - handled with all the other ways to make no sense
            claimed = tree.Range(said.size, [bytes.fromhex(each) for each in told["range"]])
            signed = told.get("note")
            text = note.text_of(signed) if signed is not None else said.text()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.found(seq, "this checkpoint makes no sense")
            return
        if said.size != seq - 1 or claimed.root() != said.root:
            self.found(seq, "this checkpoint makes no sense")
            return
        if text != said.text():
            self.found(seq, "what was signed here is something else than what the checkpoint says")
        elif signed is not None and self.keys:
            self._signed(seq, signed)
        if (self.grown.size, self.grown.root()) != (said.size, said.root):
            self.found(seq, OTHER_ROOT)
            self.grown = claimed  # so that the next one tells of what came after this one only

    def _signed(self, seq: int, signed: str) -> None:
        try:
            note.read(signed, self.keys)
            self.signed += 1
            self.covered = seq - 1
        except note.Bad as bad:
            self.found(seq, f"this checkpoint is not to be trusted: {bad}")

    def compare(self, entries: int) -> None:
        """At the end of the walk: does the journal still hold what each taken checkpoint saw?"""
        for each in self.taken:
            if not self.origin.startswith(each.origin) if each.note is None else self.origin != each.origin:
                self.found(0, f"the checkpoint {each.name} is of another journal: {each.origin}")
            elif each.size > entries:
                words = f"the checkpoint {each.name} saw {each.size} entries, there are {entries}: the end was cut off"
                self.found(entries + 1, words)
            elif self.seen.get(each.size, each.root) != each.root:
                words = f"the checkpoint {each.name} saw other entries up to here: the journal was rewritten"
                self.found(each.size, words)
            elif each.size not in self.seen:
                self.found(each.size, f"the checkpoint {each.name} can't be compared with what is here")
            if each.note is not None and self.keys:
                self._trusted(each)
        if self.keys and not self.covered:
            self.found(0, UNSIGNED)

    def _trusted(self, each: Taken) -> None:
        try:
            note.read(str(each.note), self.keys)
            self.covered = max(self.covered, each.size)
        except note.Bad as bad:
            self.found(each.size, f"the checkpoint {each.name} is not to be trusted: {bad}")


def of(facts: str) -> str:
    """The origin of a journal whose first entry has these facts."""
    try:
        return checkpoint.origin(json.loads(facts).get("journal"))
    except (ValueError, AttributeError, RecursionError):
        return checkpoint.origin(None)
