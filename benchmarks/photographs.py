"""The photographs that a machine has: one file for each picture."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

KINDS = (".jpg", ".jpeg")
SMALLEST = 300
ALIKE = 0.9
"""Correlation of two thumbnails from which on they show the same picture."""


def distinct(folders: Sequence[Path]) -> list[Path]:
    """Return the JPEG files below folders, by name; of files that look alike the first.

    Desktops ship a picture in many sizes: without this, a picture would be on both sides of a split. Files
    that are higher than wide are left out for the same reason (they are parts of wide ones), as are those of
    fewer than 300 pixels.
    """
    from PIL import Image

    found: list[Path] = []
    seen: list[Tensor] = []
    for file in sorted(f for folder in folders for f in folder.rglob("*") if f.suffix.lower() in KINDS):
        with Image.open(file) as opened:
            if opened.width < opened.height or opened.height < SMALLEST:
                continue
            small = opened.convert("RGB").resize((16, 16), Image.Resampling.BOX)
        thumbnail = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).double()
        thumbnail -= thumbnail.mean()
        thumbnail /= thumbnail.norm().clamp(min=1)
        if all(thumbnail @ other < ALIKE for other in seen):
            found.append(file)
            seen.append(thumbnail)
    return found
