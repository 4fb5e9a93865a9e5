"""What a call in an expression may be given, what comes of it, and what to write instead."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from shared.language.aggregates import HISTORY
from shared.language.durations import format_duration
from shared.language.functions import AGGREGATES, ARGUMENTS, FIELD_NEEDED, FIELD_REFUSED, FUNCTIONS, example_of
from shared.language.kinds import BOOL, DATA, MOMENT, NAMED, NULL, NUMBER, TEXT, UNKNOWN, Kind, KindName
from shared.language.problems import nearest
from shared.language.tree import Argument, Broken, Call, Name, Node
from shared.language.tree import Literal as Constant
from shared.language.values import moment

if TYPE_CHECKING:
    from shared.language.analysis import Analysis


def kind_of_call(analysis: Analysis, node: Call) -> Kind:
    """Analyse a call and its arguments; what kind of value it gives."""
    function = node.function
    if function not in analysis.surroundings.functions:
        _unknown_function(analysis, node)
        for argument in (*node.arguments, *(named.value for named in node.named)):
            analysis.kind(argument)
        return UNKNOWN
    if function in AGGREGATES:
        return _aggregate(analysis, node)
    for named in node.named:
        message = f'"{function}" takes no {named.name}=.'
        analysis.error(named, "arguments", message, f"Write {example_of(function)}.")
        analysis.kind(named.value)
    least, most, example = ARGUMENTS[function]
    kinds = [analysis.kind(argument) for argument in node.arguments]
    if not least <= len(kinds) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        message = f'"{function}" takes {wanted} {"argument" if most == 1 else "arguments"}, not {len(kinds)}.'
        analysis.error(node, "arguments", message, f"Write {example}.")
        return UNKNOWN
    return _plain_call(analysis, node, kinds)


def _plain_call(analysis: Analysis, node: Call, kinds: list[Kind]) -> Kind:
    first = node.arguments[0]
    match node.function:
        case "days_since":
            _expect(analysis, first, kinds[0], ("moment", "text"), "null")
            return NUMBER
        case "date":
            _expect(analysis, first, kinds[0], ("moment", "text"), "null")
            if isinstance(first, Constant) and isinstance(first.value, str) and moment(first.value) is None:
                analysis.warn(
                    first, "kinds", f'"{first.value}" is no date, so this is null.', 'Write date("2026-03-01").'
                )
            return MOMENT
        case "lower":
            _expect(analysis, first, kinds[0], ("text",), "null")
            return TEXT
        case "contains":
            _expect(analysis, first, kinds[0], ("list", "text"), "false")
            analysis.profile_names(first, [node.arguments[1]])
            return BOOL
        case "starts_with":
            _expect(analysis, first, kinds[0], ("text",), "false")
            _expect(analysis, node.arguments[1], kinds[1], ("text",), "false")
            return BOOL
        case "len":
            _expect(analysis, first, kinds[0], ("text", "list", "mapping"), "null")
            return NUMBER
        case "round":
            _expect(analysis, first, kinds[0], ("number",), "null")
            return _rounded(analysis, node)
        case "coalesce":
            named = {replace(kind, options=()) for kind in kinds if kind != NULL}
            return named.pop() if len(named) == 1 else (DATA if named <= {DATA, NUMBER, TEXT, BOOL} else UNKNOWN)
        case "consented" | "in_segment":
            kind = "topic" if node.function == "consented" else "segment"
            if isinstance(first, Constant) and isinstance(first.value, str):
                analysis.mention(kind, first, name=first.value)
            elif not isinstance(first, Broken):
                message = f"The {kind} must stand in quotation marks, so that it can be checked."
                analysis.error(first, "arguments", message, f"Write {example_of(node.function)}.")
    return BOOL


def _rounded(analysis: Analysis, node: Call) -> Kind:
    if len(node.arguments) == 2:
        digits = node.arguments[1]
        if not isinstance(digits, Constant) or type(digits.value) is not int or not 0 <= digits.value <= 9:
            analysis.error(digits, "arguments", "Decimals are a number from 0 to 9.", "Write round(event.total, 2).")
    return NUMBER


def _expect(analysis: Analysis, node: Node, kind: Kind, wanted: tuple[KindName, ...], otherwise: str) -> None:
    """Warn of an argument of another kind than those `wanted`, of which the function makes `otherwise`."""
    if kind.name in wanted or kind.name in ("data", "unknown"):
        return
    choice = " or ".join(NAMED[name] for name in wanted)
    analysis.warn(
        node, "kinds", f"{choice.capitalize()} is wanted, and this is {kind}: {otherwise}.", "Use another value."
    )


def _unknown_function(analysis: Analysis, node: Call) -> None:
    function, functions = node.function, analysis.surroundings.functions
    name, names = replace(node, end=node.offset + len(function)), ", ".join(sorted(functions))
    if function in FUNCTIONS:
        message = f'"{function}" cannot be asked {analysis.surroundings.place}.'
        analysis.error(name, "function", message, f"Here may stand {names}.")
        return
    meant = nearest(function, functions)
    remedy = f"Did you mean {example_of(meant)}?" if meant else f"There are {names}."
    analysis.error(name, "function", f'There is no function "{function}".', remedy)


# --- aggregates -----------------------------------------------------------------------------------------------------


def _aggregate(analysis: Analysis, node: Call) -> Kind:
    function = node.function
    event = _text_argument(node, 0)
    if not node.arguments:
        analysis.error(node, "arguments", f'"{function}" needs an event.', f"Write {example_of(function)}.")
    elif event is None and not isinstance(node.arguments[0], Broken):
        message = "The event's name must stand in quotation marks."
        analysis.error(node.arguments[0], "arguments", message, f"Write {example_of(function)}.")
    elif event is not None:
        analysis.mention("event", node.arguments[0], name=event)
    kind = _aggregate_field(analysis, node, event)
    _aggregate_options(analysis, node, event)
    match function:
        case "count" | "sum" | "avg" | "median_gap":
            return NUMBER
        case "list":
            return Kind("list", kind if len(node.arguments) > 1 else Kind("mapping"))
        case "exists":
            return BOOL
        case "first" | "last" if len(node.arguments) == 1:
            return MOMENT
    return kind


def _text_argument(node: Call, place: int) -> str | None:
    """The text that stands in quotation marks at this place; None where something else does, or nothing."""
    if len(node.arguments) <= place:
        return None
    argument = node.arguments[place]
    if isinstance(argument, Constant) and isinstance(argument.value, str) and argument.value.strip():
        return argument.value
    return None


def _aggregate_field(analysis: Analysis, node: Call, event: str | None) -> Kind:
    """The kind of the aggregate's field; UNKNOWN without one."""
    function = node.function
    if len(node.arguments) < 2:
        if function in FIELD_NEEDED and node.arguments:
            message = f'"{function}" needs a field of the event.'
            analysis.error(node, "arguments", message, f"Write {example_of(function)}.")
        return UNKNOWN
    given = node.arguments[1]
    if len(node.arguments) > 2:
        message = f'"{function}" takes an event and a field, then within= and where=.'
        analysis.error(node.arguments[2], "arguments", message, f"Write {example_of(function)}.")
    if isinstance(given, Constant) and isinstance(given.value, timedelta):
        message = "A window needs its name."
        analysis.error(given, "arguments", message, f"Write within={format_duration(given.value)}.")
        return UNKNOWN
    field_name = _text_argument(node, 1)
    if field_name is None or not all(field_name.split(".")):
        if not isinstance(given, Broken):
            message = "The field must stand in quotation marks."
            analysis.kind(given) if not isinstance(given, Name) else None
            named = ".".join(given.path[1:]) if isinstance(given, Name) and given.path[0] == "event" else "total"
            analysis.error(given, "arguments", message, f'Write "{named or "total"}".')
        return UNKNOWN
    if function in FIELD_REFUSED:
        message = f'"{function}" looks at the events alone and takes no field.'
        analysis.error(given, "arguments", message, f"Use where=event.{field_name} != null.")
        return UNKNOWN
    path = tuple(field_name.split("."))
    if path[0] == "event" and len(path) > 1:
        message = 'The field of an aggregate is written without "event.".'
        analysis.error(given, "arguments", message, f'Write "{".".join(path[1:])}".')
        return UNKNOWN
    analysis.mention("property", given, path=path, event=event)
    kind = analysis.property_kind(event, path)
    if kind.name == "list" and function in (*FIELD_NEEDED, "list"):
        kind = kind.item or DATA
    wanted = ("number",) if function in ("sum", "avg") else ("number", "text")
    if function in FIELD_NEEDED and kind.name not in (*wanted, "data", "unknown"):
        message = f"The catalogue has {kind} for {field_name}, so {function} finds nothing in it."
        analysis.warn(given, "kinds", message, "Name a field that holds a number.")
    return replace(kind, options=())


def _aggregate_options(analysis: Analysis, node: Call, event: str | None) -> None:
    seen: set[str] = set()
    for named in node.named:
        if named.name in seen:
            analysis.error(named, "arguments", f"{named.name}= stands here twice.", "Keep one.")
        seen.add(named.name)
        match named.name:
            case "within":
                _window(analysis, named)
            case "where":
                analysis.condition_on_event(named.value, event)
            case other:
                meant = nearest(other, ("within", "where"))
                remedy = f"Did you mean {meant}=?" if meant else "There are within= and where=."
                analysis.error(named, "arguments", f'"{node.function}" takes no {other}=.', remedy)


def _window(analysis: Analysis, named: Argument) -> None:
    value = named.value
    if isinstance(value, Broken):
        return
    if not isinstance(value, Constant) or not isinstance(value.value, timedelta):
        analysis.error(value, "window", "A window is a duration.", "Write within=30d.")
    elif value.value <= timedelta(0):
        analysis.error(value, "window", "A window must be longer than nothing.", "Write within=30d.")
    elif value.value > HISTORY:
        message = f"A window of {format_duration(value.value)} is longer than history, which is kept for two years."
        analysis.error(value, "window", message, "Write within=730d, or leave within out to count everything.")
