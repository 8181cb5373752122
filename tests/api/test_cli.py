"""The `jaxtv` command: pictures of every kind, errors, the demo in a process of its own."""

import importlib.metadata
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageCms

import jaxtv
from jaxtv import cli
from jaxtv.vision import images

SHAPES = {
    "gray": (np.uint8, (9, 7)),
    "gray16": (np.uint16, (9, 7)),
    "gray with alpha": (np.uint8, (9, 7, 2)),
    "rgb": (np.uint8, (9, 7, 3)),
    "rgba": (np.uint8, (9, 7, 4)),
    "one pixel": (np.uint8, (1, 1, 3)),
}


def pixels(name, seed=0):
    dtype, shape = SHAPES[name]
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, high, shape, dtype, endpoint=True)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return str(path)


def load(path):
    with Image.open(path) as image:
        return np.asarray(image)


def fails(capsys, *arguments):
    """Runs a command that must fail; returns all that it said."""
    with pytest.raises(SystemExit) as error:
        cli.main(list(arguments))
    assert error.value.code not in (0, None)
    printed = capsys.readouterr()
    return f"{error.value.code} {printed.out} {printed.err}"


def expected(array, lam, sharp=False, **options):
    """The prox of the colours in float64, and the alpha untouched.

    Edges of fully transparent pixels have the weight 0.
    """
    array = array if array.ndim == 3 else array[..., None]
    alpha = array.shape[-1] in (2, 4)
    color, rest = (array[..., :-1], array[..., -1:]) if alpha else (array, array[..., :0])
    high = np.iinfo(array.dtype).max
    x = color / high
    seen = rest > 0 if alpha else np.ones_like(x[..., :1], bool)
    weights = (lam * (seen[1:] & seen[:-1]), lam * (seen[:, 1:] & seen[:, :-1]))
    y = jaxtv.prox_tv2d(jnp.asarray(x), weights, axes=(0, 1), **options)
    y = np.clip(2 * x - y if sharp else y, 0, 1)
    return np.concatenate([high * y, rest], axis=-1).squeeze()


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("sharp", [False, True])
def test_smooth(tmp_path, name, sharp):
    array = pixels(name)
    source = save(tmp_path / "in.png", array)
    arguments = ["smooth", source, str(tmp_path / "out.png"), "--lam", "0.15"]
    cli.main(arguments + ["--sharp"] * sharp)
    out = load(tmp_path / "out.png")
    assert (out.dtype, out.shape) == (array.dtype, array.shape)
    # Rounded to whole numbers; float32 adds 2^-24 of 65535 at most.
    np.testing.assert_allclose(out.squeeze(), expected(array, 0.15, sharp), atol=0.51, rtol=0)


@pytest.mark.parametrize("name", SHAPES)
def test_lam_zero_changes_nothing(tmp_path, name):
    source = save(tmp_path / "in.png", pixels(name))
    cli.main(["smooth", source, str(tmp_path / "out.png"), "--lam", "0"])
    np.testing.assert_array_equal(load(tmp_path / "out.png"), pixels(name))


@pytest.mark.parametrize("solver", cli.SOLVERS)
def test_solvers_and_sweeps(tmp_path, solver):
    array = pixels("rgb")
    source = save(tmp_path / "in.png", array)
    arguments = ["--solver", solver, "--sweeps", "2"]
    cli.main(["smooth", source, str(tmp_path / "out.png"), *arguments])
    y = expected(array, 0.1, solver=jaxtv.Dykstra(iterations=2))
    np.testing.assert_allclose(load(tmp_path / "out.png"), y, atol=0.51, rtol=0)


