"""From the environment to a configuration that holds, or to all the reasons why it does not.

For:      start-up, reload and `nexus-gateway check`, which share this one way in.
Touches:  the files that the environment names. It is brought as a mapping: nothing here reads the process's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from .compile import compile_settings
from .problems import ConfigurationProblems, Problem, Report
from .runtime import Runtime
from .schema import Settings
from .sources import Layer, check_names, gather
from .values import BadValue

__all__: Final = ["ConfigurationProblems", "Loaded", "Settings", "load"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration without problems."""

    settings: Settings
    runtime: Runtime
    warnings: tuple[Problem, ...]
    hidden: tuple[str, ...]  # a sentence for each value of the file that the environment hides
    places: Mapping[str, str]  # where each setting stands that was given


def load(environ: Mapping[str, str]) -> Loaded:
    """Read, check and compile. Raises ConfigurationProblems."""
    report = Report()
    given, hidden = gather(environ, report)
    settings = _validate(given, report)
    places = {name: value.place for name, value in given.items()}
    runtime, key_variables = compile_settings(settings, places, environ, report)
    check_names(environ, key_variables, report)
    if report.problems:
        raise ConfigurationProblems(report.problems)
    return Loaded(settings, runtime, tuple(report.warnings), hidden, places)


def _validate(given: Layer, report: Report) -> Settings:
    """Settings with every sound value; the others are reported and stand at their defaults."""
    values: dict[str, Any] = {name: value.value for name, value in given.items()}
    try:
        return Settings(**values)
    except ValidationError as exc:
        for error in exc.errors(include_url=False, include_input=False):
            name = str(error["loc"][0])
            cause: BadValue = error["ctx"]["error"]  # what the parsers of `values` raise
            report.broken.add(name)
            report.refuse(given[name].place, cause.what, cause.remedy)
            del values[name]
    return Settings(**values)
