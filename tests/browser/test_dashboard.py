"""`mlade dashboard`, in a browser, beside a real broker and real processors.

Needs Chromium; without one the tests fail and say how to get it.
"""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests import plant
from tests.browser.conftest import Dashboard
from tests.running import ProcessorFactory


def test_every_processor_on_the_broker_is_found(
    make_processor: ProcessorFactory,
    start_dashboard: Callable[..., Dashboard],
    open_page: Callable[[str], Page],
) -> None:
    """By its topics, before and after the dashboard has come; offline, it says so in a sentence."""
    processor = make_processor(**plant.configuration(make_processor.directory, "plant/fleet"))
    processor.start()
    page = open_page(start_dashboard().url)
    name = str(processor.configuration["id"])
    row = page.locator(f"[data-processor={name}]")
    expect(row).to_have_class("well")
    processor.kill()
    expect(row).to_have_class("broken")
    expect(row).to_contain_text("Offline, last heard")
