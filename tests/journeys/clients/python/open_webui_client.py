"""Open WebUI: a person asks in Chromium, and reads the answer as it comes."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from playwright.async_api import Page, async_playwright
from steps import URL, run_async

#: Seconds until the server answers; it imports and migrates for a minute or two.
START_TIMEOUT = 300

ANSWER = "w0 w1 w2"
SETTINGS = {
    "WEBUI_AUTH": "False",
    "WEBUI_SECRET_KEY": "only for this test",
    "ENABLE_OLLAMA_API": "False",
    "ENABLE_VERSION_UPDATE_CHECK": "False",
    # Otherwise it loads an embedding model over the network.
    "RAG_EMBEDDING_ENGINE": "openai",
    "OFFLINE_MODE": "True",
}


@contextmanager
def open_webui() -> Iterator[str]:
    """Run the server, with a folder of its own, and yield its address."""
    program, port = Path(sys.executable).parent / "open-webui", free_port()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        settings = {**os.environ, **SETTINGS, "DATA_DIR": folder, "OPENAI_API_BASE_URL": URL}
        command = [str(program), "serve", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, cwd=folder, env=settings, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_healthy(server, address)
            yield address
        finally:
            server.terminate()
            server.wait()


def free_port() -> int:
    """Return a port that is free at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_healthy(server: subprocess.Popen[bytes], address: str) -> None:
    """Wait until the server answers. Raises AssertionError when it has ended, and TimeoutError."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    raise TimeoutError(f"the server does not answer after {START_TIMEOUT} s")


@asynccontextmanager
async def browser_page(address: str) -> AsyncIterator[Page]:
    """Open the address in Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = await browser.new_page()
        page.set_default_timeout(60_000)
        await page.goto(address)
        await page.get_by_text("Okay, Let's Go!").click()  # news of the version
        yield page
        await browser.close()


async def ask(page: Page, question: str, answers: int) -> None:
    """Type a question, and wait for this number of answers."""
    await page.locator("#chat-input").click()
    await page.keyboard.type(question)
    await page.keyboard.press("Enter")
    await page.get_by_text(ANSWER).nth(answers - 1).wait_for()


async def main() -> None:
    """Run the steps in one page."""
    with open_webui() as address:
        async with browser_page(address) as page:

            async def stream() -> None:
                await ask(page, "Tell me a story", 1)

            async def conversation() -> None:
                await ask(page, "And another one", 2)
                await page.reload()
                await page.get_by_text(ANSWER).nth(1).wait_for()

            await run_async(stream, conversation)


if __name__ == "__main__":
    asyncio.run(main())
