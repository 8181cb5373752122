"""Every wrong argument gets its own error, which names the argument, before anything is lowered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtv

X = np.zeros((4, 6, 5), np.float32)


def prox1d(x=X, lam=1.0, **options):
    return lambda: jaxtv.prox_tv1d(x, lam, **options)


def prox2d(x=X, lam=1.0, axes=(-2, -1), **options):
    return lambda: jaxtv.prox_tv2d(x, lam, axes=axes, **options)


def prox(x=X, lam=1.0, **options):
    return lambda: jaxtv.prox_tv(x, lam, **options)


WRONG = {
    # x
    "integers": (prox1d(X.astype(np.int32)), TypeError, r"`x`.*int32.*astype"),
    "python integers": (prox1d([1, 2, 3]), TypeError, r"`x`.*astype"),
    "booleans": (prox1d(X > 0), TypeError, "`x`.*bool"),
    "complex": (prox1d(X.astype(np.complex64)), TypeError, "`x`.*complex64"),
    "complex parts": (prox1d(X.astype(np.complex64)), TypeError, r"x\.real and x\.imag"),
    "masked": (prox1d(np.ma.array(X, mask=X == 0)), TypeError, r"`x`.*masked.*x\.filled"),
    "masked lam": (prox1d(lam=np.ma.array([1.0, 2.0])), TypeError, r"`lam`.*lam\.filled"),
    "objects": (prox1d(np.array([1.0, None])), TypeError, "`x`.*float32.*got object"),
    "ragged": (prox1d([[1.0], [1.0, 2.0]]), TypeError, "`x` must be an array, got list"),
    "text": (prox1d("signal"), TypeError, "`x`"),
    "none": (prox1d(None), TypeError, "`x`"),
    "eight bits": (prox1d(jnp.zeros(4, jnp.float8_e4m3fn)), TypeError, "`x`.*float8_e4m3fn"),
    "no dimension": (prox1d(np.float32(1)), ValueError, "`axis`.*0 dim"),
    "integer image": (prox2d(X.astype(np.int32)), TypeError, "int32"),
    "one dimension": (prox2d(X[0, 0]), ValueError, "`axes`.*1 dim"),
    # axis, axes
    "axis too large": (prox1d(axis=3), ValueError, "`axis` 3 .*3 dim"),
    "axis too small": (prox1d(axis=-4), ValueError, "`axis` -4"),
    "axis of two": (prox1d(axis=(0, 1)), TypeError, "`axis`"),
    "axis under jit": (
        lambda: jax.jit(lambda x, a: jaxtv.prox_tv1d(x, 1.0, axis=a))(X, 1),
        TypeError,
        "`axis`.*static_argnames",
    ),
    "fractional axis": (prox1d(axis=1.0), TypeError, "`axis`"),
    "axes not named": (
        prox2d(axes=None),
        ValueError,
        r"`axes` must be given.*3 dim.*\(-2, -1\) for \(\.\.\., H, W\), axes=\(-3, -2\) for "
        r"\(\.\.\., H, W, C\)",
    ),
    "axes of a batch not named": (
        prox2d(X[None], axes=None),
        ValueError,
        r"`axes`.*4 dim.*\(1, 4, 6, 5\)",
    ),
    "axes of the reference not named": (
        lambda: jaxtv.reference.prox_tv2d(X, 1.0),
        ValueError,
        "`axes` must be given",
    ),
    "signal without axes": (prox2d(X[0, 0], axes=None), ValueError, "`axes`.*1 dim"),
    "axes out of range": (prox2d(axes=(0, 3)), ValueError, "`axes` 3"),
    "axis twice": (prox2d(axes=(2, -1)), ValueError, "`axes`.*distinct"),
    "axis thrice": (prox(axes=(0, 1, 0)), ValueError, "`axes`.*distinct"),
    "one axis of two": (prox2d(axes=(1,)), ValueError, "`axes`.*two"),
    "three axes of two": (prox2d(axes=(0, 1, 2)), ValueError, "`axes`.*two"),
    "no axes": (prox(axes=()), ValueError, "`axes`.*at least one"),
    "axes in words": (prox(axes="hw"), TypeError, "`axes`"),
    "fractional axes": (prox2d(axes=(0.0, 1.0)), TypeError, "`axes`"),
    # lam
    "negative": (prox1d(lam=-0.1), ValueError, r"`lam`.*>= 0.*-0\.1"),
    "NaN": (prox1d(lam=float("nan")), ValueError, "`lam`.*nan"),
    "one negative": (prox1d(lam=np.float32([1, 1, -2, 1])), ValueError, "`lam`.*-2"),
    "negative in 2D": (prox2d(lam=-1.0), ValueError, "`lam`"),
    "negative in a pair": (prox2d(lam=(1.0, -1.0)), ValueError, "`lam`"),
    "lam in words": (prox1d(lam="0.1"), TypeError, "`lam`.*str"),
    "lam none": (prox1d(lam=None), TypeError, "`lam`.*None"),
    "lam true": (prox1d(lam=True), TypeError, "`lam`.*bool"),
    "lam complex": (prox1d(lam=np.complex64(1)), TypeError, "`lam`.*complex64"),
    "lam a time": (prox1d(lam=np.timedelta64(1)), TypeError, "`lam`.*timedelta64"),
    "axes as an array of floats": (prox(axes=np.array([0.0, 1.0])), TypeError, "`axes`.*integer"),
    "lam integers": (prox1d(lam=np.ones(5, np.int32)), TypeError, "`lam`.*int32.*astype"),
    "lam per sample": (prox1d(lam=np.ones(5, np.float32)), ValueError, r"`lam`.*\(5,\).*1 or 4"),
    "lam per row": (
        prox1d(lam=np.ones(4, np.float32), axis=1),
        ValueError,
        r"`lam`.*axis 0: lam\.reshape\(4, 1, 1\)",
    ),
    "lam per column": (prox1d(lam=np.ones(6, np.float32)), ValueError, r"lam\.reshape\(6, 1\)"),
    "lam too short": (prox1d(lam=np.ones(3, np.float32)), ValueError, r"`lam`.*\(3,\).*1 or 4"),
    "wrong batch": (prox1d(lam=np.ones((3, 6, 1), np.float32)), ValueError, r"`lam`.*\(3, 6, 1\)"),
    "too many axes": (prox1d(lam=np.ones((1, 1, 1, 1), np.float32)), ValueError, "`lam`"),
    "pair in 1D": (prox1d(lam=(1.0, 1.0)), ValueError, "`lam`.*one axis"),
    "triple in 2D": (prox2d(lam=(1.0, 1.0, 1.0)), ValueError, r"`lam`.*\(2\).*got 3"),
    "edges of two axes": (prox2d(lam=np.ones((5, 5), np.float32)), ValueError, "`lam`.*tuple"),
    "edges of the other": (
        prox2d(lam=(np.ones((6, 4), np.float32), 1.0)),
        ValueError,
        r"`lam`.*\(6, 4\)",
    ),
    # solver
    "Dykstra in 1D": (prox1d(solver=jaxtv.Dykstra()), TypeError, "`solver`.*1D.*Dykstra"),
    "Direct in 2D": (prox2d(solver=jaxtv.Direct()), TypeError, "`solver`.*Dykstra"),
    "solver in words": (prox1d(solver="direct"), TypeError, "`solver`.*'direct'"),
    "solver class": (prox1d(solver=jaxtv.Direct), TypeError, "`solver`"),
    "solver class in 2D": (prox2d(solver=jaxtv.Dykstra), TypeError, "`solver`"),
    "Dykstra on one axis": (prox(axes=(1,), solver=jaxtv.Dykstra()), TypeError, "`solver`"),
    "Direct on three": (prox(axes=(0, 1, 2), solver=jaxtv.Direct()), TypeError, "`solver`.*3 axes"),
    # solver objects
    "tol": (lambda: jaxtv.ProjectedNewton(tol=-1e-3), ValueError, r"`tol`.*-0\.001"),
    "tol NaN": (lambda: jaxtv.ProjectedNewton(tol=float("nan")), ValueError, "`tol`.*nan"),
    "tol in words": (lambda: jaxtv.ProjectedNewton(tol="small"), ValueError, "`tol`.*'small'"),
    "no steps": (
        lambda: jaxtv.ProjectedNewton(max_iterations=0),
        ValueError,
        "`max_iterations`.*0",
    ),
    "half a step": (lambda: jaxtv.ProjectedNewton(max_iterations=0.5), ValueError, "0.5"),
    "line search": (
        lambda: jaxtv.ProjectedNewton(line_search="golden"),
        ValueError,
        "`line_search`.*backtracking.*parallel.*golden",
    ),
    "unknown kernel": (
        lambda: jaxtv.Direct("newton"),
        ValueError,
        '`kernel` must be "auto", "taut_string" or "decomposition", got \'newton\'',
    ),
    "kernel none": (lambda: jaxtv.Direct(kernel=None), ValueError, "`kernel`.*None"),
    "no sweeps": (lambda: jaxtv.Dykstra(0), ValueError, "`iterations`.*0"),
    "true sweeps": (lambda: jaxtv.Dykstra(True), ValueError, "`iterations`.*True"),
    "Dykstra in Dykstra": (lambda: jaxtv.Dykstra(inner=jaxtv.Dykstra()), TypeError, "`inner`"),
    # functionals
    "variation of integers": (
        lambda: jaxtv.total_variation(X.astype(int), axes=-1),
        TypeError,
        "`x`.*int64",
    ),
    "variation along axis 7": (lambda: jaxtv.total_variation(X, axes=7), ValueError, "`axes` 7"),
    "variation with λ < 0": (lambda: jaxtv.total_variation(X, -1.0, axes=0), ValueError, "`lam`"),
    "gap of two shapes": (
        lambda: jaxtv.duality_gap(X, X[0], 1.0, axes=-1),
        ValueError,
        r"`y`.*\(4, 6, 5\).*\(6, 5\)",
    ),
    "gap of integers": (
        lambda: jaxtv.duality_gap(X, X.astype(np.int32), 1.0, axes=-1),
        TypeError,
        "`y`.*int32",
    ),
    "max_lambda along axis -5": (lambda: jaxtv.max_lambda(X, -5), ValueError, "`axes` -5"),
}

if np.dtype(np.longdouble).itemsize > 8:  # elsewhere it is float64
    WRONG["long double"] = (prox1d(X.astype(np.longdouble)), TypeError, "`x`.*float128.*astype")
    WRONG["lam long double"] = (prox1d(lam=np.longdouble(1)), TypeError, "`lam`.*float128.*astype")


@pytest.mark.parametrize("case", WRONG)
def test_wrong_argument(case):
    call, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("case", [c for c in WRONG if WRONG[c][0].__qualname__.startswith("prox")])
def test_also_while_tracing(case):
    """Under jit the same errors come at trace time: nothing reaches the lowering."""
    call, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        jax.make_jaxpr(lambda _: call())(0.0)


def test_traced_lam_is_not_checked():
    y = jax.jit(jaxtv.prox_tv1d)(jnp.asarray(X), -1.0)
    assert np.isnan(y).all()


def test_missing_axes():
    with pytest.raises(TypeError, match="axes"):
        jaxtv.prox_tv(X, 1.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="axes"):
        jaxtv.total_variation(X)  # type: ignore[call-arg]


def test_solvers_are_values():
    taut = jaxtv.Direct("taut_string")
    assert jaxtv.Dykstra(3, taut) == jaxtv.Dykstra(3, inner=jaxtv.Direct(kernel="taut_string"))
    assert len({jaxtv.ProjectedNewton(), jaxtv.ProjectedNewton(tol=1e-6), jaxtv.Direct()}) == 2
    assert len({jaxtv.Direct(), jaxtv.Direct("auto"), taut, jaxtv.Direct("decomposition")}) == 3
    with pytest.raises(AttributeError):
        jaxtv.Dykstra().iterations = 5  # type: ignore[misc]
    with pytest.raises(AttributeError):
        taut.kernel = "auto"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("solver", "method"),
    [
        (jaxtv.Direct(), 0),
        (jaxtv.Direct("taut_string"), 1),
        (jaxtv.Direct("decomposition"), 2),
        (jaxtv.ProjectedNewton(), 3),
    ],
)
def test_solver_reaches_the_kernel(solver, method):
    """The numbers are those of `enum class Method` (include/jaxtv/solver.hpp)."""
    for prox in (prox1d(solver=solver), prox2d(axes=(0, 1), solver=jaxtv.Dykstra(1, solver))):
        text = jax.jit(lambda _, prox=prox: prox()).lower(0.0).as_text()
        assert f"method = {method} : i64" in text
