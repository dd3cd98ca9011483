"""The scenes of the demo in which money is at stake: rewards spent and taken back while the line comes and goes."""

from decimal import Decimal
from typing import Any

from forwarder.demo_stage import Stage

MEMBER = "5f2d9a10-4e8b-4b6f-b7c9-0e3a71d2c004"  # of the sandbox, with rewards to spend
REWARD = Decimal("10.00")
ELEVEN_MINUTES_S = 660

Scene = dict[str, Any]


def spent_offline(shop: Stage) -> None:
    """A reward is spent, and its sale made, with nobody to ask; another one is spent and taken back at once."""
    say, tills = shop.screen, shop.tills
    say.heading("3  Rewards are spent, with nobody to ask")
    say.tell("A member pays with a reward of 10.00. The till writes the redemption, then the sale that uses it.")
    tills.sell_with(tills.redeem(0, MEMBER, REWARD), REWARD)
    say.tell("Another member's card is declined after the reward: the till writes a redemption, and its reversal.")
    tills.reverse(tills.redeem(1, MEMBER, REWARD))
    shop.until(lambda _: not tills.left(), "the spool is empty")
    now = shop.look()
    shop.promise(
        now["delivered"] + now["waiting"] == len(tills.written),
        f"{now['waiting']} documents wait, and the reward is granted at the till: Omneo knows nothing of it yet.",
    )
    shop.breathe()


def taken_back(shop: Stage) -> None:
    """One reversal inside Omneo's ten minutes, and one that the till wrote too late."""
    say, tills = shop.screen, shop.tills
    say.heading("7  Rewards are taken back")
    spent = tills.redeem(0, MEMBER, Decimal("5.00"))
    settle(shop, 0, "Omneo has the redemption")
    before = balance(shop)
    tills.reverse(spent)
    settle(shop, 0, "Omneo has the reversal")
    shop.promise(
        balance(shop) == before + Decimal("5.00"),
        "Taken back at once: 5.00 were spent at Omneo, and are the member's again.",
    )
    say.tell("Omneo allows that for ten minutes. A till that was off writes a reversal after eleven:")
    shop.desk("POST", "/clock", {"offset_s": -ELEVEN_MINUTES_S})
    online = shop.omneo("POST", f"/profiles/{MEMBER}/redeem", {"amount": 3, "strategies": ["rewards"]})["data"]
    shop.desk("POST", "/clock", {"offset_s": 0})
    tills.reverse_online(online["id"], ELEVEN_MINUTES_S)
    now = settle(shop, 1, "the late reversal is judged")
    shop.promise(now["held"] == 1, "It is not sent in the hope that it works: it is held and flagged, for a person.")
    shop.breathe()


def redemptions_are_right(shop: Stage) -> None:
    """What the sandbox has of all this, row by row."""
    rows = shop.desk("GET", "/state")["redemptions"]
    made = [Decimal(str(row["total"])) for row in rows if row["type"] == "redeem"]
    undone = [row for row in rows if row["type"] == "reversal"]
    linked = [row for row in shop.desk("GET", "/state")["transactions"] if row.get("redemption_id") is not None]
    shop.promise(
        sorted(made) == [Decimal(3), Decimal(5), REWARD] and len(undone) == 1 and len(linked) == 1,
        "Each reward was spent once and reversed once at the most; the one that was taken back here never left.",
    )


def settle(shop: Stage, held: int, what: str) -> dict[str, Any]:
    """Until nothing waits any more. The spool first: what is still there is in no book, and waits nowhere."""
    shop.until(lambda _: not shop.tills.left(), "the spool is empty")
    return shop.until(lambda now: now["waiting"] == 0 and now["held"] == held, what)


def balance(shop: Stage) -> Decimal:
    """What the member's rewards are worth at Omneo."""
    profile = shop.omneo("GET", f"/profiles/{MEMBER}/balances")["data"]
    return Decimal(str(profile["reward_balance"]))
