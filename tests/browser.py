"""A real Chromium for tests: opens a page, presses keys, clicks, asks. Without one, tests are skipped with a word."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websocket import WebSocket, create_connection

from reproduce import pdf

CHROMIUM = pdf.browser()
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: pages cannot be tried here")
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38, "Tab": 9, "Enter": 13, " ": 32, "End": 35}


class Page:
    """One tab, spoken to by Chromium's own protocol."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket, self._number = socket, 0
        self.heard: list[str] = []
        """What the page wrote to the console as an error, and what it threw."""
        self.asked: list[str] = []
        """Addresses that it asked for, but for the files and data that it has."""

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.heard.append(str(params["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.heard.append(str(params["args"]))
        elif event.get("method") == "Network.requestWillBeSent":
            self.asked += [url for url in [params["request"]["url"]] if not url.startswith(("file:", "data:"))]

    def open(self, address: str) -> None:
        """Load a page and wait until it is there."""
        self("Page.navigate", url=address)
        for _ in range(600):
            if self.ask("document.readyState + (location.href !== 'about:blank')") == "completetrue":
                return
            time.sleep(0.1)
        raise TimeoutError(f"{address} was not there after a minute")

    def ask(self, expression: str) -> Any:
        """Return what an expression of JavaScript gives."""
        result = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key, where the focus is."""
        text = {"Enter": "\r", " ": " "}.get(key)
        about = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        more = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self("Input.dispatchKeyEvent", **about, **more)
        self("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, expression: str, *, across: float = 0.5) -> None:
        """Click on the element that an expression gives, at a share of its width."""
        middle = f"const e = {expression}; e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
        box = self.ask(f"(() => {{ {middle} return [b.left, b.top, b.width, b.height]; }})()")
        at = {"x": box[0] + across * box[2], "y": box[1] + box[3] / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, **at)

    def size(self, width: int, height: int) -> None:
        """Show the page as on a screen of a size."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """Start a headless Chromium with a profile of its own in a folder, and end it."""
    profile = folder / "profile"
    command = [str(CHROMIUM), "--headless=new", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0",
               "--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
    if os.geteuid() == 0:
        command.insert(1, "--no-sandbox")  # root, as in a container, cannot have the sandbox
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        page = Page(create_connection(_address(profile, process), timeout=60, suppress_origin=True))
        for domain in ("Page", "Runtime", "Network"):
            page(f"{domain}.enable")
        yield page
    finally:
        process.terminate()
        process.wait(30)


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Return the address of the first tab, once the browser has told its port."""
    import urllib.request

    told = profile / "DevToolsActivePort"
    for _ in range(600):
        if told.exists() and len(told.read_text().splitlines()) == 2:
            port = told.read_text().splitlines()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        assert process.poll() is None, "Chromium ended before it was asked anything"
        time.sleep(0.1)
    raise TimeoutError("Chromium did not open its port in a minute")
