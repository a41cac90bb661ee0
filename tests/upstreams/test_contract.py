"""Runs the contract over every kind of upstream there is."""

import pytest

from .contract import UpstreamContract
from .kinds import KINDS, Kind


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


class TestUpstream(UpstreamContract):
    """A new kind is one more row of KINDS."""
