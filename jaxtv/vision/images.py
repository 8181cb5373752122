"""Pictures in files: any format of Pillow, kept at their depth, with their alpha."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


class ImageError(ValueError):
    """A picture that can not be read or written; the message names the file and the reason."""


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        color: float32, (H, W, 1) or (H, W, 3) in [0, 1].
        alpha: (H, W, 1) as it was read, or None.
        dtype: uint8 or uint16, the depth of the file.
        icc_profile: the colour profile, or None.
        reduced: the file has more bits than were read (Pillow has no 16-bit colour).
    """

    color: np.ndarray
    alpha: np.ndarray | None
    dtype: np.dtype
    icc_profile: bytes | None = None
    reduced: bool = False


def read(path: Path) -> Picture:
    """Reads a gray or colour picture, with or without alpha, turned upright by its EXIF tag.

    Raises:
        ImageError: no such file, not a picture, damaged, animated, or of 32 bits and more.
    """
    try:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise ImageError(f"{path} has {image.n_frames} frames; one is needed.")  # type: ignore
            reduced = not image.mode.startswith("I") and ";16" in str(image.tile)
            upright = ImageOps.exif_transpose(image)
            pixels = np.asarray(upright.convert(_target_mode(path, upright)))
            icc_profile = image.info.get("icc_profile")
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist.") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: broken PNG
        raise ImageError(f"{path} can not be read as a picture: {error}.") from error
    pixels = pixels.astype(pixels.dtype.newbyteorder("=")).reshape(*pixels.shape[:2], -1)
    channels = pixels.shape[-1]
    color, alpha = (pixels[..., :-1], pixels[..., -1:]) if channels in (2, 4) else (pixels, None)
    scale = np.float32(np.iinfo(pixels.dtype).max)
    return Picture(color.astype(np.float32) / scale, alpha, pixels.dtype, icc_profile, reduced)


def write(path: Path, picture: Picture) -> None:
    """Writes a picture in the format of the file's suffix, clipped to [0, 1] and rounded.

    Raises:
        ImageError: an unknown suffix, a missing folder, or a format that can not hold the picture.
    """
    scale = np.iinfo(picture.dtype).max
    pixels = np.rint(np.clip(picture.color, 0, 1) * scale).astype(picture.dtype)
    if picture.alpha is not None:
        pixels = np.concatenate([pixels, picture.alpha], axis=-1)
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    try:
        Image.fromarray(pixels).save(path, quality=95, icc_profile=picture.icc_profile)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} can not be written: {error}.") from error


def _target_mode(path: Path, image: Image.Image) -> str:
    """The gray or colour mode that holds all of a picture."""
    mode = image.mode
    if mode.startswith("I;16"):
        return mode
    if mode in ("I", "F"):
        raise ImageError(f"{path} has 32 bits per pixel; 8 and 16 are supported.")
    color = "L" if mode in ("1", "L", "LA") else "RGB"
    return color + "A" if image.has_transparency_data else color


SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".webp")


def listed(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def read_rgb(path: Path) -> np.ndarray:
    """A picture as uint8 (H, W, 3), without alpha.

    Raises:
        ImageError: see `read`.
    """
    pixels = np.rint(read(path).color * 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
