"""Headless Chromium by its debugging pipe: enough to test a page, without a driver."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)

SWITCHES = (  # it runs as root too, has no GPU, and makes no network requests of its own
    *("no-sandbox", "disable-gpu", "disable-dev-shm-usage", "mute-audio", "no-first-run", "disable-quic"),
    *("autoplay-policy=no-user-gesture-required", "disable-background-networking", "disable-component-update"),
    "disable-sync",
)


class Browser:
    """One page; collects what the console and the network saw. A context manager."""

    def __init__(self, profile: Path, width: int = 1100, height: int = 900, phone: bool = False, switches=()) -> None:
        to_browser, self.writer = os.pipe()
        self.reader, from_browser = os.pipe()

        def pipes() -> None:  # Chromium reads file descriptor 3 and writes 4
            ours, theirs = os.dup(to_browser), os.dup(from_browser)
            os.dup2(ours, 3)
            os.dup2(theirs, 4)

        command = [CHROMIUM, "--headless=new", *(f"--{name}" for name in (*SWITCHES, *switches))]
        command += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(
            command, preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.count, self.events, self.session = b"", 0, [], None
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        os.close(self.writer)
        os.close(self.reader)

    def _receive(self) -> dict:
        while b"\0" not in self.buffer:
            piece = os.read(self.reader, 1 << 20)
            assert piece, "the browser has gone"
            self.buffer += piece
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method: str, **parameters) -> dict:
        self.count += 1
        number = self.count
        request = {"id": number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        data = json.dumps(request).encode() + b"\0"
        while data:
            data = data[os.write(self.writer, data) :]
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            self.events.append(message)

    def open(self, path: Path) -> None:
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def run(self, expression: str):
        """The value of a JavaScript expression; promises are awaited."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, condition: str, seconds: float = 30) -> None:
        """Waits until a JavaScript expression is true."""
        wait = f"""new Promise(done => {{
            const end = performance.now() + {1000 * seconds};
            const timer = setInterval(() => {{
                const now = Boolean({condition});
                if (now || performance.now() > end) {{ clearInterval(timer); done(now); }}
            }}, 10);
        }})"""
        assert self.run(wait), f"not so within {seconds} s: {condition}"

    def choose(self, selector: str, *files: Path) -> None:
        """Files for an <input type=file>, as if somebody had chosen them."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def press(self, key: str) -> None:
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and uncaught exceptions."""
        bad = []
        for event in self.events:
            method, found = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                bad.append(json.dumps(found["exceptionDetails"]))
            if method == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning", "assert"):
                bad.append(json.dumps(found["args"]))
            if method == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
                bad.append(found["entry"]["text"])
        return bad

    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def picture(self, path: Path, whole: bool = False) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
