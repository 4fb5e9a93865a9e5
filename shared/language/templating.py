"""The language of templates: Jinja2 in a sandbox where work is counted.

Jinja's own sandbox bounds neither time nor memory. Here every loop, call, filter and printed value is paid for from a
budget, and what could grow without being paid for (`**`, repeated text, recursion of loops, includes) does not exist.
Work is counted and not timed, so the same template with the same data always ends the same way, on any machine.

A template never fails for what is missing: null and what is undefined print as nothing, loop as nothing, and compare
like the null of expressions.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

import jinja2.filters
import jinja2.tests
from jinja2 import ChainableUndefined, Template, TemplateAssertionError, TemplateError, TemplateSyntaxError, nodes
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context
from jinja2.visitor import NodeTransformer
from markupsafe import Markup, escape

from shared.errors import RapportError
from shared.language import locales

MAX_SOURCE = 200_000
"""Characters of one template's source."""
MAX_WORK = 500_000
"""What one rendering may spend: a unit for each character printed from data or in loops, and each node evaluated."""

_MAX_RANGE = 1_000
_MAX_BITS = 256


class TemplateInvalid(RapportError):
    """A template that cannot be compiled, or fails on its data. `line` counts from 1 in the template's source."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line, self.message = line, message


@dataclass(slots=True)
class Rendition:
    """One rendering: for whom, and what is left to spend. `link` turns the target of a link into what is printed."""

    locale: str
    timezone: tzinfo
    currency: str
    link: Callable[[str], str]
    left: int = MAX_WORK


_rendition: ContextVar[Rendition | None] = ContextVar("rendition", default=None)


def _spend(units: int) -> None:
    rendition = _rendition.get()
    if rendition is not None:  # None while Jinja folds constants at compile time
        rendition.left -= units
        if rendition.left < 0:
            raise TemplateRuntimeError(
                f"the template does more than {MAX_WORK:,} units of work on this data. Loop over fewer, or print less."
            )


def _here() -> Rendition:
    rendition = _rendition.get()
    if rendition is None:
        raise TemplateRuntimeError("this filter works only while a mail is rendered")
    return rendition


class Missing(ChainableUndefined):
    """What is not there: any field of it is missing too, and it is like null in every other way."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Undefined)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = Undefined.__hash__


def _is_null(value: object) -> bool:
    return value is None or isinstance(value, Undefined)


