"""A small client of the DevTools protocol, and a headless Chromium of its own for each test."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from speil.testing.eventually import eventually

START_SECONDS_MAX = 60.0
CALL_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0
WAIT_SECONDS_MAX = 30.0
LOOK_SECONDS = 0.05
_FLAGS = (
    "--headless=new", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-default-apps", "--disable-extensions", "--disable-sync", "--mute-audio",
    "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip


class Page:
    """One page. `faults` are its script errors, console errors, and violations of its Content-Security-Policy."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.faults: list[str] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; its result."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        message = await answer
        assert "error" not in message, f"{method}: {message}"
        found: dict[str, Any] = message.get("result", {})
        return found

    async def listen(self) -> None:
        """Take what the browser sends, until the page is closed."""
        async for message in self._socket:
            content = json.loads(message.data)
            if (answer := self._answers.pop(content.get("id", 0), None)) is not None:
                answer.set_result(content)
            elif content.get("method") == "Runtime.exceptionThrown":
                details = content["params"]["exceptionDetails"]
                self.faults.append(str(details.get("exception", {}).get("description") or details["text"]))
            elif content.get("method") == "Log.entryAdded" and content["params"]["entry"]["level"] == "error":
                entry = content["params"]["entry"]
                self.faults.append(f"{entry['text']} {entry.get('url', '')}")

    async def open(self, url: str) -> None:
        """Go to a URL, and wait until the page is loaded."""
        result = await self.call("Page.navigate", url=url)
        assert not result.get("errorText"), result
        await self.wait("document.readyState === 'complete'")

    async def run(self, expression: str, seconds_max: float = CALL_SECONDS_MAX) -> Any:
        """The value of an expression, or of its promise."""
        async with asyncio.timeout(seconds_max):
            result = await self.call(
                "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
            )
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    async def wait(self, expression: str, seconds_max: float = WAIT_SECONDS_MAX) -> None:
        """Wait until an expression is true; a look takes the browser a millisecond, so there are not too many."""
        deadline = asyncio.get_running_loop().time() + seconds_max
        while not await self.run(f"Boolean({expression})"):
            assert asyncio.get_running_loop().time() < deadline, f"not in {seconds_max:g} s: {expression}"
            await asyncio.sleep(LOOK_SECONDS)

    async def text(self, selector: str) -> str:
        """The text of an element as it is shown; "" where there is none."""
        found: str = await self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return found

    async def wait_text(self, selector: str, part: str, seconds_max: float = WAIT_SECONDS_MAX) -> None:
        """Wait until an element shows a text."""
        where = f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"
        await self.wait(f"({where}).includes({json.dumps(part)})", seconds_max)

    async def look(self, *, dark: bool = False, width: int = 1200, height: int = 900) -> None:
        """Set the colour scheme and the size of the screen."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    async def press(self, key: str, code: int) -> None:
        """Press a key, such as Tab (9) or Enter (13)."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    async def type(self, text: str) -> None:
        """Type into what has the focus."""
        await self.call("Input.insertText", text=text)

    async def screenshot(self, file: Path) -> None:
        """Keep the whole page as a PNG."""
        file.parent.mkdir(parents=True, exist_ok=True)
        result = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(result["data"]))


class Browser:
    """A running Chromium; `pid` is its process."""

    def __init__(self, session: aiohttp.ClientSession, url: str, pid: int) -> None:
        self._session, self._url, self.pid = session, url, pid

    @asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        """A new page; closed at the end of the block."""
        async with self._session.put(f"{self._url}/json/new?about:blank") as response:
            target = await response.json()
        async with self._session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=64 << 20) as socket:
            page = Page(socket)
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(page.listen())
                for domain in ("Page", "Runtime", "Log"):
                    await page.call(f"{domain}.enable")
                # as if it were in front: else a page is hidden while another one is open
                await page.call("Emulation.setFocusEmulationEnabled", enabled=True)
                await page.look()
                yield page
                listening.cancel()
        async with self._session.put(f"{self._url}/json/close/{target['id']}"):
            pass


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Browser]:
    """A headless Chromium with a profile of its own below `folder`; it ends with the block."""
    profile = folder / "profile"
    profile.mkdir(parents=True)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to run as root with it
    with (folder / "chromium.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "chromium", *_FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank",
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
    try:
        port_file = profile / "DevToolsActivePort"
        await eventually(
            lambda: port_file.exists() and "\n" in port_file.read_text(), timeout_seconds=START_SECONDS_MAX,
            what="Chromium listens",
        )  # fmt: skip
        url = f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}"
        async with aiohttp.ClientSession() as session:
            yield Browser(session, url, process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS_MAX):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
