"""What a process has in hand for one partition."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from services.mailer.store import InHand
from services.mailer.transport import Receipt

_GATHERING_SECONDS = 0.1
"""How long a receipt waits for others, while others may come."""


@dataclass(eq=False, slots=True)
class Desk:
    """What is in hand for one partition. It outlives a lane: a receipt is worth recording when we own it again."""

    stir: asyncio.Event = field(default_factory=asyncio.Event)
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
    gathered: bool = False
    """What is done has waited for more of its kind, and is worth a transaction."""
    _gathering: asyncio.TimerHandle | None = None

    def take_in(self, hand: InHand, receipt: Receipt | None) -> None:
        """A hand-over is over. Receipts wait a moment for others, while others may come."""
        del self.flying[hand.taken]
        self.done[hand.taken] = (hand, receipt)
        if not self.flying:
            self._stop_gathering()
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(_GATHERING_SECONDS, self._stop_gathering)

    def _stop_gathering(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self.gathered = True
        self.stir.set()
