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
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from jinja2 import Template, TemplateAssertionError, TemplateError, TemplateSyntaxError, nodes
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context
from jinja2.visitor import NodeTransformer
from markupsafe import Markup, escape

from shared.errors import RapportError
from shared.language.template_filters import FILTERS, GLOBALS, TESTS, bounded_range
from shared.language.template_values import (
    Missing,
    Rendition,
    as_decimal,
    as_number,
    as_text,
    counted,
    is_null,
    measure,
    rendition_under_way,
    spend,
)

MAX_SOURCE = 200_000
"""Characters of one template's source."""
_MAX_BITS = 256


class TemplateInvalid(RapportError):
    """A template that cannot be compiled, or fails on its data. `line` counts from 1 in the template's source."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line, self.message = line, message


_MARKUP = re.compile("[&<>'\"]")
_NUMBERS = (float, int, Decimal)


def _in_html(value: Any) -> str:
    """A value as it is printed into HTML: escaped, unless a filter has made it markup."""
    if type(value) is str:  # nearly all are
        spend(len(value))
        return escape(value) if _MARKUP.search(value) else value
    text = as_text(value)
    return text if isinstance(text, Markup) or not _MARKUP.search(text) else escape(text)


# What the transformed syntax tree calls; their names cannot be written in a template.


@pass_context
def _loop(context: Context, value: Any, weight: int) -> Sequence[Any]:
    return counted(value, weight)


@pass_context
def _pay(context: Context, value: Any, weight: int) -> Any:
    spend(weight)
    return value


@pass_context
def _concat(context: Context, values: list[Any]) -> str:
    spend(len(values))
    texts = [as_text(value) for value in values]
    if context.eval_ctx.autoescape and any(isinstance(text, Markup) for text in texts):
        return Markup("").join(texts)
    return "".join(texts)


_ORDERINGS = {"lt": operator.lt, "lteq": operator.le, "gt": operator.gt, "gteq": operator.ge}


@pass_context
def _compare(context: Context, left: Any, comparison: str, right: Any) -> bool:
    """Null equals only null; ordering against null, or across kinds, is false."""
    if comparison in ("eq", "ne") and type(left) in _NUMBERS and type(right) in _NUMBERS:
        spend(2)
        return bool(left == right) is (comparison == "eq")
    measure(left)
    measure(right)
    if comparison in ("eq", "ne"):
        null = is_null(left), is_null(right)
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
def _name(context: Context, value: Any) -> Any:
    if isinstance(value, (dict, list, tuple)):
        raise TemplateRuntimeError("the name of a field is text or a number")
    return value


_LOOP, _PAY, _CONCAT, _COMPARE, _NAME = "loop!", "pay!", "concat!", "compare!", "name!"
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
            finalize=as_text,
            trim_blocks=not html,
            lstrip_blocks=not html,
            keep_trailing_newline=False,
            cache_size=0,
        )
        self.printed = _in_html if html else as_text
        self.filters = {
            **FILTERS, _LOOP: _loop, _PAY: _pay, _CONCAT: _concat, _COMPARE: _compare, _NAME: _name
        }  # fmt: skip
        self.tests = dict(TESTS)
        self.globals = dict(GLOBALS)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Meter(self).visit(source), *args, **kwargs)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict):
            # A dot names a field: carts have `items`, which must not turn into a method.
            try:
                return obj[attribute]
            except KeyError:
                pass
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
        spend(1)
        for argument in args:
            measure(argument)
        owner = getattr(__obj, "__self__", None)
        name = getattr(__obj, "__name__", "")
        methods = _TEXT_METHODS if isinstance(owner, str) else _MAPPING_METHODS
        if isinstance(owner, (str, dict)) and name in methods:
            spend(len(owner))
        elif not (
            isinstance(__obj, Macro)
            or __obj in (bounded_range, Namespace)
            or (isinstance(owner, LoopContext) and name in _LOOP_METHODS)
        ):
            raise SecurityError("this cannot be called in a template")
        result = __context.call(__obj, *args, **kwargs)
        # A view of a mapping hides how much there is in it.
        return list(result) if isinstance(owner, dict) and name != "get" else result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic on numbers (null in, null out), and `+` on two texts or two lists."""
        if type(left) in _NUMBERS and type(right) in _NUMBERS and operator != "**":  # nearly always
            return self._arithmetic(operator, left, right)
        if is_null(left) or is_null(right):
            return self.undefined(name=operator)
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            spend(len(left) + len(right))
            return left + right
        if operator == "+" and isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
            spend(len(left) + len(right))
            return [*left, *right]
        one, other = as_number(left), as_number(right)
        if one is None or other is None or operator == "**":
            raise TemplateRuntimeError(f"{operator} is for numbers. To join texts write ~")
        return self._arithmetic(operator, one, other)

    def _arithmetic(self, operator: str, one: int | float | Decimal, other: int | float | Decimal) -> Any:
        spend(1)
        try:
            if isinstance(one, int) and isinstance(other, int):
                result = self.binop_table[operator](one, other)
            else:
                # Decimals, or three lamps at 10.10 would cost 30.299999999999997.
                if isinstance(one, Decimal) or isinstance(other, Decimal):
                    result = self.binop_table[operator](as_decimal(one), as_decimal(other))
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
        return float(self.binop_table[operator](as_decimal(one), as_decimal(other)))


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

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        """A tuple is a list, which cannot be the name of a field: to look for one takes going through all of it."""
        self.generic_visit(node)
        if node.ctx != "load":
            return node
        return nodes.List(node.items, lineno=node.lineno).set_environment(self._environment)

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = self._filter(node.key, _NAME, lineno=node.lineno)
        return node

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


def check_size(source: str) -> None:
    """Raises TemplateInvalid where it is longer than a template may be."""
    if len(source) > MAX_SOURCE:
        raise TemplateInvalid(1, f"the template has {len(source):,} characters. At most {MAX_SOURCE:,} are read.")


def compile_template(source: str, *, html: bool, name: str) -> Template:
    """A template ready for `render`; `name` stands for its file. Raises TemplateInvalid."""
    check_size(source)
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
    token = rendition_under_way.set(rendition)
    try:
        context = template.new_context({**GLOBALS, **variables}, shared=True)
        text = "".join(template.root_render_func(context))
    except (
        TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError
    ) as error:  # fmt: skip
        message = "it calls itself too often" if isinstance(error, RecursionError) else str(error)
        raise TemplateInvalid(_line(template, error), _sentence(message)) from None
    finally:
        rendition_under_way.reset(token)
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
