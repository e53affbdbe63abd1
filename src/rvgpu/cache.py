"""The cache folder: entries behind their SHA-256, written atomically. Imports nothing of ours; every part may import it."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def cache_folder() -> Path:
    """RVGPU_CACHE_DIR or ~/.cache/rvgpu, mode 0700; where that cannot be written, a folder of this process that goes when it ends."""
    folder = Path(os.environ.get("RVGPU_CACHE_DIR") or Path.home() / ".cache" / "rvgpu")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return _own_folder()
    return folder if os.access(folder, os.W_OK) else _own_folder()


@cache
def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rvgpu-cache-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def source_hash(*parts: str) -> str:
    """Of every source file of these folders: what is made by them is cached under it."""
    h = hashlib.sha256()
    for part in parts:
        for p in sorted((ROOT / part).glob("*")):
            if p.is_file() and p.suffix in (".py", ".lark"):
                h.update(p.read_bytes())
    return h.hexdigest()


def read_entry(path: Path) -> bytes | None:
    """The body of an entry; None when it is not there or not whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def write_entry(path: Path, body: bytes) -> None:
    """Written beside its place and moved there. Where there is no room nothing is cached, and that is all."""
    name = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as f:
            name = f.name
            f.write(hashlib.sha256(body).digest() + body)
        os.replace(name, path)
    except OSError:
        if name is not None:
            Path(name).unlink(missing_ok=True)
