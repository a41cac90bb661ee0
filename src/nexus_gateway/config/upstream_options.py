"""The options of an upstream's URL: one row each, which the documentation is made from too."""

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from .files import check_regular
from .litellm import api_base
from .proxies import proxy_option
from .schema import SECRETS, variable
from .values import BadValue, header_name, number, switch, text, whole, words

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH: Final = re.compile(r"/[!-~]{0,255}")
_OWN_SECRETS: Final = frozenset(variable(name) for name in SECRETS)
_NEVER_FORWARDED: Final = frozenset(
    {
        *("authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-goog-api-key"),
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"),
        *("host", "content-length", "content-encoding", "accept-encoding", "x-request-id"),
    }
)
"""Credentials of the caller, headers that belong to one connection or one body, and those the gateway sets itself."""


@dataclass(frozen=True, slots=True)
class Option:
    """What stands behind `?` in an upstream's URL. `field` is where the value goes; `says` documents it."""

    field: str
    parse: Callable[[object], object]
    says: str
    kinds: tuple[str, ...]


def _key_variable(value: object) -> str:
    name = text(value)
    if not _VARIABLE.fullmatch(name):  # not repeated: it is often the key itself
        raise BadValue("This is not the name of a variable.", "Put the key into a variable and give that one's name.")
    if name in _OWN_SECRETS:
        raise BadValue("This is a secret of the gateway itself.", "Give the upstream's key a variable of its own.")
    return name


def _forwarded(value: object) -> frozenset[str]:
    names = [header_name(word) for word in words(value)]
    never = [name for name in names if name in _NEVER_FORWARDED or name.startswith("proxy-")]
    if never:
        raise BadValue(f"These headers never travel on: {', '.join(never)}.", "Leave them out.")
    return frozenset(names)


def _ca_file(value: object) -> str:
    path = text(value)
    check_regular(path)
    try:
        ssl.create_default_context(cafile=path)
    except OSError:  # SSLError is one
        raise BadValue("The file holds no certificates that can be read.", "Name a PEM file.") from None
    return path


def _pem_file(value: object) -> str:
    path = text(value)
    check_regular(path)
    return path


def check_certificate(cert_file: str, key_file: str | None) -> None:
    """Raises BadValue unless the certificate can be shown: it and its own key can be read, without a password."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert_file, key_file, password=lambda: "")
    except (OSError, ValueError):  # SSLError is an OSError; ValueError: the password that there is none of
        raise BadValue(
            "The certificate and its key cannot be read, or do not belong together.",
            "Name PEM files that this process may read, and a key without a password.",
        ) from None


def _path(value: object) -> str:
    path = text(value)
    if not _PATH.fullmatch(path):
        raise BadValue("This is not a path.", "Write it as in `health=/health`.")
    return path


def _milliseconds(value: object) -> float:
    return number("Give milliseconds, 0 or more.", least=0, most=3_600_000)(value) / 1000


_HTTP: Final = ("http", "https")
GRPC: Final = ("grpc", "grpcs")
LITELLM: Final = "litellm"
_TLS: Final = ("https", "grpcs", LITELLM)
_ALL: Final = (*_HTTP, *GRPC, LITELLM, "mock")
MOCK: Final = ("mock",)  # options with only this kind describe the mock itself
_COUNT: Final = "Give a whole number of 1 or more."

OPTIONS: Final[Mapping[str, Option]] = {
    "model": Option("model", text, "The model's name to send instead of the caller's.", _ALL),
    "api_base": Option("api_base", api_base, "Where the provider is asked, instead of its usual address.", (LITELLM,)),
    "api_key_env": Option(
        "api_key",
        _key_variable,
        "The environment variable that holds the upstream's key. For litellm else the provider's usual one.",
        (*_HTTP, LITELLM),
    ),
    "timeout_seconds": Option(
        "timeout_s",
        number("Give seconds above 0, such as 10 or 0.5.", above=0, most=31_536_000),
        "One attempt here, when that is less than `GATEWAY_REQUEST_TIMEOUT_SECONDS`.",
        _ALL,
    ),
    "max_concurrency": Option(
        "max_concurrency", whole(_COUNT, least=1, most=1_000_000), "Requests under way here at once.", _ALL
    ),
    "ca_file": Option("ca_file", _ca_file, "A PEM file of certificates to trust instead of the system's.", _TLS),
    "cert_file": Option(
        "cert_file", _pem_file, "A PEM file with the certificate that the gateway shows, and those above it.", _TLS
    ),
    "key_file": Option("key_file", _pem_file, "A PEM file with its key, where `cert_file` does not hold that.", _TLS),
    "proxy": Option(
        "proxy",
        proxy_option,
        "`http://host:port`, or `env` to go by `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, which else mean nothing.",
        (*_HTTP, *GRPC, LITELLM),
    ),
    "forward_headers": Option(
        "forward_headers", _forwarded, "Headers of the caller to pass on, with commas between them.", (*_HTTP, LITELLM)
    ),
    "health": Option(
        "health_path", _path, "The path to ask for every few seconds; while it fails, the upstream is skipped.", _HTTP
    ),
    "startup_seconds": Option(
        "startup_s",
        number("Give seconds above 0, such as 900.", above=0, most=31_536_000),
        "How long it may take to come up after the gateway: until its first answer or passed check, that it is not "
        "there is 503 `upstream_starting` and no failure. See [Routing](routing.md#a-server-that-is-still-starting).",
        (*_HTTP, *GRPC),
    ),
    "mask": Option("mask", switch, "`off` for a server that may see identifiers, such as one of your own.", _ALL),
    "health_rpc": Option(
        "health_rpc",
        switch,
        "`off`: do not ask for its standard health every few seconds, nor skip it while that is not `SERVING`.",
        GRPC,
    ),
    "stream_usage": Option(
        "stream_usage", switch, "`off` for a server that refuses `stream_options.include_usage`.", _ALL
    ),
    "mock_response": Option(
        "mock_response", text, "LiteLLM's own answer: this text, and no provider is asked.", (LITELLM,)
    ),
    "delay_ms": Option("delay_s", _milliseconds, "Wait before the head of the answer.", MOCK),
    "chunk_delay_ms": Option("chunk_delay_s", _milliseconds, "Wait before every event after the first.", MOCK),
    "tokens": Option(
        "tokens",
        whole("Give a whole number, 0 or more.", least=0, most=10_000_000),
        "Length of the answer; else it echoes the question.",
        MOCK,
    ),
    "status": Option(
        "status", whole("Give a status from 200 to 599.", least=200, most=599), "The status to answer.", MOCK
    ),
    "error_rate": Option(
        "error_rate", number("Give a share from 0 to 1.", least=0, most=1), "The share answered with 500.", MOCK
    ),
    "seed": Option(
        "seed", whole("Give a whole number.", least=0, most=1 << 62), "What that share is drawn from.", MOCK
    ),
    "fail_after": Option(
        "fail_after",
        whole("Give a number of events.", least=0, most=10_000_000),
        "Events after which a stream breaks.",
        MOCK,
    ),
}
