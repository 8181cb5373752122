"""Files that appear whole or not at all, and folders without their hidden entries."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path next to `path` to write to; the file takes the name `path` once it is whole."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")  # short: names end at 255 bytes
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def entries(folder: Path) -> list[Path]:
    """What is in a folder, by name. Hidden entries are not data."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
