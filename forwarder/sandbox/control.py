"""The way in for tests and demos, `/_sandbox/`: no token asked. It moves the clock, breaks the line, shows all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

import msgspec

from forwarder.sandbox import customers, plant, profiles, transactions
from forwarder.sandbox.exchange import HTML, Answer, Call, data, json_answer
from forwarder.sandbox.faults import Faults, Rule
from forwarder.sandbox.state import Refusal, Row, Tenant
from forwarder.sandbox.tokens import Tokens
from forwarder.sandbox.wire import LOGIN_PAGE


@dataclass(slots=True)
class Desk:
    """All that can be turned; whoever listens on the port hangs in how to stop listening and begin again."""

    tenant: Tenant
    tokens: Tokens = field(default_factory=Tokens)
    faults: Faults = field(default_factory=Faults)
    go_down: Callable[[float], None] | None = None
    come_up: Callable[[], None] | None = None


def read_state(desk: Desk, call: Call) -> Answer:
    """Everything, sales in order of arrival; `?since=N` leaves out the journal's first N lines."""
    tenant = desk.tenant
    since = dict(call.arguments()).get("since", "0")
    rows = [
        transactions.present(tenant, row) | {"posted": tenant.posted[row["id"]]} for row in tenant.transactions.values()
    ]
    people = [_person(tenant, row) for row in tenant.profiles.values()]
    return json_answer(
        200,
        {
            "now": tenant.stamp(),
            "counts": tenant.counts,
            "transactions": rows,
            "redemptions": list(tenant.redemptions.values()),
            "profiles": people,
            "merged": tenant.merged,
            "journal": tenant.journal[int(since) if since.isdecimal() else 0 :],
        },
    )


def read_counts(desk: Desk, _call: Call) -> Answer:
    """How often something really came to be: cheap enough to poll."""
    held = {"transactions": len(desk.tenant.transactions), "redemptions": len(desk.tenant.redemptions)}
    return json_answer(200, {"counts": desk.tenant.counts, "requests": len(desk.tenant.journal)} | held)


def list_faults(desk: Desk, _call: Call) -> Answer:
    return data(desk.faults.describe())


def add_fault(desk: Desk, call: Call) -> Answer:
    """A rule, or a list of them: they are asked in the order in which they were added."""
    try:
        given = msgspec.json.decode(call.raw, type=Rule | list[Rule])
    except msgspec.DecodeError as error:
        raise Refusal(422, str(error)) from None
    for rule in given if isinstance(given, list) else [given]:
        if rule.mode == "down":
            _go_down(desk, rule.seconds)
        else:
            desk.faults.add(rule)
    return json_answer(201, {"data": desk.faults.describe()})


def clear_faults(desk: Desk, _call: Call) -> Answer:
    desk.faults.clear()
    if desk.come_up is not None:
        desk.come_up()
    return Answer(204)


def _go_down(desk: Desk, seconds: float) -> None:
    if desk.go_down is None:
        raise Refusal(409, "Nothing listens here that could stop listening.")
    desk.go_down(seconds)


def set_clock(desk: Desk, call: Call) -> Answer:
    """The server's whole clock: created_at, windows, expiries, Date."""
    desk.tenant.offset = timedelta(seconds=_seconds(call.fields(), "offset_s"))
    return data({"now": desk.tenant.stamp()})


def set_date(desk: Desk, call: Call) -> Answer:
    """Only the Date header, on top of the clock."""
    desk.tenant.date_skew = timedelta(seconds=_seconds(call.fields(), "skew_s"))
    return data({"now": desk.tenant.stamp()})


def set_lag(desk: Desk, call: Call) -> Answer:
    desk.tenant.lag = timedelta(seconds=_seconds(call.fields(), "seconds"))
    return Answer(204)


def set_latency(desk: Desk, call: Call) -> Answer:
    desk.faults.latency_s = _seconds(call.fields(), "ms") / 1000
    return Answer(204)


def set_numbers(desk: Desk, call: Call) -> Answer:
    """Totals and balances of redemptions as strings, as Omneo's generated types have them."""
    desk.tenant.numbers_as_strings = bool(call.fields().get("strings"))
    return Answer(204)


def revoke(desk: Desk, call: Call) -> Answer:
    """`{}`: every token. `{"token": …}`: that one. `{"access_only": true}`: OAuth's, but they can be refreshed."""
    fields = call.fields()
    desk.tokens.revoke(fields.get("token"), access_only=bool(fields.get("access_only")))
    return Answer(204)


def set_tokens(desk: Desk, call: Call) -> Answer:
    """`{"accept": …}`: one more good token. `{"expires_in": seconds}`: of those handed out from now on."""
    fields = call.fields()
    if "accept" in fields:
        desk.tokens.good[str(fields["accept"])] = None
    desk.tokens.expires_in = int(fields.get("expires_in", desk.tokens.expires_in))
    return Answer(204)


def create_profile(desk: Desk, call: Call) -> Answer:
    try:
        row = profiles.create(desk.tenant, call.fields())
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise Refusal(422, f"Not a profile: {error!r}") from None
    return data(_person(desk.tenant, row), 201)


def merge(desk: Desk, call: Call) -> Answer:
    fields = call.fields()
    return data(_person(desk.tenant, profiles.merge(desk.tenant, str(fields.get("from")), str(fields.get("to")))))


def plant_difference(desk: Desk, call: Call) -> Answer:
    """A row that was lost, came twice or says something else, as nobody's request left it: for `reconcile`."""
    try:
        return data(plant.plant(desk.tenant, call.fields()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Refusal(422, f"Not something that can be planted: {error!r}") from None


def reset(desk: Desk, call: Call) -> Answer:
    """As it was at the start: the same customers, a right clock, no faults."""
    desk.tenant.clear()
    desk.tokens.clear()
    desk.faults.latency_s = 0.0
    customers.furnish(desk.tenant)
    return clear_faults(desk, call)


def portal(_desk: Desk, _call: Call) -> Answer:
    """Where a redirect leads: a page that no client should take for Omneo."""
    return Answer(200, LOGIN_PAGE, HTML)


def _person(tenant: Tenant, row: Row) -> Row:
    wallet = tenant.wallets[row["id"]]
    return profiles.present(tenant, row) | {
        "balances": profiles.balances(tenant, row["id"]),
        "rewards": wallet.rewards,
        "credits": wallet.credits,
        "benefits": [profiles.present_benefit(tenant, each) for each in wallet.benefits],
    }


def _seconds(fields: Row, name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Refusal(422, f"The {name} must be a number.", {name: [f"The {name} must be a number."]})
    return float(value)


ControlHandler = Callable[[Desk, Call], Answer]
CONTROL_ROUTES: dict[str, dict[str, ControlHandler]] = {
    "/state": {"GET": read_state},
    "/counts": {"GET": read_counts},
    "/faults": {"GET": list_faults, "POST": add_fault, "DELETE": clear_faults},
    "/clock": {"POST": set_clock},
    "/date": {"POST": set_date},
    "/lag": {"POST": set_lag},
    "/latency": {"POST": set_latency},
    "/numbers": {"POST": set_numbers},
    "/revoke": {"POST": revoke},
    "/tokens": {"POST": set_tokens},
    "/profiles": {"POST": create_profile},
    "/merge": {"POST": merge},
    "/plant": {"POST": plant_difference},
    "/reset": {"POST": reset},
    "/portal": {"GET": portal},
}
