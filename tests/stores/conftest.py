"""A server that the tests of a run share, each under a prefix of its own."""

import os
from collections.abc import Iterator

import pytest
import redis

from tests.support.valkey import ValkeyServer, running_url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    url = running_url()
    if url is not None:
        yield url
    else:
        with ValkeyServer() as server:
            yield server.url


@pytest.fixture
def prefix() -> str:
    return f"test-{os.urandom(6).hex()}"


@pytest.fixture(scope="session")
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client
