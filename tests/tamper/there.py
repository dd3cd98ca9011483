"""What Omneo holds of a journal: its sales are really sent to a sandbox, and what they took along is read back."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from forwarder import omneo, outcome, witness
from forwarder.asking import Asking
from forwarder.link import Credentials, Link, check_url
from forwarder.read_back import Heard
from forwarder.sandbox.serve import running
from forwarder.wire import Wire
from journal import log
from journal.document import parse
from tests.tamper.shapes import Case

WAITING = 2  # the newest sales, which have not gone out yet
GONE = {"total": 1, "transacted_at": "2025-06-15 14:32:00", "timezone": "Australia/Melbourne", "items": []}


class There:
    """A sandbox, and the way to it."""

    def __init__(self, link: Link, control: str) -> None:
        self.link, self.control = link, control

    def holds(self, case: Case) -> frozenset[witness.Seen]:
        """Every sale of a journal goes out, all but the newest, and Omneo's list is gone through."""
        assert httpx.post(f"{self.control}/reset").is_success
        with closing(log.open_book(case.journal, "journal", write=False)) as db:
            identity = witness.identity(db)
            rows = db.execute(
                "SELECT seq, digest, external_id, bytes FROM log LEFT JOIN body USING (seq)"
                " WHERE kind = 'sale' ORDER BY seq"
            ).fetchall()
        for seq, digest, external_id, body in rows[:-WAITING]:
            content: dict[str, Any] = parse(body) if body else GONE | {"external_id": external_id}
            answer = self.link.ask(omneo.sale(content, "POS", None, witness.mark(identity, seq, digest)))
            assert outcome.meaning(answer) == "yes", answer
        heard = Heard(Asking(self.link, lambda _: None))
        heard.go_through(("2000-01-01 00:00:00", None), identity, {})
        assert len(heard.seen) == max(0, len(rows) - WAITING)
        return frozenset(heard.seen)


@contextmanager
def there(root: Path) -> Iterator[There]:
    """The sandbox, for as long as the block lasts."""
    token = root / "token"
    token.write_text("sandbox")
    wire = Wire(10.0)
    with running() as server:
        try:
            yield There(
                Link(check_url(server.url), Credentials(token), wire, rate=0, sleep=lambda _: None), server.control
            )
        finally:
            wire.close()
