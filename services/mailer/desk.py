"""What a process has in hand for one partition."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from services.mailer.store import InHand
from services.mailer.transport import Receipt


@dataclass(eq=False, slots=True)
class Desk:
    """What is in hand for one partition. It outlives a lane: a receipt is worth recording when we own it again."""

    stir: asyncio.Event = field(default_factory=asyncio.Event)
    attended: bool = False
    """The partition is ours, and somebody sees to what is in hand. What is done holds its slots meanwhile."""
    due: bool = True
    """Something may be due; a look will tell."""
    doubtful: bool = True
    """What stands in `sending` has to be looked up: a predecessor may have died, or a COMMIT of ours be unknown."""
    backlog: bool = False
    """The last look found more than it could take."""
    look_at: int = 0
    """How many due messages the next look takes: more where the last one had nothing to hand over."""
    flying: dict[str, InHand] = field(default_factory=dict)
    """Hand-overs that have begun and have no receipt yet, by `taken`."""
    done: dict[str, tuple[InHand, Receipt | None]] = field(default_factory=dict)
    """Receipts that are not recorded yet, by `taken`. None: the hand-over was prepared and never begun."""
    earlier: set[str] = field(default_factory=set)
    """What was in hand when we came to own it again, by `taken`: another owner may have ended it meanwhile."""
    gathered: bool = False
    """What is done has waited for more of its kind, and is worth a transaction."""
    passed: bool = False
    """Something is due that waits until there is room for its receiver."""
    barred: bool = False
    """Something here is about an address that another transaction holds, and is looked at again in a moment."""
    deciding: bool = False
    """A transaction is under way that may bring more of it to `sending`."""
    took: int = 0
    """The number of the turn at which it last took something (`Slots.turns`)."""

    @property
    def in_hand(self) -> bool:
        return bool(self.flying or self.done)
