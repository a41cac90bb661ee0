"""Static pages, each in one piece with its style and script, and a policy under which nothing else runs.

For:      pages for people that need no file, no host and no script but what stands in them.
Touches:  the files beside this one, once.
"""

import hashlib
import re
from base64 import b64encode
from dataclasses import dataclass
from importlib import resources
from typing import Final

from starlette.responses import Response

_ELEMENT: Final = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)
_INCLUDED: Final = re.compile(r"<(style|script) data-file=\"([a-z.]+)\"></\1>")


@dataclass(frozen=True, slots=True)
class Page:
    """What is sent: the whole page and, in its headers, what the browser holds it to."""

    body: bytes
    headers: dict[str, str]

    def response(self) -> Response:
        return Response(self.body, media_type="text/html", headers=self.headers)


def load(name: str, **words: str) -> Page:
    """`<name>.html` with the files that it names in the place of their elements. `words` stand in braces, doubled, in
    the HTML; they are put in as they are."""
    text = _INCLUDED.sub(lambda found: f"<{found[1]}>{_read(found[2])}</{found[1]}>", _read(f"{name}.html"))
    policy = _policy(text)
    for word, value in words.items():
        text = text.replace("{{" + word + "}}", value)
    return Page(text.encode(), {**_HEADERS, "content-security-policy": policy})


_HEADERS: Final = {
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def _policy(text: str) -> str:
    """Allows the page's own style and script by their digests, and speaking to where it came from.

    With `trusted-types 'none'` the browser throws wherever a script would turn text into markup.
    """
    digests: dict[str, list[str]] = {"style": [], "script": []}
    for kind, content in _ELEMENT.findall(text):
        digest = b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")
        digests[kind].append(f"'sha256-{digest}'")
    allowed = [f"{kind}-src {' '.join(found)}" for kind, found in digests.items() if found]
    if digests["script"]:
        allowed += ["connect-src 'self'", "require-trusted-types-for 'script'", "trusted-types 'none'"]
    return "; ".join(
        ["default-src 'none'", *allowed, "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    )


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
