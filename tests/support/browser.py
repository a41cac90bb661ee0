"""Debian's Chromium without a window, driven by its DevTools protocol over a pipe: no driver, no port.

async with chromium() as browser:
    tab = await browser.open("http://127.0.0.1:8000/admin")
    await tab.until("document.title !== ''")
"""

import asyncio
import base64
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

OPTIONS: Final = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # tests may run as root, and the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
START_S: Final = 60.0
PATIENCE_S: Final = 30.0


class PageError(AssertionError):
    """A script that the test ran in the page threw."""


@dataclass(slots=True)
class Tab:
    """One page. What it asked for and what it complained about is kept."""

    browser: "Browser"
    session: str
    requested: list[str] = field(default_factory=list)  # addresses
    complaints: list[str] = field(default_factory=list)  # uncaught errors, console errors, breaches of its policy
    loaded: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, method: str, **parameters: Any) -> Any:
        return await self.browser.call(method, self.session, **parameters)

    async def go(self, url: str) -> None:
        self.loaded.clear()
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE_S):
            await self.loaded.wait()

    async def run(self, expression: str) -> Any:
        """The value of an expression in the page, awaited if it is a promise."""
        told = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            raise PageError(told["exceptionDetails"].get("exception", {}).get("description", told["exceptionDetails"]))
        return told["result"].get("value")

    async def until(self, condition: str) -> Any:
        """The value of the expression once it is true. Raises TimeoutError with what the page says then."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.run(
                    f"new Promise(done => {{ const look = () => {{ const value = ({condition});"
                    " value ? done(value) : setTimeout(look, 20); }; look(); })"
                )
        except TimeoutError:
            text = await self.run("document.body.innerText")
            raise TimeoutError(f"never came true: {condition}\n{text}\n{self.complaints}") from None

    async def click(self, selector: str) -> None:
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")

    async def type(self, selector: str, text: str) -> None:
        """As a person does, key by key."""
        await self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        await self.call("Input.insertText", text=text)

    async def picture(self) -> bytes:
        """The whole page as PNG."""
        told = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(told["data"])

    def note(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self.loaded.set()
        elif method == "Network.requestWillBeSent":
            self.requested.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["source"] != "network":
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Audits.issueAdded" and parameters["issue"]["code"] == "ContentSecurityPolicyIssue":
            self.complaints.append(json.dumps(parameters["issue"]))


class Browser:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tabs: dict[str, Tab] = {}

    async def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps(message).encode() + b"\0")
        return await self._waiting[number]

    async def open(self, url: str, *, width: int = 1360, height: int = 900, dark: bool = False) -> Tab:
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        tab = self._tabs[session] = Tab(self, session)
        for domain in ("Page", "Runtime", "Network", "Log", "Audits"):
            await tab.call(f"{domain}.enable")
        await tab.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await tab.call("Emulation.setEmulatedMedia", features=[scheme])
        await tab.go(url)
        return tab

    async def listen(self) -> None:
        """Until the browser has gone."""
        try:
            while True:
                self._take(json.loads((await self._reader.readuntil(b"\0"))[:-1]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("The browser has gone."))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" not in message:
            tab = self._tabs.get(message.get("sessionId", ""))
            if tab is not None:
                tab.note(message["method"], message["params"])
            return
        answer = self._waiting.pop(message["id"])
        if answer.done():
            return
        if "error" in message:
            answer.set_exception(AssertionError(message["error"]["message"]))
        else:
            answer.set_result(message["result"])


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    to_read, to_write = os.pipe(), os.pipe()  # as the browser sees them
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", f'exec "$@" 3<&{to_read[0]} 4>&{to_write[1]}', "bash"),
            *("chromium", *OPTIONS, f"--user-data-dir={profile}", "about:blank"),
            pass_fds=(to_read[0], to_write[1]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_read[0])
        os.close(to_write[1])
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=64 << 20)  # a picture is one message
        reading, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(to_write[0], "rb")
        )
        writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(to_read[1], "wb"))
        browser = Browser(reader, writing)
        listening = asyncio.ensure_future(browser.listen())
        try:
            async with asyncio.timeout(START_S):
                await browser.call("Browser.getVersion")
            yield browser
        finally:
            writing.close()  # it ends when nobody speaks to it any more
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            await listening
            reading.close()
