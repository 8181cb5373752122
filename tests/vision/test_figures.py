"""The paper's figures: drawn from untrained models, with what a reader needs on them."""

import dataclasses

import matplotlib.image
import numpy as np
import pytest

from jaxtv.vision import commands, figures, training
from jaxtv.vision.task import get_task, settings_of

pytestmark = [
    pytest.mark.float32,
    pytest.mark.nightly,
    pytest.mark.usefixtures("flax_broadcasts"),
]


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


@pytest.fixture
def drawn_from(untrained):
    """Name of a task -> what its figures are drawn from."""

    def get(name):
        task = get_task(name)
        settings = settings_of(task, "smoke", {"limit": 2})
        models = {v: untrained(name, v) for v in task.variants}
        return figures.Trained(models, {}, task.load(None, settings), settings)

    return get


@pytest.mark.parametrize(
    ("name", "task", "expected"),
    [
        ("fig4", "wsol", ["input", "CAM", "CAM + TV"]),
        ("fig5", "edges", ["input", "truth", "DexiNed", "DexiNed + TV"]),
        ("fig6", "smoothing", ["input", "last convolution", "after the TV layer, λ = 1"]),
        ("fig7", "smoothing", ["before TV-sharp", "after"]),
    ],
)
def test_pictures_are_named(drawn_from, name, task, expected):
    assert titles(figures.FIGURES[name][1](drawn_from(task))) == expected


def test_the_denoising_figure_gives_psnr(drawn_from):
    found = titles(figures.FIGURES["fig8"][1](drawn_from("denoising")))
    assert [t.split(",")[0] for t in found] == [
        "clean",
        "noisy",
        "input layer",
        "network",
        "output",
    ]
    values = [float(t.split(", ")[1].split()[0]) for t in found[1:]]
    assert 19 < values[0] < 22  # σ = 25
    assert values[-1] > values[0]  # two TV layers, untrained, remove some of it


def test_the_lambda_figure_draws_each_layer_and_the_range_over_seeds(tmp_path):
    for seed in range(2):
        rows = ["epoch,loss,lam/a,lam/b"]
        rows += [f"{e},1.0,{0.1 * e + seed},{0.2 * e}" for e in (1, 2, 3)]
        (tmp_path / f"{seed}.csv").write_text("\n".join(rows))
    figure = figures.figure3({"tv-sharp": [tmp_path / "0.csv", tmp_path / "1.csv"]})
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["a", "b"]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.6, 0.7, 0.8])


def test_reproduce_draws_a_figure_from_the_runs_of_its_table(tmp_path, monkeypatch):
    task = get_task("denoising")
    one_group = dataclasses.replace(task.tables["table6"], groups={"σ=25": {"noise": 25.0}})
    monkeypatch.setattr(type(task), "tables", {"table6": one_group})
    less = {"seeds": 1, "overrides": commands.Overrides(limit=1)}
    commands.reproduce("table6", "smoke", output=tmp_path, **less)
    (tmp_path / "fig8.png").unlink()
    monkeypatch.setattr(training, "train", None)  # the runs are there
    commands.reproduce("fig8", "smoke", output=tmp_path, **less)
    picture = matplotlib.image.imread(tmp_path / "fig8.png")
    assert picture.std() > 0.1
    assert (tmp_path / "fig8.pdf").stat().st_size > 1000


def test_the_first_figure_shows_that_tv_keeps_the_step(tmp_path):
    commands.reproduce("fig1", output=tmp_path)
    assert (tmp_path / "fig1.png").exists()
    figure = figures.figure1()
    lines = [axes.lines[1].get_ydata() for axes in figure.axes if axes.lines]
    jump = [np.abs(np.diff(line)).max() for line in lines]
    assert jump[2] > 0.7  # the TV prox
    assert jump[1] < 0.2  # the Gaussian
