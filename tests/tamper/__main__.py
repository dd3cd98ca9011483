"""
The tampering campaign: what can be done to real journals behind the programs' back, and whether `verify` finds it.

    python -m tests.tamper [--seed N] [--cases 2000] [--untouched 200] [--slice]

Journals of every shape are made through the programs' own code and tampered with at random. Each deed has to be found
at its place, by `verify` and by the stand-alone verify.py, which shares no code with it; what only a checkpoint can
show, with the checkpoint; what only Omneo can show, with what a sandbox holds of the journal. Untouched journals,
evidence and proofs must raise no alarm. One seed repeats a run.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from journal import checkpoint, evidence, log, proof
from tests.tamper import papers
from tests.tamper.deeds import IN_BOOKS, Deed
from tests.tamper.judge import by_omneo, copy, judge
from tests.tamper.shapes import Case, make, rich, rows
from tests.tamper.there import There, there

BASES = 12  # journals that are tampered with, each many times, on copies
PROOF, GROWTH = "a proof", "a proof of growth"


@dataclass
class Tally:
    """What came of it."""

    found: Counter[str] = field(default_factory=Counter)
    alone: Counter[str] = field(default_factory=Counter)  # found without a checkpoint or key
    missed: list[str] = field(default_factory=list)
    disagree: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    untouched: int = 0


def packed(case: Case, dice: random.Random, out: Path) -> Path:
    """The evidence of some of a journal's days."""
    days = sorted({row[1][:10] for row in rows(case.journal)})
    first = dice.choice(days)
    last = dice.choice([day for day in days if day >= first])
    out.unlink(missing_ok=True)
    evidence.write(case.journal, case.delivery, date.fromisoformat(first), date.fromisoformat(last), out)
    return out


def proven(case: Case, dice: random.Random, out: Path) -> Path | None:
    """The proof of some entry, if a signed checkpoint covers it."""
    with closing(log.open_book(case.journal, "journal", write=False)) as db:
        try:
            text, _ = proof.make(db, str(dice.randint(1, log.head(db)[0])), None)
        except log.NoSuch:
            return None
    out.write_text(text, "utf-8")
    return out


def grown(case: Case, dice: random.Random, out: Path) -> Path | None:
    """The proof that the journal only grew since some checkpoint, if a signed one came later. Returns which."""
    if not case.taken:
        return None
    earlier = dice.choice(case.taken)
    with closing(log.open_book(case.journal, "journal", write=False)) as db:
        try:
            text, _ = proof.since(db, checkpoint.taken(earlier), None)
        except log.NoSuch:
            return None
    out.write_text(text, "utf-8")
    return earlier


def signed(path: Path) -> bool:
    """Does it hold a signature? An auditor whose key is on nothing has to be told so."""
    if path.suffix == ".db":
        return any(row[2] == "checkpoint" for row in rows(path))
    if path.suffix == ".zip":
        return any(b"\n\n" in raw for name, raw in papers.unpack(path).items() if name.startswith("checkpoints/"))
    return True


def untouched(tally: Tally, seed: int, root: Path, sandbox: There) -> None:
    """One journal that nobody has touched: books, evidence, a proof, and what Omneo holds of it."""
    dice = random.Random(seed)
    case = make(dice, root)
    found_there, words = by_omneo(case.journal, sandbox.holds(case))
    if found_there:
        tally.alarms.append(f"untouched {seed}, what Omneo holds: {words}")
    things = [([case.journal, case.delivery], case.taken), ([packed(case, dice, root / "evidence.zip")], [])]
    if (paper := proven(case, dice, root / "a.tlog-proof")) is not None:
        things.append(([paper], []))
    if (earlier := grown(case, dice, root / "growth.txt")) is not None:
        things.append(([root / "growth.txt"], [earlier]))
    for paths, taken in things:
        found = judge(paths, taken, case.public if signed(paths[0]) else "")
        if found.ours or found.theirs:
            tally.alarms.append(f"untouched {seed}, {paths[0].name}: {found.words}")
    tally.untouched += 1


