"""Networks that others have trained and released: what a TV layer adds to them.

A module per task with `evaluate(weights, data, options, console)`, which measures all methods on
the same pictures, and `table` and `figure` of what it returns.
"""

from jaxtv.vision.released import denoising

TASKS = {"denoising": denoising}
