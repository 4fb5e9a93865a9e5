"""JSON Schemas of what the streams carry, made from the structs; `python -m shared.contracts.schema` writes them."""

from __future__ import annotations

import functools
import inspect
import json
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from shared.contracts.customers import CustomerRecord
from shared.contracts.events import EventRecord
from shared.contracts.messages import MessageRecord
from shared.contracts.streams import CUSTOMERS, EVENTS, MESSAGES

CONTRACTS: Mapping[str, Any] = {EVENTS: EventRecord, CUSTOMERS: CustomerRecord, MESSAGES: MessageRecord}
"""By stream, what its records are."""

SCHEMAS = Path(__file__).parent / "schemas"
EXAMPLES = Path(__file__).parent / "examples"
"""`<stream>/<what it shows>.json`: one record each."""


def schema_of(stream: str) -> str:
    """The JSON Schema (draft 2020-12) of a stream's records, as the text of its file."""
    schema = msgspec.json.schema(_spelled_out(CONTRACTS[stream]))
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"A record of the stream {stream}"}
    return json.dumps({**head, **schema}, indent=2) + "\n"


@functools.cache
def _spelled_out(kind: Any) -> Any:
    """The same type with objects where structs keep a client's bytes: a schema says what the bytes hold."""
    if kind is msgspec.Raw:
        return dict[str, Any]
    if get_args(kind) and type(None | int) is type(kind):
        return functools.reduce(operator.or_, map(_spelled_out, get_args(kind)))
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return kind
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        spelled = _spelled_out(field.type)
        if field.required:
            fields.append((field.name, spelled))
        elif field.type is msgspec.Raw or field.default is msgspec.NODEFAULT:
            fields.append((field.name, spelled, msgspec.field(default_factory=dict)))
        else:
            fields.append((field.name, spelled, field.default))
    config = kind.__struct_config__
    namespace = {"__doc__": inspect.cleandoc(kind.__doc__ or "")}
    return msgspec.defstruct(
        kind.__name__, fields, namespace=namespace, kw_only=True, tag=config.tag, tag_field=config.tag_field
    )


def write() -> None:
    SCHEMAS.mkdir(exist_ok=True)
    for stream in CONTRACTS:
        (SCHEMAS / f"{stream}.json").write_text(schema_of(stream))


if __name__ == "__main__":
    write()
