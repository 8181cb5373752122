"""Parts of a study that are kept as they are done, so that a study can go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxtv.vision.training import write_json


class Parts:
    """Results of a study's parts in a folder: what was measured before is not measured again.

    Args:
        folder: has a file for each part; is made if it does not exist.
        study: what is measured, as JSON can hold it: weights, data, options.

    Raises:
        ValueError: the folder holds the parts of another study.
    """

    def __init__(self, folder: Path, study: Mapping[str, Any]):
        self.folder = folder
        path = folder / "study.json"
        if path.exists() and (there := json.loads(path.read_text(encoding="utf-8"))) != study:
            differs = sorted(k for k in {*there, *study} if there.get(k) != study.get(k))
            raise ValueError(
                f"`output`: {folder} holds parts of another study ({', '.join(differs)} differ); "
                "choose another folder or remove it."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, study)

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """The result of a part: as its file has it, else measured, and written there."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            write_json(path, measure())
        return json.loads(path.read_text(encoding="utf-8"))

    def runs(
        self,
        title: str,
        variants: Iterable[str],
        seeds: int,
        measure: Callable[[str, int, Path], Any],
    ) -> dict[str, list[Any]]:
        """Variant -> the results of its trainings, a part for each seed.

        Args:
            title: of the study, the start of the parts' names.
            variants: to train.
            seeds: of each variant.
            measure: from variant, seed, and the folder of that training, to its result.
        """

        def run(variant: str, seed: int) -> Any:
            name = f"{title}, {variant}, seed {seed}"
            return self.get(name, lambda: measure(variant, seed, self.folder / name))

        return {variant: [run(variant, seed) for seed in range(seeds)] for variant in variants}
