"""Text that others wrote, as it may stand on a terminal. Pure."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What moves or colours a terminal (ECMA-48); ends of lines and tabs stay."""


def harmless(text: str) -> str:
    return _CONTROL.sub("\ufffd", text)
