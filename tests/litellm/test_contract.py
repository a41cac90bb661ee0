"""Runs the contract of upstreams (tests/upstreams) over litellm://, and holds the documentation to what came out."""

import pytest

from tests.upstreams.contract import UpstreamContract
from tests.upstreams.kinds import Kind
from tests.upstreams.test_contract import test_what_came_out_is_what_stands_on_the_page

from .kinds import KINDS

__all__ = ["TestUpstream", "test_what_came_out_is_what_stands_on_the_page"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


class TestUpstream(UpstreamContract):
    """One row."""
