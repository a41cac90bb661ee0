"""Coming back to a server that was away: whatever breaks on the way, it is told everything once."""

from collections.abc import Sequence
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.account import Cost, Hold
from nexus_gateway.core.model import Principal
from nexus_gateway.stores.redis_commands import Commands, Scripts
from nexus_gateway.stores.redis_link import Command
from nexus_gateway.stores.redis_upkeep import Upkeep
from nexus_gateway.stores.share import LocalShare, Seen

NOW_S = 1000.0
SCRIPTS = Scripts.load()


class Server:
    """Hears what it is told, until it breaks; then the line says "no answer" to that pipeline and what follows."""

    def __init__(self, breaks_at: int, contents: bytes = b"first") -> None:
        self._asked = 0
        self._breaks_at = breaks_at
        self.contents = contents
        self.heard: list[tuple[Command, Any]] = []

    async def ask(self, commands: Sequence[Command]) -> None:
        self._asked += 1
        if self._asked == self._breaks_at:
            for command in commands:
                command.done(None)
            raise ConnectionError
        self.hear(commands)

    def hear(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self.heard.append((command, msgspec.msgpack.decode(command.payload)))
            command.done([2, self.contents] if command.script is SCRIPTS.register else 1)

    def told(self, script: object) -> list[Any]:
        return [payload for command, payload in self.heard if command.script is script]


def upkeep(share: LocalShare) -> Upkeep:
    return Upkeep(Commands(SCRIPTS, "nexus", 12.0), share, lambda: NOW_S, registration_s=10)


def come_back(keeper: Upkeep, server: Server) -> None:
    """As the line does: again after each break."""

    async def rejoin() -> None:
        while True:
            try:
                server.hear(await keeper.rejoin(server.ask))
            except ConnectionError:
                continue
            return

    anyio.run(rejoin)


@given(callers=st.integers(0, 200), breaks_at=st.integers(1, 8), settled=st.integers(0, 200), used=st.integers(0, 30))
def test_spending_holds_and_settlements_are_told_once(callers: int, breaks_at: int, settled: int, used: int) -> None:
    share, server = LocalShare(), Server(breaks_at)
    keeper = upkeep(share)
    holds: list[Hold] = []
    for i in range(callers):
        caller = Principal(f"caller-{i}", 10, 1000, 5)
        decision = share.admit(caller, Cost(20), NOW_S, processes=1, open_holds=0)
        assert decision.hold is not None
        decision.hold.name = f"local-{i}"
        keeper.add(decision.hold)
        holds.append(decision.hold)
    for hold in holds[:settled]:
        hold.is_settled = True
        keeper.remove(hold)
        share.settle(hold, used, NOW_S)
    for i in range(callers):
        keeper.settlement(Hold("gone", 5, f"shared-{i}"), 5).done(None)  # was not heard

    come_back(keeper, server)

    renewals = server.told(SCRIPTS.renew)
    requests = sum(amount for _, _, _, spent, *_ in renewals for _, amount in spent)
    tokens = sum(amount for *_, spent, _, _ in renewals for _, amount in spent)
    assert requests == callers
    assert tokens == used * min(settled, callers)
    members = {member for _, members, *_ in renewals for member in members}  # to renew twice does no harm
    assert members == {f"local-{i}:20" for i in range(min(settled, callers), callers)}
    settlements = [payload[0] for payload in server.told(SCRIPTS.settle)]
    assert sorted(settlements) == sorted(f"shared-{i}:5" for i in range(callers))
    assert all(hold.is_shared and not hold.is_local for hold in holds[settled:])
    assert share.unreported() == set()


@pytest.mark.parametrize("breaks_at", [0, 2, 3])
def test_a_server_that_lost_its_memory_is_told_what_it_had_counted(breaks_at: int) -> None:
    share = LocalShare()
    keeper = upkeep(share)
    come_back(keeper, Server(0))
    for i in range(100):
        share.note(Seen(NOW_S - 7.5, Principal(f"caller-{i}", 10, 1000), 4, 700))
    keeper.add(Hold("caller-0", 250, "mine", is_shared=True))

    same = Server(0)
    come_back(keeper, same)
    assert [floors for *_, floors in same.told(SCRIPTS.renew)] == [[]]

    other = Server(breaks_at, contents=b"second")
    come_back(keeper, other)
    floors = {tuple(floors) for *_, floors in other.told(SCRIPTS.renew)}
    assert floors == {(8, 6, 300), (8, 6, 50)}  # what is put back as reserved is not counted twice
    assert len({command.keys for command, _ in other.heard if command.script is SCRIPTS.renew}) == 100
