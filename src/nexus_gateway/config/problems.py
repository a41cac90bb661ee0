"""What is wrong with a configuration, and how to put it right.

For:      gathering every problem before anything is refused, each with its place and its remedy.
Touches:  nothing. No text here ever holds a secret: callers show only what is known not to be one.
"""

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

_MAX_SHOWN: Final = 60  # characters of a value that a problem repeats: enough to recognise it
_MAX_COMPARED: Final = 100  # longer names are nobody's slip of the finger, and comparing them is slow
_WORD: Final = re.compile(r"[A-Za-z_]{1,40}")
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_./:@-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """`place` is a variable, or a file and the key in it; `what` and `remedy` are sentences."""

    place: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what} {self.remedy}"


class ConfigurationProblems(Exception):
    """The configuration is refused. `problems` holds all that is wrong with it, in the order of reading."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__()
        self.problems = tuple(problems)

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [f"The configuration has {count} problem{'s' if count > 1 else ''}:"]
        lines += [f"  - {problem}" for problem in self.problems]
        return "\n".join(lines)


@dataclass(slots=True)
class Report:
    """What was found so far. `broken` names settings whose value could not be read: nothing is concluded from them."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    def refuse(self, place: str, what: str, remedy: str) -> None:
        self.problems.append(Problem(place, what, remedy))

    def warn(self, place: str, what: str, remedy: str) -> None:
        self.warnings.append(Problem(place, what, remedy))


def shown(value: object) -> str:
    """A value that is not a secret, in quotes, cut to a readable length; control characters are escaped."""
    text = str(value)
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…")


def named(key: object) -> str:
    """A name that nobody knows, if it is an ordinary word; anything else might be a secret in the wrong place."""
    return shown(key) if isinstance(key, str) and _WORD.fullmatch(key) else "A name"


def at(place: str, key: str | int) -> str:
    """The place of a member of a mapping (by name) or of a list (by position, counted from 1)."""
    if isinstance(key, int):
        return f"{place}[{key}]"
    return f"{place}.{key}" if len(key) <= _MAX_COMPARED and _PLAIN_KEY.fullmatch(key) else f"{place}[{shown(key)}]"


def closest(name: str, known: Collection[str]) -> str | None:
    """The known name that was probably meant: one that is nearly the same, or that `name` leaves the end off."""
    if len(name) > _MAX_COMPARED:
        return None
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    if near:
        return near[0]
    return next((other for other in known if "_" in name and other.startswith(f"{name}_")), None)


def did_you_mean(name: str, known: Collection[str]) -> str:
    """A remedy for a name that nobody bears."""
    near = closest(name, known)
    if near is not None:
        return f"Did you mean {near}?"
    return f"Known: {', '.join(known)}." if known else "None is defined."
