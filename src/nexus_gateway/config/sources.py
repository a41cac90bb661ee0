"""Gathers what was given, and where: the environment, the YAML file, and files that hold secrets.

For:      one value per setting with its place, the environment first; names that nobody reads.
Touches:  files, through `files`. The environment is brought as a mapping.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from .files import read_secret, read_yaml
from .problems import Report, closest, named, shown
from .schema import EMPTY_COUNTS, NAMES, PREFIX, SECRETS, variable
from .values import BadValue

_FILE_SUFFIX: Final = "_file"
_READABLE: Final = (*NAMES, *(f"{name}{_FILE_SUFFIX}" for name in NAMES if name in SECRETS))
_VARIABLES: Final = tuple(variable(name) for name in _READABLE)


@dataclass(frozen=True, slots=True)
class Given:
    """The raw value of one setting and the place where it stands."""

    value: object = field(repr=False)
    place: str


Layer = dict[str, Given]


def gather(environ: Mapping[str, str], report: Report) -> tuple[Layer, tuple[str, ...]]:
    """The value that holds for each setting given, and a note for each value of the file that the environment hides."""
    raw = {name: environ[variable(name)] for name in _READABLE if variable(name) in environ}
    environment = _layer(raw, {name: variable(name) for name in _READABLE}, report)
    if "config_file" not in environment:
        return environment, ()
    path = str(environment["config_file"].value).strip()
    file = _read_file(path, environment["config_file"].place, report)
    hidden = [name for name in NAMES if name in file and name in environment]
    notes = tuple(f"{environment[name].place} hides {file[name].place}" for name in hidden)
    return {**file, **environment}, notes


def _layer(raw: Mapping[str, object], places: Mapping[str, str], report: Report) -> Layer:
    """One source's settings, secrets read from their files."""
    layer: Layer = {}
    for name in NAMES:
        if name in raw and (name in EMPTY_COUNTS or not _empty(raw[name])):
            layer[name] = Given(raw[name], places[name])
        beside = f"{name}{_FILE_SUFFIX}"
        if name not in SECRETS or _empty(raw.get(beside)):
            continue
        if name in layer:
            report.refuse(places[beside], f"{places[name]} is given too.", "Keep one of them.")
            continue
        try:
            layer[name] = Given(read_secret(str(raw[beside]).strip()), places[beside])
        except BadValue as exc:
            report.broken.add(name)
            report.refuse(places[beside], exc.what, exc.remedy)
    return layer


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _read_file(path: str, place: str, report: Report) -> Layer:
    try:
        content = read_yaml(path)
    except BadValue as exc:
        report.refuse(f"{place} ({shown(path)})", exc.what, exc.remedy)
        return {}
    path = _printable(path)
    known = [name for name in _READABLE if name != "config_file"]
    raw: dict[str, object] = {}
    for key, value in content.items():
        if isinstance(key, str) and key in known:
            raw[key] = value
        else:
            _refuse_key(key, path, known, report)
    return _layer(raw, {name: f"{path}: {name}" for name in known}, report)


def _refuse_key(key: object, path: str, known: Collection[str], report: Report) -> None:
    near = _meant(str(key).lower().removeprefix(PREFIX.lower()), known)
    if near is not None:
        report.refuse(f"{path}: {key}", "This is not a setting.", f"Did you mean {near}?")
    else:
        report.refuse(path, f"{named(key)} is not a setting.", "Remove it; docs/configuration.md lists the settings.")


def check_names(environ: Mapping[str, str], claimed: Collection[str], report: Report) -> None:
    """Refuse a variable that is nearly one of ours; warn of any other with our prefix.

    `claimed` are variables that the configuration itself names, as `api_key_env` does.
    """
    for name in environ:
        if name in _VARIABLES or name in claimed or not name.upper().startswith(PREFIX) or _is_injected(name):
            continue
        near = _meant(name[len(PREFIX) :].lower(), _READABLE)
        if near is not None:
            report.refuse(_printable(name), "This is not a setting.", f"Did you mean {variable(near)}?")
        elif name.startswith(PREFIX):
            report.warn(_printable(name), "This is not a setting.", "Remove it, or correct its name.")


def _meant(name: str, known: Collection[str]) -> str | None:
    """The setting that a name stands near to. Only secrets have files: of others the stem is meant."""
    return next((near for near in (name, name.removesuffix(_FILE_SUFFIX)) if near in known), closest(name, known))


def _is_injected(name: str) -> bool:
    """Kubernetes sets these for a Service called gateway."""
    return name == f"{PREFIX}PORT" or name.startswith((f"{PREFIX}PORT_", f"{PREFIX}SERVICE_"))


def _printable(name: str) -> str:
    return name if name.isprintable() else shown(name)
