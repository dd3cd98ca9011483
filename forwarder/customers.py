"""The customers of a day: who they are at Omneo, and whether what they have left can be. Asks, and changes nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from forwarder import lookup, omneo, outcome
from forwarder.asking import SETTLE_S, Asking, Listing, read_balances
from forwarder.compare import Field, figure
from forwarder.compare import field as differing
from forwarder.ours import Ours

Row = dict[str, Any]

BALANCES = ("reward_balance", "credit_balance")  # points may be owed: goods that come back take theirs along
SIGN = {"redeem": 1, "reversal": -1}


@dataclass(slots=True)
class Customers:
    """Each is asked for once."""

    asking: Asking
    routes: str
    known: dict[tuple[str, str | None], str | None] = field(default_factory=dict)
    looked_at: int = 0  # balances
    unseen: int = 0  # customers whom, or whose balances, Omneo doesn't let us see

    def is_another(self, content: Row, row: Row) -> bool:
        """Does Omneo have the document with another customer than it named, or with none? Merged ones are the same."""
        named = omneo.profile_of(content)
        if named is None or "profile_id" not in row:  # anonymous: somebody may have claimed it since
            return False
        there = row["profile_id"]
        if there is None:
            return True
        profile = row.get("profile")
        shown = {str(profile.get("email")).lower()} if isinstance(profile, dict) and named[1] == "email" else set()
        if str(there) == named[0] or named[0].lower() in shown:
            return False
        found = self._resolve(*named)
        return found is not None and found != str(there)

    def _resolve(self, value: str, handle: str | None) -> str | None:
        """Omneo's UUID; None if that customer is not to be found any more."""
        if (value, handle) not in self.known:
            answer = self.asking.may_see(omneo.read_profile(value, handle, self.routes))
            self.unseen += answer is None
            found = omneo.profile_shown(answer) if answer is not None and outcome.meaning(answer) == "yes" else None
            self.known[value, handle] = found
        return self.known[value, handle]

    def purses(self, redeemed: Iterable[Ours]) -> Iterator[tuple[Ours, list[Field]]]:
        """What is wrong with the balances of those who redeemed, told of a redemption of theirs."""
        last: dict[str, Ours] = {}
        benefits: dict[tuple[str, str], Ours] = {}
        for mine in redeemed:
            owner = (mine.row or {}).get("profile_id")
            if owner is not None:
                last[str(owner)] = mine
                if mine.document.content.get("benefit_id") is not None:
                    benefits[str(owner), str(mine.document.content["benefit_id"])] = mine
        for owner, mine in last.items():
            self.looked_at += 1
            if fields := self._overdrawn(owner):
                yield mine, fields
        for (owner, benefit), mine in benefits.items():
            fields = self._uses(owner, benefit)
            if fields:  # the list may be behind
                self.asking.rest(SETTLE_S)
                fields = self._uses(owner, benefit)
            if fields:
                yield mine, fields

    def _overdrawn(self, owner: str) -> list[Field]:
        """More was taken than there was. How much is left is the customer's business."""
        answer = self.asking.may_see(read_balances(owner))
        if answer is None:
            self.unseen += 1
            return []
        found = ((name, figure(answer.data.get(name))) for name in BALANCES)
        return [differing(f"balances.{name}") for name, left in found if left is not None and left < 0]

    def _uses(self, owner: str, benefit: str) -> list[Field]:
        """A benefit counts its own uses: they must be those of the customer's list."""
        answer = self.asking.may_see(omneo.read_benefit(owner, benefit))
        if answer is None:
            return []
        most, left = answer.data.get("max_redemptions"), answer.data.get("redemptions_remaining")
        if outcome.meaning(answer) != "yes" or not isinstance(most, int) or not isinstance(left, int):
            return []
        listing, shown, whole = Listing(self.asking, lambda page: omneo.redemptions_of_customer(owner, page)), 0, True
        for row in listing:
            whole = whole and _says_what(row)
            shown += SIGN.get(row.get("type", "redeem"), 0) * lookup.uses(row, benefit)
        if listing.shown != "yes" or not whole or most - shown == left:
            return []
        return [differing("redemptions_remaining", most - shown, left)]


def _says_what(row: Row) -> bool:
    """Does a redemption in Omneo's list name each benefit that it used?"""
    items = row.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return False
    named = (item.get("type_attributes") for item in items if item.get("type") == "benefit")
    return all(isinstance(each, dict) and each.get("id") is not None for each in named)
