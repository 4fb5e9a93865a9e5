from __future__ import annotations

from conftest_abuse import siege  # noqa: F401
