"""Mappings of a playbook's files, read so that one slip does not hide the next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import ClassVar

import msgspec
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails

from shared.language.source import Path


class Section(BaseModel):
    """A mapping of the language. `noun` names it in messages; `later` are its fields that are not there yet."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True, defer_build=True)
    noun: ClassVar[str] = "field"
    later: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _remember(cls, data: object, info: ValidationInfo) -> object:
        if isinstance(info.context, Reading) and id(data) in info.context.paths:
            info.context.classes[info.context.paths[id(data)]] = cls
        return data


class Hole:
    """Stands in the model where something was wrong that has been reported, so that the rest can still be checked."""


HOLE = Hole()


class Reading(msgspec.Struct):
    """What is learned on the way: which class each mapping was read as, and the complaints, from which path on."""

    paths: dict[int, Path]
    classes: dict[Path, type[Section]] = {}
    complaints: list[tuple[Path, ErrorDetails]] = []


def attempt(data: object, handler: Callable[[object], object], reading: Reading) -> object:
    """Notes what is wrong in one part, and goes on first without the fields at fault, then without the part."""
    try:
        return handler(data)
    except ValidationError as error:
        if id(data) not in reading.paths:
            raise
        errors = error.errors(include_url=False, include_input=False)
    around = reading.paths[id(data)]
    reading.complaints.extend((around, found) for found in errors)
    if not isinstance(data, dict):
        return HOLE
    faulty = {next((part for part in found["loc"] if part in data), None) for found in errors}
    try:
        return handler({key: value for key, value in data.items() if key not in faulty})
    except ValidationError:
        return HOLE


def _tolerate(data: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
    return attempt(data, handler, info.context) if isinstance(info.context, Reading) else handler(data)


Tolerant = WrapValidator(_tolerate)


def kind_by_key(kinds: Mapping[str, str]) -> Callable[[object], str | None]:
    """A discriminator: the one key of `kinds` that a mapping, or what was made of one, has."""

    def kind(value: object) -> str | None:
        keys: Collection[str] = value if isinstance(value, dict) else ()
        if isinstance(value, Section):
            keys = [info.alias or name for name, info in type(value).model_fields.items()]
        found = [tag for key, tag in kinds.items() if key in keys]
        return found[0] if len(found) == 1 else None

    return kind
