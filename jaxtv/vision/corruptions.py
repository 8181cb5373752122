"""The 15 corruptions of CIFAR-10-C at 5 severities, for any batch of small colour images.

Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common corruptions and
perturbations", computed as their make_cifar_c.py computes them. Frost takes photographs of ice
there; here its texture is generated.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import scipy.ndimage as ndi
import skimage
from PIL import Image

SEVERITIES = (1, 2, 3, 4, 5)
Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def corrupt(name: str, images: np.ndarray, severity: int, seed: int = 0) -> np.ndarray:
    """One corruption of a batch.

    Args:
        name: one of `CORRUPTIONS`.
        images: uint8 (N, H, W, 3).
        severity: 1 to 5.
        seed: of the noise; an image gets the same noise in every batch of the same shape.

    Returns:
        uint8 (N, H, W, 3).

    Raises:
        ValueError: an unknown name or severity, or images of another shape or dtype.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"`name` must be one of {', '.join(CORRUPTIONS)}, got {name!r}.")
    if severity not in SEVERITIES:
        raise ValueError(f"`severity` must be 1 to 5, got {severity!r}.")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"`images` must be uint8 (N, H, W, 3), got {images.dtype} {images.shape}.")
    rng = np.random.default_rng((seed, list(CORRUPTIONS).index(name), severity))
    out = CORRUPTIONS[name](images.astype(np.float64) / 255, severity - 1, rng)
    return (np.clip(out, 0, 1) * 255).astype(np.uint8)  # truncated, as the published set is


# Each takes images in [0, 1], the severity from 0, and a generator; values outside are clipped.

# ---- noise ----


def gaussian_noise(x: np.ndarray, s: int, rng: np.random.Generator) -> np.ndarray:
    """Additive white Gaussian noise."""
    return x + rng.normal(scale=(0.04, 0.06, 0.08, 0.09, 0.10)[s], size=x.shape)


def shot_noise(x: np.ndarray, s: int, rng: np.random.Generator) -> np.ndarray:
    """Poisson noise of a given number of photons."""
    photons = (500, 250, 100, 75, 50)[s]
    return rng.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, s: int, rng: np.random.Generator) -> np.ndarray:
    """Salt and pepper."""
    amount = (0.01, 0.02, 0.03, 0.05, 0.07)[s]
    return skimage.util.random_noise(x, mode="s&p", amount=amount, rng=rng)


# ---- blur ----


def defocus_blur(x: np.ndarray, s: int, _: np.random.Generator) -> np.ndarray:
    """A disk whose rim is smoothed."""
    radius, alias = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[s]
    offsets = np.arange(-8, 9)
    disk = (offsets[:, None] ** 2 + offsets[None] ** 2 <= radius**2).astype(float)
    rim = np.exp(-np.array([1.0, 0.0, 1.0]) / (2 * alias**2))
    kernel = ndi.convolve(disk / disk.sum(), np.outer(rim, rim) / rim.sum() ** 2, mode="constant")
    return ndi.convolve(x, kernel[None, :, :, None], mode="mirror")


def glass_blur(x: np.ndarray, s: int, rng: np.random.Generator) -> np.ndarray:
    """Pixels are replaced by near ones, between two Gaussian blurs.

    The published code means to swap them; its assignment of NumPy rows copies.
    """
    sigma, shift, passes = (
        (0.05, 1, 1),
        (0.25, 1, 1),
        (0.4, 1, 1),
        (0.25, 1, 2),
        (0.4, 1, 2),
    )[s]
    out = quantised(blur(x, sigma))
    n, height, width, _ = x.shape
    every = np.arange(n)
    for _ in range(passes):
        for h in range(height - shift, shift, -1):
            for w in range(width - shift, shift, -1):
                dy, dx = rng.integers(-shift, shift, size=(2, n))
                out[:, h, w] = out[every, h + dy, w + dx]
    return blur(out, sigma)


def motion_blur(x: np.ndarray, s: int, rng: np.random.Generator) -> np.ndarray:
    """A one-sided Gaussian along a random direction."""
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[s]
    angles = rng.uniform(-45, 45, size=len(x))
    blurred = [motion(image, radius, sigma, a) for image, a in zip(x, angles)]
    return np.rint(255 * np.stack(blurred)) / 255  # ImageMagick rounds to 8 bits


def zoom_blur(x: np.ndarray, s: int, _: np.random.Generator) -> np.ndarray:
    """The mean over zooms into the picture."""
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[s], 0.01)
    return np.mean([x, *(zoom(x, factor) for factor in factors)], axis=0)


# ---- weather ----