def _number(value: Any) -> int | float | Decimal | None:
    """Numbers, and text that is one: shops send prices both ways."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float, Decimal)):
        return value
    if isinstance(value, str) and len(value) <= 40:
        try:
            number = Decimal(value.strip())
        except InvalidOperation:
            return None
        return number if number.is_finite() else None
    return None


def _measure(value: Any) -> None:
    """Pay for looking at all of a value."""
    if isinstance(value, str):
        _spend(1 + (len(value) >> 4))
    elif isinstance(value, dict):
        _spend(1 + len(value))
        for each in value.values():
            _measure(each)
    elif isinstance(value, (list, tuple)):
        _spend(1 + len(value))
        for each in value:
            _measure(each)
    else:
        _spend(1)


def _text(value: Any) -> str:
    """A value as it is printed."""
    if isinstance(value, str):
        _spend(len(value))
        return value
    if _is_null(value) or callable(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, (int, Decimal)):
        text = str(value)
        _spend(len(text))
        return text
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, (list, tuple, range)):
        if any(isinstance(each, (list, tuple, dict)) for each in value):
            raise TemplateRuntimeError(
                "a list of objects cannot be printed. Loop over it, or pick a field with map(attribute=…)"
            )
        parts = []
        for each in value:
            _spend(2)
            parts.append(_text(each))
        return ", ".join(parts)
    raise TemplateRuntimeError("an object cannot be printed. Pick one of its fields")


_MARKUP = re.compile("[&<>'\"]")


def _in_html(value: Any) -> str:
    """A value as it is printed into HTML: escaped, unless a filter has made it markup."""
    if type(value) is str:  # nearly all are
        _spend(len(value))
        return escape(value) if _MARKUP.search(value) else value
    text = _text(value)
    return text if isinstance(text, Markup) or not _MARKUP.search(text) else escape(text)


def _counted(value: Any, weight: int) -> Sequence[Any]:
    """What a loop goes through, paid for; `weight` is what one round costs."""
    if _is_null(value) or callable(value):
        return ()
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TemplateRuntimeError("this is not a list, so there is nothing to loop over")
    if isinstance(value, (list, tuple, range)):
        _spend(weight * len(value))
        return value
    items = []
    for each in value:
        _spend(weight)
        items.append(each)
    return items


# --- what the transformed syntax tree calls; their names cannot be written in a template ---


@pass_context
def _loop(context: Context, value: Any, weight: int) -> Sequence[Any]:
    return _counted(value, weight)


@pass_context
def _pay(context: Context, value: Any, weight: int) -> Any:
    _spend(weight)
    return value


@pass_context
def _concat(context: Context, values: list[Any]) -> str:
    _spend(len(values))
    texts = [_text(value) for value in values]
    if context.eval_ctx.autoescape and any(isinstance(text, Markup) for text in texts):
        return Markup("").join(texts)
    return "".join(texts)


_ORDERINGS = {"lt": operator.lt, "lteq": operator.le, "gt": operator.gt, "gteq": operator.ge}


@pass_context
def _compare(context: Context, left: Any, comparison: str, right: Any) -> bool:
    """Null equals only null; ordering against null, or across kinds, is false."""
    _measure(left)
    _measure(right)
    if comparison in ("eq", "ne"):
        null = _is_null(left), _is_null(right)
        equal = all(null) if any(null) else bool(left == right)
        return equal is (comparison == "eq")
    if comparison in ("in", "notin"):
        if isinstance(right, str):
            found = isinstance(left, str) and left in right
        elif isinstance(right, (dict, list, tuple, range)):
            try:
                found = left in right
            except TypeError:
                found = False
        else:
            found = False
        return found is (comparison == "in")
    numbers = _is_plain_number(left) and _is_plain_number(right)
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        return False
    return bool(_ORDERINGS[comparison](left, right))


def _is_plain_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


@pass_context
def _link(context: Context, value: str) -> str:
    return _here().link(value)


_LOOP, _PAY, _CONCAT, _COMPARE = "loop!", "pay!", "concat!", "compare!"
LINK = "_link"
"""The filter that a link's target passes through; the mailer puts it around each `href`."""


# --- filters ---


@pass_context
def money(context: Context, value: Any, currency: Any = None) -> str:
    """`{{ 1234.5 | money("EUR") }}`: €1,234.50 or 1 234,50 €, as the reader's language has it."""
    number = _number(value)
    if number is None:
        return ""
    here = _here()
    code = currency if isinstance(currency, str) and currency else here.currency
    if isinstance(number, int) and number.bit_length() > 64:
        return ""
    text = _written_money(number, code[:8], here.locale)
    if text:
        _spend(40)
    return text


@functools.lru_cache(4096, typed=True)
def _written_money(number: int | float | Decimal, currency: str, locale: str) -> str:
    """Kept, since prices come again from one mail to the next. Empty where nobody has so much."""
    amount = _decimal(number)
    if not amount.is_finite() or abs(amount) >= Decimal(10) ** 18:
        return ""
    return locales.money(amount, currency, locale)


@pass_context
def written_date(context: Context, value: Any, style: str = "long") -> str:
    """`{{ trigger.shipped_at | date }}`: 2 March 2026, in the customer's timezone. Styles: short, long, full."""
    if style not in locales.DATE_STYLES:
        raise TemplateRuntimeError(f'date has no style "{style}". Use short, long or full')
    here = _here()
    day: date
    if isinstance(value, str) and len(value) <= 40:
        try:
            day = date.fromisoformat(value) if len(value) == 10 else _local(datetime.fromisoformat(value), here)
        except (ValueError, OverflowError):
            return ""
    elif isinstance(value, datetime):
        day = _local(value, here)
    elif isinstance(value, date):
        day = value
    else:
        return ""
    _spend(40)
    return locales.written_date(day, style, here.locale)


def _local(moment: datetime, here: Rendition) -> date:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(here.timezone).date()


def _default(value: Any, default: Any = "", boolean: bool = False) -> Any:
    return default if _is_null(value) or (boolean and not value) else value


def _join(value: Any, separator: str = "", attribute: str | int | None = None) -> str:
    items = _counted(value, 1)
    if attribute is not None:
        items = [_field(item, attribute) for item in items]
    separator = _text(separator)
    texts = [_text(item) for item in items]
    _spend(len(separator) * len(texts))
    if isinstance(separator, Markup) or any(isinstance(text, Markup) for text in texts):
        return Markup(escape(separator)).join(texts)
    return separator.join(texts)