def test_palette_with_transparency(tmp_path):
    image = Image.fromarray(pixels("rgb")).quantize(8)
    image.save(tmp_path / "in.png", transparency=3)
    before = np.asarray(Image.open(tmp_path / "in.png").convert("RGBA"))
    cli.main(["smooth", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--lam", "0"])
    np.testing.assert_array_equal(load(tmp_path / "out.png"), before)


def test_black_and_white(tmp_path):
    array = pixels("gray") > 127
    save(tmp_path / "in.png", array)
    cli.main(["smooth", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--lam", "0"])
    np.testing.assert_array_equal(load(tmp_path / "out.png"), 255 * array)


def test_big_endian_tiff(tmp_path):
    array = pixels("gray16")
    save(tmp_path / "in.tif", array.astype(">u2"))
    cli.main(["smooth", str(tmp_path / "in.tif"), str(tmp_path / "out.tif"), "--lam", "0"])
    np.testing.assert_array_equal(load(tmp_path / "out.tif"), array)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_pixels_are_those_of_the_file(tmp_path, suffix, orientation):
    stored, exif = np.arange(6, dtype=np.uint8).reshape(2, 3), Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"x{suffix}"
    Image.fromarray(stored).save(path, exif=exif)
    found = images.read(path, upright=False).color[..., 0]
    np.testing.assert_array_equal(np.rint(255 * found), stored)
    turned = images.read(path).color[..., 0]
    across = stored.T if orientation > 4 else stored
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    np.testing.assert_array_equal(np.rint(255 * turned), np.flip(across, flips))


def test_a_transparent_shade_of_16_bits_is_kept(tmp_path):
    path, gray = tmp_path / "x.png", np.array([[0, 256, 514, 65535]], np.uint16)
    Image.fromarray(gray).save(path, transparency=514)
    found = images.read(path)
    assert found.alpha is not None
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found.alpha[..., 0], [[255, 255, 0, 255]])


def test_a_transparent_shade_of_few_bits_is_one_of_its_depth(tmp_path):
    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    path = tmp_path / "x.png"
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0))  # 2 bits: 0 1 2 3
    data = chunk(b"IDAT", zlib.compress(b"\0\x1b")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"tRNS", b"\0\2") + data)
    alpha = images.read(path).alpha
    assert alpha is not None
    assert alpha.ravel().tolist() == [255, 255, 0, 255]


@pytest.mark.parametrize("bits", [16, 64])
def test_tiffs_of_other_floats_are_named(tmp_path, bits):
    path = tmp_path / "x.tif"
    Image.fromarray(np.zeros((2, 3), np.float32)).save(path)
    tags = path.read_bytes()
    tag = struct.pack("<HHI", 258, 3, 1)  # BitsPerSample
    assert tags.count(tag + b" \0") == 1
    path.write_bytes(tags.replace(tag + b" ", tag + bytes([bits])))
    with pytest.raises(images.ImageError, match=rf"x\.tif .*floats of {bits} bits; 8 bits"):
        images.read(path)


def test_the_picture_of_a_jpeg_that_holds_several_is_the_first(tmp_path):
    path, shades = tmp_path / "x.jpg", [Image.new("L", (8, 8), shade) for shade in (200, 10)]
    shades[0].save(path, "MPO", save_all=True, append_images=shades[1:])
    assert np.all(images.read(path).color == np.float32(200) / 255)


def test_names_of_the_longest_length_are_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".png")
    images.write(path, images.read(Path(save(tmp_path / "a.png", pixels("gray")))))
    assert path.is_file()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_signed_integers_are_named(tmp_path, dtype):
    path = tmp_path / "x.tif"
    Image.fromarray(np.zeros((2, 3), dtype)).save(path, tiffinfo={339: 2})
    with pytest.raises(images.ImageError, match=r"x\.tif has signed integers"):
        images.read(path)


def test_a_16_bit_tiff_whose_white_is_zero_is_no_negative(tmp_path):
    path, gray = tmp_path / "x.tif", np.array([[0, 1000, 65535]], np.uint16)
    Image.fromarray(gray).save(path, tiffinfo={262: 0})
    with Image.open(path) as image:
        assert image.tag_v2[262] == 0
        stored = np.asarray(image)
    found = np.rint(65535 * images.read(path).color[..., 0])
    np.testing.assert_array_equal(found, 65535 - stored.astype(int))


