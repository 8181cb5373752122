"""What the CUDA path lowers to without a GPU: targets, scratch, sharding, missing kernels."""

import os
import re
import sys
import types

import jax
import jax.numpy as jnp
import pytest

import jaxtv
from jaxtv import _native, _primitive
from testing import fake_cuda
from testing.generators import HALF, SOLVERS, weight_shape


@pytest.fixture
def cuda(monkeypatch):
    """As if the CUDA module were built; nothing runs."""
    fake_cuda.build(monkeypatch)


def lowered(f, *args):
    return jax.jit(f).trace(*args).lower(lowering_platforms=("cuda",)).as_text()


def zeros(*shape, dtype=jnp.float32):
    return jnp.zeros(shape, dtype)


def weights(shape, axes, per_edge=False):
    return [zeros(*weight_shape(shape, a, per_edge)) for a in axes]


# ---------------------------------------------------------------------------- targets


def every_primitive():
    """Target -> (parameters, operands): a batch dimension of 4, then core axes."""
    x, (w,), images, axes = zeros(4, 9), weights((4, 9), (1,)), zeros(4, 9, 7), (2, 1)
    ws, codes = weights(images.shape, axes), zeros(4, 1, 9, 7, dtype=jnp.uint8)
    exact, sweeps = {"axis": 1, "solver": jaxtv.Direct()}, {"axes": axes, "iterations": 2}
    dykstra = {**sweeps, "inner": jaxtv.Direct()}
    edge = {"edge": (False, False)}
    return {
        "prox1d": (exact, (x, w)),
        "prox1d_info": (exact, (x, w)),
        "prox1d_data_weight": ({"axis": 1}, (x, x, w)),
        "segment_jvp": ({"axis": 1}, (x, w, x, w)),
        "segment_vjp": ({"axis": 1}, (x, w, x)),
        "dykstra": (dykstra, (images, *ws)),
        "dykstra_with_codes": (dykstra, (images, *ws)),
        "dykstra_jvp": (sweeps, (codes, images, *ws)),
        "dykstra_vjp": ({**sweeps, **edge}, (codes, images)),
        "components_jvp": ({"axes": axes}, (codes, images, *ws)),
        "components_vjp": ({"axes": axes, **edge}, (codes, images)),
        "isotropic_steps": (
            {"axes": (1, 2, 3), "tol": 1e-5, "max_iterations": 9},
            (
                *(zeros(4, 1, 9, 7), zeros(4, 1, 1, 1), zeros(4, 3, 2, 1, 9, 7)),
                *(zeros(4, 4, dtype=jnp.int32), zeros(4, 3)),
            ),
        ),
    }


HANDLERS = [t.removeprefix("jaxtv_") for t in fake_cuda.TARGETS]


@pytest.mark.parametrize("how", ["plain", "vmap", "sharded"])
@pytest.mark.parametrize("target", HANDLERS)
def test_every_primitive_lowers_to_its_kernel(cuda, target, how):
    """With scratch, and what keeps XLA from gathering a sharded batch."""
    params, args = every_primitive()[target]
    bind = getattr(_primitive, f"_{target}_p").bind
    f = lambda *a: bind(*a, **params)
    batch = 1
    if how == "vmap":
        args = [jnp.stack([a, a, a]) for a in args]
        f, batch = jax.vmap(f), 2
    if how == "sharded":
        mesh = jax.make_mesh((4,), ("data",), devices=jax.devices("cpu")[:4])
        batched = jax.NamedSharding(mesh, jax.P("data"))
        args = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=batched) for a in args]
    (call,) = [c for c in lowered(f, *args).splitlines() if "custom_call @jaxtv_" in c]
    assert f"@jaxtv_{target}(" in call
    assert re.search(r"\(tensor<[^)]*\) -> .*tensor<(3x)?4x\d+xui8>", call)
    assert f'num_batch_dims = "{batch}"' in call
    assert "sdy.op_sharding_rule" in call


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("shape", [(4, 3, 64), (2, 3, 5000)])
def test_prox1d_asks_for_the_scratch_of_its_solver(cuda, shape, name):
    x, solver = zeros(*shape), SOLVERS[name]
    plain = lowered(lambda x: jaxtv.prox_tv1d(x, 0.1, solver=solver), x)
    method = {"direct": 0, "taut string": 1, "decomposition": 2}.get(name, 3)
    size = fake_cuda.scratch_bytes("jaxtv_prox1d", shape[2:], [0], 4, method, [])
    assert "@jaxtv_prox1d(" in plain
    assert f"tensor<{shape[0]}x{shape[1]}x{size}xui8>" in plain
    assert "num_batch_dims" in plain
    info = lowered(lambda x: jaxtv.prox_tv1d(x, 0.1, solver=solver, return_info=True), x)
    assert "@jaxtv_prox1d_info(" in info
    gradient = lowered(jax.grad(lambda x: jnp.sum(jaxtv.prox_tv1d(x, 0.1, solver=solver) ** 2)), x)
    assert "@jaxtv_segment_vjp" in gradient


