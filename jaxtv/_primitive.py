"""The JAX primitives: forward, JVP and VJP of each operation, with all their rules.

An operation is three FFI targets. The forward is a primitive with a JVP rule. The JVP and the VJP
are linear primitives, each the transpose of the other. From these JAX derives every mode of
differentiation, at any order, under `jit`, `vmap`, `scan` and `shard_map`. A `jax.custom_vjp`
would have no forward mode. The VJP is the paper's Eq. 8 as a segment mean: O(n), no linear solve.

Weights have the shape of x with size 1 (one λ per signal) or n-1 (one per edge) along their axis.

x may be a half type, except in `prox1d_info`. Then y, the tangents of x and y and their cotangents
have that type too. Weights are float32, and all computation is in float32. The CUDA kernels convert
as they load and store; on other platforms the lowering converts (`_in_float32`).

Names: tx, tw, ty are tangents of x, w, y; gx, gw are cotangents of x, w, and g that of y. Operands
called `codes` are edge codes (`_edge_codes.py`). The parameter `edge` says, for each axis, whether
its weights are per edge; the shapes of a VJP's operands do not tell it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla

from jaxtv import _converged, _edge_codes, _fallback, _fgp, _lowering
from jaxtv._dtypes import compute_dtype, is_half
from jaxtv._solvers import (
    FGP,
    AcceleratedDykstra,
    Direct,
    ProjectedNewton,
    Solver1D,
)

# ---------------------------------------------------------------------------- half types


def _in_float32(f: Callable) -> Callable:
    """`f`, computed in float32 if a sample array has a half type.

    The first result is then rounded to the half type; the others stay as they are.
    """

    def wrapped(*args, **params):
        half = next((a.dtype for a in args if is_half(a.dtype)), None)
        if half is None:
            return f(*args, **params)
        first, *rest = f(*(a.astype(compute_dtype(a.dtype)) for a in args), **params)
        return (first.astype(half), *rest)

    return wrapped


# ---------------------------------------------------------------------------- rules for any op


def _num_batch_dims(*, axis: int | None = None, axes: Sequence[int] = (), **_) -> int:
    """The dims before the first prox axis. Calls may be split along them."""
    return min(axes) if axis is None else axis


def _shift_axes(params: dict[str, Any]) -> dict[str, Any]:
    moved = dict(params)
    if "axis" in params:
        moved["axis"] = params["axis"] + 1
    if "axes" in params:
        moved["axes"] = tuple(a + 1 for a in params["axes"])
    return moved


def _batch(primitive, args, dims, **params):
    """Batching rule of every primitive: the mapped dim becomes one more batch dim in front."""
    size = next(a.shape[d] for a, d in zip(args, dims) if d is not None)
    args = [
        jnp.broadcast_to(a, (size, *a.shape)) if d is None else jnp.moveaxis(a, d, 0)
        for a, d in zip(args, dims)
    ]
    out = primitive.bind(*args, **_shift_axes(params))
    return out, [0] * len(out)


def _varying(x) -> frozenset:
    return frozenset(jax.typeof(x).manual_axis_type.varying)


def _bind(primitive: Primitive, *operands, **params):
    """Bind with operands brought to common manual axes, as `shard_map` asks for."""
    want = frozenset().union(*map(_varying, operands))
    matched = (
        jax.lax.pcast(x, tuple(sorted(want - _varying(x))), to="varying")
        if want - _varying(x)
        else x
        for x in operands
    )
    return primitive.bind(*matched, **params)


# Numbers of `enum class Method` in include/jaxtv/solver.hpp.
_KERNELS = {"auto": 0, "taut_string": 1, "decomposition": 2}
_PROJECTED_NEWTON = 3


def _attributes(
    *,
    axis: int | None = None,
    axes: Sequence[int] = (),
    iterations: int = 0,
    solver: Solver1D | None = None,
    inner: Solver1D | None = None,
    **_,
) -> dict[str, Any]:
    """FFI attributes of a primitive's parameters."""
    out: dict[str, Any] = {}
    if axis is None:
        out["axes"] = np.asarray(axes, np.int64)
        out["iterations"] = np.int64(iterations)
    else:
        out["axis"] = np.int64(axis)
    return out | _solver_attributes(solver or inner)


