"""What a customer takes mail of, as far as journeys ask. The mailer decides, by address, when it sends. Pure."""

from __future__ import annotations

from shared.consent import EVERY_TOPIC, accepts, promotional
from shared.contracts.customers import Customer, CustomerUpdated
from shared.language.playbook import Playbook


def consents(customer: Customer, name: str, playbook: Playbook) -> bool:
    """Whether the customer takes mail of the topic of this name."""
    topic = playbook.topics.get(name)
    said = customer.consent.get(name)
    if said is None and promotional(topic):
        # Only then: a word on the topic itself is never older than this one (segmenter sees to that).
        said = customer.consent.get(EVERY_TOPIC)
    return accepts(topic, said)


def declined(record: CustomerUpdated, playbook: Playbook) -> frozenset[str]:
    """The topics that this record says no to, and that no later decision says yes to."""
    said_no = {decision.topic for decision in record.consent if not decision.subscribed}
    if EVERY_TOPIC in said_no:
        said_no.remove(EVERY_TOPIC)
        said_no |= {topic.name for topic in playbook.topics.values() if promotional(topic)}
    return frozenset(topic for topic in said_no if not consents(record.customer, topic, playbook))
