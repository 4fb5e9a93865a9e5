"""What is documented is what is done."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import msgspec
from fastapi import FastAPI

from services.ingest.api import ROUTES
from services.ingest.calls import BATCH, CALLS, COMMON, NAMES, Call
from services.ingest.documentation import document, paths
from services.ingest.refusals import REASONS

DOCUMENT = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text()


def test_the_document_lists_every_code_as_it_is() -> None:
    table = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (.+) \|$", DOCUMENT, re.MULTILINE)
    assert table == [(str(reason.status), code, reason.meaning) for code, reason in REASONS.items()]


def test_the_document_lists_every_call_and_its_letter() -> None:
    table = re.findall(r"^\| `POST (/v1/\w+)` \| `(/v1/\w)` \| (.*?) ?\|", DOCUMENT, re.MULTILINE)
    assert {(path, short) for path, short, _ in table} == {
        (f"/v1/{name}", f"/v1/{letter}") for name, letter in (BATCH, *((c.type, c.letter) for c in CALLS))
    }
    required = {path: set(re.findall(r"`(\w+)`", fields)) for path, _, fields in table}
    for call in CALLS:
        assert required[f"/v1/{call.type}"] == {NAMES[field] for field in call.required}


def test_openapi_names_exactly_the_paths_that_are_taken() -> None:
    assert set(paths()) == {path for path in ROUTES if not path.endswith("/")}


def test_every_example_fits_its_schema() -> None:
    app = FastAPI()
    document(app)
    schema = app.openapi()
    for path, operations in schema["paths"].items():
        content = operations["post"]["requestBody"]["content"]["application/json"]
        jsonschema.validate(content["example"], {**content["schema"], "components": schema["components"]})
        assert path in ROUTES


def test_every_field_that_a_call_names_exists() -> None:
    fields = {field.name for field in msgspec.structs.fields(Call)}
    for call in CALLS:
        assert {*call.required, *call.carries, *COMMON} <= fields
