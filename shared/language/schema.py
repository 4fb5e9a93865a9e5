"""JSON Schema of the playbook's files, made from the typed model, so that editors complete, explain and check them."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from shared.language.journey_file import JourneyFile
from shared.language.playbook_files import (
    BrandFile,
    CouponFile,
    EventFile,
    MessageFile,
    PushFile,
    SegmentsFile,
    StagesFile,
    TopicsFile,
)
from shared.language.sections import Section
from shared.language.source import parse, plain
from shared.language.tests_file import TestsFile

Kind = Literal["journey", "tests", "stages", "segments", "topics", "rapport", "message", "push", "event", "coupon"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_SHAPES: dict[Kind, type[Section]] = {
    "journey": JourneyFile,
    "tests": TestsFile,
    "stages": StagesFile,
    "segments": SegmentsFile,
    "topics": TopicsFile,
    "rapport": BrandFile,
    "message": MessageFile,
    "push": PushFile,
    "event": EventFile,
    "coupon": CouponFile,
}
_MAY_BE_EMPTY = ("then", "else", "on_timeout", "exit_on")


class _Generator(GenerateJsonSchema):
    """As pydantic does it, without its classes' names as titles, which editors would show instead of the texts."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


@cache
def _schema(kind: Kind) -> str:
    generated = _SHAPES[kind].model_json_schema(by_alias=True, schema_generator=_Generator)
    tidied = _tidy(generated)
    assert isinstance(tidied, dict)
    tidied["title"] = kind
    for name, shape in tidied.get("$defs", {}).items():
        shape["title"] = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **tidied}, default=str)


def schema(kind: Kind) -> dict[str, Any]:
    """The JSON Schema of one kind of file."""
    found: dict[str, Any] = json.loads(_schema(kind))
    return found


def write_schemas(folder: Path | str) -> None:
    """Writes each kind's schema to `.schema/` in a playbook's folder, where the files' first lines point to."""
    target = Path(folder) / ".schema"
    target.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        (target / f"{kind}.json").write_text(json.dumps(schema(kind), indent=2) + "\n", encoding="utf-8")


def _tidy(node: JsonSchemaValue | list[Any] | Any, inside_properties: bool = False) -> Any:
    """Drops what only pydantic needs: null for fields that are absent, defaults of null, titles of classes."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    if inside_properties:
        return {name: _may_be_empty(name, _tidy(value)) for name, value in node.items()}
    tidied = {
        key: _tidy(value, inside_properties=key in ("properties", "$defs"))
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "default" and (value is None or isinstance(value, dict)))
    }
    if "oneOf" in tidied:
        # They exclude each other anyway, and of oneOf the language server offers only one while a word is being typed.
        tidied["anyOf"] = tidied.pop("oneOf")
    if "examples" in tidied:
        tidied["examples"] = [_written(example) for example in tidied["examples"]]
    if "patternProperties" in tidied:
        tidied.setdefault("additionalProperties", False)
    if tidied.get("type") == "string" and tidied.get("pattern") and "default" in tidied:
        del tidied["default"]  # in the model's form, which is not the written one
    choices = tidied.get("anyOf")
    if isinstance(choices, list):
        choices = [choice for choice in choices if choice != {"type": "null"}]
        if len(choices) == 1:
            del tidied["anyOf"]
            tidied = {**choices[0], **tidied}
        else:
            tidied["anyOf"] = choices
    return tidied


def _written(example: Any) -> Any:
    """What an example stands for, which is what an editor inserts."""
    document = parse("example", str(example).encode(), lambda problem: None)
    return example if document is None else plain(document.root)


def _may_be_empty(name: str, field: Any) -> Any:
    """Lists of steps may be left empty in YAML, which makes them null."""
    if name in _MAY_BE_EMPTY and isinstance(field, dict) and field.get("type") == "array":
        return {**field, "type": ["array", "null"]}
    return field
