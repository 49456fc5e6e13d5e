"""The parts of a URL of servers: `scheme://[user:password@]host[:port][,host[:port]]/path[?option=value&...]`.

What is wrong with one is said without the password.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from lifelong.errors import UsageError


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """A URL, taken apart.

    Args:
        what: it is the URL of, and whose environment variables hold a login: "store", "stream".
        server: what a server of it is called.
        expected: of the error if a part is wrong.
        fix: likewise.
        scheme: before `://`.
        user: as written; may be empty.
        password: likewise.
        hosts: each server as it is written.
        path: after the servers, without its first slash.
        options: by name.

    Example:
        >>> url = ServerUrl.of("redis://ann:secret@host/3?replicas=1", ["replicas"], what="store", expected="", fix="")
        >>> url.host("host", 6379), url.path, url.options, url.login("REDIS", {})
        (('host', 6379), '3', {'replicas': '1'}, ('ann', 'secret'))
    """

    what: str
    server: str
    expected: str
    fix: str
    scheme: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    hosts: tuple[str, ...] = ()
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, url: str, options: Collection[str], *, what: str, server: str = "server", expected: str, fix: str
    ) -> ServerUrl:
        """The parts of a URL, which may have some options.

        Raises:
            UsageError: it has another option.
        """
        scheme, _, rest = url.partition("://")
        place, _, query = rest.partition("?")
        servers, _, path = place.partition("/")
        # From the right: a password may hold an @ that nobody has escaped.
        login, _, hosts = servers.rpartition("@")
        user, _, password = login.partition(":")
        given = dict(parse_qsl(query, keep_blank_values=True))
        parts = scheme, unquote(user), unquote(password), tuple(hosts.split(",")), path, given
        found = cls(what, server, expected, fix, *parts)
        for name in given:
            if name not in options:
                raise found.bad(f"an option {name!r}", expected=f"one of: {', '.join(options)}")
        return found

    def bad(self, found: str, *, expected: str | None = None) -> UsageError:
        """The error of a part."""
        return UsageError(f"the URL of the {self.what} names {found}", expected=expected or self.expected, fix=self.fix)

    def host(self, text: str, usual: int) -> tuple[str, int]:
        """Name and port of a server; the usual port if it names none.

        Raises:
            UsageError: it is none.
        """
        try:
            parts = urlsplit(f"//{text}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise self.bad(f"a {self.server} {text!r}: {error}") from error
        if not host:
            raise self.bad(f"no {self.server}")
        return host, usual if port is None else port

    def login(self, prefix: str, environment: Mapping[str, str]) -> tuple[str | None, str | None]:
        """User and password: of the URL, or of `LIFELONG_PREFIX_USER` and `..._PASSWORD` in the environment."""
        user = self.user or environment.get(f"LIFELONG_{prefix}_USER")
        return user or None, self.password or environment.get(f"LIFELONG_{prefix}_PASSWORD") or None

    def seconds(self, name: str, usual: float, *, above: int = 0) -> float:
        """An option in seconds, less than an hour.

        Raises:
            UsageError: it is no number, or out of bounds.
        """
        text = self.options.get(name, str(usual))
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not above < seconds < 3600:
            raise self.bad(f"a {name} of {text!r}", expected=f"seconds, more than {above}")
        return seconds
