"""A real browser, controlled by the DevTools protocol through a pipe, without a driver or a package."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE_S = 60
# The browser reads and writes file descriptors 3 and 4; the pipe's may have the same numbers, so they move first.
AS_3_AND_4 = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, number in zip(ends, (3, 4)):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
# The text of a page, shadow roots included.
SHOWN = """(() => {
  const of = node => [...node.childNodes].map(child =>
    child.nodeType == 3 ? child.data : ["STYLE", "SCRIPT", "TEMPLATE"].includes(child.nodeName) ? "" :
    of(child.shadowRoot || child) + (child.shadowRoot ? of(child) : "") + "\\n").join("")
  return document.body ? of(document.body) : ""
})()"""
# The size of each image, [width, height].
IMAGES = """(() => {
  const of = node => [...node.querySelectorAll("*")].flatMap(child =>
    [...(child.tagName == "IMG" && child.naturalWidth ? [[child.naturalWidth, child.naturalHeight]] : []),
     ...(child.shadowRoot ? of(child.shadowRoot) : [])])
  return of(document)
})()"""


class Page:
    """A page of a browser; `errors` come from its console and scripts, `requests` are what it asks for."""

    def __init__(self, commands: IO[bytes], replies: IO[bytes]) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._commands, self._replies = commands, replies
        self._number, self._session, self._read = 0, "", b""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Return the browser's answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._commands.write(json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode())
        self._commands.write(b"\0")
        self._commands.flush()
        while (reply := self._next()).get("id") != self._number:
            self._note(reply)
        assert "error" not in reply, reply
        return reply["result"]

    def run(self, script: str) -> Any:
        """Return the value of a script."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait_for(self, script: str, of: str = "") -> Any:
        """Return the value of a script once it is true, or holds the text `of`."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            value = self.run(script)
            if (of in value) if of else value:
                return value
            time.sleep(0.2)
        raise AssertionError(f"After {PATIENCE_S} s there is no {of or script}, but {value}")

    def choose_file(self, selector: str, file: Path) -> None:
        """Choose a file in an input field."""
        self.wait_for(f"document.querySelector({selector!r}) != null")
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def click(self, text: str) -> None:
        """Click on the button with a text, once it is there."""
        found = f"[...document.querySelectorAll('button')].filter(one => one.textContent.trim() == {text!r}).at(-1)"
        self.wait_for(f"{found} != null")
        self.run(f"{found}.click()")

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            more = os.read(self._replies.fileno(), 1 << 16)
            assert more, "the browser has gone"
            self._read += more
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        is_error = {
            "Runtime.exceptionThrown": True,
            "Runtime.consoleAPICalled": about.get("type") in ("error", "assert"),
            "Log.entryAdded": about.get("entry", {}).get("level") == "error",
        }
        if is_error.get(event.get("method", "")):
            self.errors.append(json.dumps(about)[:1000])


def find_chromium() -> str | None:
    """Return the path of a browser, or None."""
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)


@contextmanager
def open_page(chromium: str, folder: Path, *more_flags: str) -> Iterator[Page]:
    """Yield an empty page; the browser's profile is in `folder`, and it ends with the context."""
    (there, commands), (replies, back) = os.pipe(), os.pipe()
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1600,1200")
    browser = [chromium, *flags, *more_flags, f"--user-data-dir={folder}", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        [sys.executable, "-c", AS_3_AND_4, str(there), str(back), *browser],
        pass_fds=(there, back),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in (there, back):
        os.close(end)
    try:
        with os.fdopen(commands, "wb") as written, os.fdopen(replies, "rb") as read:
            page = Page(written, read)
            yield page
            page.ask("Browser.close")
            process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
