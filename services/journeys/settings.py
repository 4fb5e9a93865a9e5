"""What journeys reads from the environment."""

from __future__ import annotations

from shared.settings import Settings


class JourneysSettings(Settings):
    """Journeys has no settings of its own beside the common ones."""
