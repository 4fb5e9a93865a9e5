"""When time alone changes what an expression says."""

from __future__ import annotations

from datetime import datetime

from shared.language.expressions import Expression, Remark, Scope


def next_flip(expression: Expression, scope: Scope) -> datetime | None:
    """The earliest moment after `scope.now` at which time alone can change the expression's truth; None if never."""
    raise NotImplementedError


def unsolvable(expression: Expression) -> tuple[Remark, ...]:
    """What changes with time in a way that cannot be foreseen: errors where the expression is watched (`when`)."""
    raise NotImplementedError
