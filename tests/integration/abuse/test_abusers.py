"""Those who send too much, those with the wrong key, and those who change what they were given."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from conftest_abuse import READ_KEY, WRITE_KEY, Siege
from fakes.memory_log import MemoryLog
from patience import PATIENCE

from services.ingest.main import build
from services.ingest.settings import IngestSettings
from shared.clock import SystemClock
from shared.runtime import Runtime
from shared.security import hash_key


def orders(count: int, **traits: object) -> list[dict[str, object]]:
    return [
        {
            "type": "track",
            "userId": "ada",
            "event": "Order Completed",
            "messageId": f"o{n}",
            "properties": {"total": 20 + n % 50, "currency": "EUR", "cart_id": f"c{n}", "products": [{"name": "Lamp"}]},
            "traits": traits,
        }
        for n in range(count)
    ]


async def profile_of(siege: Siege, key: str) -> dict[str, object]:
    answer = await siege.http.get(f"/segmenter/v1/customers/{key}", auth=(READ_KEY, ""))
    assert answer.status_code == 200
    found: dict[str, object] = answer.json()
    return found


async def test_a_customer_of_very_many_events_costs_no_more_than_others(siege: Siege) -> None:
    calls = orders(5_000)
    for start in range(0, len(calls), 1000):
        assert (await siege.post(calls[start : start + 1000])).json()["accepted"] == 1000
    await siege.settled()
    assert await siege.letters() == []
    async with siege.house.database.connect() as connection:
        assert await connection.fetchval("SELECT count(*) FROM segmenter.history WHERE source = 'shop'") == 5_000
        # What is remembered is bounded: amounts and buckets, not events.
        assert await connection.fetchval("SELECT max(length(state)) FROM segmenter.profiles") < 32_000
    assert (await profile_of(siege, "ada"))["stage"] == "delight"


async def test_a_customer_of_very_many_carts_holds_up_nobody(siege: Siege) -> None:
    calls = [{**call, "event": "Anything"} for call in orders(1_000)]
    assert (await siege.post(calls)).json()["accepted"] == 1000
    await siege.settled()
    assert await siege.letters() == []
    answer = await siege.http.get("/journeys/v1/customers/ada/enrollments", auth=(READ_KEY, ""))
    inside = [one for one in answer.json()["enrollments"] if one["status"] != "ended"]
    assert len(inside) == 100


async def test_a_profile_grows_to_its_limit_and_keeps_what_it_has(siege: Siege) -> None:
    traits = [{f"t{n}": "x" * 30_000} for n in range(20)]
    calls = [{"type": "identify", "userId": "ada", "messageId": f"i{n}", "traits": t} for n, t in enumerate(traits)]
    for call in calls:
        assert (await siege.post([call])).json()["accepted"] == 1
    assert (await siege.post(orders(1, email="ada@example.com"))).json()["accepted"] == 1
    await siege.settled()
    letters = await siege.letters()
    assert {(service, code) for service, code, _, _ in letters} == {("segmenter", "profile_too_large")}
    known = await profile_of(siege, "ada")
    assert len(known["traits"]) + len(letters) == len(traits) + 1  # type: ignore[arg-type]
    # The customer's orders go on to count.
    assert known["stage"] == "retain"
    assert known["address"] == "ada@example.com"


async def test_a_write_key_reads_nothing_and_a_read_key_writes_nothing(siege: Siege) -> None:
    await siege.post(orders(1))
    await siege.settled()
    for path in (
        "/segmenter/v1/customers/ada",
        "/segmenter/v1/parts/ada?since=2020-01-01T00:00:00Z",
        "/journeys/v1/journeys",
        "/journeys/v1/customers/ada/enrollments",
        "/journeys/v1/customers/ada/story",
        "/mailer/v1/parts/ada?since=2020-01-01T00:00:00Z",
    ):
        for auth, status in (((WRITE_KEY, ""), 403), ((WRITE_KEY, READ_KEY), 403), (("", READ_KEY), 401), (None, 401)):
            answer = await siege.http.get(path, auth=auth)
            assert (answer.status_code, "ada" in answer.text) == (status, False)
        bearer = await siege.http.get(path, headers={"Authorization": f"Bearer {hash_key(READ_KEY)}"})
        assert bearer.status_code == 403
    for wrong in (READ_KEY, hash_key(WRITE_KEY), WRITE_KEY + "\0", WRITE_KEY.upper()):
        answer = await siege.http.post("/v1/batch", json={"batch": orders(1)}, auth=(wrong, ""))
        assert (answer.status_code, answer.json()["code"]) == (401, "unknown_key")


@pytest.mark.parametrize("path", ["/docs/", "/mailer/inbox/", "/segmenter/docs/"])
async def test_nobody_is_led_to_the_host_that_a_request_names(siege: Siege, path: str) -> None:
    answer = await siege.http.get(path, headers={"Host": "evil.example"})
    assert (answer.status_code, answer.headers.get("location")) == (404, None)


FOR_EVERYBODY = re.compile("/(docs|openapi.json|healthz|readyz|metrics|[cou]/{token}|inbox(/.*)?)")
"""What asks for no key: what operators and developers read, the links of mails, and the mails of a trial."""


async def test_whatever_else_can_be_read_asks_for_a_read_key(siege: Siege) -> None:
    asked = set()
    for name in ("segmenter", "journeys", "mailer"):
        for route in siege.house.services[name].app.routes:
            if FOR_EVERYBODY.fullmatch(route.path):
                continue
            path = f"/{name}{re.sub('{.*?}', 'ada', route.path)}?since=2020-01-01T00:00:00Z"
            asked.add(path)
            for auth, status in ((None, 401), ((WRITE_KEY, ""), 403)):
                answer = await siege.http.request(next(iter(route.methods)), path, auth=auth)
                assert answer.status_code == status, path
    assert len(asked) >= 6


async def test_a_key_that_is_revoked_while_in_use_is_refused_from_then_on(tmp_path: Path) -> None:
    def file_of(*keys: str) -> str:
        return "\n".join(["sources:", *(f"  - {{name: {key}, keys: [{hash_key(key)}]}}" for key in keys)])

    path = tmp_path / "sources.yaml"
    path.write_text(file_of("shop", "web"))
    log = MemoryLog()
    settings = IngestSettings.read(ingest_sources=path)
    service = build(Runtime(log, SystemClock(), None), settings)
    await service.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://ingest") as http:

        async def post(key: str) -> int:
            call = {"userId": "ada", "event": "Order Completed"}
            return (await http.post("/v1/track", json=call, auth=(key, ""))).status_code

        assert [await post("shop"), await post("web")] == [200, 200]
        path.write_text(file_of("shop"))
        async with asyncio.timeout(PATIENCE):
            while await post("web") == 200:
                await asyncio.sleep(0.05)
        assert [await post("shop"), await post("web")] == [200, 401]
    await service.stop()


@pytest.mark.parametrize(
    "request_line", [b"GET /\xff\xfe HTTP/1.1", b"GET /v1/track\0 HTTP/1.1", b"\x16\x03\x01\x02\x00"]
)
async def test_what_is_no_http_is_refused_by_the_server(siege: Siege, request_line: bytes) -> None:
    host, port = siege.house.address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request_line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"Traceback" not in answer
    assert (await siege.http.get("/healthz")).status_code == 200
