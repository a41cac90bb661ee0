"""What the two READMEs show is what happens."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from nexus_gateway.app import create_app
from nexus_gateway.config.reference import page
from nexus_gateway.config.settings import load
from tests.support.serving import serving

ROOT = Path(__file__).parents[2]
LANGUAGES = ("README.md", "README.ko.md")
ROW = re.compile(r"^\| `(GATEWAY_\w+)` \| (.+?) \| .+ \|$", re.MULTILINE)


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def configurations(text: str) -> list[dict[str, str]]:
    """The settings in each block of commands that has any."""
    found = [dict(re.findall(r"(GATEWAY_\w+)='(.*?)'", block)) for block in blocks(text, "bash")]
    return [configuration for configuration in found if configuration]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def the_block(text: str, language: str, word: str) -> str:
    (found,) = [block for block in blocks(text, language) if word in block]
    return found


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    stdout, _ = await process.communicate()
    assert process.returncode == 0
    return stdout.decode()


@pytest.mark.anyio
@pytest.mark.parametrize("readme", LANGUAGES)
async def test_the_first_request_gets_the_answer_shown(readme: str) -> None:
    text = text_of(readme)
    request = the_block(text, "bash", "curl -X POST")
    async with serving(create_app({})) as served:
        answer = await run("bash", "-c", request.replace("localhost:8000", f"127.0.0.1:{served.port}"))
    assert blocks(text, "json") == [answer + "\n"]


@pytest.mark.anyio
async def test_the_client_example_streams_an_answer() -> None:
    example = the_block(text_of("README.md"), "python", "from openai import OpenAI")
    async with serving(create_app({})) as served:
        said = await run(sys.executable, "-c", example.replace("localhost:8000", f"127.0.0.1:{served.port}"))
    assert said == "This is the mock model of Nexus Gateway. You said: hello"


@pytest.mark.parametrize("readme", LANGUAGES)
def test_every_configuration_shown_is_accepted(readme: str) -> None:
    shown = configurations(text_of(readme))
    assert shown
    for configuration in shown:
        if "litellm://" not in configuration["GATEWAY_UPSTREAMS"]:  # tests/litellm has the library
            assert not load(configuration).warnings


@pytest.mark.parametrize("readme", LANGUAGES)
def test_the_defaults_are_those_of_the_settings(readme: str) -> None:
    documented = dict(ROW.findall(page()))
    for name, default in ROW.findall(text_of(readme)):
        literal = re.match(r"`[^`]+`", documented[name])  # defaults in words differ by language
        assert default.startswith("`") == (literal is not None), name
        assert literal is None or default == literal.group(), name


@pytest.mark.parametrize("readme", LANGUAGES)
def test_links_lead_somewhere(readme: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", text_of(readme)):
        assert (ROOT / target).exists(), target


def test_both_languages_show_the_same_code() -> None:
    def code(readme: str) -> list[str]:
        shown = re.findall(r"^```\w+\n(.*?)^```$", text_of(readme), re.MULTILINE | re.DOTALL)
        return [re.sub(r"  #.*|<.*?>", "", block) for block in shown]

    english, korean = map(code, LANGUAGES)
    assert english == korean
    assert len(english) > 5
