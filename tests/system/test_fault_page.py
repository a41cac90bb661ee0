"""The page of faults names tests that exist, for every row."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (ROOT / "docs/faults.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| fault |", "| case |"))
]
PROOF = re.compile(r"`([\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_a_row_has_its_proof(row: str) -> None:
    proofs = PROOF.findall(row)
    assert proofs
    for path, name in proofs:
        tree = ast.parse((ROOT / "tests" / path).read_text())
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        assert name in {node.name for node in tree.body if isinstance(node, kinds)}, f"{path}::{name}"


def test_there_are_rows() -> None:
    assert len(ROWS) > 40