def test_only_leading_sizes_may_be_symbols(cuda):
    """The scratch follows from the sizes from the first prox axis on."""
    check = jax.export.DisabledSafetyCheck.custom_call("jaxtv_dykstra")
    prox = jax.jit(lambda x: jaxtv.prox_tv2d(x, 0.1, axes=(1, 2)))

    def export(sizes):
        constraints = ["h >= 2"] if "h" in sizes else ()
        shape = jax.export.symbolic_shape(sizes, constraints=constraints)
        spec = jax.ShapeDtypeStruct(shape, jnp.float32)
        return jax.export.export(prox, platforms=["cuda"], disabled_checks=[check])(spec)

    assert "@jaxtv_dykstra(" in export("b, 9, 7, 3").mlir_module()
    for sizes in ("b, 9, 7, c", "1, h, 7, 3"):
        with pytest.raises(
            ValueError, match="only the dimensions before the first prox axis may be"
        ):
            export(sizes)


@pytest.mark.parametrize("shape", [(4, 9), (2, 5000)])
def test_segments_ask_for_their_scratch(cuda, shape):
    x, (w,) = zeros(*shape), weights(shape, (1,))
    text = lowered(lambda *a: _primitive._segment_jvp_p.bind(*a, axis=1), x, w, x, w)
    size = fake_cuda.scratch_bytes("jaxtv_segment_jvp", shape[1:], [0], 4, 0, [])
    assert "@jaxtv_segment_jvp" in text
    assert f"tensor<{shape[0]}x{size}xui8>" in text


@pytest.mark.parametrize("iterations", [1, 5])
def test_dykstra_is_lowered_to_its_kernels(cuda, iterations):
    shape, axes = (4, 2, 9, 7, 3), (3, 2)
    params = {"axes": axes, "iterations": iterations, "inner": jaxtv.Direct()}
    operands = zeros(*shape), *weights(shape, axes, per_edge=True)
    dykstra = lambda x, *ws: _primitive.dykstra(x, ws, **params)
    solved = lowered(dykstra, *operands)
    size = fake_cuda.scratch_bytes("jaxtv_dykstra", shape[2:], [1, 0], 4, 0, [])
    assert "@jaxtv_dykstra(" in solved
    assert f"tensor<4x2x{size}xui8>" in solved
    assert "num_batch_dims" in solved
    gradient = lowered(lambda *a: jax.vjp(dykstra, *a)[1](a[0]), *operands)
    tangent = lowered(lambda *a: jax.jvp(dykstra, a, a), *operands)
    assert "@jaxtv_dykstra_with_codes(" in gradient
    assert "@jaxtv_dykstra_vjp(" in gradient
    assert "@jaxtv_dykstra_jvp(" in tangent


def test_the_converged_solver_lowers_to_jax_around_kernels(cuda):
    x, ws = zeros(3, 4), weights((3, 4), (0, 1))
    params = {"axes": (0, 1), "gap_tol": 1e-6, "sweeps": 5, "inner": jaxtv.Direct()}
    bind = _primitive._converged_p.bind
    f = lambda *a: bind(*a, **params)
    calls = re.findall(r"@(jaxtv_\w+)", lowered(f, x, x, *ws))
    assert set(calls) == {"jaxtv_prox1d", "jaxtv_components_jvp"}
    on_cpu = jax.jit(f).trace(x, x, *ws).lower(lowering_platforms=("cpu",)).as_text()
    assert "@jaxtv_converged" in on_cpu


def test_the_isotropic_solver_lowers_to_a_loop_around_its_steps(cuda):
    """Which update their state in place, so that the loop copies nothing."""
    f = lambda x: jaxtv.prox_tv_isotropic(x, 0.1, axes=(1, 2))
    text = lowered(f, zeros(3, 9, 7))
    assert re.findall(r"@(jaxtv_\w+)", text) == ["jaxtv_isotropic_steps"]
    for operand, result in _primitive.ISOTROPIC_STATE.items():
        assert (
            f"output_tuple_indices = [{result}], operand_index = {operand}, operand_tuple" in text
        )


