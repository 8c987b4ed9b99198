"""A headless Chromium for OHIF: Debian's own, driven by playwright; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flrplan.errors import ServiceError

if TYPE_CHECKING:
    from playwright.sync_api import Page

WINDOW = {"width": 1600, "height": 760}
CHROMIUM_FLAGS = (
    "--use-angle=swiftshader",  # OHIF draws with WebGL, and there may be no GPU
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> Path:
    """The browser. Raises: ServiceError that says how to install it."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise ServiceError(
            "Chromium is not installed; on Debian: apt-get install --no-install-recommends chromium. "
            "Without --drive the demo needs no Chromium: open the printed address in any browser"
        )
    return Path(found)


def require_playwright() -> None:
    """Raises: ServiceError that says how to install playwright, which drives the browser."""
    try:
        import playwright.sync_api  # noqa: F401  # optional: only the driven demo needs it
    except ImportError as error:
        raise ServiceError(
            f"playwright, which drives the browser, cannot be imported ({error}); run make install, or "
            "pip install 'flrplan[ohif]' (its own browsers are not needed)"
        ) from error


@contextmanager
def open_page() -> Iterator[Page]:
    """A page of a fresh browser, closed with the block. Raises: ServiceError where a part is missing or does not start."""
    chromium = find_chromium()
    require_playwright()
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            # Chromium has no sandbox for root.
            browser = playwright.chromium.launch(
                executable_path=chromium, args=CHROMIUM_FLAGS, chromium_sandbox=os.geteuid() != 0
            )
        except Error as error:
            raise ServiceError(f"{chromium} does not start: {error.message.strip()[:1000]}") from error
        try:
            yield browser.new_page(viewport={"width": WINDOW["width"], "height": WINDOW["height"]})
        finally:
            browser.close()
