from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies that streaming makes go to the test's own folder."""
    monkeypatch.setenv("RAYPRUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