@pytest.mark.parametrize("dtype", HALF)
def test_cuda_kernels_take_half_types_as_they_are(cuda, dtype):
    """No float32 copy of x is made on CUDA, forward or backward; XLA:CPU converts."""
    x = zeros(4, 64, 64, dtype=dtype)
    loss = lambda x, lam: jnp.sum(
        jaxtv.prox_tv2d(jaxtv.prox_tv1d(x, lam), lam, axes=(-2, -1))
    ).astype(jnp.float32)
    step = jax.jit(jax.value_and_grad(loss, (0, 1))).trace(x, jnp.float32(0.1))
    name = {"bfloat16": "bf16", "float16": "f16"}[dtype]
    text = step.lower(lowering_platforms=("cuda",)).as_text()
    calls = [line for line in text.splitlines() if "custom_call @jaxtv" in line]
    assert len(calls) >= 4
    assert all(f"tensor<4x64x64x{name}>" in line for line in calls)
    assert "tensor<4x64x64xf32>" not in "".join(calls)
    here = step.lower(lowering_platforms=("cpu",)).as_text()
    assert not any(f"x{name}>" in line for line in here.splitlines() if "custom_call" in line)


# ---------------------------------------------------------------------------- missing kernels


def gradient():
    x = jnp.ones((3, 5), jnp.float32)
    return lowered(jax.grad(lambda x: jnp.sum(jaxtv.prox_tv1d(x, 0.1) ** 2)), x)


def test_a_kernel_missing_from_the_build_is_an_error(monkeypatch):
    monkeypatch.setitem(_native.REGISTERED, "cuda", ("jaxtv_segment_jvp",))
    with pytest.raises(RuntimeError, match="jaxtv_prox1d is not among the cuda kernels"):
        lowered(lambda x: jaxtv.prox_tv1d(x, 0.1), zeros(3, 5))


def installed(monkeypatch, *packages, jax_plugin=None):
    """As if these packages had a CUDA module, and jax this plugin."""
    modules = {*packages, *(f"{package}._cuda" for package in packages), "jaxtv"}
    plugins = [types.SimpleNamespace(name=jax_plugin)] if jax_plugin else []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in modules)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: plugins)


def test_missing_kernels_are_an_error_only_where_jax_runs_on_cuda(monkeypatch):
    monkeypatch.setattr(_native, "REGISTERED", {"cpu": _native.REGISTERED["cpu"]})
    installed(monkeypatch, jax_plugin="rocm")
    assert "jaxtv_" not in gradient()
    installed(monkeypatch, jax_plugin="xla_cuda13")
    with pytest.raises(RuntimeError, match="JAXTV_CUDA=ON"):
        gradient()
    monkeypatch.setattr(_native, "FALLBACK", True)
    assert "jaxtv_" not in gradient()


V12, V13 = "jaxtv_cuda12_plugin", "jaxtv_cuda13_plugin"


@pytest.mark.parametrize(
    ("packages", "jax_plugin", "used", "said"),
    [
        ((), None, None, ["no kernels", "jax has no CUDA plugin", "jaxtv[cuda13]"]),
        ((), "xla_cuda12", None, ["jax runs on CUDA 12", "jaxtv[cuda12]"]),
        ((), "rocm", None, ["jax has no CUDA plugin"]),
        ((V12,), "xla_cuda12", V12, []),
        ((V12,), "xla_cuda13", V12, ["jax runs on CUDA 13", "jaxtv[cuda13]"]),
        ((V12,), None, V12, ["jax has no CUDA plugin", "jax[cuda12]"]),
        ((V12, V13), "xla_cuda12", V12, [f"not used: {V13}"]),
        ((V12, V13), None, V13, [f"not used: {V12}", "jax has no CUDA plugin", "jax[cuda13]"]),
        (("jaxtv", V13), "xla_cuda13", "jaxtv", ["built from source", f"not used: {V13}"]),
    ],
)
def test_the_module_that_fits_jax_is_used(monkeypatch, packages, jax_plugin, used, said):
    installed(monkeypatch, *packages, jax_plugin=jax_plugin)
    assert next(iter(_native.cuda_packages()), None) == used
    state = _native.cuda_state()
    for text in said or [used]:
        assert text in state
    assert said or state == used


def test_a_broken_cuda_module_says_how_to_install(monkeypatch):
    installed(monkeypatch)
    assert _native._load_cuda(_native._cpu) is None
    installed(monkeypatch, V12, jax_plugin="xla_cuda12")
    monkeypatch.setitem(sys.modules, f"{V12}._cuda", None)
    with pytest.raises(ImportError, match=r"jaxtv\[cuda12\].*JAXTV_CUDA=ON"):
        _native._load_cuda(_native._cpu)


@pytest.mark.skipif(
    not _native.cuda_packages() and not os.environ.get("JAXTV_REQUIRE_CUDA"),
    reason="without CUDA kernels",
)
def test_the_module_loads_without_a_gpu():
    assert set(_native.REGISTERED["cuda"]) == set(fake_cuda.TARGETS)
    assert _native.status()["cuda"]["architectures"]