def _field(item: Any, path: str | int) -> Any:
    for part in path.split(".") if isinstance(path, str) else (path,):
        if isinstance(item, dict):
            item = item.get(part)
        elif isinstance(item, (list, tuple)):
            index = int(part) if isinstance(part, int) or part.isdigit() else -1
            item = item[index] if 0 <= index < len(item) else None
        else:
            return None
    return item


def _replace(value: Any, old: str, new: str) -> str:
    text, old, new = _text(value), _text(old), _text(new)
    _spend(len(text) + (text.count(old) if old else len(text) + 1) * len(new))
    return text.replace(old, new)


def _round(value: Any, precision: int = 0) -> Any:
    number = _number(value)
    if number is None:
        return None
    if not 0 <= precision <= 6:
        raise TemplateRuntimeError("round takes 0 to 6 digits")
    amount = _decimal(number)
    if not amount.is_finite() or abs(amount) >= Decimal(10) ** 18:
        return None
    rounded = amount.quantize(Decimal(1).scaleb(-precision), rounding=ROUND_HALF_UP)
    return int(rounded) if precision == 0 else rounded


def _sum(value: Any, attribute: str | int | None = None) -> Any:
    total: int | Decimal = 0
    for item in _counted(value, 2):
        number = _number(item if attribute is None else _field(item, attribute))
        if number is not None:
            total = _decimal(total) + _decimal(number)
    return total


def _decimal(value: int | float | Decimal) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _length(value: Any) -> int:
    if isinstance(value, (str, dict)):
        return len(value)
    return len(_counted(value, 1))


def _batch(value: Any, size: int) -> list[Sequence[Any]]:
    items = list(_counted(value, 1))
    if not 1 <= size <= 100:
        raise TemplateRuntimeError("batch takes rows of 1 to 100")
    return [items[at : at + size] for at in range(0, len(items), size)]


def _string(value: Any) -> str:
    return _text(value)


def _nl2br(value: Any) -> Markup:
    """Line ends as `<br>`, everything else escaped."""
    text = _text(value)
    _spend(4 * text.count("\n"))
    return Markup("<br>").join(text.splitlines())


def _metered(function: Callable[..., Any]) -> Callable[..., Any]:
    """One of Jinja's own filters whose work and result are linear in its input, paid for by the input's size."""
    at = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        value = args[at]
        if isinstance(value, str):
            _spend(1 + len(value))
        elif isinstance(value, (list, tuple, range, dict)):
            _spend(1 + 4 * len(value))
        elif value is None:
            value = Missing()
        elif isinstance(value, Iterator):
            value = _counted(value, 4)
        else:
            _spend(1)
        return function(*args[:at], value, *args[at + 1 :], **kwargs)

    return filtered


_TAKEN = (
    "abs capitalize dictsort e escape first float groupby int items last list lower map max min reject rejectattr "
    "reverse select selectattr sort striptags title trim truncate unique upper urlencode wordcount"
)

FILTERS: Mapping[str, Callable[..., Any]] = {
    **{name: _metered(jinja2.filters.FILTERS[name]) for name in _TAKEN.split()},
    "batch": _batch,
    "count": _length,
    "d": _default,
    "date": written_date,
    "default": _default,
    "join": _join,
    "length": _length,
    "money": money,
    "nl2br": _nl2br,
    "replace": _replace,
    "round": _round,
    "string": _string,
    "sum": _sum,
    LINK: _link,
}
"""Every filter that a template may use."""

_TESTS_TAKEN = (
    "boolean defined divisibleby even false float integer iterable mapping number odd sequence string true undefined"
)

TESTS: Mapping[str, Any] = {
    **{name: jinja2.tests.TESTS[name] for name in _TESTS_TAKEN.split()},
    "none": _is_null,
}
"""Every test (`is …`) that a template may use."""


def _range(*args: int) -> range:
    numbers = range(*args)
    if len(numbers) > _MAX_RANGE:
        raise TemplateRuntimeError(f"range gives at most {_MAX_RANGE:,} numbers")
    return numbers


GLOBALS: Mapping[str, Any] = {"range": _range, "namespace": Namespace}
"""Names that every template knows beside its variables."""

