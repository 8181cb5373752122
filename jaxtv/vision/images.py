"""Pictures in files: any format of Pillow, kept at their depth, with their alpha."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    ImageFileDirectory_v2,
)

from jaxtv.vision import files

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".webp")
HOLD_16_BITS = ("PNG", "TIFF", "PPM", "JPEG2000")  # formats, for gray pictures without alpha
HOLD_FLOATS = (".tif", ".tiff", ".pfm")
RAW_WHITE = {"L;2": 3, "L;4": 15}  # of PNGs of fewer bits, as Pillow names their samples
TURN = Image.Transpose
BACK = {2: TURN.FLIP_LEFT_RIGHT, 3: TURN.ROTATE_180, 4: TURN.FLIP_TOP_BOTTOM, 5: TURN.TRANSPOSE}
BACK |= {6: TURN.ROTATE_90, 7: TURN.TRANSVERSE, 8: TURN.ROTATE_270}  # by the EXIF orientation
COLOUR_SPACES = {1: b"GRAY", 3: b"RGB "}  # of an ICC profile, by the number of channels


class ImageError(ValueError):
    """A picture that can not be read or written; the message names the file and the reason."""


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        color: float32, (H, W, 1) or (H, W, 3); in [0, 1] unless `dtype` is float32.
        alpha: (H, W, 1) as it was read, or None.
        dtype: uint8, uint16 or float32: the depth of the file.
        icc_profile: the colour profile, or None.
        reduced: the file has more bits than were read (Pillow has no 16-bit colour).
    """

    color: np.ndarray
    alpha: np.ndarray | None
    dtype: np.dtype
    icc_profile: bytes | None = None
    reduced: bool = False


