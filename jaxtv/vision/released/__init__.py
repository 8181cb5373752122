"""Networks that others have trained and released: what a TV layer adds to them.

A module per task with `evaluate(weights, data, folder, console, **options)`, which measures all
methods on the same pictures and keeps finished parts in the folder; `OPTIONS`, the names of those
options; `table` and `figure` of what `evaluate` returns.
"""

from jaxtv.vision.released import classification, denoising, edges, wsol

TASKS = {
    "classification": classification,
    "denoising": denoising,
    "edges": edges,
    "wsol": wsol,
}
