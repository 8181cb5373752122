"""Every public docstring has an example, and its output is the one shown."""

import doctest
import inspect

import jax
import pytest

import jaxtv


def public_names():
    """Functions and classes of jaxtv, and of the modules that it names."""
    for name in jaxtv.__all__:
        value = getattr(jaxtv, name)
        if inspect.ismodule(value):
            yield from (f"{name}.{member}" for member in value.__all__)
        else:
            yield name


def lookup(name):
    value = jaxtv
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.float32
@pytest.mark.parametrize("name", [*public_names()])
def test_example(name):
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(lookup(name)), {}, name, None, 0)
    assert any(part.want for part in example.examples), f"{name} shows no output"
    runner, report = doctest.DocTestRunner(), []
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        runner.run(example, out=report.append)
    assert not report, "".join(report)
    assert runner.tries == len(example.examples)


def test_all_public_names_are_covered():
    assert {"Direct", "Info", "prox_tv", "nnx.TVLayer", "reference.prox_tv2d"} < {*public_names()}
