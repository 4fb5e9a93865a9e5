"""Which revisions there are of a schema's tables; `shared.database.migrations` carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Migrations:
    """A schema and the folder of its revisions (`versions/*.py` below it)."""

    schema: str
    folder: Path
