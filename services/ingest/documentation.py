"""The pages at `/docs`: OpenAPI made from the definitions by which the calls are decoded."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.ingest.calls import BATCH, CALLS, COMMON, NAMES, TRACK, BatchCall, Call, Definition
from services.ingest.refusals import REASONS

_FIELDS = {field.name: msgspec.json.schema(field.type) for field in msgspec.structs.fields(Call)}
_BATCH_FIELDS = {field.encode_name: msgspec.json.schema(field.type) for field in msgspec.structs.fields(BatchCall)}

_CODE = {"enum": list(REASONS), "description": "Stable, for programs."}
_MESSAGE = {"type": "string", "description": "For people: what was wrong, where, and what to do."}
_ERROR = {
    "type": "object",
    "description": "Why nothing was taken.",
    "required": ["code", "message"],
    "properties": {"code": _CODE, "message": _MESSAGE},
}
_REJECTION = {
    "type": "object",
    "description": "Why one event of a batch was not taken.",
    "required": ["index", "code", "message"],
    "properties": {
        "index": {"type": "integer", "description": "Its place in `batch`, from 0 on."},
        "code": _CODE,
        "message": _MESSAGE,
    },
}
_TAKEN = {
    "type": "object",
    "description": "What was taken.",
    "required": ["success", "accepted", "rejected"],
    "properties": {
        "success": {"const": True, "description": "The log has what was accepted."},
        "accepted": {"type": "integer", "minimum": 0, "description": "How many events the log has."},
        "rejected": {
            "type": "array",
            "items": {"$ref": "#/components/schemas/Rejection"},
            "description": "The others, each with the reason.",
        },
    },
}


def document(app: FastAPI) -> None:
    """Add the calls, which FastAPI never sees, to the application's OpenAPI."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            schema["paths"] = {**paths(), **schema["paths"]}
            components = schema.setdefault("components", {})
            components["schemas"] = {**_schemas(), **components.get("schemas", {})}
            components["securitySchemes"] = {
                "writeKey": {"type": "http", "scheme": "basic", "description": "The write key as user, no password."}
            }
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def paths() -> dict[str, Any]:
    """Each call under its full name and under its letter."""
    batch = _operation("batch", "Many calls at once.", {"$ref": "#/components/schemas/batch"}, _batch_example())
    found = {f"/v1/{BATCH[0]}": batch}
    for call in CALLS:
        schema = {"$ref": f"#/components/schemas/{call.type}"}
        found[f"/v1/{call.type}"] = _operation(call.type, call.summary, schema, call.example)
    for name, letter in (BATCH, *((call.type, call.letter) for call in CALLS)):
        operation = found[f"/v1/{name}"]["post"]
        short = {**operation, "operationId": letter, "summary": f"Short for /v1/{name}."}
        found[f"/v1/{letter}"] = {"post": short}
    return found


def _schemas() -> dict[str, Any]:
    calls: dict[str, Any] = {call.type: _body(call) for call in CALLS}
    return {**calls, "batch": _batch_body(), "Taken": _TAKEN, "Rejection": _REJECTION, "Error": _ERROR}


def _body(call: Definition) -> dict[str, Any]:
    names = dict.fromkeys((*call.required, *call.carries, *COMMON))
    either = [] if "user_id" in call.required else [{"required": ["userId"]}, {"required": ["anonymousId"]}]
    return {
        "type": "object",
        "description": call.summary,
        "properties": {NAMES[name]: _FIELDS[name] for name in names},
        **({"required": [NAMES[name] for name in call.required]} if call.required else {}),
        **({"anyOf": either} if either else {}),
    }


def _batch_body() -> dict[str, Any]:
    kinds = [
        {
            "allOf": [
                {"$ref": f"#/components/schemas/{call.type}"},
                {"required": ["type"], "properties": {"type": {"const": call.type}}},
            ]
        }
        for call in CALLS
    ]
    events = {**_BATCH_FIELDS["batch"], "type": "array", "items": {"oneOf": kinds}}
    return {"type": "object", "required": ["batch"], "properties": {**_BATCH_FIELDS, "batch": events}}


def _batch_example() -> dict[str, Any]:
    return {"batch": [{"type": call.type, **call.example} for call in CALLS if call is TRACK or not call.required]}


def _operation(name: str, summary: str, schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    refusals = {
        str(status): {
            "description": "; ".join(code for code, reason in REASONS.items() if reason.status == status),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status in sorted({reason.status for reason in REASONS.values()})
    }
    taken = {
        "description": "The log has it.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Taken"}}},
    }
    return {
        "post": {
            "tags": ["calls"],
            "operationId": name,
            "summary": summary,
            "security": [{"writeKey": []}, {}],
            "requestBody": {
                "required": True,
                "description": "JSON, whatever the content type says; gzip is understood.",
                "content": {"application/json": {"schema": schema, "example": example}},
            },
            "responses": {"200": taken, **refusals},
        }
    }
