"""Takes GATEWAY_UPSTREAMS apart, entry by entry and option by option.

For:      `UpstreamSpec`s that need no further question at run time.
Touches:  the environment it is given, for upstream keys, and CA files. No URL is ever repeated: it may hold a secret.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from nexus_gateway.core.model import Operation

from .litellm import check_installed, model_of
from .members import Members
from .problems import Report, at, named
from .proxies import proxy_for
from .runtime import MockSpec, UpstreamSpec
from .upstream_options import GRPC, LITELLM, MOCK, OPTIONS, check_certificate
from .values import BadValue, visible

NAME: Final = re.compile(r"[A-Za-z0-9._:/@-]{1,128}")
NAME_REMEDY: Final = "Use 1 to 128 letters, digits and . _ : / @ -"
PORTS: Final[Mapping[str, int]] = {
    "http": 80,
    "https": 443,
    "grpc": 50051,
    "grpcs": 443,
    LITELLM: 0,
    "mock": 0,
}
"""Known schemes and their default ports."""

_ENTRY_REMEDY: Final = "Write name=url, with ; between entries."
_URL: Final = re.compile(
    r"(?P<scheme>[^:/?#]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?", re.DOTALL
)
_AUTHORITY: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|(?![-.])[A-Za-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,19}")
_VERSION: Final = re.compile(r"/v[0-9]+[a-z0-9]*(?=/|$)")


@dataclass(frozen=True, slots=True)
class Upstreams:
    """`declared` holds the names of refused entries too: what refers to one of them is no second problem."""

    specs: tuple[UpstreamSpec, ...]
    declared: tuple[str, ...]
    key_variables: frozenset[str]  # of the environment, that `api_key_env` names


def compile_upstreams(value: object, place: str, environ: Mapping[str, str], report: Report) -> Upstreams:
    """All entries that are sound; every other one is reported."""
    specs: list[UpstreamSpec] = []
    declared: list[str] = []
    key_variables: set[str] = set()
    for name, target, where in _entries(value, place, report):
        if name in declared:
            report.refuse(where, "The name stands twice.", "Give every upstream a name of its own.")
            continue
        declared.append(name)
        reader = _Entry(name, where, environ, report)
        spec = reader.compile(target)
        if reader.key_variable is not None:
            key_variables.add(reader.key_variable)
        if spec is not None:
            specs.append(spec)
    return Upstreams(tuple(specs), tuple(declared), frozenset(key_variables))


def _entries(value: object, place: str, report: Report) -> list[tuple[str, object, str]]:
    """Name, URL or mapping, and place of each entry that has a name."""
    if isinstance(value, str):
        pairs = _split_entries(value, place, report)
    elif isinstance(value, dict):
        pairs = list(enumerate(value.items(), start=1))
    else:
        report.refuse(place, "This is neither text nor a mapping.", _ENTRY_REMEDY)
        return []
    if not value or (isinstance(value, str) and not value.strip("; \t\r\n")):
        report.refuse(place, "No upstream is named.", f"{_ENTRY_REMEDY} For a first try: mock=mock://local")
    entries: list[tuple[str, object, str]] = []
    for position, (name, target) in pairs:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            report.refuse(at(place, position), "The name is not one for an upstream.", NAME_REMEDY)
        else:
            # what looks like a URL may be one, with a password, whose name was forgotten
            entries.append((name, target, at(place, position if "://" in name else name)))
    return entries


def _split_entries(text: str, place: str, report: Report) -> list[tuple[int, tuple[object, object]]]:
    """Position, name and URL of each entry of `a=url;b=url`."""
    pairs: list[tuple[int, tuple[object, object]]] = []
    for position, entry in enumerate(filter(None, map(str.strip, text.split(";"))), start=1):
        name, equals, url = entry.partition("=")
        if equals:
            pairs.append((position, (name.strip(), url.strip())))
        else:
            report.refuse(at(place, position), "The entry has no name.", _ENTRY_REMEDY)
    return pairs


class _Entry:
    """Compiles one entry. `key_variable` is the variable that it takes its key from."""

    def __init__(self, name: str, place: str, environ: Mapping[str, str], report: Report) -> None:
        self._name = name
        self._place = place
        self._environ = environ
        self._report = report
        self.key_variable: str | None = None

    def compile(self, target: object) -> UpstreamSpec | None:
        """None when anything about it was refused."""
        before = len(self._report.problems)
        options: dict[str, object] = {}
        if isinstance(target, dict):
            options = {str(key): value for key, value in target.items()}
            target = options.pop("url", None)
        if not isinstance(target, str) or not target:
            self._refuse("There is no URL.", "Give one, such as http://localhost:8001 or mock://local")
            return None
        parts = self._split(target)
        if parts is None:
            return None
        kind = parts["scheme"].lower()
        if kind == LITELLM:
            host, port, base_path = "", PORTS[kind], ""
            self._take_model(parts, options)
        else:
            host, port = self._authority(parts)
            base_path = self._no_path(parts["path"]) if kind in GRPC else self._base_path(parts["path"])
        for key, value in self._query(parts["query"] or "").items():
            if key in options:
                self._refuse(f"{named(key)} stands twice as an option.", "Keep one of them.")
            options[key] = value
        fields, mock = self._read(kind, options)
        self._check_certificate(fields, options)
        if "proxy" in fields:
            try:
                fields["proxy"] = proxy_for(fields["proxy"], *_asked(kind, host, port, fields), self._environ)
            except BadValue as exc:
                self._report.refuse(at(self._place, "proxy"), exc.what, exc.remedy)
        if len(self._report.problems) > before:
            return None
        return UpstreamSpec(self._name, kind, host, port, base_path, **fields, mock=mock)

    def _refuse(self, what: str, remedy: str) -> None:
        self._report.refuse(self._place, what, remedy)

    def _split(self, url: str) -> Mapping[str, Any] | None:
        parts = _URL.fullmatch(url)
        if parts is None:
            self._refuse("The URL has no scheme.", f"Start it with {', '.join(f'{scheme}://' for scheme in PORTS)}.")
            return None
        scheme = parts["scheme"].lower()
        if scheme not in PORTS:
            name = f"{scheme}://" if _SCHEME.fullmatch(scheme) else "This"
            self._refuse(f"{name} is an unknown scheme.", f"Known: {', '.join(PORTS)}.")
            return None
        if not url.isascii() or not url.isprintable() or " " in url:
            self._refuse("The URL holds a space or a letter outside ASCII.", "Write it percent-encoded.")
            return None
        if parts["fragment"]:
            self._refuse("The URL has a fragment (#…).", "Leave it out; write %23 for a # that is meant.")
        return parts.groupdict()

    def _take_model(self, parts: Mapping[str, Any], options: dict[str, object]) -> None:
        """Of a URL that names a model, not a place."""
        try:
            model = model_of(parts["authority"], parts["path"])
        except BadValue as exc:
            self._refuse(exc.what, exc.remedy)
        else:
            if model is not None:
                options["model"] = model
        try:
            check_installed()
        except BadValue as exc:
            self._refuse(exc.what, exc.remedy)

    def _authority(self, parts: Mapping[str, Any]) -> tuple[str, int]:
        """Host, without brackets, and port."""
        authority = parts["authority"]
        default_port = PORTS[parts["scheme"].lower()]
        if "@" in authority or "@" in parts["path"]:
            self._refuse(
                "The URL holds a user or a password.",
                "Put the key into a variable and name it by api_key_env= instead.",
            )
            return "", default_port
        found = _AUTHORITY.fullmatch(authority)
        if found is None or not _is_host(found["host"]):
            self._refuse("The URL has no valid host and port.", "Write scheme://host or scheme://host:port")
            return "", default_port
        port = int(found["port"]) if found["port"] is not None else default_port
        if found["port"] is not None and not 0 < port < 65536:
            self._refuse("The port is out of range.", "Give a port from 1 to 65535.")
        return found["host"].strip("[]").lower(), port

    def _base_path(self, path: str) -> str:
        """Where operations are appended. A path that names a version is taken as it is, any other gets `/v1`."""
        path = path.rstrip("/")
        if path.endswith(tuple(operation.value for operation in Operation)):
            self._refuse("The URL ends in an operation.", "Give the base URL; the gateway appends the operation.")
        if "//" in path or any(segment in (".", "..") for segment in path.split("/")):
            self._refuse("The path of the URL has an empty or a dot segment.", "Write the path out.")
        return path if _VERSION.search(path) else f"{path}/v1"

    def _no_path(self, path: str) -> str:
        if path.strip("/"):
            self._refuse("A gRPC URL has no path.", "Write scheme://host:port")
        return ""

    def _query(self, query: str) -> dict[str, object]:
        options: dict[str, object] = {}
        for pair in filter(None, query.split("&")):
            key, _, value = pair.partition("=")
            key = unquote(key)
            if key in options:
                self._refuse(f"{named(key)} stands twice as an option.", "Keep one of them.")
            options[key] = unquote(value)  # not a form: a plus is a plus
        return options

    def _read(self, kind: str, options: Mapping[str, object]) -> tuple[dict[str, Any], MockSpec | None]:
        members = Members(options, self._place, self._report)
        fields: dict[str, Any] = {}
        mock: dict[str, Any] = {}
        for name, option in OPTIONS.items():
            if kind not in option.kinds:
                if name in options:
                    self._refuse(
                        f"{name} is no option of {kind}:// upstreams.", f"It is for {', '.join(option.kinds)}."
                    )
                    members.take(name, _accept)
                continue
            value = members.take(name, option.parse)
            if value is not None:
                (mock if option.kinds == MOCK else fields)[option.field] = value
        members.finish()
        if "api_key" in fields:
            fields["api_key"] = self._key(fields["api_key"])
        return fields, MockSpec(**mock) if kind == "mock" else None

    def _check_certificate(self, fields: Mapping[str, Any], options: Mapping[str, object]) -> None:
        """The two files are one thing, and are tried as such."""
        try:
            if "cert_file" in fields and ("key_file" in fields or "key_file" not in options):
                check_certificate(fields["cert_file"], fields.get("key_file"))
            elif "key_file" in fields and "cert_file" not in options:
                raise BadValue("There is a key and no certificate.", "Name that by cert_file=")
        except BadValue as exc:
            self._report.refuse(at(self._place, "cert_file"), exc.what, exc.remedy)

    def _key(self, name: str) -> str | None:
        self.key_variable = name
        place = at(self._place, "api_key_env")
        try:
            return visible(self._environ.get(name))
        except BadValue as exc:
            unset = not self._environ.get(name, "").strip()
            what = "The variable that it names is not set." if unset else exc.what
            self._report.refuse(place, what, "Set that variable to the upstream's key." if unset else exc.remedy)
            return None


def _asked(kind: str, host: str, port: int, fields: Mapping[str, Any]) -> tuple[str, str, int]:
    """What is reached in the end: kind, host and port. Where LiteLLM's providers are, is known only by `api_base`."""
    if kind != LITELLM:
        return kind, host, port
    parts = urlsplit(fields.get("api_base", "https://"))
    return parts.scheme, parts.hostname or "", parts.port or PORTS[parts.scheme]


def _accept(value: object) -> object:
    return value


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return ".." not in host
    try:
        ipaddress.IPv6Address(host.strip("[]"))
    except ValueError:
        return False
    return True
