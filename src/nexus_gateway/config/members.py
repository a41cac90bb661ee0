"""Reading the members of one mapping, so that none is forgotten and none is unknown."""

from collections.abc import Mapping
from typing import TypeVar

from .problems import Report, at, did_you_mean, named
from .values import BadValue, Parser

T = TypeVar("T")


class Members:
    """Takes members one by one; `finish` refuses what nobody asked for."""

    def __init__(self, given: Mapping[str, object], place: str, report: Report) -> None:
        self._given = given
        self._place = place
        self._report = report
        self._asked: list[str] = []

    def take(self, name: str, parse: Parser[T]) -> T | None:
        """None when the member is absent or was refused."""
        self._asked.append(name)
        if name not in self._given:
            return None
        try:
            return parse(self._given[name])
        except BadValue as exc:
            self.refuse(name, exc.what, exc.remedy)
            return None

    def require(self, name: str, parse: Parser[T], remedy: str) -> T | None:
        """None when the member was refused, or reported as missing."""
        if name not in self._given:
            self._asked.append(name)
            self.refuse(None, f"{name} is missing.", remedy)
            return None
        return self.take(name, parse)

    def refuse(self, name: str | None, what: str, remedy: str) -> None:
        self._report.refuse(self._place if name is None else at(self._place, name), what, remedy)

    def finish(self) -> None:
        for name in self._given:
            if name not in self._asked:
                self.refuse(None, f"{named(name)} is not known here.", did_you_mean(name, self._asked))
