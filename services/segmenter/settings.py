"""What the segmenter reads from the environment."""

from __future__ import annotations

from shared.settings import Settings


class SegmenterSettings(Settings):
    """The segmenter has no settings of its own beside the common ones."""