def _solver_attributes(solver: Solver1D | None) -> dict[str, Any]:
    if solver is None:
        return {}
    direct = isinstance(solver, Direct)
    newton = ProjectedNewton() if direct else solver
    return {
        "method": np.int64(_KERNELS[solver.kernel] if direct else _PROJECTED_NEWTON),
        "tol": np.float64(newton.tol),
        "max_iterations": np.int64(newton.max_iterations),
        "line_search": np.int64(newton.line_search == "parallel"),
    }


def _as_tuple(f: Callable) -> Callable:
    def wrapped(*args, **params):
        out = f(*args, **params)
        return out if isinstance(out, tuple) else (out,)

    return wrapped


def _make(
    name: str,
    abstract: Callable,
    *,
    fallback: Callable | None = None,
    attributes: Callable[..., dict[str, Any]] = _attributes,
    platforms: Sequence[str] = ("cpu", "cuda"),
    in_place: dict[int, int] | None = None,
) -> Primitive:
    """A primitive with a list of results, and all its rules but the derivatives.

    `jaxtv_{name}` names the primitive and its native target; `_fallback.{name}` is its plain JAX
    form unless `fallback` is given. Platforms not in `platforms` always lower to plain JAX.
    `attributes` turns the primitive's parameters into FFI attributes. `in_place` says which
    operands the kernel updates, and which results they become.
    """
    primitive = Primitive(f"jaxtv_{name}")
    primitive.multiple_results = True
    primitive.def_abstract_eval(abstract)
    primitive.def_impl(partial(xla.apply_primitive, primitive))
    fallback = _in_float32(_as_tuple(fallback or getattr(_fallback, name)))
    in_float32 = _in_float32(primitive.bind)
    for platform in ("cpu", "cuda"):
        native = _lowering.native_lowering(
            f"jaxtv_{name}",
            fallback,
            in_float32,
            _num_batch_dims,
            attributes,
            in_place or {},
            platform,
            platform in platforms,
        )
        mlir.register_lowering(primitive, native, platform=platform)
    mlir.register_lowering(primitive, mlir.lower_fun(fallback, multiple_results=True))
    batching.primitive_batchers[primitive] = partial(_batch, primitive)
    return primitive


def _like(x, *, axis: int | None = None, size: int = 1, dtype=None):
    """Abstract value shaped as x, with `size` along `axis`; sharding and manual axes kept."""
    shape = tuple(size if i == axis else d for i, d in enumerate(x.shape))
    return x.update(shape=shape, dtype=dtype or x.dtype, weak_type=False)


def _is_zero(t) -> bool:
    return type(t) is ad.Zero


def _zero_of(x):
    return ad.Zero(jax.typeof(x).to_tangent_aval())


def _dense(t, like):
    return jnp.zeros_like(like) if _is_zero(t) else t


def _jvp_of_linear(primitive: Primitive, num_residuals: int, primals, tangents, **params):
    """JVP rule of a primitive that is linear in all operands but the first `num_residuals`."""
    out = _bind(primitive, *primals, **params)
    linear = tangents[num_residuals:]
    if all(map(_is_zero, linear)):
        return out, [_zero_of(o) for o in out]
    dense = [_dense(t, p) for t, p in zip(linear, primals[num_residuals:])]
    return out, _bind(primitive, *primals[:num_residuals], *dense, **params)


