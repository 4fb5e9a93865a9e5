"""What a customer takes mail of, as far as journeys ask. The mailer decides, by address, when it sends. Pure."""

from __future__ import annotations

from shared.contracts.customers import Customer, CustomerUpdated
from shared.language.playbook import Playbook

EVERY_TOPIC = "*"
"""Stands for every promotional topic; a topic's own decision is never older than it (segmenter sees to that)."""


def consents(customer: Customer, topic: str, playbook: Playbook) -> bool:
    """Whether the customer takes mail of a topic: by their own decision, else by the topic's default."""
    known = playbook.topics.get(topic)
    if known is not None and known.kind == "transactional":
        return True
    decided = customer.consent.get(topic)
    if decided is None and (known is None or known.kind == "promotional"):
        decided = customer.consent.get(EVERY_TOPIC)
    if decided is None:
        return known is not None and known.default == "opt_out"
    return decided


def declined(record: CustomerUpdated, playbook: Playbook) -> frozenset[str]:
    """The topics that this record says no to, and that no later decision says yes to."""
    said_no = {decision.topic for decision in record.consent if not decision.subscribed}
    if EVERY_TOPIC in said_no:
        said_no.remove(EVERY_TOPIC)
        said_no |= {topic.name for topic in playbook.topics.values() if topic.kind == "promotional"}
    return frozenset(topic for topic in said_no if not consents(record.customer, topic, playbook))