def read(path: Path, *, upright: bool = True) -> Picture:
    """Reads a gray or colour picture, with or without alpha.

    Args:
        path: the file.
        upright: turn it as its EXIF tag says; else the pixels stay as they are stored.

    Raises:
        ImageError: no such file, not a picture, damaged, animated, of 32-bit integers, or with
            samples that are not finite.
    """
    try:
        with Image.open(path) as image:
            image.filename = ""  # not mapped into memory: Pillow maps a turned TIFF at a wrong size
            # Beside its picture, a JPEG of a phone may have a depth map or a copy in HDR ("MPO").
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                raise ImageError(f"{path} has {image.n_frames} frames; one is needed.")  # type: ignore
            signed = 2 in np.ravel(_tag(image, SAMPLEFORMAT))
            if signed and 32 not in np.ravel(_tag(image, BITSPERSAMPLE)):
                raise ImageError(f"{path} has signed integers; they must be without a sign.")
            kept = {"F": 32, "I": 16}.get(image.mode[0], 8)
            reduced = _bits(image) > kept
            clear = _transparent_shade(image)
            # White is 0, which Pillow inverts for 8 bits alone.
            negative = (
                image.mode.startswith("I;16") and _tag(image, PHOTOMETRIC_INTERPRETATION) == 0
            )
            turned = ImageOps.exif_transpose(image) if upright else _stored(image)
            pixels = np.asarray(turned.convert(_target_mode(path, turned, image.format)))
            if image.mode == "I":
                pixels = pixels.astype(np.uint16)
            icc_profile = image.info.get("icc_profile")
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist.") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path} can not be read as a picture: {_unknown(path)}.") from None
    except (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{path} can not be read as a picture: {error}.") from error
    pixels = pixels.astype(pixels.dtype.newbyteorder("=")).reshape(*pixels.shape[:2], -1)
    if not np.all(np.isfinite(pixels)):
        raise ImageError(f"{path} has samples that are not finite.")
    channels = pixels.shape[-1]
    color, alpha = (pixels[..., :-1], pixels[..., -1:]) if channels in (2, 4) else (pixels, None)
    if clear is not None:
        alpha = np.where(color == clear, np.uint8(0), np.uint8(255))
    if negative:
        color = np.iinfo(color.dtype).max - color
    return Picture(
        color.astype(np.float32) / _white(pixels.dtype),
        alpha,
        pixels.dtype,
        _profile_of(icc_profile, color.shape[-1]),
        reduced,
    )


def write(path: Path, picture: Picture) -> np.dtype:
    """Writes a picture in the format of the file's suffix, whole or not at all.

    Integers are clipped to [0, 1] and rounded. A format that holds fewer bits than the picture
    gets as many as it holds.

    Returns:
        What each sample has in the file: uint8, uint16 or float32.

    Raises:
        ImageError: an unknown suffix, a missing folder, a format that can not hold the alpha or
            the size of the picture, or floats outside of [0, 1] in a format of integers.
    """
    suffix = path.suffix.lower()
    format = Image.registered_extensions().get(suffix)
    if format not in Image.SAVE:
        raise ImageError(f"{path} can not be written: unknown file extension {path.suffix!r}.")
    dtype = _depth(suffix, format, picture)
    color = picture.color
    if dtype != np.float32:
        if picture.dtype == np.float32 and not (color.min() >= 0 and color.max() <= 1):
            raise ImageError(
                f"{path} holds values from 0 to 1, the picture has {color.min():g} to "
                f"{color.max():g}: write a .tif."
            )
        color = np.rint(np.clip(color, 0, 1) * _white(dtype))
    pixels = color.astype(dtype)
    if picture.alpha is not None:
        pixels = np.concatenate([pixels, picture.alpha], axis=-1)
    file = io.BytesIO()
    try:
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        profile = _profile_of(picture.icc_profile, color.shape[-1])
        image.save(file, format, quality=95, icc_profile=profile)
        if format in Image.OPEN:
            _check_written(path, file, picture)
        with files.replacing(path) as part:
            part.write_bytes(file.getvalue())
    except ImageError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise ImageError(f"{path} can not be written: {error}.") from error
    return dtype


def listed(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of their names."""
    return [p for p in files.entries(folder) if p.suffix.lower() in SUFFIXES]


def read_rgb(path: Path, *, upright: bool = False) -> np.ndarray:
    """A picture as uint8 (H, W, 3), without alpha, by default as it is stored.

    Annotations of data sets are in stored pixels.

    Raises:
        ImageError: see `read`; also floats outside of [0, 1].
    """
    color = read(path, upright=upright).color
    if color.min() < 0 or color.max() > 1:
        raise ImageError(f"{path} has values from {color.min():g} to {color.max():g}, not 0 to 1.")
    pixels = np.rint(color * 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def _unknown(path: Path) -> str:
    """Why Pillow can not open a file."""
    with path.open("rb") as file:
        try:
            tags = ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
            bits = np.ravel(tags[BITSPERSAMPLE])[0]
            kind = {2: "signed integers", 3: "floats"}[np.ravel(tags[SAMPLEFORMAT])[0]]
        except (SyntaxError, OSError, LookupError, struct.error):
            return "its format is unknown, or its header damaged"
    return f"a TIFF with {kind} of {bits} bits; 8 bits, 16 bits and float32 are supported"


def _white(dtype: np.dtype) -> np.float32:
    """The sample that is 1."""
    return np.float32(1 if dtype == np.float32 else np.iinfo(dtype).max)


def _bits(image: Image.Image) -> int:
    """Bits per sample in the file, at least those that Pillow has."""
    tiles = getattr(image, "tile", [])
    layout = str(tiles)
    deep_ppm = "codec_name='ppm'" in layout and int(tiles[0].args[1]) > 255  # its white
    return 64 if "F;64" in layout else 16 if ";16" in layout or deep_ppm else 8


def _stored(image: Image.Image) -> Image.Image:
    """The pixels as the file has them: Pillow turns a TIFF while it loads."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    turned_back = image.format == "TIFF" and orientation in BACK
    return image.transpose(BACK[orientation]) if turned_back else image


def _tag(image: Image.Image, tag: int) -> Any:
    """A tag of a TIFF; None: it has none."""
    return getattr(image, "tag_v2", {}).get(tag)


def _transparent_shade(image: Image.Image) -> int | None:
    """The shade that is transparent in a PNG of 16-bit gray, which Pillow does not apply.

    One of 2 or 4 bits it takes for one of 8 bits, which is mended in the picture.
    """
    shade = image.info.get("transparency")
    if not isinstance(shade, int):
        return None
    for samples, white in RAW_WHITE.items():
        if image.mode == "L" and repr(samples) in str(getattr(image, "tile", [])):
            image.info["transparency"] = shade * 255 // white
    return shade if image.mode.startswith("I;16") else None


def _target_mode(path: Path, image: Image.Image, format: str | None) -> str:
    """The gray or colour mode that holds all of a picture."""
    mode = image.mode
    if mode.startswith("I;16") or mode == "F" or (mode == "I" and format in ("PNG", "PPM")):
        return mode
    if mode == "I":
        raise ImageError(
            f"{path} has integers of 32 bits; 8 bits, 16 bits and float32 are supported."
        )
    color = "L" if mode in ("1", "L", "LA") else "RGB"
    return color + "A" if image.has_transparency_data else color


def _profile_of(profile: bytes | None, channels: int) -> bytes | None:
    """The ICC profile, if it is one of gray or RGB as the pixels are."""
    return profile if profile and profile[16:20] == COLOUR_SPACES[channels] else None


def _depth(suffix: str, format: str, picture: Picture) -> np.dtype:
    """The samples that a format can hold, at most those of the picture."""
    if picture.alpha is not None or picture.color.shape[-1] == 3:
        return np.dtype(np.uint8)  # all that Pillow writes
    if picture.dtype == np.float32 and suffix in HOLD_FLOATS:
        return picture.dtype
    shallow = picture.dtype == np.uint8 or format not in HOLD_16_BITS
    return np.dtype(np.uint8 if shallow else np.uint16)


def _check_written(path: Path, file: io.BytesIO, picture: Picture) -> None:
    """Reads an encoded picture back.

    Raises:
        ImageError: its size or its alpha has changed.
    """
    with Image.open(file) as back:
        if back.size != picture.color.shape[1::-1]:
            raise ImageError(f"{path}: the format holds {back.size} pixels of this picture.")
        alpha = back.convert("RGBA").getchannel("A") if back.has_transparency_data else None
    found = np.asarray(alpha) if alpha else np.uint8(255)
    if picture.alpha is not None and np.any(found != picture.alpha[..., 0]):
        raise ImageError(f"{path} can not be written: the format does not hold this alpha.")
