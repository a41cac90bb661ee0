"""Every command in README.md and docs/ does what a reader expects of it, or says why no test runs it."""

import json
import re
from pathlib import Path

import click
import pytest

from nexus_gateway.cli import main
from nexus_gateway.config.settings import load
from nexus_gateway.core.errors import UpstreamRejected
from nexus_gateway.edge.errors import RENDERED
from tests.support.valkey import ValkeyServer
from tests.support.walkthrough import REASONS, ROOT, STOPPED, Block, Walkthrough, blocks, pages

PAGES = pages()
ALL_PAGES = [*PAGES, "README.ko.md"]
BLOCKS = [block for page in PAGES for block in blocks(page)]
WITH_COMMANDS = [  # those of docs/ need what not every machine has: curl and openssl
    pytest.param(page, marks=[] if page == "README.md" else pytest.mark.packages)
    for page in PAGES
    if any(block.is_run for block in blocks(page))
]
REDIS = "localhost:6379"
COMMAND = re.compile(
    r"^\s*(?:\$ |make |curl |docker|nexus-gateway |pip |python3? |uvicorn |helm |kubectl |export )", re.M
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETTING = re.compile(r"(GATEWAY_[A-Z_]+)='(.*?)'", re.DOTALL)
ONLY_SETTINGS = re.compile(rf"(?:{SETTING.pattern}\s*)+", re.DOTALL)


@pytest.mark.anyio
@pytest.mark.timeout(900)  # a page may start a dozen processes, on a machine that does other things too
@pytest.mark.parametrize("page", WITH_COMMANDS)
async def test_the_commands_of_a_page_work_one_after_the_other(page: str, tmp_path: Path) -> None:
    todo = [block for block in blocks(page) if block.is_run]
    if any(REDIS in block.text for block in todo):
        with ValkeyServer() as valkey:
            await follow(todo, Walkthrough(tmp_path, {"6379": valkey.port}))
    else:
        await follow(todo, Walkthrough(tmp_path))


async def follow(todo: list[Block], walkthrough: Walkthrough) -> None:
    async with walkthrough:
        for block in todo:
            await walkthrough.follow(block)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_what_is_not_run_says_why(block: Block) -> None:
    if block.mark is None or block.mark == STOPPED:
        return
    who = re.fullmatch(r"run by (\S+)", block.mark)
    if who is None:
        assert block.mark.removeprefix("not run: ") in REASONS, block.mark
    else:
        runs = (ROOT / who[1]).read_text()
        command = block.text.strip().splitlines()[-1].split()[:2]
        assert "Walkthrough" in runs if who[1].startswith("tests/") else all(word in runs for word in command)


@pytest.mark.parametrize("page", ALL_PAGES)
def test_commands_stand_in_blocks_of_bash(page: str) -> None:
    """Nowhere else would anybody run them."""
    for language, text in FENCE.findall((ROOT / page).read_text()):
        assert language in ("bash", "json", "yaml", "python", "promql", ""), language
        assert language == "bash" or not COMMAND.search(text), text


@pytest.mark.parametrize("block", [block for block in BLOCKS if ONLY_SETTINGS.fullmatch(block.text)], ids=str)
def test_settings_that_stand_alone_are_accepted(block: Block) -> None:
    """With a command behind them they are run."""
    settings = dict(SETTING.findall(block.text))
    assert not load({"OPENAI_API_KEY": "sk-of-the-reader", **settings}).warnings


@pytest.mark.parametrize("page", ALL_PAGES)
def test_commands_in_the_text_exist(page: str) -> None:
    """Targets of make, and commands of nexus-gateway with their options."""
    text = FENCE.sub("", (ROOT / page).read_text())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"`make ([a-z-]+)[^`]*`", text):
        assert target in targets, target
    for words, rest in set(re.findall(r"`nexus-gateway ((?:audit )?[a-z-]+)([^`]*)`", text)):
        command: click.Command | None = main
        for word in words.split():
            assert isinstance(command, click.Group)
            command = command.get_command(click.Context(command), word)
        assert command is not None, words
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, words


@pytest.mark.parametrize(
    "policies", re.findall(r"^```json\n(.*?)^```$", (ROOT / "docs/routing.md").read_text(), re.M | re.S)
)
def test_every_recipe_of_routing_is_accepted(policies: str) -> None:
    names = {name for name in re.findall(r'"([\w-]+)"', policies) if name not in json.loads(policies)}
    upstreams = ";".join(f"{name}=mock://local" for name in sorted(names))
    assert not load({"GATEWAY_ROUTE_POLICIES": policies, "GATEWAY_UPSTREAMS": upstreams}).warnings


def test_every_error_is_explained_with_its_status() -> None:
    text = (ROOT / "docs/errors.md").read_text()
    explained: dict[str, set[int]] = {}
    for statuses, codes in re.findall(r"^\| ([\d, ]+) \| (.+?) \|", text, re.MULTILINE):
        for code in re.findall(r"`(\w+)`", codes):
            explained.setdefault(code, set()).update(map(int, statuses.split(", ")))
    rendered = {code: status for kind, (status, _, code) in RENDERED.items() if kind is not UpstreamRejected}
    assert explained.keys() == rendered.keys()
    assert all(status in explained[code] for code, status in rendered.items())
    assert f"`{RENDERED[UpstreamRejected][2]}`" in text


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"`[^`\n]+`", "", FENCE.sub("", (ROOT / page).read_text()))
    for target, _, anchor in re.findall(r"\]\(([^)#:\s]*)(#([^)\s]+))?\)", text):
        leads_to = (ROOT / page).parent / target if target else ROOT / page
        assert leads_to.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", FENCE.sub("", leads_to.read_text()), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, anchor
