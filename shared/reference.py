"""The page at `/docs`: an OpenAPI document as plain HTML, without scripts and without anything from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h2 { font: 600 1rem/1.5 ui-monospace, monospace; margin: 2rem 0 0; border-top: 1px solid #ddd; padding-top: 1rem }
code, pre { font-family: ui-monospace, monospace; font-size: .9rem }
pre { background: #f6f6f6; padding: .75rem; overflow-x: auto }
dt { font-weight: 600 } dd { margin: 0 0 .5rem 1.5rem }
"""


def reference_page(document: Mapping[str, Any]) -> str:
    """All operations of the document, in its order, with what they take and what they answer."""
    title, description = document["info"]["title"], document["info"].get("description", "")
    return "".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>',
            f"<h1>{escape(title)}</h1><p>{escape(description)}</p>",
            '<p>The same for programs, with every field: <a href="openapi.json">openapi.json</a></p>',
            *(
                part
                for path, methods in document["paths"].items()
                for method, operation in methods.items()
                for part in _operation(document, path, method, operation)
            ),
            "</html>",
        ]
    )


def _operation(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2>{escape(method.upper())} {escape(path)}</h2>"
    summary, described = operation.get("summary", ""), operation.get("description", "")
    yield f"<p>{_prose(described or summary)}</p>"
    parameters = operation.get("parameters", [])
    if parameters:
        yield "<dl>"
        for one in parameters:
            needed = "" if one.get("required") else ", not needed"
            yield f"<dt><code>{escape(one['name'])}</code> ({escape(one['in'])}{needed})</dt>"
            yield f"<dd>{_prose(one.get('description', ''))}</dd>"
        yield "</dl>"
    body = operation.get("requestBody")
    if body:
        yield f"<p>{_prose(body.get('description', 'Takes a body.'))}</p>"
        for kind, content in body["content"].items():
            if "example" in content:
                example = json.dumps(content["example"], indent=2, ensure_ascii=False)
                yield f"<pre>{escape(kind)}\n{escape(example)}</pre>"
    yield "<dl>"
    for status, answer in operation.get("responses", {}).items():
        yield f"<dt>{escape(status)}</dt><dd>{_prose(answer.get('description', ''))}"
        if status == "200":
            for content in answer.get("content", {}).values():
                yield from _fields(document, content.get("schema", {}), ())
        yield "</dd>"
    yield "</dl>"


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any], within: tuple[str, ...]) -> Iterator[str]:
    """The fields of what is answered, and of what stands in them, each with what it means."""
    for name in _named_in(schema):
        if name in within:
            continue
        found = document["components"]["schemas"][name]
        yield "<dl>"
        for field, of in found.get("properties", {}).items():
            yield f"<dt><code>{escape(field)}</code></dt><dd>{_prose(of.get('description', ''))}"
            yield from _fields(document, of, (*within, name))
            yield "</dd>"
        yield "</dl>"


def _named_in(schema: Mapping[str, Any]) -> Iterator[str]:
    """The schemas that this one refers to: itself, as one of several, or as the items of a list."""
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2]
    for inner in schema.get("anyOf", ()):
        yield from _named_in(inner)
    if "items" in schema:
        yield from _named_in(schema["items"])


def _prose(text: str) -> str:
    """A description as HTML: what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
