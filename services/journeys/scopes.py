"""What an expression in a journey sees of a customer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from services.journeys.consent import consents
from services.journeys.enrollment import Enrollment, Entry
from shared.contracts.customers import Customer
from shared.language.expressions import Scope
from shared.language.playbook import Playbook
from shared.language.variables import CustomerFields, TemplateCustomer

_decode = msgspec.json.Decoder().decode
_NOTHING: Mapping[str, Any] = {}
_NULL = b"null"


def in_templates(customer: Customer) -> TemplateCustomer:
    return TemplateCustomer(
        key=customer.key,
        stage=customer.stage,
        segments=customer.segments,
        first_seen=customer.first_seen,
        last_seen=customer.last_seen,
        locale=customer.locale,
        timezone=customer.timezone,
    )


def about(customer: Customer) -> CustomerFields:
    return CustomerFields(**in_templates(customer), spend_percentile=customer.spend_percentile)


def scope(
    playbook: Playbook,
    customer: Customer,
    now: datetime,
    *,
    event: Mapping[str, Any] | None = None,
    item: Any = None,
    entry: Entry | None = None,
    enrollment: Enrollment | None = None,
) -> Scope:
    """The scope of one evaluation. `item` and `entry` stand for an enrollment that is yet to begin."""
    entry = enrollment.entry if enrollment is not None else entry
    return Scope(
        now=now,
        traits=customer.traits,
        customer=about(customer),
        event=event,
        trigger=_decode(entry.trigger) if entry is not None else None,
        key=entry.key if entry is not None else None,
        item=item if entry is None else None if entry.item == _NULL else _decode(entry.item),
        steps=_decoded(enrollment.steps) if enrollment is not None else _NOTHING,
        vars=_decoded(enrollment.vars) if enrollment is not None else _NOTHING,
        aggregates=customer.aggregates,
        consented=lambda topic: consents(customer, topic, playbook),
        segments=customer.segments,
        currency=playbook.brand.currency,
        rates=playbook.brand.rates,
    )


def _decoded(kept: Mapping[str, bytes]) -> Mapping[str, Any]:
    return {name: _decode(value) for name, value in kept.items()} if kept else _NOTHING
