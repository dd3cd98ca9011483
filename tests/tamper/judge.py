"""Both verifiers on the same thing: what they find, and whether they agree."""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from forwarder import witness
from forwarder.witness import Seen
from journal import checkpoint, exhibit, log, note, standalone
from journal.verify import examine

Places = set[tuple[str, int]]
DAMAGED = ("is damaged", "can't be read", "not a ", "newer version")


@dataclass(frozen=True, slots=True)
class Found:
    """What our verify and the stand-alone one say."""

    ours: Places
    theirs: Places
    words: list[str]

    @property
    def agree(self) -> bool:
        """The same verdict, and the same places; only the verdict of a file that SQLite can't read to its end."""
        damaged = any(words in each for each in self.words for words in DAMAGED)
        return bool(self.ours) == bool(self.theirs) and (damaged or self.ours == self.theirs)


def judge(paths: Sequence[Path], taken: Sequence[Path] = (), public: str = "") -> Found:
    """Books, evidence or a proof, with what the auditor has."""
    keys = [note.public_key(public)] if public else []
    kept = [checkpoint.taken(path) for path in taken]
    try:
        if len(paths) == 1 and paths[0].suffix != ".db":
            told = exhibit.examine(paths[0], keys, kept).told
        else:
            told = examine(paths[0], paths[1], keys, kept).told
        ours = {(each["book"], each["seq"]) for each in told["problems"]}
        words = [f"{each['book']} {each['seq']}: {each['what']}" for each in told["problems"]]
    except (log.Unusable, log.NotNow) as error:
        ours, words = {("journal", -1)}, [str(error)]
    notes = {path.name: path.read_text("utf-8") for path in taken}
    books = standalone.examine([path for path in paths if path.exists()], notes, public)
    problems = [problem for book in books for problem in book.problems]
    theirs = {(book, seq) for book, seq, _ in problems}
    return Found(ours, theirs, words + [f"(verify.py) {book} {seq}: {what}" for book, seq, what in problems])


def by_omneo(journal: Path, seen: Iterable[Seen]) -> tuple[Places, list[str]]:
    """What `omneo-forwarder witness` says, given what Omneo holds."""
    with closing(log.open_book(journal, "journal", write=False)) as db:
        problems = list(witness.problems(db, witness.compare(db, seen)))
    return {(each["book"], each["seq"]) for each in problems}, [each["what"] for each in problems]


def copy(paths: Sequence[Path], place: Path) -> list[Path]:
    """The same files elsewhere, to be spoilt."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return [Path(shutil.copy(path, place / path.name)) if path.exists() else place / path.name for path in paths]
