"""Many clients at once, each sending many requests ahead in random pieces: everyone reads what each request alone is
answered with, in order, to the last byte before the end."""

import asyncio
import random
import re
from typing import Final

import pytest

from nexus_gateway.config.runtime import Timeouts
from nexus_gateway.core.errors import ModelNotFound
from nexus_gateway.core.outbox import HELD_BYTES
from nexus_gateway.edge.framing import MAX_HEAD_BYTES
from tests.support.http_client import Caller
from tests.support.serving import Served, serving
from tests.support.small_app import Call, SmallApp

pytestmark = pytest.mark.anyio

CLIENTS: Final = 256
AT_ONCE: Final = 64
CHANGING: Final = re.compile(rb"(date|x-request-id): [^\r]*\r\n")


def request(start: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([start, b"host: gateway", b"content-length: %d" % len(body), *fields, b"", body])


def post(body: bytes, *fields: bytes, version: bytes = b"1.1") -> bytes:
    return request(b"POST /v1/chat/completions HTTP/" + version, *fields, body=body)


CHUNKED: Final = b"POST /v1/completions HTTP/1.1\r\nhost: gateway\r\ntransfer-encoding: chunked\r\n\r\n"
CLOSE: Final = b"connection: close"

SERVED: Final = [
    post(b"whole"),
    post(b"late"),
    post(b"pieces"),
    post(b"late pieces"),
    post(b"large" + b"x" * HELD_BYTES),
    post(b"large pieces" + b"x" * HELD_BYTES),
    post(b"refused"),
    post(b"late refused"),
    post(b"whole", b"expect: 100-continue"),
    CHUNKED + b"5\r\nwhole\r\n1\r\n!\r\n0\r\n\r\n",
    request(b"GET /a HTTP/1.1"),
    request(b"HEAD /b HTTP/1.1"),
    request(b"PUT /c HTTP/1.1", b"expect: 100-continue", body=b"c" * 3000),
]
LAST: Final = [
    post(b"whole", CLOSE),
    post(b"late pieces", CLOSE),
    post(b"large pieces" + b"x" * HELD_BYTES, CLOSE),
    post(b"refused", CLOSE),
    post(b"pieces", version=b"1.0"),
    request(b"GET /d HTTP/1.0"),
    request(b"HEAD /e HTTP/1.1", CLOSE),
    request(b"GET /f HTTP/1.1", b"x: " + b"x" * MAX_HEAD_BYTES),
    b"GET /g HTTP/1.1\r\n\r\n",
    CHUNKED + b"5\r\nwhole\r\nno size\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


async def as_the_body_says(call: Call) -> None:
    body = await call.wire.read_body(1 << 20)
    if b"late" in body:
        for _ in range(3):
            await asyncio.sleep(0)
    if b"refused" in body:
        raise ModelNotFound("No.")
    if b"pieces" not in body:
        await call.answer(200, body)
        return
    await call.wire.start(200, [])
    for number in range(20):
        await call.wire.write(b"<%d>" % number)
        if b"late" in body and number % 4 == 0:
            await asyncio.sleep(0)
    await call.wire.write(body)
    await call.wire.finish(b"over")


async def all_that_comes(served: Served, pieces: list[bytes]) -> bytes:
    async with Caller(served.port) as caller:
        for piece in pieces:
            await caller.send(piece)
            await asyncio.sleep(0)
        return CHANGING.sub(b"", await caller.read_to_end())


def cut(sent: bytes, dice: random.Random) -> list[bytes]:
    places = sorted(dice.choices(range(len(sent)), k=dice.choice([0, 1, 3, 40])))
    return [sent[begin:end] for begin, end in zip([0, *places], [*places, len(sent)], strict=True)]


async def test_everyone_reads_what_each_request_alone_is_answered_with() -> None:
    dice = random.Random(5)
    async with serving(SmallApp(as_the_body_says), Timeouts(drain_s=0.2)) as served:
        alone = {sent: await all_that_comes(served, [sent]) for sent in LAST}
        for sent in SERVED:
            both = await all_that_comes(served, [sent, LAST[0]])
            assert both.endswith(alone[LAST[0]])
            alone[sent] = both.removesuffix(alone[LAST[0]])
        assert all(alone.values())
        for _ in range(0, CLIENTS, AT_ONCE):
            rows = [[*dice.choices(SERVED, k=dice.randrange(8)), dice.choice(LAST)] for _ in range(AT_ONCE)]
            asking = [all_that_comes(served, cut(b"".join(row), dice)) for row in rows]
            for row, got in zip(rows, await asyncio.gather(*asking), strict=True):
                assert got == b"".join(alone[sent] for sent in row)
