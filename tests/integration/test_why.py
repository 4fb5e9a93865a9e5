"""`rapport why` and the story over HTTP, on the whole house."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from patience import PATIENCE

from services import embedded
from services.embedded import Embedded, Options

CART = {"product_id": "p1", "name": "Lamp", "price": 89, "cart_id": "c-1"}


@pytest.fixture
def data() -> Iterator[Path]:
    """Where the account that PostgreSQL runs as under root may enter."""
    with tempfile.TemporaryDirectory(prefix="rapport-test-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name) / "data"


class Reader:
    """Somebody with keys."""

    def __init__(self, running: Embedded, client: httpx.AsyncClient) -> None:
        self._running, self._client = running, client

    async def posts(self, *calls: dict[str, Any]) -> None:
        """At once: an hour passes in a second."""
        batch = [{"userId": "kari", **call} for call in calls]
        answer = await self._client.post("/v1/batch", json={"batch": batch}, auth=(self._running.write_key, ""))
        assert answer.status_code == 200, answer.text

    async def asks(self, customer: str, key: str | None = None, **query: str) -> httpx.Response:
        shown = self._running.read_key if key is None else key
        return await self._client.get(
            f"/journeys/v1/customers/{customer}/story", params=query, headers={"Authorization": f"Bearer {shown}"}
        )

    async def story(self, customer: str, until: str) -> dict[str, Any]:
        """The story, once `until` is told in it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = await self.asks(customer)
                if answer.status_code == 200 and any(until in told["text"] for told in answer.json()["entries"]):
                    found: dict[str, Any] = answer.json()
                    return found
                await asyncio.sleep(0.05)


def why(data: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "services", "why", *arguments, "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * PATIENCE)
    return done.stdout + done.stderr


async def test_the_story_of_a_customer_is_one_whoever_tells_it(data: Path) -> None:
    # Hours pass in a second, so that what waits for two hours is soon told to the end.
    async with (
        embedded.running(Options(data, port=0, clock_speed=3600)) as running,
        httpx.AsyncClient(base_url=running.address, timeout=PATIENCE) as client,
    ):
        reader = Reader(running, client)
        order = {"order_id": "o-1", "total": 89, "currency": "EUR"}
        await reader.posts(
            {"type": "identify", "traits": {"first_name": "Kari", "timezone": "Europe/Oslo"}},
            {"type": "track", "event": "Product Added", "properties": CART},
            {"type": "track", "event": "Order Completed", "properties": order},
        )
        story = await reader.story("kari", until="not sent")

        told = [(one["by"], one["text"]) for one in story["entries"]]
        journeys = [text for by, text in told if by == "journeys"]
        assert ("segmenter", "is in stage convert (before: attract), by Product Added") in told
        assert "leaves: the goal is reached" in journeys
        assert 'count("Order Completed") == 1: yes' in journeys
        assert ("mailer", "thank-you-first: not sent: no address is known") in told
        waits = next(one for one in story["entries"] if one["what"] == "waits")
        assert waits["rule"]["file"] == "journeys/abandoned-cart.yaml"
        assert story["timezone"] == "Europe/Oslo"

        # Who holds no read key is told nothing, by journeys or by the services that it asks.
        assert (await reader.asks("kari", key=running.write_key)).status_code == 403
        part = f"/mailer/v1/parts/kari?since={story['since'].replace('+', '%2B')}"
        assert (await client.get(part, headers={"Authorization": f"Bearer {running.write_key}"})).status_code == 403
        assert (await reader.asks("nobody")).status_code == 404
        assert "Did you mean" in (await reader.asks("kari", message="birtday")).json()["message"]
        (birthday,) = [
            one["text"]
            for one in (await reader.asks("kari", message="birthday")).json()["answers"]
            if "birthday is" in one["text"]
        ]
        assert birthday == "the trait birthday is not known"

        printed, alone = await asyncio.gather(
            asyncio.to_thread(why, data, "kari"), asyncio.to_thread(why, data, "kari", "thank-you-first")
        )
    lines = [line.strip() for line in printed.splitlines()]
    for _, text in told:
        assert any(text in line for line in lines), printed
    assert "\x1b" not in printed
    assert alone.splitlines()[-1] == "What to do: Send the trait email with identify."
    assert "abandoned-cart" not in alone
