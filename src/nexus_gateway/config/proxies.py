"""Which proxy an upstream is reached through: one that its URL names, or that of the usual variables if it asks for it.

For:      `proxy=` of an upstream. Without it the variables are nothing to the gateway: prompts go where the URL says.
Touches:  the environment it is given. No proxy's URL is ever repeated: it may hold a password.
"""

import base64
import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from .runtime import ProxySpec
from .values import BadValue, text

ENVIRONMENT: Final = "env"

_REMEDY: Final = "Write http://host:port, or env to go by the usual variables."
_URL: Final = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?:(?P<user>[^@/]*)@)?"
    r"(?P<host>\[[0-9a-f:.]+\]|(?![-.])[a-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?/?",
    re.IGNORECASE,
)
_HTTP_PORT: Final = 80
_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {  # the first that is set counts
    "http": ("http_proxy", "all_proxy"),
    "https": ("https_proxy", "all_proxy"),
    "grpc": ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy"),
    "grpcs": ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy"),
}
_EXCEPTIONS: Final = "no_proxy"


def proxy_option(value: object) -> str:
    """`env`, or the URL of a proxy. Raises BadValue."""
    given = text(value)
    if given.lower() == ENVIRONMENT:
        return ENVIRONMENT
    if read_proxy(given).authorization is not None:
        raise BadValue(
            "The proxy's URL holds a user or a password.", "Put it into HTTPS_PROXY or HTTP_PROXY and write proxy=env."
        )
    return given


def proxy_for(option: str, kind: str, host: str, port: int, environ: Mapping[str, str]) -> ProxySpec | None:
    """The proxy that the option leads to; None when the variables name none for this host. Raises BadValue."""
    if option != ENVIRONMENT:
        return read_proxy(option)
    if _is_excepted(host, port, _variable(_EXCEPTIONS, environ)):
        return None
    for name in _VARIABLES[kind]:
        if given := _variable(name, environ):
            try:
                return read_proxy(given)
            except BadValue as exc:
                raise BadValue(f"{name.upper()}: {exc.what}", exc.remedy) from None
    return None


def read_proxy(url: str) -> ProxySpec:
    """Raises BadValue."""
    parts = _URL.fullmatch(url)
    if parts is None:
        raise BadValue("This is not the URL of a proxy.", _REMEDY)
    if (parts["scheme"] or "http").lower() != "http":
        raise BadValue("Only http:// proxies are supported.", _REMEDY)
    host, port = parts["host"].strip("[]").lower(), int(parts["port"] or _HTTP_PORT)
    if not 0 < port < 65536 or ".." in host or (":" in host and not _is_address(host)):
        raise BadValue("The proxy has no valid host and port.", _REMEDY)
    if parts["user"] is None:
        return ProxySpec(host, port)
    user, _, password = parts["user"].partition(":")
    credential = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode())
    return ProxySpec(host, port, f"Basic {credential.decode('ascii')}")


def _variable(name: str, environ: Mapping[str, str]) -> str:
    """Lower case is the older habit and wins, as it does elsewhere."""
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _is_excepted(host: str, port: int, exceptions: str) -> bool:
    """By `*`, a network, or a name that stands for itself and all below it; each perhaps with a port."""
    for entry in filter(None, map(str.strip, exceptions.lower().split(","))):
        if entry == "*" or _covers(entry, host):
            return True
        name, colon, digits = entry.rpartition(":")
        if colon and digits == str(port) and _covers(name.strip("[]"), host):
            return True
    return False


def _covers(entry: str, host: str) -> bool:
    if _is_address(host):
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name = entry.removeprefix("*").removeprefix(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
