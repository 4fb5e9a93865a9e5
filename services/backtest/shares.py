"""Whose history is simulated where: customers in shares, each lived through by a process of its own. Pure.

What happens to one customer concerns no other, but for those who have had the same address (of mail, telephone or
device): what one of them says about being written to holds for the address, and so for all of them. They go together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from services.ingest.admission import whose
from services.ingest.calls import Identifier
from services.mailer.consent import normalise, number, token
from shared.language.playbook import Playbook, Set

_ADDRESSES = frozenset({"email", "phone", "push_token"})
_OF_NOBODY: Mapping[str, int] = {}


class Share(NamedTuple):
    """The customers of number `number` of so many shares. `moved` says where those are who do not go by their key."""

    number: int
    of: int
    moved: Mapping[str, int] = _OF_NOBODY

    @property
    def speaks_for_all(self) -> bool:
        """Whether what concerns no customer, or all, is told by this one."""
        return self.number == 0

    def has(self, user_id: Any, anonymous_id: Any) -> bool:
        """Whether the customer with these ids is among them."""
        key = user_id or anonymous_id
        if type(key) is not str:
            if not isinstance(user_id, Identifier) or not isinstance(anonymous_id, Identifier):
                return self.speaks_for_all
            key = whose(user_id, anonymous_id)
            if key is None:
                return self.speaks_for_all
        moved = self.moved
        if moved and key in moved:
            return moved[key] == self.number
        return _by_key(key, self.of) == self.number

    def has_message(self, message: bytes) -> bool:
        """Whether this is of a customer among them. What is no message concerns nobody."""
        try:
            named = _named(message)
        except (ValueError, RecursionError):
            return self.speaks_for_all
        return self.has(named.user_id, named.anonymous_id)


EVERYBODY = Share(0, 1)


class _Named(msgspec.Struct):
    """No more of a message than whose it is."""

    user_id: Identifier = msgspec.field(default=None, name="userId")
    anonymous_id: Identifier = msgspec.field(default=None, name="anonymousId")


class _Reachable(msgspec.Struct):
    """No more of traits than where a customer can be reached."""

    email: Any = None
    phone: Any = None
    push_token: Any = None


class _Around(msgspec.Struct):
    traits: Any = None


class _Told(_Named):
    traits: _Reachable | None = None
    context: _Around | None = None


_named = msgspec.json.Decoder(_Named).decode
_told = msgspec.json.Decoder(_Told).decode


def moved(addresses: Iterable[tuple[str, str]], of: int) -> dict[str, int]:
    """The customers who are not in the share that their key says, since they have shared an address with others; of
    what `addresses` found."""
    first: dict[int, str] = {}
    """By an address's hash, the first customer who was known to have it. Those who meet in one go together, too."""
    joined: dict[str, str] = {}
    """From customers to others with whom they go; whoever is in none goes first."""

    def leader(customer: str) -> str:
        while (other := joined.get(customer)) is not None:
            # Whoever asks next has half of the way.
            joined[customer] = customer = joined.get(other, other)
        return customer

    for customer, address in addresses:
        known = first.setdefault(hash(address), customer)
        if known != customer and (one := leader(known)) != (other := leader(customer)):
            joined[other] = one
    shares = {customer: _by_key(leader(customer), of) for customer in list(joined)}
    return {customer: share for customer, share in shares.items() if share != _by_key(customer, of)}


def go_apart(playbook: Playbook) -> bool:
    """Whether customers can be told apart by what history says of them: not where a journey itself gives them
    addresses, or where they are ranked among all."""
    if playbook.spend is not None:
        return False
    steps = (step for journey in playbook.journeys.values() for step in journey.steps.values())
    return all(_ADDRESSES.isdisjoint(step.traits) for step in steps if isinstance(step, Set))


def addresses(messages: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Customers with the addresses that messages say they have. A message that cannot be taken may be among them."""
    for message in messages:
        try:
            told = _told(message)
        except (ValueError, RecursionError):
            continue
        around = told.context.traits if told.context is not None else None
        if told.traits is None and not around:
            continue
        customer = whose(told.user_id, told.anonymous_id)
        if customer is None:
            continue
        traits = [(told.traits.email, told.traits.phone, told.traits.push_token)] if told.traits is not None else []
        if isinstance(around, dict):
            traits.append((around.get("email"), around.get("phone"), around.get("push_token")))
        for email, phone, device in traits:
            if isinstance(email, str) and (mailbox := normalise(email.replace("\0", ""))) is not None:
                yield customer, mailbox
            if isinstance(phone, str) and (called := number(phone)) is not None:
                yield customer, called
            if isinstance(device, str) and (named := token(device)) is not None:
                yield customer, named


def _by_key(customer: str, of: int) -> int:
    return crc32(customer.encode()) % of
