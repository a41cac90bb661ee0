"""Makes the Python stubs of nexus.worker.v1: `make proto` writes them, `make check` asks whether they are fresh.

For:      maintainers who edit worker.proto; the stubs are committed, so that nobody else needs a compiler.
Touches:  src/nexus_gateway/upstreams/worker_v1/, unless `--check` is given.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from grpc_tools import protoc

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = (
    "nexus_gateway/upstreams/worker_v1"  # where the source pretends to lie, so that stubs import from there
)
STUBS: Final = ("worker_pb2.py", "worker_pb2.pyi", "worker_pb2_grpc.py")


def generate(into: str) -> None:
    """Raises SystemExit when the source does not compile."""
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PACKAGE}={ROOT}/proto/nexus/worker/v1",
            *(f"--{kind}_out={into}" for kind in ("python", "pyi", "grpc_python")),
            f"{PACKAGE}/worker.proto",
        ]
    )
    if status:
        raise SystemExit(status)


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        generate(scratch)
        stale = [stub for stub in STUBS if _read(Path(scratch, PACKAGE, stub)) != _read(ROOT / "src" / PACKAGE / stub)]
        if "--check" in arguments:
            for stub in stale:
                print(f"src/{PACKAGE}/{stub} is not what worker.proto makes: run `make proto`", file=sys.stderr)
            return 1 if stale else 0
        for stub in stale:
            shutil.copy(Path(scratch, PACKAGE, stub), ROOT / "src" / PACKAGE / stub)
    return 0


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
