"""A gRPC worker that costs next to nothing: it looks at each message for its tag and answers from prepared bytes.

For:      `python -m bench.worker`, which prints its port and serves until its stdin ends. It says what
          `bench.upstream` says, event for event.
Touches:  one listening socket on loopback.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import uvloop

from nexus_gateway.upstreams.worker_v1.worker_pb2 import DESCRIPTOR, ChatResponse, ChatStreamResponse

from .upstream import ANSWER, EVENT_EVERY_S, EVENTS, LAST_CHUNK, PIECE_CHUNK, TAG

PLAIN: Final = ChatResponse(body=ANSWER).SerializeToString()
PIECE: Final = ChatStreamResponse(body=PIECE_CHUNK).SerializeToString()
END: Final = ChatStreamResponse(body=LAST_CHUNK).SerializeToString()


def tag_of(message: bytes) -> bytes:
    start = message.find(b"tag-")
    return message[start : start + len(TAG)]


async def chat(message: bytes, context: Any) -> bytes:
    return PLAIN.replace(TAG, tag_of(message))


async def chat_stream(message: bytes, context: Any) -> AsyncIterator[bytes]:
    loop, tag = asyncio.get_running_loop(), tag_of(message)
    piece, began_s = PIECE.replace(TAG, tag), loop.time()
    for number in range(1, EVENTS + 1):
        yield piece if number < EVENTS else END.replace(TAG, tag)
        if number < EVENTS:
            await asyncio.sleep(began_s + number * EVENT_EVERY_S - loop.time())


async def serve() -> None:
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handlers: dict[str, Any] = {
        "Chat": grpc.unary_unary_rpc_method_handler(chat),
        "ChatStream": grpc.unary_stream_rpc_method_handler(chat_stream),
    }
    service = DESCRIPTOR.services_by_name["WorkerService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve())
