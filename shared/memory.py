"""How a process of ours looks after its memory."""

from __future__ import annotations

import gc


def collect_seldom() -> None:
    """Have Python look for cycles less often; called once, as a process begins.

    A batch makes a hundred thousand lists, mappings and structs and drops them all; four are in hand at once, and
    hardly any form cycles. Looking at them after each 700, as Python does unless told otherwise, took a third of the
    segmenter's and the journeys' processor time; after each 50,000 still a sixth of it, since each look found most of
    a batch alive. What does form cycles (errors with their tracebacks) is found all the same, some ten megabytes later.
    A command that only reads a playbook is over sooner, too.
    """
    gc.set_threshold(500_000, 20, 100)
