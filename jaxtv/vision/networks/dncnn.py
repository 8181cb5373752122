"""DnCNN for denoising, with TV layers (paper, section 4.6; Eqs. 13 and 14)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtv._solvers import Dykstra
from jaxtv.nnx import TVLayer
from jaxtv.vision.networks.blocks import HE
from jaxtv.vision.networks.convolution import Conv
from jaxtv.vision.task import Settings


class DnCNN(nnx.Module):
    """DnCNN (Zhang et al. 2017), y = R(x) + x, between two TV layers if asked for.

    With them y = prox(R(x̃) + x̃, λ_out), x̃ = prox(x, λ_in) (Eq. 14).

    Args:
        tv: with TV layers.
        settings: `width` (paper: 64) and `depth` (paper: 17 convolutions), `sweeps`, `init_lam`.
        norms: with batch norms; the released weights have none.
        rngs: of the weights.
    """

    def __init__(self, tv: bool, settings: Settings, norms: bool = True, *, rngs: nnx.Rngs):
        w, dtype = settings.width, settings.dtype
        conv = lambda i, o: Conv(i, o, (3, 3), dtype=dtype, kernel_init=HE, rngs=rngs)
        norm = lambda: nnx.BatchNorm(w, momentum=0.95, dtype=dtype, rngs=rngs)
        self.first = conv(3, w)
        self.hidden = nnx.List([conv(w, w) for _ in range(settings.depth - 2)])
        self.norms = nnx.List([norm() for _ in range(settings.depth - 2)] if norms else [])
        # Zero: training starts from the identity.
        self.last = Conv(w, 3, (3, 3), kernel_init=nnx.initializers.zeros, rngs=rngs)
        layer = {"init_lam": settings.init_lam or 0.01, "solver": Dykstra(settings.sweeps)}
        self.tv_in = TVLayer(**layer) if tv else None
        self.tv_out = TVLayer(**layer) if tv else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, 3) in [0, 1], noisy, to the same shape, float32."""
        return self.stages(x)["output"]

    def stages(self, x: jax.Array) -> dict[str, jax.Array]:
        """All pictures on the way (Fig. 8), by name."""
        start = x if self.tv_in is None else self.tv_in(x)
        y = nnx.relu(self.first(start))
        for i, conv in enumerate(self.hidden):
            y = conv(y)
            y = nnx.relu(self.norms[i](y) if self.norms else y)
        network = start + self.last(y).astype(jnp.float32)
        output = network if self.tv_out is None else self.tv_out(network)
        return {"input layer": start, "network": network, "output": output}


def from_convolutions(
    convolutions: Sequence[tuple[np.ndarray, np.ndarray]], lam: float = 0.0
) -> DnCNN:
    """A trained DnCNN without batch norms, from its kernels and biases.

    Args:
        convolutions: kernel (3, 3, i, o) and bias (o,) of each.
        lam: of the TV layers before training; 0: it has none.
    """
    width, depth = convolutions[0][0].shape[-1], len(convolutions)
    settings = Settings(1, 1, 0.0, 0.0, width=width, depth=depth, size=1, init_lam=lam)
    model = DnCNN(lam > 0, settings, norms=False, rngs=nnx.Rngs(0))
    layers = [model.first, *model.hidden, model.last]
    for layer, (kernel, bias) in zip(layers, convolutions, strict=True):
        layer.kernel[...] = jnp.asarray(kernel)
        layer.bias[...] = jnp.asarray(bias)  # type: ignore[index]
    model.eval()
    return model