def _def_linear_pair(
    jvp: Primitive, vjp: Primitive, num_residuals: int, vjp_params: Callable
) -> None:
    """Make `jvp` (tangents in, tangents out) and `vjp` each other's transpose.

    The first `num_residuals` operands are the point of linearisation. The linear map is piecewise
    constant in them, so they get no derivative. `vjp_params(params, avals)` returns the parameters
    of `vjp`, from the parameters of `jvp` and the abstract values of its linear operands.
    """

    def transpose_jvp(cts, *operands, **params):
        residuals, linear = operands[:num_residuals], operands[num_residuals:]
        avals = [v.aval if ad.is_undefined_primal(v) else jax.typeof(v) for v in linear]
        (ct,) = cts
        if _is_zero(ct):
            grads = [ad.Zero(a) for a in avals]
        else:
            grads = _bind(vjp, *residuals, ct, **vjp_params(params, avals))
        wanted = [g if ad.is_undefined_primal(v) else None for g, v in zip(grads, linear)]
        return [None] * num_residuals + wanted

    def transpose_vjp(cts, *operands, **params):
        residuals, (g,) = operands[:num_residuals], operands[num_residuals:]
        if all(map(_is_zero, cts)):
            return [None] * num_residuals + [ad.Zero(g.aval)]
        dense = [jnp.zeros(c.aval.shape, c.aval.dtype) if _is_zero(c) else c for c in cts]
        params = {k: v for k, v in params.items() if k != "edge"}  # of VJPs only
        return [None] * num_residuals + list(_bind(jvp, *residuals, *dense, **params))

    for primitive, transpose in ((jvp, transpose_jvp), (vjp, transpose_vjp)):
        ad.primitive_jvps[primitive] = partial(_jvp_of_linear, primitive, num_residuals)
        ad.primitive_transposes[primitive] = transpose


# ---------------------------------------------------------------------------- 1D

_prox1d_p = _make("prox1d", lambda x, w, **_: [_like(x)])
_prox1d_info_p = _make(
    "prox1d_info",
    lambda x, w, *, axis, **_: [
        _like(x),
        _like(x, axis=axis),
        _like(x, axis=axis, dtype=np.dtype("int32")),
        _like(x, axis=axis, dtype=np.dtype("bool")),
    ],
)
_segment_jvp_p = _make("segment_jvp", lambda y, w, tx, tw, **_: [_like(tx)])
_segment_vjp_p = _make("segment_vjp", lambda y, w, g, **_: [_like(g), _like(w)])
_def_linear_pair(_segment_jvp_p, _segment_vjp_p, 2, lambda params, avals: params)


def _prox1d_jvp(primitive, primals, tangents, *, axis, solver):
    (x, w), (tx, tw) = primals, tangents
    if is_half(x.dtype) and not (_is_zero(tx) and _is_zero(tw)):
        # Rounding y to a half type has made neighbouring segments equal, so y no longer tells the
        # segments. One Dykstra pass over one axis is the same prox and keeps their edge codes.
        params = {"axes": (axis,), "iterations": 1, "inner": solver}
        return _dykstra_jvp(_dykstra_p, primals, tangents, **params)
    y, *info = _bind(primitive, x, w, axis=axis, solver=solver)
    if _is_zero(tx) and _is_zero(tw):
        ty = _zero_of(y)
    else:
        (ty,) = _bind(_segment_jvp_p, y, w, _dense(tx, x), _dense(tw, w), axis=axis)
    return [y, *info], [ty, *map(_zero_of, info)]


ad.primitive_jvps[_prox1d_p] = partial(_prox1d_jvp, _prox1d_p)
ad.primitive_jvps[_prox1d_info_p] = partial(_prox1d_jvp, _prox1d_info_p)


def prox1d(x, w, *, axis: int, solver: Solver1D):
    """Exact 1D prox along `axis`; w is normalised to x (module docstring)."""
    return _bind(_prox1d_p, x, w, axis=axis, solver=solver)[0]


def prox1d_info(x, w, *, axis: int, solver: Solver1D):
    """As `prox1d`, with (gap, iterations, converged) per signal, of size 1 along `axis`."""
    return tuple(_bind(_prox1d_info_p, x, w, axis=axis, solver=solver))


_prox1d_data_weight_p = _make("prox1d_data_weight", lambda x, mass, w, **_: [_like(x)])


