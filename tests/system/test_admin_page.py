"""The operators' page in Debian's Chromium: what a person sees and does, and what the page may never do."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from tests.support.browser import Browser, Tab, chromium
from tests.support.gateway import KEY, Running, gateway
from tests.support.http_client import chat

pytestmark = [pytest.mark.anyio, pytest.mark.packages, pytest.mark.timeout(300)]

ADMIN_KEY = "operator-key"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
OPEN = "!document.getElementById('desk').hidden"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@asynccontextmanager
async def running_gateway(**settings: str) -> AsyncIterator[Running]:
    policies = json.dumps({KEY: {"name": HOSTILE, "rate_limit_per_minute": 50, "tokens_per_minute": 90000}})
    chosen = {"ADMIN_KEY": ADMIN_KEY, "FALLBACKS": "m=spare", "API_KEY_POLICIES": policies, **settings}
    async with gateway(chosen, "m=mock://local;spare=mock://local;bad=mock://local?status=500") as running:
        yield running


async def enter(tab: Tab, key: str = ADMIN_KEY) -> None:
    await tab.click("[data-language=en]")
    await tab.type("#key", key)
    await tab.click("#door button")


async def ask(running: Running, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    await chat(running.port, body=json.dumps(body).encode())


async def upstream(running: Running, name: str) -> Any:
    async with httpx2.AsyncClient(base_url=running.url) as http:
        told = (await http.get("/admin/upstreams", headers={"Authorization": f"Bearer {ADMIN_KEY}"})).json()
    return next(each for each in told["upstreams"] if each["name"] == name)


def kept_its_word(tab: Tab, running: Running) -> None:
    """No breach of its policy, no error, and not one request to anybody else."""
    assert tab.complaints == []
    assert tab.requested
    assert {url for url in tab.requested if not url.startswith(f"{running.url}/admin")} == set()


async def test_a_wrong_key_is_told_and_the_right_one_opens(browser: Browser) -> None:
    async with running_gateway() as running:
        tab = await browser.open(f"{running.url}/admin")
        for wrong in ("wrong", KEY, "열쇠"):
            await enter(tab, wrong)
            assert await tab.until("!refused.hidden && refused.textContent") == "This key is not the admin key."
            assert await tab.run(OPEN) is False
        await tab.click("[data-language=en]")  # takes the message away
        await tab.run("document.getElementById('key').value = ''")
        await enter(tab)
        await tab.until(OPEN)
        assert await tab.run("document.getElementById('key').value") == ""
        assert await tab.run("document.cookie + JSON.stringify([localStorage, sessionStorage])") == "[{},{}]"
        await tab.click("#lock")
        assert await tab.run(OPEN) is False
        assert await tab.run("document.getElementById('keys').textContent") == ""
        kept_its_word(tab, running)


async def test_what_callers_and_operators_wrote_is_text(browser: Browser) -> None:
    async with running_gateway() as running:
        for model in ("m", "bad", HOSTILE[:256]):
            await ask(running, model)
        await running.idle()
        tab = await browser.open(f"{running.url}/admin")
        await enter(tab)
        await tab.until(OPEN)
        shown = await tab.run("[keys, errors].map((table) => table.textContent)")
        assert all(HOSTILE in text for text in shown)  # a key's name; the model that was asked for
        assert await tab.run("document.querySelectorAll('#desk img, #desk script').length") == 0
        assert await tab.run("document.title") == "Nexus Gateway · Operators"
        kept_its_word(tab, running)


async def test_traffic_upstreams_keys_and_errors_are_seen(browser: Browser) -> None:
    async with running_gateway() as running:
        tab = await browser.open(f"{running.url}/admin")
        await enter(tab)
        await tab.until("errors.textContent === 'No errors since the start'")
        for model in ("m", "m", "bad"):
            await ask(running, model)
        await running.idle()
        await tab.until("errors.textContent.includes('upstream_error')")
        await tab.until("tiles.textContent.includes('1 of 3')")
        await tab.until("document.querySelectorAll('#requests-chart rect').length >= 2")
        rows = "Object.fromEntries([...upstreams.rows].map((row) => [row.cells[0].textContent, row.innerText]))"
        told = await tab.run(rows)
        assert "closed" in told["m"]
        assert "100%" in told["bad"]
        assert "unavailable" in told["bad"]
        assert "3 of 50" in await tab.run("keys.textContent")
        assert "3 · " in await tab.run("keys.rows[0].cells[6].textContent")
        kept_its_word(tab, running)


async def test_an_upstream_is_isolated_by_two_clicks_and_restored_by_one(browser: Browser) -> None:
    async with running_gateway() as running:
        tab = await browser.open(f"{running.url}/admin")
        await enter(tab)
        await tab.until(OPEN)
        once = "(button => { button.click(); return button.textContent })(upstreams.rows[0].querySelector('button'))"
        assert await tab.run(once) == "Isolate now?"
        assert (await upstream(running, "m"))["isolated"] is False
        await tab.run(  # the question is withdrawn after a while, which may have passed
            "(button => { if (!button.classList.contains('sure')) button.click(); button.click(); })"
            "(upstreams.rows[0].querySelector('button'))"
        )
        await tab.until("upstreams.rows[0].cells[1].textContent === 'isolated'")
        assert (await upstream(running, "m"))["isolated"] is True
        assert (await upstream(running, "spare"))["isolated"] is False
        await tab.until("upstreams.rows[0].querySelector('button').textContent === 'Restore'")
        await tab.click("#upstreams tr:first-child button")
        await tab.until("upstreams.rows[0].cells[1].textContent === 'closed'")
        assert (await upstream(running, "m"))["isolated"] is False
        kept_its_word(tab, running)


async def test_many_keys_are_turned_over_like_pages(browser: Browser) -> None:
    async with running_gateway(API_KEYS=",".join([KEY, *(f"key-number-{n}" for n in range(249))])) as running:
        tab = await browser.open(f"{running.url}/admin")
        await enter(tab)
        await tab.until("document.getElementById('keys-count').textContent === '1–200 of 250'")
        await tab.click("#keys-on")
        await tab.until("document.getElementById('keys-count').textContent === '201–250 of 250'")
        assert await tab.run("keys.rows.length") == 50
        assert await tab.run("document.getElementById('keys-on').disabled") is True
        await tab.click("#keys-back")
        await tab.until("keys.rows.length === 200")
        kept_its_word(tab, running)


async def test_it_speaks_korean_and_english(browser: Browser) -> None:
    async with running_gateway() as running:
        await ask(running, "bad")
        tab = await browser.open(f"{running.url}/admin")
        await enter(tab)
        await tab.until(OPEN)
        english = await tab.run("document.body.innerText")
        await tab.click("[data-language=ko]")
        assert await tab.run("document.documentElement.lang") == "ko"
        korean = await tab.run("document.body.innerText")
        for word, wort in (
            ("Upstreams", "업스트림"),
            ("Recent errors", "최근 오류"),
            ("closed", "닫힘"),
            ("Isolate", "격리"),
        ):
            assert word in english
            assert word not in korean
            assert wort in korean
            assert wort not in english
        same = "JSON.stringify(Object.keys(WORDS.en)) === JSON.stringify(Object.keys(WORDS.ko))"
        assert await tab.run(same)
        assert await tab.run("document.body.innerText.includes('undefined')") is False
        kept_its_word(tab, running)


async def test_it_says_when_the_gateway_has_gone(browser: Browser) -> None:
    async with running_gateway() as running:
        tab = await browser.open(f"{running.url}/admin")
        await enter(tab)
        await tab.until(OPEN)
        assert await tab.run("lost.hidden") is True
    await tab.until("!lost.hidden")
    assert await tab.run(OPEN) is True  # what was last seen stays, and is marked as old


async def test_the_policy_stops_what_the_page_would_never_do(browser: Browser) -> None:
    """The policy is more than a header: markup from text, a foreign address and an inline script all fail."""
    async with running_gateway() as running:
        tab = await browser.open(f"{running.url}/admin")
        markup = "try { document.body.innerHTML = '<b>x</b>'; 'done' } catch (error) { error.name }"
        assert await tab.run(markup) == "TypeError"
        foreign = "fetch('http://127.0.0.1:9/').then(() => 'done', (error) => error.name)"
        assert await tab.run(foreign) == "TypeError"
        assert [complaint for complaint in tab.complaints if "connect-src" in complaint]
        assert {url for url in tab.requested if not url.startswith(running.url)} == set()


async def test_the_root_and_the_api_page_keep_to_their_policies_too(browser: Browser) -> None:
    async with running_gateway() as running:
        for path in ("/", "/docs"):
            tab = await browser.open(f"{running.url}{path}")
            await tab.until("document.querySelectorAll('a, .opblock').length > 5")
            assert tab.complaints == []
            assert {url for url in tab.requested if not url.startswith((running.url, "data:"))} == set()
