"""A client of a running `lifelong serve`.

    with Client("http://127.0.0.1:8000") as client:
        client.events([UserEvent("u1", "i7", 1_700_000_000)])
        client.score(ScoreRequest("u1", ["i7", "i8"])).scores[0].score

A request that the service was too busy for, or that got no answer, is sent again, the same byte for byte. Every event
has an id, so that it is applied once however often it is sent. A request about a user of another node goes on to that
node. `AsyncClient` has the same methods, to await.

    method --what to send, and when--> Client | AsyncClient sends and waits --answer--> method --> result
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import random
import time as clock
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import zip_longest
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload
from urllib.parse import quote
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from lifelong.errors import LifelongError, RequestError, UsageError, require
from lifelong.online.memory.event import UserEvent, check_list, check_user
from lifelong.online.scoring.answer import ScoreRequest, checked_requests, checked_time
from lifelong.online.scoring.catalogue_view import TopItems
from lifelong.online.scoring.explanation import Explanation
from lifelong.online.scoring.user_view import Timeline
from lifelong.online.serving.replies import EventsReply, ForgottenUser, ScoreReply, StateReply

require("httpx", extra="client", purpose="lifelong.client")
import httpx  # noqa: E402  (if it is missing, the line above says how to get it)

P = ParamSpec("P")
T = TypeVar("T")
_AGAIN = (429, 502, 503, 504)
"""Statuses after which a request is sent again: reads change nothing, and every event has an id."""
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
"""Seconds between two attempts if the service does not say how long to wait."""
_Answer = httpx.Response | httpx.RequestError
_Work = Generator[tuple[float, dict[str, Any]], _Answer, T]
"""What a method does, whichever client sends: (seconds to wait, request to send) until there is a result."""


class _Method(Generic[P, T]):
    """A method that `Client` runs and `AsyncClient` gives to await."""

    def __init__(self, work: Callable[Concatenate[Any, P], _Work[T]]) -> None:
        self._work: Callable[..., Any] = work
        self.__doc__ = work.__doc__

    @overload
    def __get__(self, client: Client, owner: object = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: object = None) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: Any, owner: object = None) -> Any:
        if client is None:
            return self
        return functools.wraps(self._work)(lambda *given, **named: client._run(self._work(client, *given, **named)))


class _Calls:
    """The methods of both clients.

    Each raises `RequestError` if the service refuses the request, and another `LifelongError` if there is no other
    answer than "later", or none at all, for the whole `patience`.

    Args:
        address: of the service, as in http://127.0.0.1:8000.
        key: API key, for a service that has keys.
        timeout: seconds until an attempt is given up.
        patience: seconds during which a request is sent again; no attempt begins later.
        batch: events in one request; the service keeps all of a request or none.
        options: of `httpx.Client` or `httpx.AsyncClient`, such as `verify` or `transport`.

    Raises:
        UsageError: the address is not a URL, or a number is not above 0.
    """

    address: str
    timeout: float
    patience: float
    batch: int
    _kind: Callable[..., Any]

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        timeout: float = 10.0,
        patience: float = 30.0,
        batch: int = 1000,
        **options: Any,
    ) -> None:
        if not isinstance(address, str) or not address.startswith(("http://", "https://")):
            fix = "begin it with http:// or https://"
            raise UsageError(f"{address!r} is not an address", expected="as in http://127.0.0.1:8000", fix=fix)
        for name, value in (("timeout", timeout), ("patience", patience), ("batch", batch)):
            kind, whole = (int, "whole ") if name == "batch" else (int | float, "")
            if not (isinstance(value, kind) and value > 0):
                expected = f"a {whole}number above 0"
                raise UsageError(f"{name} = {value!r}", expected=expected, fix="leave it out for the default")
        # The message must not hold the key.
        if key is not None and not (isinstance(key, str) and key.isascii() and key.isprintable()):
            expected = "letters, digits and signs of ASCII, without an end of line"
            raise UsageError("a key that no header can carry", expected=expected, fix="key.strip(), if it is of a file")
        self.address, self.timeout, self.patience, self.batch = address.rstrip("/"), timeout, patience, batch
        headers = {"content-type": "application/json"} | ({} if key is None else {"x-api-key": key})
        try:
            self._http = self._kind(base_url=self.address, headers=headers, **options)
        except (TypeError, ValueError, OSError, httpx.InvalidURL) as error:
            found, fix = f"httpx refuses the address or an option: {error}", "correct it, or leave out the option"
            raise UsageError(found, expected="an address and options of httpx.Client", fix=fix) from error

    @_Method
    def events(self, events: Sequence[UserEvent]) -> _Work[EventsReply]:
        """Fold events in, in batches; one without an `event_id` gets one, for the attempts of this call.

        If a batch fails, those before it were kept: to call again, give the events ids of your own.
        """
        check_list(events)
        total = dict.fromkeys(EventsReply.model_fields.keys() - {"note"}, 0)
        notes: dict[str | None, None] = {}
        for start in range(0, len(events), self.batch):
            body = {"events": [_row(event) for event in events[start : start + self.batch]]}
            reply = yield from self._ask("POST", "/v1/events", EventsReply, body)
            total = {name: count + getattr(reply, name) for name, count in total.items()}
            notes[reply.note] = None
        return EventsReply(**total, note="; ".join(filter(None, notes)) or None)

    @_Method
    def score(self, request: ScoreRequest) -> _Work[ScoreReply]:
        """Score the candidates of one user, in their order."""
        body = _body(request)
        return self._ask("POST", "/v1/score", ScoreReply, body, params={"for": "list"} if request.for_list else None)

    @_Method
    def explain(self, request: ScoreRequest) -> _Work[Explanation]:
        """Score them with the reasons."""
        return self._ask("POST", "/v1/explain", Explanation, _body(request))

    @_Method
    def top(self, user: str, *, limit: int = 20, time: int | None = None) -> _Work[TopItems]:
        """The user's best items of the catalogue, at a moment in UTC seconds (now if None)."""
        params = {"limit": limit} | ({} if time is None else {"time": checked_time(time)})
        return self._ask("GET", f"/v1/users/{_quoted(user)}/top", TopItems, params=params)

    @_Method
    def history(self, user: str, *, limit: int = 10_000) -> _Work[Timeline]:
        """The user's latest events, oldest first, in columns."""
        return self._ask("GET", f"/v1/users/{_quoted(user)}/history", Timeline, params={"limit": limit})

    @_Method
    def forget(self, user: str) -> _Work[ForgottenUser]:
        """Erase all that is kept of a user, also in the files; this takes a key of the scope `admin`."""
        return self._ask("DELETE", f"/v1/admin/users/{_quoted(user)}", ForgottenUser)

    @_Method
    def health(self) -> _Work[StateReply]:
        """The state of a service that is ready; for one that is not, a `LifelongError` at once."""
        return self._ask("GET", "/readyz", StateReply, again=False)

    def _ask(
        self,
        method: str,
        path: str,
        reply: type[T],
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        again: bool = True,
    ) -> _Work[T]:
        """Send a request until an answer is its last, and return what that says."""
        if self._http.is_closed:
            raise UsageError("the client is closed", expected="an open one", fix="ask before it is closed")
        content = None if body is None else json.dumps(body).encode()
        request = {"method": method, "url": path, "params": params, "content": content}
        end, wait, attempts, followed = clock.monotonic() + self.patience, 0.0, 0, False
        while True:
            left = max(end - clock.monotonic() - wait, 0.001)
            answer = yield wait, {**request, "timeout": min(self.timeout, left)}
            attempts += 1
            if isinstance(answer, httpx.Response) and answer.is_success:
                try:
                    # A later release may say more than this one knows.
                    return TypeAdapter(reply).validate_json(answer.content, extra="ignore")
                except ValidationError as error:
                    raise self._error(answer, attempts) from error
            owner = self._owner(answer)
            wait = 0.0 if owner and not followed else _wait(answer, attempts)
            # An owner that names another one, or is away, may be so for as long as its shard moves: again from the
            # start, and not at once.
            followed = owner is not None and not followed
            request["url"] = owner if followed else path
            if owner is not None and again and clock.monotonic() + wait < end:
                continue
            lasting = isinstance(answer, httpx.Response) and answer.status_code not in _AGAIN
            if lasting or not again or clock.monotonic() + wait >= end:
                raise self._error(answer, attempts)

    def _owner(self, answer: _Answer) -> str | None:
        """Where the node is that has the user of a request; None if the answer does not say that."""
        if not isinstance(answer, httpx.Response) or answer.status_code != 421:
            return None
        owner: str | None = answer.headers.get("location")
        # The key of a request must not go over a connection that anybody can read.
        return None if owner is None or (self.address.startswith("https:") and owner.startswith("http:")) else owner

    def _error(self, answer: _Answer, attempts: int) -> LifelongError:
        """What the last answer means, or that there was none."""
        place = self.address if attempts == 1 else f"{self.address} ({attempts} attempts)"
        expected, fix = "a `lifelong serve` of this release", "check the address, and that the service runs there"
        if isinstance(answer, httpx.RequestError):
            found = f"{place} does not answer: {str(answer) or type(answer).__name__}"
            return LifelongError(found, expected=expected, fix=f"{fix}; events with an event_id can be sent again")
        try:
            parts = json.loads(answer.content)["error"]
            kind = LifelongError if answer.status_code in _AGAIN else RequestError
            return kind(f"{place}: {parts['found']}", expected=parts["expected"], fix=parts["fix"])
        except (ValueError, KeyError, TypeError):
            found = f"{place} answers {answer.status_code}, as another program or a proxy may"
            return LifelongError(found, expected=expected, fix=fix)


