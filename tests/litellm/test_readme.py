"""What README.md shows of LiteLLM works where LiteLLM is installed."""

from pathlib import Path

import pytest

from tests.support.walkthrough import Walkthrough, blocks

MARK = "run by tests/litellm/test_readme.py"


@pytest.mark.anyio
@pytest.mark.timeout(300)
async def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    todo = [block for block in blocks("README.md") if block.mark == MARK]
    assert todo
    async with Walkthrough(tmp_path) as walkthrough:
        for block in todo:
            await walkthrough.follow(block)
