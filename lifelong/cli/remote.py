"""Asks a running service to do what only the owner of a store can do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from lifelong.errors import LifelongError, RequestError, UsageError

# To read an artifact or rewrite a store's files takes minutes, for which the service sets itself no limit either.
_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Remote:
    """The admin interface of a service.

    Args:
        address: as in http://127.0.0.1:8000.
        key: admin key; None for a service without keys.
    """

    address: str
    key: str | None = None

    @classmethod
    def of(cls, address: str, key_file: Path | None) -> Remote:
        """The service at an address.

        Raises:
            UsageError: the address is not a URL, or the file has no key.
        """
        if not address.startswith(("http://", "https://")):
            raise UsageError(
                f"{address!r} is not the address of a service",
                expected="as in http://127.0.0.1:8000",
                fix="begin it with http:// or https://, and leave out any path",
            )
        if key_file is None:
            return cls(address.rstrip("/"))
        from lifelong.online.serving.keys import HASHED, read_keys

        keys = {key: scopes for key, scopes in read_keys(key_file).items() if not HASHED.fullmatch(key)}
        if not keys:
            raise UsageError(
                f"{key_file} holds the hashes of keys alone", expected="a key", fix="name a file with the key itself"
            )
        admin = [key for key, scopes in keys.items() if "admin" in scopes]
        return cls(address.rstrip("/"), [*admin, *keys][0])

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send one request and return the reply.

        Args:
            method: HTTP method.
            path: with ids quoted.
            body: JSON; None for none.

        Raises:
            LifelongError: the service refused the request, or does not answer.
        """
        head = {"content-type": "application/json"} | ({} if self.key is None else {"x-api-key": self.key})
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.address + path, data, headers=head, method=method)
        try:
            with urlopen(request, timeout=_SECONDS) as answer:
                document: dict[str, Any] = json.load(answer)
                return document
        except HTTPError as error:
            # The error holds the connection, which has to be closed.
            with error:
                raise _refused(self.address, error) from error
        except (URLError, OSError, ValueError) as error:
            raise LifelongError(
                f"{self.address} does not answer: {_reason(error)}",
                expected="a running `lifelong serve`",
                fix="check the address; where no service runs, name the store itself",
            ) from error


def _refused(address: str, error: HTTPError) -> LifelongError:
    try:
        parts = json.load(error)["error"]
        fix = "name a file with an admin key: --key-file FILE" if error.code == 401 else parts["fix"]
        return RequestError(f"{address}: {parts['found']}", expected=parts["expected"], fix=fix)
    except (ValueError, KeyError, TypeError):
        return RequestError(
            f"{address} answers {error.code}",
            expected="a `lifelong serve` of this release",
            fix="check the address and its port: another program may answer there",
        )


def _reason(error: Exception) -> object:
    """What the system says, without the names of exceptions round it."""
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or reason
