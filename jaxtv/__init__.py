"""Total-variation proximity operators for JAX: exact, differentiable, with Flax layers."""

import importlib
from typing import TYPE_CHECKING

from jaxtv._functional import duality_gap, max_lambda, total_variation
from jaxtv._fused_lasso import prox_fused_lasso
from jaxtv._graph import Graph, prox_graph_tv
from jaxtv._isotropic import prox_tv_isotropic
from jaxtv._prox import Info, prox_tv, prox_tv1d, prox_tv2d
from jaxtv._selection import degrees_of_freedom, select_lam, sure
from jaxtv._solvers import (
    FGP,
    AcceleratedDykstra,
    Direct,
    Dykstra,
    ProjectedNewton,
)
from jaxtv._trend_filter import trend_filter
from jaxtv._tv_ball import denoise_discrepancy, project_tv_ball

if TYPE_CHECKING:
    from jaxtv import linen, nnx, reference

__version__ = "0.1.0"

__all__ = [
    "FGP",
    "AcceleratedDykstra",
    "Direct",
    "Dykstra",
    "Graph",
    "Info",
    "ProjectedNewton",
    "degrees_of_freedom",
    "denoise_discrepancy",
    "duality_gap",
    "linen",
    "max_lambda",
    "nnx",
    "project_tv_ball",
    "prox_fused_lasso",
    "prox_graph_tv",
    "prox_tv",
    "prox_tv1d",
    "prox_tv2d",
    "prox_tv_isotropic",
    "reference",
    "select_lam",
    "sure",
    "total_variation",
    "trend_filter",
]

_LAZY = ("linen", "nnx", "reference")  # flax is imported only by who asks for a layer


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(f"jaxtv.{name}")
    raise AttributeError(f"module 'jaxtv' has no attribute {name!r}")
