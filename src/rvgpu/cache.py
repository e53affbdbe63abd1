"""The cache folder. Imports nothing of ours; every part may import it."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """RVGPU_CACHE_DIR or ~/.cache/rvgpu, mode 0700."""
    folder = Path(os.environ.get("RVGPU_CACHE_DIR") or Path.home() / ".cache" / "rvgpu")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