def _prox1d_data_weight_jvp(primals, tangents, *, axis):
    """Eq. 8 of the paper with weighted means: the derivative of sum_C mass (y_C - x) = duals."""
    x, mass, w = primals
    (y,) = _bind(_prox1d_data_weight_p, x, mass, w, axis=axis)
    if all(map(_is_zero, tangents)):
        return [y], [_zero_of(y)]
    tx, tmass, tw = (_dense(t, p) for t, p in zip(tangents, primals))
    change = mass * tx + tmass * (x - y)
    (change,) = _bind(_segment_jvp_p, y, w, change, tw, axis=axis)
    (mean_mass,) = _bind(_segment_jvp_p, y, w, mass, jnp.zeros_like(w), axis=axis)
    return [y], [change / mean_mass]


ad.primitive_jvps[_prox1d_data_weight_p] = _prox1d_data_weight_jvp


def prox1d_data_weight(x, mass, w, *, axis: int):
    """As `prox1d`, with data weights >= 0 shaped as x; x is not of a half type.

    Where a mass is 0, infinite weights must join the sample to one with a mass
    (`_data_weight.py`).
    """
    return _bind(_prox1d_data_weight_p, x, mass, w, axis=axis)[0]


# ---------------------------------------------------------------------------- Dykstra


def _edge_codes_like(x, axes: Sequence[int], passes: int):
    shape = _edge_codes.packed_shape(x.shape, axes, passes)
    return x.update(shape=shape, dtype=np.dtype("uint8"), weak_type=False)


def _dykstra_with_codes_abstract(x, *ws, axes, iterations, **_):
    return [_like(x), _edge_codes_like(x, axes, iterations * len(axes))]


def _dykstra_vjp_abstract(codes, g, *, axes, edge, **_):
    sizes = [g.shape[a] - 1 if per_edge else 1 for a, per_edge in zip(axes, edge)]
    dtype = compute_dtype(g.dtype)
    return [_like(g), *(_like(g, axis=a, size=s, dtype=dtype) for a, s in zip(axes, sizes))]


_dykstra_p = _make("dykstra", lambda x, *ws, **_: [_like(x)])
_dykstra_with_codes_p = _make("dykstra_with_codes", _dykstra_with_codes_abstract)
_dykstra_jvp_p = _make("dykstra_jvp", lambda codes, tx, *tws, **_: [_like(tx)])
_dykstra_vjp_p = _make("dykstra_vjp", _dykstra_vjp_abstract)


def _with_edge(params, avals):
    axes = params["axes"]
    edge = tuple(w.shape[a] != 1 for a, w in zip(axes, avals[1:]))
    return {**params, "edge": edge}


_def_linear_pair(_dykstra_jvp_p, _dykstra_vjp_p, 1, _with_edge)


def _dykstra_jvp(primitive, primals, tangents, **params):
    if all(map(_is_zero, tangents)):
        out = _bind(primitive, *primals, **params)
        return out, [_zero_of(o) for o in out]
    y, edge_codes = _bind(_dykstra_with_codes_p, *primals, **params)
    dense = [_dense(t, p) for t, p in zip(tangents, primals)]
    axes, iterations = params["axes"], params["iterations"]
    (ty,) = _bind(_dykstra_jvp_p, edge_codes, *dense, axes=axes, iterations=iterations)
    if primitive is _dykstra_p:
        return [y], [ty]
    return [y, edge_codes], [ty, _zero_of(edge_codes)]


ad.primitive_jvps[_dykstra_p] = partial(_dykstra_jvp, _dykstra_p)
ad.primitive_jvps[_dykstra_with_codes_p] = partial(_dykstra_jvp, _dykstra_with_codes_p)


def dykstra(x, ws, *, axes: tuple[int, ...], iterations: int, inner: Solver1D):
    """Proximal Dykstra; `axes` in sweep order, `ws` one normalised weight array per axis."""
    return _bind(_dykstra_p, x, *ws, axes=axes, iterations=iterations, inner=inner)[0]


