"""An attempt under way inside LiteLLM.

For:      waits that end by a deadline, calls that are given up without leaving anything behind.
Touches:  a task for each call, which its upstream waits for when it closes.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

from nexus_gateway.core.errors import UpstreamError

from .base import Reply
from .litellm_library import is_internal_call
from .litellm_wire import Wire, current_wire
from .litellm_words import answer_to
from .replies import late, truncated

Failure = Callable[[str], UpstreamError]  # of an upstream's name
Result = TypeVar("Result")


class Tasks:
    """The tasks of one upstream."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str, context: Context | None = None) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work, name=name, context=context)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def over(self, within_s: float) -> None:
        """Return when all are; those that take longer are cancelled."""
        for give_up in (False, True):
            for task in self._running if give_up else ():
                task.cancel()
            if self._running:
                await asyncio.wait(set(self._running), timeout=within_s)


class Call:
    """`work` makes the reply. It is not cut off while the library is busy with something else than the network: it
    would leave a coroutine behind that nobody awaits. The next thing that it asks of the network fails instead."""

    def __init__(self, work: Coroutine[Any, Any, Reply], wire: Wire, tasks: Tasks) -> None:
        self._wire = wire
        self._why: Failure | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = tasks.start(work, f"litellm {wire.name}", context_of(wire))
        self._task.add_done_callback(self._end)
        self._tasks = tasks

    async def wait(self, deadline_s: float) -> Reply:
        timer = asyncio.get_running_loop().call_at(deadline_s, self.give_up, late)
        try:
            await self._over
        except asyncio.CancelledError:
            if self._task.done():  # just now: nobody will take what it brought
                self._drop()
            self.give_up(truncated)
            raise
        finally:
            timer.cancel()
        if self._why is not None:
            raise self._why(self._wire.name)
        exc = self._task.exception()
        if exc is None:
            reply: Reply = self._task.result()
            return reply
        if isinstance(exc, UpstreamError):
            raise exc
        return answer_to(exc, self._wire)

    def give_up(self, why: Failure) -> None:
        """The first reason stands."""
        if self._why is not None or self._task.done():
            return
        self._why = why
        self._wire.is_over = True
        if self._wire.at_work:
            self._task.cancel()
        if not self._over.done():  # else whoever waited was cancelled
            self._over.set_result(None)

    def _end(self, task: "asyncio.Task[Reply]") -> None:
        if self._over.done():
            self._drop()
        else:
            self._over.set_result(None)

    def _drop(self) -> None:
        if not self._task.cancelled() and self._task.exception() is None:
            self._tasks.start(self._task.result().aclose(), "litellm late answer")


def context_of(wire: Wire) -> Context:
    context = copy_context()
    context.run(current_wire.set, wire)
    context.run(is_internal_call.set, True)  # the library then logs, prices and calls back nothing
    return context


async def begun(asking: Coroutine[Any, Any, Result], wire: Wire) -> Result | None:
    """What comes out; None as soon as the library would read a stream that it need not."""
    task = asyncio.get_running_loop().create_task(asking)
    try:
        waited: set[asyncio.Future[Any]] = {task, wire.reached}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