_TEXT_METHODS = frozenset(
    {"capitalize", "endswith", "isalpha", "isdigit", "lower", "lstrip", "removeprefix", "removesuffix", "rstrip"}
    | {"split", "startswith", "strip", "title", "upper"}
)
_MAPPING_METHODS = frozenset({"get", "items", "keys", "values"})
_LOOP_METHODS = frozenset({"cycle", "changed"})


class _Code(CodeGenerator):
    """Prints a value by one call where Jinja makes three."""

    def _output_child_pre(self, node: nodes.Expr, frame: Any, finalize: Any) -> None:
        self.write("environment.printed(")

    def _output_child_post(self, node: nodes.Expr, frame: Any, finalize: Any) -> None:
        self.write(")")


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _Code
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, *, html: bool) -> None:
        super().__init__(
            autoescape=html,
            undefined=Missing,
            finalize=_text,
            trim_blocks=not html,
            lstrip_blocks=not html,
            keep_trailing_newline=False,
            cache_size=0,
        )
        self.printed = _in_html if html else _text
        self.filters = {
            **FILTERS, _LOOP: _loop, _PAY: _pay, _CONCAT: _concat, _COMPARE: _compare
        }  # fmt: skip
        self.tests = dict(TESTS)
        self.globals = dict(GLOBALS)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Meter(self).visit(source), *args, **kwargs)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict):
            # A dot names a field: carts have `items`, which must not turn into a method.
            if attribute in obj:
                return obj[attribute]
            if attribute in _MAPPING_METHODS:
                return getattr(obj, attribute)
            return self.undefined(obj=obj, name=attribute)
        if isinstance(obj, str):
            if attribute in _TEXT_METHODS:
                return getattr(obj, attribute)
            return self.undefined(obj=obj, name=attribute)
        if isinstance(obj, (LoopContext, Namespace)):
            return super().getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, (dict, list, tuple, str, range)):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                return self.undefined(obj=obj, name=argument)
        return self.undefined(obj=obj, name=argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Macros, the globals, and a few methods that cannot grow their input; nothing else."""
        _spend(1)
        for argument in args:
            _measure(argument)
        owner = getattr(__obj, "__self__", None)
        name = getattr(__obj, "__name__", "")
        methods = _TEXT_METHODS if isinstance(owner, str) else _MAPPING_METHODS
        if isinstance(owner, (str, dict)) and name in methods:
            _spend(len(owner))
        elif not (
            isinstance(__obj, Macro)
            or __obj in (_range, Namespace)
            or (isinstance(owner, LoopContext) and name in _LOOP_METHODS)
        ):
            raise SecurityError("this cannot be called in a template")
        return __context.call(__obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic on numbers (null in, null out), and `+` on two texts or two lists."""
        if _is_null(left) or _is_null(right):
            return self.undefined(name=operator)
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            _spend(len(left) + len(right))
            return left + right
        if operator == "+" and isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
            _spend(len(left) + len(right))
            return [*left, *right]
        one, other = _number(left), _number(right)
        if one is None or other is None or operator == "**":
            raise TemplateRuntimeError(f"{operator} is for numbers. To join texts write ~")
        _spend(1)
        try:
            if isinstance(one, int) and isinstance(other, int):
                result = self.binop_table[operator](one, other)
            else:
                # Decimals, or three lamps at 10.10 would cost 30.299999999999997.
                if isinstance(one, Decimal) or isinstance(other, Decimal):
                    result = self.binop_table[operator](_decimal(one), _decimal(other))
                else:
                    result = self._of_floats(operator, one, other)
        except (ArithmeticError, ValueError):
            return self.undefined(name=operator)
        if isinstance(result, int) and result.bit_length() > _MAX_BITS:
            raise TemplateRuntimeError(f"the result of {operator} is too large")
        return result

    @functools.lru_cache(4096, typed=True)  # noqa: B019 - there are two environments, and they last
    def _of_floats(self, operator: str, one: int | float, other: int | float) -> float:
        """Kept, since HTML and text say the same sums, and prices come again from one mail to the next."""
        return float(self.binop_table[operator](_decimal(one), _decimal(other)))


class _Meter(NodeTransformer):
    """Puts the payments into a template's syntax tree, and refuses what cannot be paid for."""

    def __init__(self, environment: _Environment) -> None:
        self._environment = environment

    def _filter(self, node: nodes.Node, name: str, *args: nodes.Expr, lineno: int) -> nodes.Filter:
        made = nodes.Filter(node, name, list(args), [], None, None, lineno=lineno)
        return made.set_environment(self._environment)  # type: ignore[return-value]

    def _const(self, value: Any, lineno: int) -> nodes.Const:
        return nodes.Const(value, lineno=lineno).set_environment(self._environment)  # type: ignore[return-value]

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise TemplateAssertionError("a loop cannot be recursive", node.lineno)
        weight = _weight(node.body) + (_weight([node.test]) if node.test is not None else 0)
        self.generic_visit(node)
        node.iter = self._filter(node.iter, _LOOP, self._const(weight, node.lineno), lineno=node.lineno)
        return node

    def _called(self, node: nodes.Macro | nodes.CallBlock) -> nodes.Node:
        weight = _weight(node.body)
        self.generic_visit(node)
        toll = self._filter(self._const(None, node.lineno), _PAY, self._const(weight, node.lineno), lineno=node.lineno)
        node.body = [nodes.ExprStmt(toll, lineno=node.lineno).set_environment(self._environment), *node.body]
        return node

    visit_Macro = _called
    visit_CallBlock = _called

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno).set_environment(self._environment)
        return self._filter(parts, _CONCAT, lineno=node.lineno)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        line = node.lineno
        left = node.expr
        whole: nodes.Expr | None = None
        for operand in node.ops:
            one = self._filter(left, _COMPARE, self._const(operand.op, line), operand.expr, lineno=line)
            whole = one if whole is None else nodes.And(whole, one, lineno=line).set_environment(self._environment)  # type: ignore[assignment]
            left = operand.expr
        assert whole is not None
        return whole

    def _refused(self, node: nodes.Node) -> nodes.Node:
        raise TemplateAssertionError(
            "include, import, extends, block and autoescape are not known here: a template stands alone", node.lineno
        )

    visit_Include = _refused
    visit_Import = _refused
    visit_FromImport = _refused
    visit_Extends = _refused
    visit_Block = _refused
    visit_ScopedEvalContextModifier = _refused
    visit_EvalContextModifier = _refused


