"""litellm:// upstreams: which model is meant, and whether the library is there.

For:      a start that fails with the one command that is missing, instead of a request that does.
Touches:  the list of what is installed. Nothing is imported.
"""

import re
from importlib.metadata import PackageNotFoundError, version
from typing import Final
from urllib.parse import unquote, urlsplit

from .values import BadValue, text

LITELLM_VERSION: Final = "1.106.2"  # the extra pins the same: the adapter was written for this very release
INSTALL: Final = (
    "Run: pip install 'nexus-gateway[litellm]' (a container: build it with --build-arg NEXUS_EXTRAS=litellm)."
)

_MODEL: Final = re.compile(r"[!-~]{1,256}")


def check_installed() -> None:
    """Raises BadValue."""
    try:
        found = version("litellm")
    except PackageNotFoundError:
        raise BadValue("LiteLLM is not installed.", INSTALL) from None
    if found != LITELLM_VERSION:
        raise BadValue(f"LiteLLM {found} is installed, and this gateway works with {LITELLM_VERSION}.", INSTALL)


def model_of(authority: str, path: str) -> str | None:
    """The model that a URL names, perhaps behind its provider; None: the caller's. Raises BadValue."""
    model = unquote(f"{authority}{path}".rstrip("/"))
    if not model:
        return None
    if not _MODEL.fullmatch(model) or "://" in model or model.startswith("/"):
        raise BadValue("This is not the name of a model.", "Write litellm://model or litellm://provider/model")
    return model


def api_base(value: object) -> str:
    """Where a provider is asked instead of its usual address. Raises BadValue."""
    url = text(value)
    parts = urlsplit(url)
    if "@" in parts.netloc:  # not repeated: it may hold a password
        raise BadValue("The URL holds a user or a password.", "Put the key into a variable and name it by api_key_env=")
    try:
        is_sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_sound = False
    if not is_sound or parts.query or parts.fragment or " " in url or not url.isascii():
        raise BadValue("This is not the address of an API.", "Write it as in api_base=https://host:port/v1")
    return url.rstrip("/")