def snow(x: np.ndarray, s: int, rng: np.random.Generator) -> np.ndarray:
    """Falling flakes on a picture that is whitened."""
    mean, std, factor, threshold, radius, sigma, blend = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[s]
    layer = zoom(rng.normal(mean, std, size=(*x.shape[:3], 1)), factor)
    layer = quantised(np.where(layer < threshold, 0, layer))
    angles = rng.uniform(-135, -45, size=len(x))
    blurred = [motion(image, radius, sigma, a) for image, a in zip(layer, angles)]
    flakes = np.rint(255 * np.stack(blurred)) / 255
    gray = (x @ (0.299, 0.587, 0.114))[..., None]  # OpenCV's
    white = blend * x + (1 - blend) * np.maximum(x, 1.5 * gray + 0.5)
    return white + flakes + flakes[:, ::-1, ::-1]


def frost(x: np.ndarray, s: int, rng: np.random.Generator) -> np.ndarray:
    """A texture of ice over a dimmed picture."""
    picture, ice = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[s]
    return picture * x + ice * ice_texture(x.shape[:3], rng)


def fog(x: np.ndarray, s: int, rng: np.random.Generator) -> np.ndarray:
    """A cloud that is added, at the brightness of the picture."""
    strength, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[s]
    top = x.max(axis=(1, 2, 3), keepdims=True)
    clouds = np.stack([plasma(max(x.shape[1:3]), decay, rng) for _ in x])
    clouds = clouds[:, : x.shape[1], : x.shape[2], None]
    return (x + strength * clouds) * top / (top + strength)


def brightness(x: np.ndarray, s: int, _: np.random.Generator) -> np.ndarray:
    """A higher value in HSV."""
    hsv = skimage.color.rgb2hsv(x)
    hsv[..., 2] = np.clip(hsv[..., 2] + (0.05, 0.1, 0.15, 0.2, 0.3)[s], 0, 1)
    return skimage.color.hsv2rgb(hsv)


# ---- digital ----


def contrast(x: np.ndarray, s: int, _: np.random.Generator) -> np.ndarray:
    """Closer to the mean of each channel."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    return (x - mean) * (0.75, 0.5, 0.4, 0.3, 0.15)[s] + mean


def elastic_transform(x: np.ndarray, s: int, rng: np.random.Generator) -> np.ndarray:
    """A random affine map, then a smooth random displacement."""
    constants = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05))
    alpha, sigma, affine = (*constants, (0.1, 0.03, 0.03))[s]
    side = x.shape[1]
    return np.stack([elastic(image, side * alpha, side * sigma, side * affine, rng) for image in x])


def pixelate(x: np.ndarray, s: int, _: np.random.Generator) -> np.ndarray:
    """Fewer pixels, enlarged again."""
    keep = (0.95, 0.9, 0.85, 0.75, 0.65)[s]

    def f(image: Image.Image) -> Image.Image:
        width, height = image.size
        small = image.resize((int(width * keep), int(height * keep)), Image.Resampling.BOX)
        return small.resize((width, height), Image.Resampling.BOX)

    return through_pillow(x, f)


def jpeg_compression(x: np.ndarray, s: int, _: np.random.Generator) -> np.ndarray:
    """JPEG at low quality."""
    quality = (80, 65, 58, 50, 40)[s]

    def f(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return through_pillow(x, f)


# The order and the names of CIFAR-10-C's files.
CORRUPTIONS: dict[str, Corruption] = {
    f.__name__: f
    for f in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        glass_blur,
        defocus_blur,
        motion_blur,
        zoom_blur,
        snow,
        frost,
        fog,
        brightness,
        contrast,
        elastic_transform,
        pixelate,
        jpeg_compression,
    )
}

# ---------------------------------------------------------------------------- parts


def blur(x: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of each image of (N, H, W, C)."""
    return ndi.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")


def quantised(x: np.ndarray) -> np.ndarray:
    """Clipped to [0, 1] and truncated to 8 bits."""
    return (np.clip(x, 0, 1) * 255).astype(np.uint8) / 255


