"""The page at `/docs` works in a closed network, and whatever stands in a description stays text."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from services.ingest.documentation import document, paths
from services.journeys.api import create as journeys
from services.journeys.settings import JourneysSettings
from services.segmenter.api import create as segmenter
from shared.clock import SystemClock
from shared.http import face
from shared.reference import reference_page


async def nothing() -> list[str]:
    return []


def ingest() -> FastAPI:
    app = face("Ingest", "Takes events.", nothing)
    document(app)
    return app


def described() -> dict[str, dict[str, Any]]:
    """What each service says of itself. Nothing is asked of it, so it needs neither a database nor playbooks."""
    asked_nothing: Any = None
    apps = {
        "ingest": ingest(),
        "journeys": journeys(asked_nothing, asked_nothing, SystemClock(), 12, JourneysSettings(), nothing),
        "segmenter": segmenter(asked_nothing, asked_nothing, 12, "", nothing),
    }
    return {name: app.openapi() for name, app in apps.items()}


@pytest.mark.parametrize("service", ["ingest", "journeys", "segmenter"])
def test_every_field_of_an_answer_is_described(service: str) -> None:
    schemas = described()[service]["components"]["schemas"]
    own = {name: schema for name, schema in schemas.items() if name not in ("HTTPValidationError", "ValidationError")}
    assert own
    silent = [
        f"{name}.{field}"
        for name, schema in own.items()
        for field, found in schema.get("properties", {}).items()
        if not found.get("description")
    ]
    assert not silent


@pytest.mark.parametrize("service", ["journeys", "segmenter"])
def test_what_takes_a_read_key_says_so(service: str) -> None:
    for path, operations in described()[service]["paths"].items():
        for operation in operations.values():
            assert (operation.get("security") == [{"readKey": []}]) is path.startswith("/v1/"), path


async def test_the_page_loads_nothing_and_runs_nothing() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(ingest()), base_url="http://rapport") as http:
        page = await http.get("/docs")
        linked = await http.get("/openapi.json")
    assert page.status_code == linked.status_code == 200
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"|url\(|@import|<script", page.text) == ["openapi.json"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in paths():
        assert f"POST {path}</h2>" in page.text


@pytest.mark.parametrize("service", ["ingest", "journeys", "segmenter"])
def test_the_page_says_what_each_field_of_an_answer_means(service: str) -> None:
    page = reference_page(described()[service])
    fields = {"ingest": "accepted", "journeys": "goal_at", "segmenter": "stage_before"}
    (said,) = {found.strip() for found in re.findall(rf"<code>{fields[service]}</code></dt><dd>([^<]*)", page)}
    assert said


def test_what_is_described_stays_text() -> None:
    app = FastAPI(title="<script>alert(1)</script>", description="<img src=x>")

    @app.get("/x", description="<b>bold</b>")
    async def x() -> None:
        return

    page = reference_page(app.openapi())
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;b&gt;bold" in page
