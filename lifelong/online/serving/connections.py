"""Connections of clients: how many there may be, how long an unfinished request may take, how large a head may be.

    new or answered --head complete--> busy --answered--> ...
         |                               |
         | too old: 408, closed          | body unfinished, or answer unread, for too long: cut
         | too many: the oldest is cut   | too many, and all are busy: 503 for the new one

uvicorn has none of these limits where httptools parses. A client that opens connections and says nothing could take all
descriptors of the process, those that the store needs for its files among them.
"""

from __future__ import annotations

import asyncio
import functools
from http import HTTPStatus
from typing import Any

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lifelong.errors import LifelongError
from lifelong.online.serving.errors import (
    BadHttpError,
    HeadTimeoutError,
    HeadTooLargeError,
    OverloadedError,
    error_response,
)
from lifelong.online.serving.rush import Pace, Rush

_CLOSE = b"connection", b"close"
_NOT_PLAIN = b"transfer-encoding", b"connection:", b"expect:", b"upgrade:"
"""What in a head changes how a request ends, or what is done with the connection."""
_SHORT_HEAD = 1_024
"""Bytes of a head that is remembered."""
_SWEEP = 1.0
"""Seconds between two looks for connections that are too old."""


class Connections:
    """The open connections of one process, those longest without a step first.

    Args:
        most: at the same time.
        head_bytes: of one head; also of what is no body between two pieces of a body.
        head_seconds: until a head is complete: since the connection was opened, or since the answer before.
        body_seconds: until a body is complete, and until an answer is read.
    """

    most: int
    head_bytes: int
    head_seconds: float
    body_seconds: float

    def __init__(self, *, most: int, head_bytes: int, head_seconds: float, body_seconds: float) -> None:
        self.most, self.head_bytes, self.head_seconds, self.body_seconds = most, head_bytes, head_seconds, body_seconds
        self.refused: int = 0
        """Connections that were cut or refused because there were too many."""
        self.expired: int = 0
        """Connections that were ended because they took too long."""
        self._step_of: dict[Connection, float] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._step_of)

    def add(self, one: Connection) -> bool:
        """Take a new connection, if need be in the place of the oldest that has no request; whether there is one."""
        if len(self._step_of) >= self.most and not self._make_room():
            self.refused += 1
            return False
        self.step(one)
        if self._sweep is None:
            self._sweep = one.loop.call_later(_SWEEP, self._end_old, one.loop)
        return True

    def step(self, one: Connection) -> None:
        """Note the progress of a connection: opened, head complete, answered."""
        # It moves to the end, so that the oldest ones are found without a search.
        self._step_of.pop(one, None)
        self._step_of[one] = one.loop.time()

    def discard(self, one: Connection) -> None:
        """Forget a connection that is closed."""
        self._step_of.pop(one, None)

    def _make_room(self) -> bool:
        oldest = next((one for one in self._step_of if not one.busy), None)
        if oldest is None:
            return False
        self.refused += 1
        self.discard(oldest)
        oldest.transport.abort()
        return True

    def _end_old(self, loop: asyncio.AbstractEventLoop) -> None:
        now, youngest = loop.time(), min(self.head_seconds, self.body_seconds)
        for one, since in list(self._step_of.items()):
            if now - since < youngest:
                break
            self.expired += one.end_if_old(now, now - since)
        self._sweep = loop.call_later(_SWEEP, self._end_old, loop) if self._step_of else None


