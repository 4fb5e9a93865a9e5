"""The local inbox in a real browser: what was sent, in every form, and what was not sent, and why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from house import MINUTE_A_SECOND, House, a_house, added, identify
from patience import PATIENCE, until
from playwright.async_api import Locator, Page, async_playwright, expect

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHROMIUM = "/usr/bin/chromium"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Mails are kept here. A minute passes in a second, so that what is held overnight stays held for a while."""
    async with a_house("--smtp", "inbox://", speed=MINUTE_A_SECOND, quiet_hours=True) as house:
        journey = house.playbook / "journeys" / "abandoned-cart.yaml"
        assert "wait: 1h" in journey.read_text()
        journey.write_text(journey.read_text().replace("wait: 1h", "wait: 1m"))
        await house.start()
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        yield page
        await browser.close()


def zone_at(hour: int) -> str:
    """A timezone where it is about this hour of the day now."""
    return f"Etc/GMT{(datetime.now(UTC).hour - hour + 12) % 24 - 12:+d}"


async def appears(page: Page, address: str, selector: str) -> Locator:
    """Open the page anew until it has this."""
    found = page.locator(selector)

    async def shown() -> bool:
        await page.goto(address)
        return await found.count() > 0

    await until(shown, what=f"{selector} on {address}")
    return found


async def test_a_mail_can_be_read_as_it_looks_as_text_and_with_its_headers(house: House, page: Page) -> None:
    await house.post(identify("ann", timezone=zone_at(12)), added("ann", "cart-ann", "Reading lamp"))
    row = await appears(page, f"{house.address}/mailer/inbox", "a.row:has-text('ann@example.com')")
    await row.click()
    mail = page.frame_locator("iframe")
    await expect(mail.get_by_role("rowheader", name="Reading lamp")).to_be_visible()
    cart = mail.get_by_role("link", name="cart").first
    assert "/mailer/c/" in (await cart.get_attribute("href") or "")
    await page.get_by_role("link", name="Text", exact=True).click()
    await expect(page.locator("pre")).to_contain_text("Dear Ann,")
    await expect(page.locator("pre")).to_contain_text("Cart number: cart-ann")
    await page.get_by_role("link", name="Headers").click()
    headers = page.locator("dl.facts").last
    for words in ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click", "Feedback-ID", "multipart/alternative"):
        await expect(headers).to_contain_text(words)
    await page.get_by_role("link", name="On a phone").click()
    width = await page.locator("iframe").evaluate("frame => frame.clientWidth")
    assert 300 <= width <= 430


async def test_what_was_not_sent_says_why(house: House, page: Page) -> None:
    await house.post(identify("owl", timezone=zone_at(23)), added("owl", "cart-owl"))
    await house.post(identify("shy", consent={}, timezone=zone_at(12)), added("shy", "cart-shy"))
    decisions = f"{house.address}/mailer/inbox/decisions"
    held = await appears(page, f"{decisions}?customer=owl", "li.item:has-text('held')")
    await expect(held).to_contain_text("quiet hours where the customer is")
    await held.get_by_text("The story").click()
    await expect(held).to_contain_text("quiet_hours until")
    skipped = await appears(page, f"{decisions}?customer=shy", "li.item:has-text('skipped')")
    await expect(skipped).to_contain_text("never subscribed to this topic")
    await expect(skipped).to_contain_text("abandoned-cart / cart-reminder")


async def test_the_page_behind_an_unsubscribe_link_asks_and_a_button_decides(house: House, page: Page) -> None:
    await house.post(identify("eva", timezone=zone_at(12)), added("eva", "cart-eva"))
    row = await appears(page, f"{house.address}/mailer/inbox", "a.row:has-text('eva@example.com')")
    await row.click()
    link = page.frame_locator("iframe").get_by_role("link", name="Unsubscribe")
    await page.goto(await link.first.get_attribute("href") or "")
    await expect(page.get_by_role("heading", name="Stop these mails?")).to_be_visible()
    await page.get_by_role("button", name="Unsubscribe", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("Cart reminders")

    async def gone() -> bool:
        customer = await house.customer("eva")
        return customer is not None and customer["consent"]["cart-reminders"] is False

    await until(gone, what="the decision on the profile")
