"""Class activation maps after a TV layer (paper, section 4.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtv._solvers import Dykstra
from jaxtv.nnx import TVLayer
from jaxtv.vision.networks.inception3 import InceptionV3
from jaxtv.vision.networks.resnet50 import ResNet50
from jaxtv.vision.networks.vgg16 import VGG16
from jaxtv.vision.task import Settings

LAM = 1.0  # fixed (paper)

BACKBONES = {"vgg16": VGG16, "resnet50": ResNet50, "inception3": InceptionV3}


class CAM(nnx.Module):
    """A classifier whose decision is a mean over positions (Zhou et al. 2016).

    With TV a fixed 2D TV-smooth layer, λ = 1, comes before the layer that weighs the maps.

    Args:
        tv: with it.
        classes: number of classes.
        settings: `backbone`, `width` (paper: 64), `sweeps`, `init_lam` in place of λ = 1.
        rngs: of the weights.
    """

    def __init__(self, tv: bool, classes: int, settings: Settings, *, rngs: nnx.Rngs):
        backbone = BACKBONES[settings.backbone]
        self.backbone = backbone(settings.width, settings.dtype, rngs=rngs)
        lam = settings.init_lam or LAM
        layer = TVLayer(init_lam=lam, trainable=False, solver=Dykstra(settings.sweeps))
        self.tv = layer if tv else None
        self.classify = nnx.Linear(self.backbone.features, classes, rngs=rngs)

    def maps(self, x: jax.Array) -> jax.Array:
        """Evidence for each class at each position: (N, H/8, W/8, classes), float32."""
        features = self.backbone(x).astype(jnp.float32)
        return self.classify(features if self.tv is None else self.tv(features))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (N, classes)."""
        return jnp.mean(self.maps(x), axis=(1, 2))