class Connection(HttpToolsProtocol):
    """A connection with limits."""

    parser: httptools.HttpRequestParser

    def __init__(self, *given: Any, connections: Connections, **named: Any) -> None:
        super().__init__(*given, **named)
        self._connections = connections
        if (metrics := self.app_state.get("metrics")) is not None:
            metrics.connections = connections
        self._in_head, self._moved = False, False
        # Bytes that were neither a complete head nor a piece of a body, and the size of what is being parsed.
        self._framing = self._chunk = 0
        self._fault: LifelongError | None = None
        self._unread_since: float | None = None
        # Where its request is counted, once its body is complete.
        self._pace: Pace | None = None
        self._counted = False
        # Whether what comes next is a new request, and whether it has been let in before it was parsed.
        self._between, self._asked = True, False

    @property
    def busy(self) -> bool:
        """Whether a request has come and its answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or refuse it where there are too many."""
        super().connection_made(transport)
        if not self._connections.add(self):
            self._end(
                OverloadedError(
                    f"{self._connections.most:,} connections are open, and all have a request under way",
                    expected="fewer connections",
                    fix="wait as long as Retry-After says; keep connections open and use them again",
                )
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._connections.discard(self)
        self._uncount()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and refuse a head that gets too large."""
        if self.transport.is_closing():
            return
        if self._refused_whole(data):
            return
        self._moved, self._chunk = False, len(data)
        self._feed(data)
        self._framing = 0 if self._moved else self._framing + len(data)
        if self._framing > self._connections.head_bytes and not self.transport.is_closing():
            self._end(self._too_large())

    def _feed(self, data: bytes) -> None:
        """Parse a piece; what asks for another protocol is read once more without that, as HTTP/1.1.

        The parser takes what follows such a head for the other protocol, the request's own body too. Java's client and
        `curl --http2` ask so of any server.
        """
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as end:
                data = self._plain_again() + data[end.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            except httptools.HttpParserError:
                self.logger.warning("what came is not HTTP")
                self.send_400_response("Invalid HTTP request received.")
                return

    def _plain_again(self) -> bytes:
        """The head that has come, as one that asks for no other protocol."""
        kept = [pair for pair in self.headers if pair[0] != b"upgrade"]
        first = b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)
        return b"\r\n".join([first, *(b"%s: %s" % pair for pair in kept), b"", b""])

    @property
    def _asks_for_another(self) -> bool:
        """Whether the head asks for another protocol than HTTP; CONNECT is refused instead."""
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head, self._between = True, False
        self.scope["state"]["connections"] = self._connections

    def on_headers_complete(self) -> None:
        """End a head, and begin the request."""
        self._in_head, self._moved = False, True
        # Only a large piece can hold a whole head that is too large.
        if self._chunk > self._connections.head_bytes:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self._connections.head_bytes:
                self._fault = self._too_large()
                raise ValueError("a large head")
        if b"#" in self.url:
            # What follows would be left out, and an id with such a character would be another's.
            self._fault = BadHttpError(
                "an address with a # in it", expected="an address without a fragment", fix="send # of an id as %23"
            )
            raise ValueError("a fragment")
        if self._asks_for_another:
            return
        if not self.busy and self._rushed():
            self.cycle = _REFUSED
        else:
            super().on_headers_complete()
        self._connections.step(self)

    def _refused_whole(self, data: bytes) -> bool:
        """Refuse a whole request without parsing it, while requests are refused: parsing takes longer than the rest.

        What has any but the plainest form is parsed, and refused then.
        """
        rush: Rush | None = self.app_state.get("rush")
        if rush is None or not rush.refusing or not self._between or self.busy or not (path := _plain_path(data)):
            return False
        if not rush.refuses(path):
            self._asked = True
            return False
        self._unset_keepalive_if_required()
        self.transport.write(_refusal(rush.refusal, stays=True))
        self._connections.step(self)
        return True

    def _rushed(self) -> bool:
        """Refuse a request that could not be served in time; it costs no task, and the connection stays."""
        rush: Rush | None = self.app_state.get("rush")
        path = self.url.partition(b"?")[0].decode("latin-1")
        if rush is None or self.parser.get_method() == b"HEAD":
            return False
        asked, self._asked = self._asked, False
        if asked or not rush.refuses(path):
            # A client that does not read its answers keeps nobody out by the requests that wait for it.
            self._pace = None if self.transport.get_write_buffer_size() else rush.pace_of(path)
            return False
        stays = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        self.transport.write(_refusal(rush.refusal, stays))
        if not stays:
            self.transport.close()
        return True

    def on_message_complete(self) -> None:
        """End a request's body."""
        if self._asks_for_another:
            return
        super().on_message_complete()
        self._between = True
        if self._pace is not None and not self._counted:
            self._counted = True
            self._pace.begin()

    def _uncount(self) -> None:
        if self._pace is not None and self._counted:
            self._pace.end()
        self._pace, self._counted = None, False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what follows a body in pieces is left out."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._moved = True
        super().on_body(body)

    def on_response_complete(self) -> None:
        """End a request; the time for the next head begins."""
        self._uncount()
        super().on_response_complete()
        if not self.transport.is_closing():
            self._connections.step(self)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        # The parser has a limit of its own, which a head that comes at once reaches before ours.
        if self._in_head and self._fault is None and self._framing + self._chunk > self._connections.head_bytes:
            self._fault = self._too_large()
        self._end(self._fault or BadHttpError(msg, expected="HTTP/1.1", fix="check the client"))

    def end_if_old(self, now: float, age: float) -> bool:
        """End the connection if it takes too long; whether it did.

        Args:
            now: the loop's time.
            age: seconds since its last step.
        """
        limits = self._connections
        unread = self.transport.get_write_buffer_size() > 0
        self._unread_since = (self._unread_since or now) if unread else None
        if self._unread_since is not None:
            late = now - self._unread_since > limits.body_seconds
        elif self.busy:
            late = self.cycle.more_body and age > limits.body_seconds
        else:
            late = age > limits.head_seconds
        if late and self._in_head and not unread and not self.transport.is_closing():
            self._end(
                HeadTimeoutError(
                    f"a head that was not complete after {limits.head_seconds:g} seconds",
                    expected="a head that is sent at once",
                    fix="check the client and the network",
                )
            )
        elif late:
            self.transport.abort()
        return late

    def _too_large(self) -> HeadTooLargeError:
        most = self._connections.head_bytes
        return HeadTooLargeError(
            f"a head of more than {most:,} bytes",
            expected=f"at most {most:,} bytes of address and headers",
            fix="send what is large in the body",
        )

    def _end(self, error: LifelongError) -> None:
        """Answer with an error, and hang up."""
        self.transport.write(_raw(error_response(error), _CLOSE))
        self.transport.close()


def _raw(response: Response, *more: tuple[bytes, bytes]) -> bytes:
    """A response as it is sent, with more headers."""
    head = [b"HTTP/1.1 %d %s" % (response.status_code, HTTPStatus(response.status_code).phrase.encode())]
    head += [b"%s: %s" % pair for pair in (*response.raw_headers, *more)]
    return b"\r\n".join([*head, b"", bytes(response.body)])


def _plain_path(data: bytes) -> str:
    r"""The address of one whole POST with a body of a stated length and a connection that stays; else "".

    >>> _plain_path(b"POST /v1/score?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}")
    '/v1/score'
    >>> _plain_path(b"POST /v1/score HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n{}")
    ''
    """
    size = data.find(b"\r\n\r\n")
    if size < 0:
        return ""
    # A client's requests mostly have one head, for each length of a body.
    path, length = (_plain_head if size <= _SHORT_HEAD else _plain_head.__wrapped__)(data[:size])
    return path if length == len(data) - size - 4 else ""


@functools.lru_cache(maxsize=1_024)
def _plain_head(head: bytes) -> tuple[str, int]:
    """The address in a head of the plainest form, and the length of the body; "" if it has another form."""
    first, _, headers = head.partition(b"\r\n")
    if not first.startswith(b"POST /") or not first.endswith(b" HTTP/1.1"):
        return "", 0
    headers = b"\r\n" + headers.lower()
    length = headers.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
    if not length.isdigit() or len(length) > 12 or headers.count(b"content-length") > 1:
        return "", 0
    if any(word in headers for word in _NOT_PLAIN):
        return "", 0
    return first[5:-9].partition(b"?")[0].decode("latin-1"), int(length)


@functools.lru_cache(maxsize=8)
def _refusal(response: Response, stays: bool) -> bytes:
    """What is sent to all who are refused, made once."""
    return _raw(response) if stays else _raw(response, _CLOSE)


class _Refused:
    """What uvicorn knows of a request that was refused: it is answered, and what arrives of its body is discarded."""

    response_complete, more_body, disconnected, keep_alive = True, False, False, True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()


_REFUSED: Any = _Refused()
