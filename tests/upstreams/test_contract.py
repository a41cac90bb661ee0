"""Runs the contract over every kind of upstream there is, and holds the documentation to what came out."""

import pytest

from .contract import UpstreamContract
from .kinds import KINDS, Kind
from .outcomes import CAPABILITIES, OUTCOMES, PAGE, read_table


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


class TestUpstream(UpstreamContract):
    """A new kind is one more row of KINDS."""


def test_what_came_out_is_what_stands_on_the_page(request: pytest.FixtureRequest) -> None:
    outcomes = request.config.stash[OUTCOMES]
    told = read_table(PAGE.read_text())
    came_out = {
        (word, kind): cell
        for word in CAPABILITIES
        for kind in outcomes.kinds
        if (cell := outcomes.cell(word, kind)) is not None
    }
    assert came_out.items() <= told.items(), "run: python -m tests.upstreams"
    assert {kind for _, kind in told} >= set(KINDS) - {"engine"}
    assert {word for word, _ in told} == set(CAPABILITIES)
