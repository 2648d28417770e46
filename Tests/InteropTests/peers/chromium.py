"""Chromium without a window, driven over standard input: see runtime.py for the form of commands.

It is told what to do by the DevTools protocol over two pipes, its descriptors 3 and 4, so that Python needs no package. It
reaches this machine only, and ends with its pipes, whatever becomes of this process.
"""

import asyncio
import base64
import fcntl
import json
import os
import pathlib

from runtime import run

# Nothing but what a page asks for: no updates, lists, suggestions, sign-ins or captive portals.
QUIET = [
    "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-breakpad",
    "--disable-domain-reliability", "--disable-client-side-phishing-detection", "--no-first-run", "--no-pings",
    "--no-proxy-server", "--no-default-browser-check", "--metrics-recording-only", "--mute-audio", "--hide-scrollbars",
    "--disable-features=Translate,OptimizationHints,MediaRouter,HttpsUpgrades",
    "--host-resolver-rules=MAP localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip


class Browser:
    """A browser process, and the DevTools protocol with it."""

    def __init__(self, arguments):
        read_commands, self.write = [self._high(fd) for fd in os.pipe()]
        self.read, write_answers = [self._high(fd) for fd in os.pipe()]
        descriptors = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, read_commands, 3),
            (os.POSIX_SPAWN_DUP2, write_answers, 4),
        ]
        if not os.environ.get("LONGLINE_PEER_LOG"):
            descriptors.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
        self.pid = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=descriptors, setpgroup=0)
        os.close(read_commands)
        os.close(write_answers)
        self.unread = bytearray()
        self.last = 0
        self.waiting = {}
        self.pages = {}
        self.ended = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(self.read, self._readable)

    @staticmethod
    def _high(descriptor):
        """The same beyond 3 and 4, which the browser's take."""
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
        os.close(descriptor)
        return high

    def _readable(self):
        data = os.read(self.read, 1 << 20)
        if not data:
            asyncio.get_running_loop().remove_reader(self.read)
            for future in self.waiting.values():
                future.set_exception(ConnectionError("Chromium has ended"))
            self.waiting = {}
            self.ended.set_result(True)
            return
        self.unread += data
        *messages, self.unread = self.unread.split(b"\0")
        for message in messages:
            self._received(json.loads(message))

    def _received(self, message):
        future = self.waiting.pop(message.get("id"), None)
        if future is not None and not future.done():
            if "error" in message:
                future.set_exception(RuntimeError(json.dumps(message["error"])))
            else:
                future.set_result(message["result"])
        page = self.pages.get(message.get("sessionId"))
        if page is not None and "method" in message:
            page.happened(message["method"], message["params"])

    async def call(self, method, session=None, **parameters):
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self.waiting[self.last] = future = asyncio.get_running_loop().create_future()
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.write, data) :]
        return await future

    async def open(self, name):
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, attached["sessionId"])
        self.pages[page.session] = self.pages[name] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.call(f"{domain}.enable")
        return page

    async def close(self):
        await self.call("Browser.close")
        await self.ended
        await asyncio.to_thread(os.waitpid, self.pid, 0)


class Page:
    """A tab, and what went wrong in it."""

    def __init__(self, browser, session):
        self.browser = browser
        self.session = session
        self.loaded = asyncio.Event()
        self.problems = []
        self.responses = []
        self.urls = {}

    async def call(self, method, **parameters):
        return await self.browser.call(method, session=self.session, **parameters)

    def happened(self, method, event):
        if method == "Page.loadEventFired":
            self.loaded.set()
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.problems.append("exception: " + details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "assert", "warning"):
            self.problems.append(f"console: {event['type']}: {event['args']}")
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"log: {event['entry']['text']} {event['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.urls[event["requestId"]] = event["request"]["url"]
        elif method == "Network.responseReceived":
            response = event["response"]
            self.responses.append(
                {"url": response["url"], "status": response["status"], "protocol": response.get("protocol", "")}
            )
            if response["status"] >= 400:
                self.problems.append(f"status {response['status']}: {response['url']}")
        elif method == "Network.loadingFailed":
            self.problems.append(f"failed: {event['errorText']}: {self.urls.get(event['requestId'])}")

    async def evaluate(self, expression):
        answer = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")


browser = None


async def start(command):
    """Begins. `keys`: SHA-256 of public keys to trust, in base64. `quic`: places that are asked over QUIC alone."""
    global browser
    arguments = [command["program"], *QUIET, "--remote-debugging-pipe", f"--user-data-dir={command['folder']}"]
    arguments.append("--ignore-certificate-errors-spki-list=" + ",".join(command["keys"]))
    if command.get("quic"):
        arguments += ["--enable-quic", "--origin-to-force-quic-on=" + ",".join(command["quic"])]
    if os.getuid() == 0:
        arguments.append("--no-sandbox")
    browser = Browser(arguments)
    version = await browser.call("Browser.getVersion")
    return {"version": version["product"]}


async def open_page(command):
    """Opens a page in a tab of its own, and waits until it is loaded."""
    page = await browser.open(command["page"])
    if "width" in command:
        await page.call(
            "Emulation.setDeviceMetricsOverride",
            width=command["width"], height=command["height"], deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
    went = await page.call("Page.navigate", url=command["url"])
    if went.get("errorText"):
        raise ConnectionError(went["errorText"])
    await page.loaded.wait()


async def evaluate(command):
    return {"value": await browser.pages[command["page"]].evaluate(command["expression"])}


async def until(command):
    """Waits until an expression is true in the page."""
    while not await browser.pages[command["page"]].evaluate(command["expression"]):
        await asyncio.sleep(0.02)


async def seen(command):
    """What came over the network, and what went wrong, so far."""
    page = browser.pages[command["page"]]
    return {"responses": page.responses, "problems": page.problems}


async def screenshot(command):
    page = browser.pages[command["page"]]
    scheme = {"name": "prefers-color-scheme", "value": "dark" if command.get("dark") else "light"}
    await page.call("Emulation.setEmulatedMedia", features=[scheme])
    shot = await page.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)
    pathlib.Path(command["path"]).write_bytes(base64.b64decode(shot["data"]))


async def close(command):
    await browser.close()


if __name__ == "__main__":
    run(
        {
            "start": start, "open": open_page, "evaluate": evaluate, "until": until, "seen": seen,
            "screenshot": screenshot, "close": close,
        }
    )  # fmt: skip
