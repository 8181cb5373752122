"""The `jaxtv` command: pictures of every kind, errors, the demo in a process of its own."""

import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxtv
from jaxtv import cli

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
    """The prox of the colours in float64, and the alpha untouched."""
    array = array if array.ndim == 3 else array[..., None]
    alpha = array.shape[-1] in (2, 4)
    color, rest = (array[..., :-1], array[..., -1:]) if alpha else (array, array[..., :0])
    high = np.iinfo(array.dtype).max
    x = color / high
    y = jaxtv.prox_tv2d(jnp.asarray(x), lam, axes=(0, 1), **options)
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
    save(tmp_path / "float.tif", np.zeros((4, 4), np.float32))
    assert "32 bits" in fails(capsys, "smooth", str(tmp_path / "float.tif"), out)
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


def test_info(capsys):
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
    script = "import sys; sys.modules['orbax'] = None; from jaxtv import cli; cli.main(['info'])"
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
