"""Waiting for what no event announces."""

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], object]) -> None:
    """Let the loop turn until it holds. The test's own time limit ends the wait otherwise."""
    while not holds():  # noqa: ASYNC110  # there is no event to wait for
        await asyncio.sleep(0)