def tampered(tally: Tally, name: str, base: Case, dice: random.Random, place: Path) -> bool:
    """One deed on a copy. False: there was nothing of that kind to be spoilt."""
    if name in IN_BOOKS:
        paths = copy([base.journal, base.delivery], place)
        deed = IN_BOOKS[name](Case(paths[0], paths[1], base.public, base.taken, base.seen), dice)
    else:
        place.mkdir(exist_ok=True)
        paths, deed = _paper(name, base, dice, place)
    if deed is None:
        return False
    alone = judge(paths)
    found = judge(paths, deed.taken, base.public) if deed.taken or deed.key else alone
    there, words = by_omneo(paths[0], base.seen) if deed.witness else (set(), [])
    tally.found[name] += 1
    tally.alone[name] += bool(alone.ours)
    places = found.ours | there
    if not places or (deed.places and not deed.places & places):
        tally.missed.append(f"{name}: not at {sorted(deed.places)[:5]}: {[*words, *found.words][:4]}")
    if not (alone.agree and found.agree):
        tally.disagree.append(f"{name}: {sorted(found.ours)[:6]} / {sorted(found.theirs)[:6]}: {found.words[:8]}")
    return True


def _paper(name: str, base: Case, dice: random.Random, place: Path) -> tuple[list[Path], Deed | None]:
    if name == PROOF:
        path = proven(base, dice, place / "a.tlog-proof")
        return ([path], papers.a_proof(path, dice)) if path else ([], None)
    if name == GROWTH:
        path = place / "growth.txt"
        earlier = grown(base, dice, path)
        return ([path], papers.growth(path, earlier, dice)) if earlier else ([], None)
    path = packed(base, dice, place / "evidence.zip")
    if name in papers.ON_FILES:
        return [path], papers.ON_FILES[name](path, dice)
    files = papers.unpack(path)
    deed = papers.DEEDS[name](files, dice)
    papers.pack(path, files)
    return [path], deed


def campaign(seed: int, cases: int, shapes: int, root: Path, tell: Callable[[str], None]) -> Tally:
    """So many deeds, and so many untouched journals."""
    with there(root) as sandbox:
        return _campaign(seed, cases, shapes, root, sandbox, tell=tell)


def _campaign(seed: int, cases: int, shapes: int, root: Path, sandbox: There, *, tell: Callable[[str], None]) -> Tally:
    tally, dice = Tally(), random.Random(seed)
    for number in range(shapes):
        untouched(tally, seed * 100_000 + number, root / f"untouched-{number}", sandbox)
    bases: list[Case] = []
    names = [*IN_BOOKS, *papers.DEEDS, *papers.ON_FILES, PROOF, GROWTH]
    done = tries = 0
    while done < cases and tries < 20 * cases + 100:
        if tries % max(1, cases // BASES) == 0:
            bases.append(rich(random.Random(seed * 1000 + len(bases)), root / f"base-{len(bases)}"))
            bases[-1].seen = sandbox.holds(bases[-1])
        done += tampered(tally, names[tries % len(names)], dice.choice(bases[-3:]), dice, root / "tampered")
        tries += 1
        if tries % 200 == 0:
            tell(f"{done} done, {len(tally.missed)} missed, {len(tally.disagree)} disagreements")
    for name in names:
        tell(f"{name:52} {tally.found[name]:5} done, {tally.alone[name]:5} found with nothing but the file")
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.tamper", description="See tests/tamper/__main__.py.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--untouched", type=int, default=200)
    parser.add_argument("--slice", action="store_true", help="short: 100 cases, 15 untouched journals")
    chosen = parser.parse_args()
    if chosen.slice:
        chosen.cases, chosen.untouched = 100, 15
    print(f"seed {chosen.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tamper-") as root:
        tally = campaign(chosen.seed, chosen.cases, chosen.untouched, Path(root), lambda line: print(line, flush=True))
    for heading, faults in (
        ("missed, or not at its place", tally.missed),
        ("the two verifiers differ", tally.disagree),
        ("false alarm", tally.alarms),
    ):
        for fault in faults:
            print(f"{heading}: {fault}")
    print(
        f"{sum(tally.found.values())} tamperings, {len(tally.missed)} missed, {len(tally.disagree)} disagreements;"
        f" {tally.untouched} untouched journals, {len(tally.alarms)} false alarms; {time.monotonic() - began:.0f} s"
    )
    return 1 if tally.missed or tally.disagree or tally.alarms else 0


if __name__ == "__main__":
    sys.exit(main())
