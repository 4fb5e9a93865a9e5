"""What the segmenter reads from the environment."""

from __future__ import annotations

from shared.settings import Settings


class SegmenterSettings(Settings):
    """The segmenter's own settings beside the common ones."""

    read_keys: str = ""
    """SHA-256 (hex) of the keys that may read customers, separated by commas."""

    @property
    def hashed_read_keys(self) -> frozenset[str]:
        return frozenset(key.strip().lower() for key in self.read_keys.split(",") if key.strip())
