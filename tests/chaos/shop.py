"""A shop that never stops: customers come, look, fill baskets, order and leave, and each post is tried again and again.

What a customer does is drawn from a seed. It posts what shops post: duplicates, events that come late or out of turn,
bad ones among good ones, and ids that were used before.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.chaos.ledger import Ledger, Posted


class Shop:
    """`addresses` are those of ingest's workers."""

    def __init__(
        self,
        ledger: Ledger,
        addresses: Callable[[], Sequence[str]],
        write_key: str,
        seed: int,
        *,
        customers: int = 12,
    ) -> None:
        self.ledger = ledger
        self.did: Counter[str] = Counter()
        self._addresses = addresses
        self._random = random.Random(seed)
        self._at_once = customers
        self._http = httpx.AsyncClient(timeout=4, auth=(write_key, ""), limits=httpx.Limits(max_connections=200))
        self._number = 0
        self._events = 0
        self._turns = 0
        self._open = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Shop:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()

    def open(self) -> None:
        self._open.set()
        self._tasks = [asyncio.create_task(self._one_after_the_other()) for _ in range(self._at_once)]

    async def close(self) -> None:
        """Let those who are there finish, and nobody in."""
        self._open.clear()
        await asyncio.gather(*self._tasks)
        self._tasks = []

    def check(self) -> None:
        """Raises what a customer's life has died of."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def _one_after_the_other(self) -> None:
        while self._open.is_set():
            self._number += 1
            await self._life(f"c{self._number}", random.Random(self._random.random()))

    async def _life(self, customer: str, dice: random.Random) -> None:
        country = dice.choice(["NO", "SE", "DE", "FR"])
        traits = {"email": f"{customer}@chaos.example", "country": country}
        traits |= {"phone": f"+4740{int(customer[1:]):06}", "push_token": f"device-of-{customer}"}
        await self._post(customer, dice, self._event(customer, "identify", traits=traits))
        orders = baskets = 0
        for _ in range(dice.randint(1, 8)):
            what = dice.random()
            if what < 0.35:
                batch = [self._event(customer, "Product Viewed", product_id=str(dice.randint(1, 9)))]
                if dice.random() < 0.3:
                    # It was seen hours ago, on a telephone without a network; or between two others of this batch.
                    batch[0] |= _late(timedelta(hours=dice.randint(1, 12)))
                    self.did["late event"] += 1
                if dice.random() < 0.2:
                    batch.append(
                        self._event(customer, "Product Viewed", product_id="10") | _late(timedelta(minutes=30))
                    )
                    self.did["reordered events"] += 1
                await self._post(customer, dice, *batch)
            elif what < 0.5:
                await self._post(customer, dice, self._event(customer, "Product Added", product_id="1"))
            elif what < 0.75:
                orders += 1
                await self._post(customer, dice, self._order(customer, orders, dice))
            else:
                baskets += 1
                cart = f"{customer}-b{baskets}"
                await self._post(customer, dice, self._event(customer, "Basket Left", cart_id=cart))
                ordered = dice.random()
                if ordered < 0.6:
                    await asyncio.sleep(dice.uniform(0.2, 3.0) if ordered < 0.4 else dice.uniform(4.5, 9.0))
                    orders += 1
                    await self._post(customer, dice, self._order(customer, orders, dice, cart_id=cart))
            await asyncio.sleep(dice.uniform(0.05, 1.0))
        await self._post(customer, dice, self._event(customer, "Account Closed", closing=f"{customer}-closing"))
        if dice.random() < 0.5:
            await asyncio.sleep(dice.uniform(0.0, 2.0))
            said = self._event(customer, "Survey Answered", survey="farewell", score=dice.randint(0, 10))
            await self._post(customer, dice, said)

    def _turn(self) -> int:
        self._turns += 1
        return self._turns

    def _order(self, customer: str, number: int, dice: random.Random, **more: str) -> dict[str, Any]:
        properties = {"order_id": f"{customer}-o{number}", "total": dice.randint(1, 80), "currency": "EUR"}
        return self._event(customer, "Order Completed", **properties, **more)

    def _event(self, customer: str, name: str, **properties: Any) -> dict[str, Any]:
        self._events += 1
        said: dict[str, Any] = {"messageId": f"e{self._events}.", "userId": customer}
        if name == "identify":
            return said | {"type": "identify", **properties}
        return said | {"type": "track", "event": name, "properties": properties}

    async def _post(self, customer: str, dice: random.Random, *events: dict[str, Any]) -> None:
        """Until it is answered 200; or once, where the shop is one that does not try again."""
        for event in events:
            content = event["properties"] if event["type"] == "track" else event["traits"]
            name = event.get("event", "identify")
            self.ledger.posted[event["messageId"]] = Posted(
                event["messageId"], customer, name, content, time.time(), turn=self._turn()
            )
        batch = list(events)
        bad = None
        if dice.random() < 0.02:
            self._events += 1
            bad = f"e{self._events}."
            batch.append({"type": "track", "messageId": bad, "userId": "null", "event": "Product Viewed"})
        impatient = dice.random() < 0.02
        tries = 0
        while not await self._taken(batch, bad, dice):
            tries += 1
            if impatient and tries == 1:
                self.did["post given up"] += 1
                return
            await asyncio.sleep(min(1.0, 0.1 * tries))
        at = time.time()
        for event in events:
            self.ledger.posted[event["messageId"]].answered = at
        if bad is not None:
            self.ledger.refused.append(bad)
        self.did["posts answered"] += 1
        chance = dice.random()
        if chance < 0.1:
            self.did["duplicate"] += 1
            await self._taken(batch[: len(events)], None, dice)
        elif chance < 0.12 and events[0]["type"] == "track":
            self.did["id used again"] += 1
            self.ledger.reused.add(events[0]["messageId"])
            await self._taken([events[0] | {"properties": {"product_id": "another"}}], None, dice)

    async def _taken(self, batch: list[dict[str, Any]], bad: str | None, dice: random.Random) -> bool:
        address = dice.choice(self._addresses())
        sent = {"batch": batch, "sentAt": _iso(datetime.now(UTC))}
        try:
            answer = await self._http.post(f"{address}/v1/batch", json=sent)
        except httpx.TransportError:
            self.did["posts without an answer"] += 1
            return False
        if answer.status_code == 200:
            told = answer.json()
            assert [one["index"] for one in told["rejected"]] == ([len(batch) - 1] if bad else []), told
            return True
        assert answer.status_code in (503, 429), answer.text
        self.did["posts answered 503"] += 1
        return False


def _late(by: timedelta) -> dict[str, str]:
    return {"timestamp": _iso(datetime.now(UTC) - by)}


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