def _weight(tree: Sequence[nodes.Node]) -> int:
    """What one pass through `tree` costs: a unit a node, and one for each character of fixed text."""
    total = 1
    for node in tree:
        total += 1
        if isinstance(node, nodes.TemplateData):
            total += len(node.data)
        total += _weight(list(node.iter_child_nodes())) - 1
    return total


_HTML = _Environment(html=True)
_TEXT = _Environment(html=False)


def environment(*, html: bool) -> ImmutableSandboxedEnvironment:
    """The environment that templates are compiled in; html is escaped, and text forgets the lines of its blocks."""
    return _HTML if html else _TEXT


def compile_template(source: str, *, html: bool, name: str) -> Template:
    """A template ready for `render`; `name` stands for its file. Raises TemplateInvalid."""
    if len(source) > MAX_SOURCE:
        raise TemplateInvalid(1, f"the template has {len(source):,} characters. At most {MAX_SOURCE:,} are read.")
    chosen = environment(html=html)
    try:
        code = chosen.compile(source, name, f"<{name}>")
    except TemplateSyntaxError as error:
        raise TemplateInvalid(error.lineno, _sentence(error.message or "this is not a template")) from None
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        raise TemplateInvalid(1, "the template is nested too deeply. Flatten it.") from None
    return chosen.template_class.from_code(chosen, code, dict(GLOBALS), None)


def render(template: Template, variables: Mapping[str, Any], rendition: Rendition) -> str:
    """The text that a template makes of `variables`. Raises TemplateInvalid with the line that failed."""
    token = _rendition.set(rendition)
    try:
        context = template.new_context({**GLOBALS, **variables}, shared=True)
        text = "".join(template.root_render_func(context))
    except (
        TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError
    ) as error:  # fmt: skip
        message = "it calls itself too often" if isinstance(error, RecursionError) else str(error)
        raise TemplateInvalid(_line(template, error), _sentence(message)) from None
    finally:
        _rendition.reset(token)
    return text


def _line(template: Template, error: BaseException) -> int:
    """The line of the template's source that an error comes from: the innermost frame of its code."""
    found = 1
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == template.filename:
            found = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return found


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def _sentence(message: str) -> str:
    message = _ADDRESS.sub("", message).strip()
    return message if message.endswith((".", "…")) else message + "."