# ---------------------------------------------------------------------------- converged, N-D


def _per_element(x, axes: Sequence[int], dtype=None):
    """Abstract value with one entry per batch element: size 1 along all the axes."""
    shape = tuple(1 if a in axes else d for a, d in enumerate(x.shape))
    return x.update(shape=shape, dtype=np.dtype(dtype or x.dtype), weak_type=False)


def _converged_abstract(x, *operands, axes, **_):
    info = [_per_element(x, axes, dtype) for dtype in (None, "int32", "bool")]
    return [_like(x), *info, *(_like(x) for _ in axes[1:]), _edge_codes_like(x, axes, len(axes))]


def _converged_fallback(x, *operands, axes, gap_tol, sweeps, inner):
    def prox(x, w, axis):
        return prox1d(x, w, axis=axis, solver=inner)

    def means(y, inside):
        codes = [_edge_codes.of_inside(edges, a) for edges, a in zip(inside, axes, strict=True)]
        edge_codes = _edge_codes.pack(codes, axes)
        zeros = [jnp.zeros_like(jax.lax.slice_in_dim(y, 0, 1, axis=a)) for a in axes]
        return _bind(_components_jvp_p, edge_codes, y, *zeros, axes=axes)[0]

    return _converged.solve(
        x, *operands, prox1d=prox, means=means, axes=axes, tol=gap_tol, max_iterations=sweeps
    )


def _converged_attributes(*, axes, gap_tol, sweeps, inner) -> dict[str, Any]:
    options = {"gap_tol": np.float64(gap_tol), "sweeps": np.int64(sweeps)}
    return _components_attributes(axes=axes) | options | _solver_attributes(inner)


def _components_attributes(*, axes, **_) -> dict[str, Any]:
    return {"axes": np.asarray(axes, np.int64)}


# CUDA has no kernel of this name: there plain JAX binds prox1d and components_jvp, which have.
_converged_p = _make(
    "converged",
    _converged_abstract,
    fallback=_converged_fallback,
    attributes=_converged_attributes,
    platforms=("cpu",),
)
_components_jvp_p = _make(
    "components_jvp",
    lambda codes, tx, *tws, **_: [_like(tx)],
    fallback=_converged.components_jvp,
    attributes=_components_attributes,
)
_components_vjp_p = _make(
    "components_vjp",
    _dykstra_vjp_abstract,
    fallback=_converged.components_vjp,
    attributes=_components_attributes,
)
_def_linear_pair(_components_jvp_p, _components_vjp_p, 1, _with_edge)


def components_jvp(edge_codes, tx, tws, *, axes: tuple[int, ...]):
    """P(tx - sum_a D_a^T(s_a tw_a)): P, the means over components, and s from packed codes."""
    return _bind(_components_jvp_p, edge_codes, tx, *tws, axes=axes)[0]


def _converged_jvp(primals, tangents, **params):
    axes = params["axes"]
    out = _bind(_converged_p, *primals, **params)
    y, *rest = out
    ws, (tx, *_), tws = primals[len(axes) :], tangents, tangents[len(axes) :]
    zeros = [_zero_of(r) for r in rest]
    if all(map(_is_zero, (tx, *tws))):
        return out, [_zero_of(y), *zeros]
    dense = [_dense(t, p) for t, p in zip((tx, *tws), (primals[0], *ws))]
    (ty,) = _bind(_components_jvp_p, rest[-1], *dense, axes=axes)
    return out, [ty, *zeros]


ad.primitive_jvps[_converged_p] = _converged_jvp


def converged(x, duals, ws, *, axes: tuple[int, ...], solver: AcceleratedDykstra):
    """Converged prox: (y, gap, iterations, converged, *duals); `axes` in sweep order.

    The primitive's last result, the edge codes of the last passes, is for its derivative. `duals`
    has one array for each axis but the first. The derivative is the implicit one, and does not
    depend on where the iteration started.
    """
    params = {"gap_tol": solver.tol, "sweeps": solver.max_iterations, "inner": solver.inner}
    return tuple(_bind(_converged_p, x, *duals, *ws, axes=axes, **params))[:-1]


