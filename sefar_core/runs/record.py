"""What a training run told of itself, read back: how it weighed pseudo-labels, and its numbers.

A folder of encoders need not come from a run: scripts/convert_checkpoint.py writes one too.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sefar_core.recipe import choose_regulation
from sefar_core.runs.folder import read_metrics
from sefar_core.shapes import PerClip


class Record(NamedTuple):
    """Of one run."""

    regulate: Callable[[PerClip, PerClip], PerClip]
    """Confidence and spread of pseudo-labels to the trust in them."""
    dropout_passes: int
    """Stochastic predictions that its teacher averaged into a pseudo-label."""
    metrics: list[dict[str, Any]]
    """Its reports in order, at least one; each has its `step`."""


def read_record(run_dir: Path) -> Record | None:
    """The record in a folder, or none where no run was: neither config.json nor metrics.jsonl.

    Raises:
        ValueError: one of the two files is missing, or damaged.
    """
    config, metrics = run_dir / "config.json", run_dir / "metrics.jsonl"
    missing = [path for path in (config, metrics) if not path.exists()]
    if len(missing) == 2:
        return None
    if missing:
        raise ValueError(
            f"{missing[0]} is missing: the run took no step, or its folder was copied in part; "
            f"give the whole folder, or one that holds the encoders alone"
        )
    regulate, dropout_passes = read_weighing(config)
    return Record(regulate, dropout_passes, read_metrics(metrics))


def same_manifest(run_dir: Path, manifest: Path) -> bool | None:
    """Whether a run was trained with this very manifest; None if its config.json does not tell."""
    config = run_dir / "config.json"
    if not config.is_file():
        return None
    sha256 = json.loads(config.read_bytes()).get("manifest_sha256")
    return None if sha256 is None else sha256 == hashlib.sha256(manifest.read_bytes()).hexdigest()


def read_weighing(path: Path) -> tuple[Callable[[PerClip, PerClip], PerClip], int]:
    """Regulation and stochastic predictions, as config.json of a run has them.

    Raises:
        ValueError: it is not the file that training wrote.
    """
    try:
        settings = json.loads(path.read_bytes())
        loss, dropout_passes = settings["loss"], settings["teacher"]["dropout_passes"]
        return choose_regulation(loss["regulation"], threshold=loss["threshold"]), dropout_passes
    except (ValueError, KeyError, TypeError) as cause:
        raise ValueError(
            f"{path} holds no settings of a run ({cause!r}); copy it again from where it was "
            f"trained"
        ) from cause


def curves(
    metrics: Sequence[dict[str, Any]], names: Sequence[str]
) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of each number that was reported; the losses of a part of training begin
    where it does."""
    told = {name: [report for report in metrics if name in report] for name in names}
    return {
        name: ([int(report["step"]) for report in reports], [report[name] for report in reports])
        for name, reports in told.items()
        if reports
    }
