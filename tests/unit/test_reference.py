"""The page at `/docs` works in a closed network, and whatever stands in a description stays text."""

from __future__ import annotations

import re

import httpx
from fastapi import FastAPI

from services.ingest.documentation import document, paths
from shared.http import face
from shared.reference import reference_page


async def nothing() -> list[str]:
    return []


async def test_the_page_loads_nothing_and_runs_nothing() -> None:
    app = face("Ingest", "Takes events.", nothing)
    document(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rapport") as http:
        page = await http.get("/docs")
        linked = await http.get("/openapi.json")
    assert page.status_code == linked.status_code == 200
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"|url\(|@import|<script", page.text) == ["openapi.json"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in paths():
        assert f"POST {path}</h2>" in page.text


def test_what_is_described_stays_text() -> None:
    app = FastAPI(title="<script>alert(1)</script>", description="<img src=x>")

    @app.get("/x", description="<b>bold</b>")
    async def x() -> None:
        return

    page = reference_page(app.openapi())
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;b&gt;bold" in page
