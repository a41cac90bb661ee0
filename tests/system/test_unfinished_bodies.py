"""A body that never becomes whole is answered and recorded like any other bad request."""

import pytest

from tests.support.gateway import KEY, gateway
from tests.support.http_client import Caller

pytestmark = pytest.mark.anyio

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\nx-api-key: %b\r\n"
    % KEY.encode()
)


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b'content-length: 9\r\n\r\n{"mode', 408, "request_timeout"),
        (b'transfer-encoding: chunked\r\n\r\n6\r\n{"mode\r\n', 408, "request_timeout"),
        (b'transfer-encoding: chunked\r\n\r\n6\r\n{"mode\r\nxyz\r\n', 400, "invalid_request"),
        (b"transfer-encoding: chunked\r\n\r\n6;" + b"x" * 500_000, 431, "headers_too_large"),
    ],
    ids=["too slow", "too slow in chunks", "not in chunks at all", "all extension"],
)
async def test_it_is_told_by_name_and_recorded(sent: bytes, status: int, code: str) -> None:
    async with gateway({"BODY_TIMEOUT_SECONDS": "0.2"}) as running, Caller(running.port) as caller:
        await caller.send(HEAD + sent)
        answer = await caller.receive()
        assert (answer.status, answer.json()["error"]["code"]) == (status, code)
        assert await caller.read_to_end() == b""
        await running.idle()
        record = running.records.last
        assert (record.status, record.error_code, record.client_gone) == (status, code, False)
        assert answer.headers["x-request-id"] == record.request_id
