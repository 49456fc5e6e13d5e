"""Asks a running service, for what only the owner of a store can do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from lifelong.errors import LifelongError, RequestError, UsageError

_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Remote:
    """The administration of a service.

    Args:
        address: as in http://127.0.0.1:8000.
        key: that opens it; None where it wants none.
    """

    address: str
    key: str | None = None

    @classmethod
    def of(cls, address: str, key_file: Path | None) -> Remote:
        """The service at an address.

        Raises:
            UsageError: the address is none, or the file holds no key.
        """
        if not address.startswith(("http://", "https://")):
            raise UsageError(f"{address!r} is no address of a service", expected="as in http://127.0.0.1:8000")
        if key_file is None:
            return cls(address.rstrip("/"))
        from lifelong.serving.keys import read_keys

        keys = read_keys(key_file)
        return cls(
            address.rstrip("/"), next((key for key, scopes in keys.items() if "admin" in scopes), next(iter(keys)))
        )

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One call; the reply.

        Args:
            method: of HTTP.
            path: with ids quoted.
            body: JSON, None for none.

        Raises:
            LifelongError: the service refused it, as it says; or it does not answer.
        """
        head = {"content-type": "application/json"} | ({} if self.key is None else {"x-api-key": self.key})
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.address + path, data, headers=head, method=method)
        try:
            with urlopen(request, timeout=_SECONDS) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except HTTPError as error:
            with error:
                raise _refused(self.address, error) from error
        except (URLError, OSError, ValueError) as error:
            raise LifelongError(
                f"{self.address} does not answer: {error}",
                expected="a running `lifelong serve`",
                fix="check the address; where no service runs, name the store with --store",
            ) from error


def _refused(address: str, error: HTTPError) -> LifelongError:
    try:
        parts = json.load(error)["error"]
        fix = "name a file with an admin key: --key-file FILE" if error.code == 401 else parts["fix"]
        return RequestError(f"{address}: {parts['found']}", expected=parts["expected"], fix=fix)
    except (ValueError, KeyError, TypeError):
        return RequestError(f"{address} answers {error.code}", expected="a `lifelong serve` of this release")
