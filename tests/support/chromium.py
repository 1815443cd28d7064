"""A headless Chromium for tests and benchmarks of the page, wherever one is found."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell", "chromium-headless-shell")


class NoBrowserError(Exception):
    """There is no Chromium, or nothing to drive it; the message says what would help."""


def find() -> str | None:
    """Return the path of a Chromium: $CHROMIUM, else one on the PATH; None leaves it to playwright's own."""
    declared = os.environ.get("CHROMIUM")
    return declared or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched() -> Iterator[Any]:
    """Yield a running browser of playwright's.

    Raises:
        NoBrowserError: playwright is not installed, or there is no Chromium.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise NoBrowserError("playwright is not installed; `pip install playwright`") from None
    with sync_playwright() as playwright:
        path = find() or playwright.chromium.executable_path
        if not Path(path).is_file():
            raise NoBrowserError(
                "no Chromium: set $CHROMIUM, install one, or `playwright install chromium-headless-shell`"
            )
        # In a container there is no other sandbox to nest; the page is our own file.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
