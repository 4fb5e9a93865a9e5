"""How a process of ours looks after its memory."""

from __future__ import annotations

import gc


def collect_seldom() -> None:
    """Have Python look for cycles less often; called once, as a process begins.

    A batch makes some hundred thousand objects and drops them all; hardly any form cycles. Looking at them after each
    700, as Python does unless told otherwise, took a fifth of the segmenter's and the journeys' processor time. What
    does form cycles (errors with their tracebacks) is found all the same, some megabytes later. A command that only
    reads a playbook is over sooner, too.
    """
    gc.set_threshold(50_000, 20, 100)