def test_exif_orientation_is_applied(tmp_path):
    array = pixels("rgb")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    save(tmp_path / "in.png", array, exif=exif)
    cli.main(["smooth", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--lam", "0"])
    np.testing.assert_array_equal(load(tmp_path / "out.png"), np.rot90(array, -1))


def test_jpeg(tmp_path):
    array = np.full((16, 16, 3), 100, np.uint8)
    source = save(tmp_path / "in.jpg", array)
    cli.main(["smooth", source, str(tmp_path / "out.jpg"), "--lam", "inf"])
    np.testing.assert_allclose(load(tmp_path / "out.jpg"), array, atol=2)


KINDS = [
    *(("uint8", channels) for channels in ("gray", "gray, alpha", "colour", "colour, alpha")),
    *((depth, channels) for depth in ("uint16", "float32") for channels in ("gray", "colour")),
]
FORMATS = ("png", "tif", "webp", "jpg", "bmp", "pgm", "ppm", "gif", "pfm", "jp2", "tga")
LOSSY = {"webp": 12, "jpg": 6, "gif": 60, "jp2": 12}  # of 255; gif: palettes


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("depth", "channels"), KINDS)
def test_every_format_holds_what_was_written_or_is_refused(tmp_path, depth, channels, suffix):
    """A smooth picture of each kind, written and read back: the same, as near as the format can."""
    ramp = np.linspace(0.1, 0.8, 24 * 32, dtype=np.float32).reshape(24, 32, 1)
    count = 3 if "colour" in channels else 1
    color = np.concatenate([ramp * (1 - 0.2 * c) for c in range(count)], axis=-1)
    alpha = None
    if "alpha" in channels:
        alpha = np.full((24, 32, 1), 255, np.uint8)
        alpha[:12, :, 0] = 40
    picture = images.Picture(color, alpha, np.dtype(depth))
    path = tmp_path / f"out.{suffix}"
    if alpha is not None and suffix in ("jpg", "bmp", "pgm", "ppm", "gif", "pfm"):
        with pytest.raises(images.ImageError, match=re.escape(str(path))):
            images.write(path, picture)
        assert not list(tmp_path.iterdir())
        return
    written = images.write(path, picture)
    back = images.read(path)
    assert back.dtype == written
    deep = {"float32": ("tif", "pfm"), "uint16": ("png", "tif", "pgm", "ppm", "pfm", "jp2")}
    keeps = depth == "uint8" or (suffix in deep[depth] and count == 1)
    assert (written == picture.dtype) == keeps
    tolerance = LOSSY.get(suffix, 0.51 if written == np.uint8 else 0.01) / 255
    np.testing.assert_allclose(back.color, np.broadcast_to(color, back.color.shape), atol=tolerance)
    if alpha is not None:
        np.testing.assert_array_equal(back.alpha, alpha)


def test_a_deep_picture_in_a_shallow_file_is_scaled_and_said(tmp_path, capsys):
    source = save(tmp_path / "in.png", np.linspace(8000, 52000, 768).reshape(24, 32).astype("u2"))
    cli.main(["smooth", source, str(tmp_path / "out.webp"), "--lam", "0"])
    assert "holds uint8" in capsys.readouterr().err
    got = np.asarray(Image.open(tmp_path / "out.webp").convert("L"), float)
    np.testing.assert_allclose(got, load(source) / 257, atol=12)


def test_floats_keep_their_values(tmp_path):
    array = np.random.default_rng(0).normal(2, 5, (9, 7)).astype(np.float32)
    save(tmp_path / "in.tif", array)
    cli.main(["smooth", str(tmp_path / "in.tif"), str(tmp_path / "out.tif"), "--lam", "1.5"])
    out = load(tmp_path / "out.tif")
    assert out.dtype == np.float32
    right = jaxtv.prox_tv2d(jnp.asarray(array), 1.5, axes=(0, 1))
    np.testing.assert_allclose(out, right, atol=1e-5)


@pytest.mark.parametrize("maxval", [1023, 4095, 65535])
def test_a_deep_pgm_is_scaled_to_its_white(tmp_path, maxval):
    samples = np.array([[0, maxval // 2, maxval], [1, 2, 3]], ">u2")
    header = f"P5\n3 2\n{maxval}\n".encode()
    (tmp_path / "a.pgm").write_bytes(header + samples.tobytes())
    got = images.read(tmp_path / "a.pgm")
    assert not got.reduced
    np.testing.assert_allclose(got.color[..., 0], samples / maxval, atol=1e-5)
    colour = f"P6\n1 2\n{maxval}\n".encode()
    (tmp_path / "b.ppm").write_bytes(colour + samples.tobytes())
    assert images.read(tmp_path / "b.ppm").reduced


@pytest.mark.parametrize(
    ("mode", "suffix", "space", "kept"),
    [
        ("CMYK", "jpg", b"CMYK", False),
        ("LAB", "tif", b"Lab ", False),
        ("RGB", "png", b"RGB ", True),
        ("RGB", "png", b"GRAY", False),
        ("L", "png", b"GRAY", True),
        ("L", "png", b"RGB ", False),
    ],
)
def test_a_colour_profile_is_kept_where_it_is_of_the_pixels(tmp_path, mode, suffix, space, kept):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile[:16] + space + profile[20:]
    source, out = tmp_path / f"in.{suffix}", tmp_path / "out.png"
    Image.fromarray(pixels("rgb")).convert(mode).save(source, icc_profile=profile)
    cli.main(["smooth", str(source), str(out), "--lam", "0"])
    with Image.open(out) as image:
        assert image.info.get("icc_profile") == (profile if kept else None)


def test_a_failed_write_leaves_the_old_file(tmp_path, capsys, monkeypatch):
    source = save(tmp_path / "in.png", pixels("rgba"))
    old = tmp_path / "old.jpg"
    Image.fromarray(pixels("rgb")).save(old)
    before = old.read_bytes()
    assert "RGBA as JPEG" in fails(capsys, "smooth", source, str(old))
    assert old.read_bytes() == before
    opaque = save(tmp_path / "opaque.png", pixels("rgb"))

    def full_disk(path, content):
        path.open("wb").write(content[:10])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    assert "No space left" in fails(capsys, "smooth", opaque, str(old))
    assert old.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.png", "old.jpg", "opaque.png"]


@pytest.mark.parametrize("solver", cli.SOLVERS)
@pytest.mark.parametrize("lam", ["0.5", "inf"])
def test_transparent_pixels_change_no_others(tmp_path, solver, lam):
    """A red square on transparent black: the only data are constant, and stay."""
    picture = np.zeros((16, 16, 4), np.uint8)
    picture[4:12, 4:12] = (255, 0, 0, 255)
    picture[0, 0] = (9, 8, 7, 0)
    source = save(tmp_path / "in.png", picture)
    cli.main(["smooth", source, str(tmp_path / "out.png"), "--lam", lam, "--solver", solver])
    np.testing.assert_array_equal(load(tmp_path / "out.png"), picture)


def test_the_version(capsys):
    for command in (
        [sys.executable, "-P", "-m", "jaxtv"],
        [sys.executable, "-P", "-m", "jaxtv.cli"],
    ):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"jaxtv {importlib.metadata.version('jaxtv')}\n"
    cli.main(["--version"])
    assert capsys.readouterr().out == done.stdout


@pytest.mark.parametrize("arguments", [["smooth", "--help"], ["train", "--help"], ["data", "list"]])
def test_a_terminal_without_greek_letters(arguments):
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "COLUMNS": "200"}
    command = [sys.executable, "-P", "-m", "jaxtv", *arguments]
    done = subprocess.run(command, capture_output=True, env=ascii_only, check=True)
    said = done.stdout.decode("ascii")
    assert "?" not in said
    if arguments[0] == "smooth":
        assert "lambda" in said


def test_smooth_errors(tmp_path, capsys):
    good = save(tmp_path / "good.png", pixels("rgba"))
    out = str(tmp_path / "out.png")
    assert "missing.png does not exist" in fails(capsys, "smooth", "missing.png", out)
    (tmp_path / "text.png").write_text("no picture")
    text = str(tmp_path / "text.png")
    assert "text.png can not be read as a picture" in fails(capsys, "smooth", text, out)
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:90])
    cut = str(tmp_path / "cut.png")
    assert "cut.png can not be read as a picture" in fails(capsys, "smooth", cut, out)
    assert "can not be read" in fails(capsys, "smooth", str(tmp_path), out)
    frames = [Image.fromarray(pixels("gray", seed)) for seed in range(2)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert "2 frames" in fails(capsys, "smooth", str(tmp_path / "film.gif"), out)
    save(tmp_path / "int.tif", np.zeros((4, 4), np.int32))
    assert "integers of 32 bits" in fails(capsys, "smooth", str(tmp_path / "int.tif"), out)
    save(tmp_path / "nan.tif", np.full((4, 4), np.nan, np.float32))
    assert "not finite" in fails(capsys, "smooth", str(tmp_path / "nan.tif"), out)
    save(tmp_path / "far.tif", np.full((4, 4), 3, np.float32))
    assert "write a .tif" in fails(capsys, "smooth", str(tmp_path / "far.tif"), out)
    assert "unknown file extension" in fails(capsys, "smooth", good, str(tmp_path / "out.xyz"))
    assert "RGBA as JPEG" in fails(capsys, "smooth", good, str(tmp_path / "out.jpg"))
    assert "can not be written" in fails(capsys, "smooth", good, str(tmp_path / "no" / "out.png"))
    for lam in ("-1", "nan"):
        assert "--lam must be 0 or more" in fails(capsys, "smooth", good, out, "--lam", lam)
    assert "--lam" in fails(capsys, "smooth", good, out, "--lam", "much")
    assert "--sweeps" in fails(capsys, "smooth", good, out, "--sweeps", "0")
    assert "--solver" in fails(capsys, "smooth", good, out, "--solver", "magic")
    assert not (tmp_path / "out.png").exists()


def test_demo_errors(tmp_path, capsys):
    assert "--seconds" in fails(capsys, "demo", "--seconds", "0")
    assert "--noise" in fails(capsys, "demo", "--noise", "1.5")
    assert "folder" in fails(capsys, "demo", "--output", str(tmp_path / "no" / "demo.png"))
    assert "must end in" in fails(capsys, "demo", "--output", str(tmp_path / "demo.jpeg"))
    (tmp_path / "demo.png").mkdir()
    assert "is a folder" in fails(capsys, "demo", "--output", str(tmp_path / "demo.png"))


def test_info_needs_no_extra(capsys, monkeypatch):
    for module in ("tyro", "rich"):
        monkeypatch.setitem(sys.modules, module, None)
    cli.main(["info"])
    printed = capsys.readouterr().out
    for word in ("jaxtv", "jaxlib", "flax", "jaxtv_prox1d", "FFI", "devices", "cpu:0"):
        assert word in printed


def test_no_subcommand(capsys):
    assert "demo" in fails(capsys)


@pytest.mark.parametrize("module", ["tyro", "PIL"])
def test_names_the_extra_that_is_missing(tmp_path, monkeypatch, capsys, module):
    for name in [m for m in sys.modules if m.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "jaxtv.vision.images", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    said = fails(capsys, "smooth", "in.png", str(tmp_path / "out.png"))
    assert f"{module} is missing" in said
    assert "jaxtv[vision]" in said


def test_the_demo_needs_no_orbax():
    """README's first command installs the extra [demo] alone."""
    script = "import sys; sys.modules['orbax'] = None; from jaxtv import cli; cli.main(['demo', '--help'])"
    subprocess.run([sys.executable, "-P", "-c", script], check=True, capture_output=True)


def test_demo(tmp_path):
    """The whole demo with a second of training, in a process of its own."""
    command = [sys.executable, "-P", "-m", "jaxtv.cli", "demo", "--seconds", "1"]
    fast = os.environ | {"JAX_DEFAULT_PRNG_IMPL": "rbg"}  # weights compile ten times faster
    done = subprocess.run(
        command, cwd=tmp_path, check=True, capture_output=True, text=True, env=fast
    )
    for word in ("TV-smooth", "TV-sharp", "Gaussian", "network", "dB", "forward and backward"):
        assert word in done.stdout
    picture = load(tmp_path / "jaxtv_demo.png")
    assert picture.shape[0] > 400
    assert picture.std() > 30
