"""What the forwarder's loop does beside delivering, each time it comes by: quick things, and none that can fail it."""

from collections.abc import Callable

from forwarder.books import Books
from forwarder.canary import Canary


class Chores:
    """Answers canaries, and does whatever else was given to it."""

    def __init__(self, books: Books) -> None:
        """`others` and `make_room` are for whoever sets up the run."""
        self.canary = Canary(books)
        self.make_room: Callable[[], bool] = lambda: False  # on a full disk
        self.others: list[Callable[[], object]] = []

    def __call__(self) -> None:
        """Do all that is due. Raises NotNow when the delivery book can't be written."""
        for other in self.others:
            other()
        self.canary.answer()
