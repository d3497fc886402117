"""The proxy between us and a server, as its URL and the environment tell of it.

Nothing is guessed. A proxy that is named but cannot be used is a `ConfigurationError`: going to the server directly
instead would show an observer of the network what was meant to be kept from them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from attrs import field, frozen

from engine.values.checks import wrong_type
from engine.values.problems import ConfigurationError

__all__ = ["Proxy", "environment_proxy", "exempts", "parse_proxy"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
_MAX_SOCKS5_FIELD: Final = 255  # one byte holds the length: RFC 1929 section 2
_ALIASES: Final = {"socks": "socks5"}  # desktops write it for SOCKS5
_BARE: Final = re.compile(r"[^/?#]+:[0-9]+\Z")


@frozen
class Proxy:
    """A proxy and how to be let in.

    Attributes:
        scheme: ``http``, ``https``, ``socks4``, ``socks4a``, ``socks5`` or ``socks5h``.
        host: Its name or address.
        port: Its port.
        username: One character for each byte; None where there are no credentials.
        password: Likewise.
    """

    scheme: str
    host: str
    port: int
    username: str | None = field(default=None, repr=lambda name: "None" if name is None else "<hidden>")
    password: str | None = field(default=None, repr=lambda word: "None" if word is None else "<hidden>")

    def __str__(self) -> str:
        """Host and port: the form in which it may be shown."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_proxy(url: object, *, where: str) -> Proxy:
    """Read the URL of a proxy.

    Args:
        url: ``scheme://host:port``, with ``user:password@`` before the host where the proxy asks for them; what a URL
            may not hold is percent-encoded there. ``host:port`` alone is an HTTP proxy, and ``socks://`` is SOCKS5, as
            elsewhere.
        where: Its name in an error: that of the field or of the variable.

    Raises:
        ConfigurationError: it cannot be used. The text does not show it, for it may hold a password.
    """
    if not isinstance(url, str):
        raise wrong_type(where, url, "a string")
    if any(character <= " " or character > "~" for character in url):
        raise ConfigurationError(where, "holds spaces, control characters or characters outside ASCII")
    if _BARE.match(url):
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        raise ConfigurationError(where, "is not a URL with a valid host and port") from None
    if "://" not in url:
        raise ConfigurationError(
            where, "is not a URL: it must start with http://, https://, socks5:// or socks5h://, or be host:port"
        )
    scheme = _ALIASES.get(parts.scheme, parts.scheme)
    if scheme not in _DEFAULT_PORTS:
        raise ConfigurationError(
            where, "is not supported: it must start with http://, https://, socks5://, socks5h:// or socks4://"
        )
    if not host or port == 0:
        raise ConfigurationError(where, "names no host, or port 0")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ConfigurationError(where, "has something behind host and port; a password has to be percent-encoded")
    username, password = (
        None if given is None else unquote_to_bytes(given).decode("latin-1")
        for given in (parts.username, parts.password)
    )
    _check_credentials(scheme, username, password, where)
    return Proxy(scheme, host, port or _DEFAULT_PORTS[scheme], username, password)


def _check_credentials(scheme: str, username: str | None, password: str | None, where: str) -> None:
    """Refuse credentials that could not be sent as they are: a proxy would be asked without them, or with others."""
    if username is None and password is None:
        return
    if not username:
        raise ConfigurationError(where, "has an empty user name")
    if scheme in {"http", "https"}:
        if ":" in username:
            raise ConfigurationError(where, "has a colon in its user name, which RFC 7617 does not allow")
        return
    if not (username + (password or "")).isascii() or "\0" in username:
        raise ConfigurationError(where, "has credentials with characters that cannot be sent to a SOCKS proxy")
    if scheme in {"socks4", "socks4a"}:
        if password is not None:
            raise ConfigurationError(where, "has a password, and SOCKS4 knows none")
    elif not password:
        raise ConfigurationError(where, "has a user name without a password, which SOCKS5 does not know")
    elif max(len(username), len(password)) > _MAX_SOCKS5_FIELD:
        raise ConfigurationError(where, f"has credentials over {_MAX_SOCKS5_FIELD} bytes, which SOCKS5 cannot carry")


# --- the environment -------------------------------------------------------------------------------------------------


def environment_proxy(environ: Mapping[str, str], *, tls: bool, host: str, port: int) -> Proxy | None:
    """Return the proxy that the environment names for a server, None where it names none.

    ``HTTPS_PROXY`` counts for servers behind TLS and ``HTTP_PROXY`` for others, then ``ALL_PROXY``, unless
    ``NO_PROXY`` exempts the server. The lower-case variables go before the others; one that is empty is not set.

    Raises:
        ConfigurationError: a variable names a proxy that cannot be used; ``field`` is the variable's name.
    """
    no_proxy = next((environ[name] for name in ("no_proxy", "NO_PROXY") if environ.get(name)), "")
    if exempts(no_proxy, host, port):
        return None
    names = ["https_proxy", "HTTPS_PROXY"] if tls else ["http_proxy", "HTTP_PROXY"]
    if "REQUEST_METHOD" in environ and not tls:
        names.remove("HTTP_PROXY")  # in a CGI program that is the request's "Proxy" field: httpoxy, CVE-2016-5388
    for name in (*names, "all_proxy", "ALL_PROXY"):
        value = environ.get(name)
        if value:
            return parse_proxy(value, where=name)
    return None


def exempts(no_proxy: str, host: str, port: int) -> bool:
    """Whether a server is to be reached directly, by the value of ``NO_PROXY``.

    That is a list, separated by commas or spaces, of names (which stand for the names below them too, with or without
    a leading dot), addresses, networks such as ``10.0.0.0/8``, or ``*``; each may have a ``:port`` behind it. A name
    is not resolved to see whether its address is there. An entry that is none of these exempts nothing.
    """
    name = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    else:
        address = getattr(address, "ipv4_mapped", None) or address
    for entry in re.split(r"[,\s]+", no_proxy.lower()):
        pattern, wanted_port = _split_port(entry)
        if wanted_port is not None and wanted_port != str(port):
            continue
        if pattern == "*":
            return True
        if address is not None:
            if _holds(pattern, address):
                return True
        else:
            domain = pattern.removeprefix("*.").strip(".")
            if domain and (name == domain or name.endswith("." + domain)):
                return True
    return False


def _split_port(entry: str) -> tuple[str, str | None]:
    if entry.startswith("["):
        pattern, _, rest = entry[1:].partition("]")
        return pattern, rest.removeprefix(":") if rest else None
    if entry.count(":") == 1:
        pattern, _, port = entry.partition(":")
        return pattern, port
    return entry, None


def _holds(pattern: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return False
