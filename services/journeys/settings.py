"""What journeys reads from the environment."""

from __future__ import annotations

from shared.settings import Settings


class JourneysSettings(Settings):
    segmenter_url: str = ""
    """Where journeys reaches the segmenter and the mailer, whose parts it needs for the story of a customer."""
    mailer_url: str = ""
