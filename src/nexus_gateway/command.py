"""Where the command begins: `nexus-gateway …`, before the rest of it is loaded.

For:      a SIGTERM that comes early. Process 1 of a container ignores a signal that it has no handler for, and loading
          takes a second: whoever stopped it then would wait in vain, and kill it at the end of the grace period.
Touches:  the handler of SIGTERM, in whose place the server puts its own.
"""

import signal
import sys
from types import FrameType


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        signal.signal(signal.SIGTERM, _leave)
    from nexus_gateway.cli import main as run

    run()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """Told to stop, and stopped: nothing had begun."""
    sys.exit(0)
