"""The people of the stand-in tenant. All of them are made up; the first is the one from Omneo's own examples."""

from datetime import timedelta

from forwarder.sandbox import profiles
from forwarder.sandbox.state import Tenant, stamp

JANE = "92a7996b-abb6-4c9c-a845-9aaf8202fab6"
OMAR = "3b1f0c5e-7a54-4c36-9d0a-52f1c8a4e002"
PRIYA = "c0a8e7d2-19b6-4f7e-8a43-6d9be1f7b003"
WEI = "5f2d9a10-4e8b-4b6f-b7c9-0e3a71d2c004"
SAM = "e4d7b3c8-2f61-4d0a-9c58-a1b6f0e9d005"


def furnish(tenant: Tenant) -> None:
    """Jane has what the guide's balances say: 25.00 in rewards, 1500 points, 40.00 in all (pos-integration-guide)."""
    soon, past = stamp(tenant.now() + timedelta(days=7)), stamp(tenant.now() - timedelta(days=1))
    profiles.create(
        tenant,
        _person(JANE, "Jane", "Example", "6000000001")
        | {
            "rewards": 25,
            "points": 1500,
            "credits": 50,
            "benefits": [
                {"handle": "first-spend", "name": "First Spend Discount", "max_redemptions": 1, "expires_at": soon},
                {"handle": "alterations", "name": "Complimentary Alterations", "max_redemptions": 3},
            ],
        },
    )
    rewards = [{"value": 15}, {"value": 10, "expires_at": soon}]
    profiles.create(tenant, _person(OMAR, "Omar", "Sample", "6000000002") | {"rewards": rewards, "points": 250})
    lapsed = [{"handle": "birthday-gift", "name": "Birthday Gift", "expires_at": past}]
    profiles.create(tenant, _person(PRIYA, "Priya", "Specimen", "6000000003") | {"benefits": lapsed})
    plenty = [{"handle": "free-shipping", "name": "Free Shipping", "max_redemptions": 10000}]
    wealth = {"rewards": 100000, "points": 10000000, "credits": 1000, "benefits": plenty}
    profiles.create(tenant, _person(WEI, "Wei", "Pattern", "6000000004") | wealth)
    profiles.create(tenant, _person(SAM, "Sam", "Staff", "6000000005") | {"staff": True})
    profiles.identify(tenant, SAM, "staff", "1993")


def _person(profile_id: str, first: str, last: str, card: str) -> dict[str, object]:
    return {
        "id": profile_id,
        "first_name": first,
        "last_name": last,
        "email": f"{first.lower()}@example.com",
        "identities": [{"handle": "loyalty-card", "identifier": card}],
    }