def _wait(answer: _Answer, attempts: int) -> float:
    """Seconds until the next attempt, at least those that the answer asks for."""
    # Clients that were refused together must not all come back together.
    spread = random.uniform(0.5, 1.0)
    wait: float = min(_FIRST_WAIT * 2.0**attempts, _LONGEST_WAIT) * spread
    if isinstance(answer, httpx.Response):
        # A proxy may give a date instead, which is not waited for.
        with contextlib.suppress(ValueError):
            wait = max(wait, int(answer.headers.get("retry-after", "")) * (0.5 + spread))
    return wait


def _row(event: UserEvent) -> dict[str, Any]:
    event = event if event.event_id is not None else replace(event, event_id=uuid4().hex)
    return {part.name: value for part in fields(event) if (value := getattr(event, part.name)) is not None}


def _body(request: ScoreRequest) -> dict[str, Any]:
    checked_requests([request])
    pairs = zip_longest(request.items, request.fields or ())
    items = [item if of is None else {"item": item, "fields": of} for item, of in pairs]
    return {"user": request.user, "items": items, "time": request.time, "profile": request.profile}


def _quoted(user: str) -> str:
    check_user(user)
    # A dot would be taken for a part of the address: `/v1/users/../top` is another one.
    return quote(user, safe="").replace(".", "%2E")


class Client(_Calls):
    """Calls a service and waits for its answers; threads may share it.

    Example:
        >>> reply = httpx.Response(200, json={"status": "ready"})
        >>> with Client("http://service", transport=httpx.MockTransport(lambda request: reply)) as client:
        ...     client.health().status
        'ready'
    """

    _kind = httpx.Client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _run(self, work: _Work[T]) -> T:
        answer: Any = None
        while True:
            try:
                wait, request = work.send(answer)
            except StopIteration as end:
                return cast(T, end.value)
            clock.sleep(wait)
            try:
                answer = self._http.request(**request)
            except httpx.RequestError as error:
                answer = error


class AsyncClient(_Calls):
    """The same as `Client`, with methods to await."""

    _kind = httpx.AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _run(self, work: _Work[T]) -> T:
        answer: Any = None
        while True:
            try:
                wait, request = work.send(answer)
            except StopIteration as end:
                return cast(T, end.value)
            await asyncio.sleep(wait)
            try:
                answer = await self._http.request(**request)
            except httpx.RequestError as error:
                answer = error
