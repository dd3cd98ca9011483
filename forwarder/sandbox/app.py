"""The HTTP side: starlette's routes over the tenant, one request at a time, and the faults in front of them."""

import asyncio
import decimal
import logging
from collections.abc import Callable, Mapping
from functools import partial

from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import Headers
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from forwarder.sandbox import tokens, wire
from forwarder.sandbox.control import CONTROL_ROUTES, Desk
from forwarder.sandbox.exchange import Answer, Call, data, json_answer, peek
from forwarder.sandbox.faults import Rule
from forwarder.sandbox.routes import ROUTES
from forwarder.sandbox.state import Entry, Refusal, reference

API = "/api/v3"
CONTROL = "/_sandbox"
# Sums of money must not be rounded, however many digits a test gives them.
DIGITS = 100

_log = logging.getLogger(__name__)

Act = Callable[[Call], Answer]


class _Anything(Convertor[str]):
    """A path's rest, slashes, line ends and all: external ids are the POS's own, and any character may be in one."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())


class Endpoint:
    """One path: finds the method, asks for the token, does it, and leaves the answer in the scope.

    Nothing in here awaits, so a request changes the tenant whole or not at all.
    """

    def __init__(self, desk: Desk, route: str, acts: Mapping[str, Act], *, guarded: bool) -> None:
        self.desk, self.route, self.acts, self.guarded = desk, route, acts, guarded

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        headers = Headers(scope=scope)
        call = Call(
            method=scope["method"],
            route=self.route,
            path=scope["path"],
            origin=f"http://{headers.get('host', 'localhost')}",
            params=scope.get("path_params", {}),
            query=scope["query_string"].decode("latin-1"),
            headers=headers,
            raw=scope["sandbox.body"],
        )
        scope["sandbox.route"] = self.route
        scope["sandbox.answer"] = self.answer(call)

    def answer(self, call: Call) -> Answer:
        try:
            if self.guarded:
                self.desk.tokens.admit(call.headers.get("authorization", ""), self.desk.tenant.now())
            act = self.acts.get(call.method)
            if act is None:
                allowed = {"allow": ", ".join(self.acts)}
                message = f"The {call.method} method is not supported for route {call.path}."
                return json_answer(405, {"message": message}, allowed)
            with decimal.localcontext(prec=DIGITS):
                return act(call)
        except Refusal as refusal:
            return json_answer(refusal.status, refusal.body())
        except Exception:  # noqa: BLE001 - a fault of our own is a 500 in JSON too, and loud
            _log.exception("the sandbox itself failed at %s %s", call.method, self.route)
            return json_answer(500, {"message": "Server Error"})


class Sandbox:
    """The ASGI application. The API is journaled and can be broken; the control routes are neither."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.held: set[asyncio.Transport] = set()
        self.router = Router(_routes(desk), redirect_slashes=False, default=_no_route(desk))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(CONTROL):
            scope["sandbox.body"] = await wire.whole(receive)
            if scope["sandbox.body"] is not None:
                await wire.send_answer(send, await self._apply(scope), wire.http_date(self.desk.tenant))
            return
        faults, method, path = self.desk.faults, scope["method"], scope["path"].removeprefix(API)
        early = faults.reads_body()
        body = await wire.whole(receive) if early else b""
        rule = faults.pick(method, path, body or b"") if body is not None else None
        if rule is not None and rule.mode == "refuse":
            self.desk.tenant.note(method, path, path, None).fault = rule.mode
            await wire.drop(scope["state"]["transport"], receive, reset=True)
            return
        if not early:
            body = await wire.whole(receive)
        if body is None:
            return
        scope["sandbox.body"] = body
        if faults.latency_s:
            await asyncio.sleep(faults.latency_s)
        await self._exchange(scope, receive, send, rule)

    async def _exchange(self, scope: Scope, receive: Receive, send: Send, rule: Rule | None) -> None:
        path = scope["path"].removeprefix(API)
        entry = self.desk.tenant.note(scope["method"], path, path, reference(peek(scope["sandbox.body"])))
        answer = None
        if rule is None or rule.applies():
            answer = await self._apply(scope)
            entry.route, entry.status, entry.applied = scope["sandbox.route"], answer.status, answer.status < 400
        if rule is None and answer is not None:
            await wire.send_answer(send, answer, wire.http_date(self.desk.tenant))
            entry.answered = True
        elif rule is not None:
            entry.fault = rule.mode
            await self._break(rule, answer, entry, scope["state"]["transport"], receive=receive, send=send)

    async def _apply(self, scope: Scope) -> Answer:
        """Through starlette's router to the endpoint, whose answer is held back: a fault may want to swallow it."""
        await self.router(scope, _nothing, _nowhere)
        answer: Answer = scope["sandbox.answer"]
        return answer

    async def _break(
        self,
        rule: Rule,
        answer: Answer | None,
        entry: Entry,
        transport: asyncio.Transport,
        *,
        receive: Receive,
        send: Send,
    ) -> None:
        """Lets the fault happen; `answered` is only true where the client got the whole of Omneo's own answer."""
        date = wire.http_date(self.desk.tenant)
        false = wire.false_answer(rule, self.desk.tenant)
        self.held.add(transport)
        try:
            if rule.mode in {"drop_before", "drop_after"}:
                await wire.drop(transport, receive, reset=rule.reset)
            elif rule.mode in {"hang", "hang_after"}:
                await wire.hang(transport, receive, rule.seconds)
            elif rule.mode == "trickle" and answer is not None:
                raw = wire.raw_answer(answer, date)
                entry.answered = await wire.trickle(transport, raw, rule.interval)
                await wire.drop(transport, receive, reset=False)
            elif rule.mode == "truncate" and answer is not None:
                await wire.truncate(transport, receive, answer, date)
            elif false is not None:
                await wire.send_answer(send, false, date)
            elif answer is not None:
                await wire.send_answer(send, answer, wire.http_date(self.desk.tenant, rule.skew_s))
                entry.answered = True
        finally:
            self.held.discard(transport)


async def _nothing() -> dict[str, object]:
    return {"type": "http.disconnect"}


async def _nowhere(_message: object) -> None:
    return None


def _routes(desk: Desk) -> list[Route]:
    """Omneo's routes, the token routes (which need none), the health probe, and the control desk's."""
    found = [_api_route(desk, path, handlers) for path, handlers in ROUTES.items()]
    for path, grant in (("/auth/token", tokens.grant), ("/auth/token/refresh", tokens.refresh)):
        acts: dict[str, Act] = {"POST": partial(grant, desk.tokens, desk.tenant)}
        found.append(Route(API + path, Endpoint(desk, path, acts, guarded=False)))
    health: dict[str, Act] = {"GET": lambda _call: data({"status": "ok"})}
    found.append(Route("/api/health", Endpoint(desk, "/api/health", health, guarded=False)))
    for path, controls in CONTROL_ROUTES.items():
        bound: dict[str, Act] = {method: partial(control, desk) for method, control in controls.items()}
        found.append(Route(CONTROL + path, Endpoint(desk, path, bound, guarded=False)))
    return found


def _api_route(desk: Desk, path: str, handlers: Mapping[str, Callable[..., Answer]]) -> Route:
    acts: dict[str, Act] = {method: partial(handler, desk.tenant) for method, handler in handlers.items()}
    return Route(API + path, Endpoint(desk, path, acts, guarded=True))


def _no_route(desk: Desk) -> Endpoint:
    class Nowhere(Endpoint):
        def answer(self, call: Call) -> Answer:
            return json_answer(404, {"message": f"The route {call.path} could not be found."})

    return Nowhere(desk, "", {}, guarded=False)
