"""Solver objects: frozen, hashable values that say how a prox is computed; static under `jit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

from jaxtv import _arguments

LineSearch = Literal["backtracking", "parallel"]
Kernel = Literal["auto", "taut_string", "decomposition"]


@dataclasses.dataclass(frozen=True)
class Direct:
    """Exact 1D solver (the default).

    Every kernel finds the exact solution. They differ in speed only, up to round-off:

    - `"taut_string"`: linearised taut string (Condat 2013; Barbero & Sra 2018). Linear time on
      ordinary data. Where it would be quadratic (long smooth ramps) its iteration budget runs out,
      and a linear-time method solves the rest of the signal: message passing (Johnson 2013) on the
      CPU, threshold decomposition on CUDA.
    - `"decomposition"`: threshold decomposition (Hochbaum 2001; Chambolle & Darbon 2009).
    - `"auto"`: the fastest of them for the shape and the platform.

    Where no native kernel is used (TPU, ROCm, `JAXTV_FALLBACK=1`), each is the decomposition.

    Attributes:
        kernel: "auto", "taut_string" or "decomposition". A name other than "auto" is for comparing
            kernels.

    Raises:
        ValueError: an unknown `kernel`.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([0.0, 0.0, 4.0, 4.0])
        >>> jaxtv.prox_tv1d(x, 1.0, solver=jaxtv.Direct("taut_string"))
        Array([0.5, 0.5, 3.5, 3.5], dtype=float32)
        >>> jaxtv.Direct()
        Direct(kernel='auto')
    """

    kernel: Kernel = "auto"

    def __post_init__(self):
        _arguments.choice(self.kernel, "kernel", get_args(Kernel))


@dataclasses.dataclass(frozen=True)
class ProjectedNewton:
    """The paper's 1D solver: projected Newton on the dual, tridiagonal Cholesky (Eqs. 6 and 7).

    Attributes:
        tol: stop when the duality gap is at most `tol` times the primal objective.
        max_iterations: the most Newton steps; a signal that needs more is reported by
            `Info.converged`.
        line_search: "backtracking" (quadratic interpolation) or "parallel" (halved steps side by
            side, the first acceptable one is taken).

    Raises:
        ValueError: `tol` is not a finite number >= 0, `max_iterations` not an integer >= 1, or
            `line_search` unknown.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> x = jnp.array([0.0, 0.0, 4.0, 4.0])
        >>> solver = jaxtv.ProjectedNewton(tol=1e-6)
        >>> y, info = jaxtv.prox_tv1d(x, 1.0, solver=solver, return_info=True)
        >>> info.converged
        Array(True, dtype=bool)
    """

    tol: float = 1e-6
    max_iterations: int = 100
    line_search: LineSearch = "backtracking"

    def __post_init__(self):
        _set(self, "tol", _arguments.tolerance)
        _set(self, "max_iterations", _arguments.count)
        _arguments.choice(self.line_search, "line_search", get_args(LineSearch))


Solver1D = Direct | ProjectedNewton


@dataclasses.dataclass(frozen=True)
class Dykstra:
    """Proximal Dykstra over two or more axes (the paper's Algorithm 1), a fixed number of sweeps.

    The derivative differentiates the unrolled iteration. It is not the derivative of the converged
    prox: the two differ although the values are close.

    Attributes:
        iterations: K, the number of sweeps; one sweep solves every axis once.
        inner: the 1D solver.

    Raises:
        TypeError: `inner` is not a 1D solver.
        ValueError: `iterations` is not an integer >= 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> X = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
        >>> jaxtv.prox_tv2d(X, 1.0, solver=jaxtv.Dykstra(iterations=8))
        Array([[0.5, 0.5, 3.5, 3.5],
               [0.5, 0.5, 3.5, 3.5]], dtype=float32)
    """

    iterations: int = 4
    inner: Solver1D = Direct()

    def __post_init__(self):
        _set(self, "iterations", _arguments.count)
        _check_inner(self.inner)


@dataclasses.dataclass(frozen=True)
class AcceleratedDykstra:
    """Accelerated Dykstra over two or more axes, to convergence (Chambolle & Pock 2015).

    Every batch element stops by itself, when its duality gap meets `tol`. The derivative is the
    implicit one of the solution: averages over its connected components of equal value. It is exact
    once these are found, which takes a smaller `tol` than a good y does: at 1e-5 some components
    are still wrong, and derivatives with them (docs/derivatives.md has a table); at 1e-8 in float64
    none was. It is not the derivative of a few `Dykstra` sweeps.

    Attributes:
        tol: stop when the duality gap of y is at most `tol` times the objective. Below 1e-4, y is
            averaged over the components that the derivative uses; the gap of such a y has no
            floor in float32. The height of an outlier, a thousand times as far away as all other
            samples, does not count in the objective.
        max_iterations: the most sweeps; an element that needs more is reported by
            `Info.converged`.
        inner: the 1D solver.

    Raises:
        TypeError: `inner` is not a 1D solver.
        ValueError: `tol` is not a finite number >= 0, or `max_iterations` not an integer >= 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> X = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
        >>> solver = jaxtv.AcceleratedDykstra(tol=1e-6)
        >>> y, info = jaxtv.prox_tv2d(X, 1.0, solver=solver, return_info=True)
        >>> y
        Array([[0.5, 0.5, 3.5, 3.5],
               [0.5, 0.5, 3.5, 3.5]], dtype=float32)
        >>> info.converged
        Array(True, dtype=bool)
    """

    tol: float = 1e-5
    max_iterations: int = 1000
    inner: Solver1D = Direct()

    def __post_init__(self):
        _set(self, "tol", _arguments.tolerance)
        _set(self, "max_iterations", _arguments.count)
        _check_inner(self.inner)


SolverND = Dykstra | AcceleratedDykstra


@dataclasses.dataclass(frozen=True)
class FGP:
    """Fast gradient projection for isotropic TV, to convergence (Beck & Teboulle 2009).

    Projected gradient on the dual with Nesterov's extrapolation, restarted where it points uphill
    (O'Donoghue & Candès 2015). Every batch element stops at its own duality gap. The
    derivative is the implicit one of the solution. It depends on which pixels have a gradient of
    0, so it needs a smaller `tol` than y does, as with `AcceleratedDykstra`.

    Attributes:
        tol: stop when the duality gap is at most `tol` times the objective.
        max_iterations: the most gradient steps; an element that needs more is reported by
            `Info.converged`.

    Raises:
        ValueError: `tol` is not a finite number >= 0, or `max_iterations` not an integer >= 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> import jaxtv
        >>> X = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
        >>> solver = jaxtv.FGP(tol=1e-6)
        >>> y, info = jaxtv.prox_tv_isotropic(X, 1.0, axes=(0, 1), solver=solver, return_info=True)
        >>> info.converged
        Array(True, dtype=bool)
    """

    tol: float = 1e-5
    max_iterations: int = 2000

    def __post_init__(self):
        _set(self, "tol", _arguments.tolerance)
        _set(self, "max_iterations", _arguments.count)


def fitting_isotropic(solver: object) -> FGP:
    """The solver if it is one for isotropic TV, the default one for None."""
    solver = FGP() if solver is None else solver
    if not isinstance(solver, FGP):
        raise TypeError(f"`solver` must be FGP for isotropic TV, got {solver!r}.")
    return solver


def fitting_solver(solver: object, num_axes: int) -> Solver1D | SolverND:
    """The solver if it fits the number of axes, the default one for None.

    Raises:
        TypeError: it does not fit.
    """
    return fitting_1d(solver) if num_axes == 1 else _fitting_nd(solver, num_axes)


def fitting_1d(solver: object) -> Solver1D:
    """`fitting_solver` for one axis."""
    solver = Direct() if solver is None else solver
    if not isinstance(solver, Solver1D):
        raise TypeError(
            "`solver` must be a 1D solver (Direct or ProjectedNewton) for one axis, got "
            f"{solver!r}. Dykstra and AcceleratedDykstra solve over two axes and more."
        )
    return solver


def _fitting_nd(solver: object, num_axes: int) -> SolverND:
    solver = Dykstra(iterations=4) if solver is None else solver
    if not isinstance(solver, SolverND):
        inner = repr(solver) if isinstance(solver, Solver1D) else "..."
        raise TypeError(
            f"`solver` must be Dykstra or AcceleratedDykstra for {num_axes} axes, got {solver!r}. "
            f"A 1D solver goes inside it: Dykstra(inner={inner})."
        )
    return solver


def check_data_weight(solver: Solver1D | SolverND) -> None:
    """Data weights have one 1D solver: `Direct()`, also inside an N-D one."""
    inner = solver if isinstance(solver, Solver1D) else solver.inner
    if inner != Direct():
        raise TypeError(
            f"`solver` must be Direct() with `data_weight`, or have it as `inner`, got {solver!r}: "
            "there is one exact solver for weighted samples."
        )


def fitting_exact(solver: object, num_axes: int) -> Solver1D | AcceleratedDykstra:
    """A solver of the prox itself, to its tolerance; for None the default one.

    Raises:
        TypeError: it does not fit the number of axes, or it is `Dykstra`.
    """
    if num_axes == 1:
        return fitting_1d(solver)
    solver = AcceleratedDykstra(tol=1e-6) if solver is None else solver
    if not isinstance(solver, AcceleratedDykstra):
        raise TypeError(
            f"`solver` must be AcceleratedDykstra for {num_axes} axes, got {solver!r}: λ is found "
            "from solutions of the prox, which a fixed number of sweeps does not give."
        )
    return solver


def _set(solver: object, field: str, check: Callable[[Any, str], int | float]) -> None:
    """Replace a field by the number that its check returns, on a frozen dataclass."""
    object.__setattr__(solver, field, check(getattr(solver, field), field))


def _check_inner(inner: object) -> None:
    if not isinstance(inner, Solver1D):
        raise TypeError(f"`inner` must be a 1D solver (Direct or ProjectedNewton), got {inner!r}.")