def through_pillow(x: np.ndarray, f: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Applies f to each image as a Pillow image."""
    pixels = (np.clip(x, 0, 1) * 255).round().astype(np.uint8)
    return np.stack([np.asarray(f(Image.fromarray(image))) for image in pixels]) / 255


def motion(image: np.ndarray, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """Half of a Gaussian along a direction, as ImageMagick's motion blur: (H, W, C)."""
    width = 2 * radius + 1
    weights = np.exp(-np.square(np.arange(width)) / (2 * sigma**2))
    weights /= weights.sum()
    along = np.deg2rad(degrees)
    height, length = image.shape[:2]
    out = np.zeros_like(image)
    for i, weight in enumerate(weights):
        dy, dx = (int(np.ceil(i * step - 0.5)) for step in (np.sin(along), np.cos(along)))
        rows = np.clip(np.arange(height) + dy, 0, height - 1)
        columns = np.clip(np.arange(length) + dx, 0, length - 1)
        out += weight * image[rows][:, columns]
    return out


def zoom(x: np.ndarray, factor: float) -> np.ndarray:
    """The centre of each image of (N, H, W, C), enlarged to its size by linear interpolation."""
    rows, columns = (zoom_matrix(side, factor) for side in x.shape[1:3])
    return np.einsum("ph,nhwc,qw->npqc", rows, x, columns, optimize=True)


def zoom_matrix(side: int, factor: float) -> np.ndarray:
    """One axis of `zoom`: (side, side), each row two weights."""
    part = int(np.ceil(side / factor))
    first = (side - part) // 2
    large = round(part * factor)
    at = np.linspace(0, part - 1, large)[(large - side) // 2 :][:side]
    left = np.minimum(at.astype(int), max(part - 2, 0))
    out = np.zeros((side, side))
    out[np.arange(side), first + left] = 1 - (at - left)
    out[np.arange(side), first + np.minimum(left + 1, part - 1)] += at - left
    return out


def plasma(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """A fractal cloud in [0, 1] by the diamond-square algorithm, periodic; (size, size) >= side."""
    size = 1 << max(1, (side - 1).bit_length())
    cloud = np.zeros((size, size))
    step, wobble = size, 1.0
    while step >= 2:
        half = step // 2
        corners = cloud[::step, ::step]
        around = corners + np.roll(corners, -1, 0)
        around = around + np.roll(around, -1, 1)
        cloud[half::step, half::step] = jitter(around / 4, wobble, rng)
        middles = cloud[half::step, half::step]
        beside = middles + np.roll(middles, 1, 0) + corners + np.roll(corners, -1, 1)
        cloud[::step, half::step] = jitter(beside / 4, wobble, rng)
        beside = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0)
        cloud[half::step, ::step] = jitter(beside / 4, wobble, rng)
        step, wobble = half, wobble / decay
    cloud -= cloud.min()
    return cloud / cloud.max()


def jitter(values: np.ndarray, wobble: float, rng: np.random.Generator) -> np.ndarray:
    """Values plus uniform noise of the size wobble²: the published code multiplies by it twice."""
    return values + wobble * rng.uniform(-wobble, wobble, size=values.shape)


def ice_texture(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Bright crystals on a bluish ground: (N, H, W, 3) in [0, 1]."""
    n, height, width = shape
    ground = np.stack([plasma(max(height, width), np.sqrt(2), rng) for _ in range(n)])
    ground = ground[:, :height, :width, None]
    needles = rng.normal(size=(n, height, width, 1)) > 1.5
    angles = rng.uniform(0, 360, size=n)
    crystals = np.stack([motion(m, 4, 2.5, a) for m, a in zip(needles.astype(float), angles)])
    return np.clip((0.25 + 0.5 * ground) * (0.85, 0.95, 1.0) + 1.5 * crystals, 0, 1)


def elastic(
    image: np.ndarray, alpha: float, sigma: float, affine: float, rng: np.random.Generator
) -> np.ndarray:
    """Affine map of three points moved by up to `affine` pixels, then a smooth displacement.

    Two interpolations, as in the published code.
    """
    height, width = image.shape[:2]
    centre, reach = np.array([height, width]) // 2, min(height, width) // 3
    points = centre + reach * np.array([[1, 1], [-1, 1], [-1, -1]])  # rows, columns
    moved = points + rng.uniform(-affine, affine, size=(3, 2))
    # Where each pixel comes from: the inverse map, moved -> points.
    homogeneous = np.column_stack([moved, np.ones(3)])
    inverse = np.linalg.solve(homogeneous, points.astype(float))
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    grid = np.stack([rows, columns], axis=-1)
    mapped = sample(image, np.dstack([grid, np.ones_like(rows)]) @ inverse, "mirror")
    shape = (height, width)
    smooth = lambda: ndi.gaussian_filter(
        rng.uniform(-1, 1, shape), sigma, mode="reflect", truncate=3
    )
    return sample(mapped, grid + alpha * np.stack([smooth(), smooth()], axis=-1), "reflect")


def sample(image: np.ndarray, at: np.ndarray, mode: str) -> np.ndarray:
    """Linear interpolation of (H, W, C) at rows and columns (H, W, 2)."""
    at = np.moveaxis(at, -1, 0)
    channels = np.moveaxis(image, -1, 0)
    return np.stack([ndi.map_coordinates(c, at, order=1, mode=mode) for c in channels], axis=-1)