# ---------------------------------------------------------------------------- isotropic


def _isotropic_abstract(x, w, *start, axes, **_):
    info = [_per_element(x, axes, dtype) for dtype in (None, "int32", "bool")]
    joined = _like(x, axis=axes[0], dtype=np.dtype("uint8"))
    return [_like(x), *info, *(_like(x) for _ in start), joined]


def _isotropic_attributes(*, axes, tol, max_iterations) -> dict[str, Any]:
    options = {"tol": np.float64(tol), "max_iterations": np.int64(max_iterations)}
    return _components_attributes(axes=axes) | options


# `axes` are those of the coupled channels and, after it, of the pixels (`_fgp.py`). Some iterations
# of all elements, from a state to a state, which is updated in place. The CPU has a kernel that
# does all of them.
ISOTROPIC_STATE = {2: 0, 3: 1, 4: 2}
_isotropic_steps_p = _make(
    "isotropic_steps",
    lambda x, w, *state, **_: list(state),
    fallback=_fgp.steps,
    attributes=_isotropic_attributes,
    platforms=("cuda",),
    in_place=ISOTROPIC_STATE,
)


def _isotropic_fallback(*operands, **params):
    return _fgp.solve(*operands, steps=partial(_bind, _isotropic_steps_p), **params)


_isotropic_p = _make(
    "isotropic",
    _isotropic_abstract,
    fallback=_isotropic_fallback,
    attributes=_isotropic_attributes,
    platforms=("cpu",),
)


def _component_means(v, joined, axes: tuple[int, ...]):
    """P v: the mean of every channel over the components that joined pixels make.

    A joined pixel is joined to the next one along each of its axes.
    """
    if len(axes) == 1:  # components are of two axes and more
        means = _component_means(v[..., None], joined[..., None], (*axes, axes[0] + 1))
        return means[..., 0]
    before = [jax.lax.slice_in_dim(joined, 0, v.shape[a] - 1, axis=a) for a in axes]
    codes = _edge_codes.pack([_edge_codes.of_inside(b > 0, a) for b, a in zip(before, axes)], axes)
    channel = axes[0] - 1
    codes = jnp.broadcast_to(codes, (*v.shape[: channel + 1], *codes.shape[channel + 1 :]))
    zeros = [jnp.zeros_like(jax.lax.slice_in_dim(v, 0, 1, axis=a)) for a in axes]
    return _bind(_components_jvp_p, codes, v, *zeros, axes=axes)[0]


@partial(jax.jit, static_argnames="axes")  # one program, outside of jit too
def _isotropic_tangent(y, w, joined, tx, tw, *, axes: tuple[int, ...]):
    means = partial(_component_means, joined=joined, axes=axes[1:])
    return _fgp.tangent(y, w, joined, tx, tw, axes=axes, means=means)


def _isotropic_jvp(primals, tangents, **params):
    y, *rest = out = _bind(_isotropic_p, *primals, **params)
    zeros = [_zero_of(r) for r in rest]
    if all(map(_is_zero, tangents[:2])):
        return out, [_zero_of(y), *zeros]
    tx, tw = (_dense(t, p) for t, p in zip(tangents[:2], primals))
    return out, [_isotropic_tangent(y, primals[1], rest[-1], tx, tw, axes=params["axes"]), *zeros]


ad.primitive_jvps[_isotropic_p] = _isotropic_jvp


def isotropic(x, w, start, *, axes: tuple[int, ...], solver: FGP):
    """Isotropic prox: (y, gap, iterations, converged, *dual), in the layout of `_fgp.py`.

    The derivative is the implicit one, and does not depend on where the iteration started.
    """
    params = {"axes": axes, "tol": solver.tol, "max_iterations": solver.max_iterations}
    return tuple(_bind(_isotropic_p, x, w, *start, **params))[:-1]
