"""C8: what all matched rows share, checked before anything is trained."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sefar_core.runs.folder import read_metrics
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.tokens import UNMATCHED
from sefar_mllm.comparison.weights import num_recognizers
from sefar_mllm.encoders import refuse_unequal_moments


class BudgetError(ValueError):
    """Encoders that would not be compared under one budget; the message names them."""


def shared_budget(config: CompareConfig, keys: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The budget of all matched rows: moments, tokens, settings, seeds.

    Questions, steps and settings are shared because there is one of each; moments and number of
    tokens are properties of the caches.

    Args:
        config: all settings.
        keys: of every token cache, by its folder.

    Raises:
        ValueError: caches were made at different moments.
        BudgetError: caches have different numbers of tokens, or networks that stand for seeds of
            one row are of unlike width or the same.
    """
    refuse_unequal_moments(keys)
    refuse_unlike_seeds(keys)
    matched = {name: key for name, key in keys.items() if key["encoder"] not in UNMATCHED}
    grids = {name: key["grid"] for name, key in matched.items()}
    if len(set(grids.values())) > 1:
        raise BudgetError(
            f"encoders that give different numbers of tokens cannot be compared: grid {grids}; "
            f"extract the tokens of all with one --grid"
        )
    some = next(iter(matched.values()))
    finetune = asdict(config.finetune)
    finetune.pop("seed")
    return {
        "moments": some["moments"],
        "tokens": len(some["moments"]) * some["grid"] ** 2,
        "seeds": list(config.seeds),
        "recognizers": num_recognizers(config),
        "lr_grid": list(config.lr_grid),
        "dev_rate": config.dev_rate,
        "finetune": finetune,
    }


def refuse_unlike_seeds(keys: Mapping[str, Mapping[str, Any]]) -> None:
    """Caches of one encoder and frame order are of its seeds: as wide, and each of its own weights.

    Raises:
        BudgetError: says which are not.
    """
    rows: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for name, key in keys.items():
        rows.setdefault((key["encoder"], key.get("frame_order", "")), []).append((name, key))
    for (encoder, _), found in rows.items():
        names = ", ".join(name for name, _ in found)
        if len({key["dim"] for _, key in found}) > 1:
            raise BudgetError(
                f"the networks of {encoder} have tokens of different widths ({names}); seeds of "
                f"one row are trainings of one architecture"
            )
        if len({key["digest"] for _, key in found}) < len(found):
            raise BudgetError(
                f"two networks of {encoder} have the same weights ({names}); give trainings of "
                f"other seeds, or one folder that serves all seeds"
            )


def shared_steps(folders: Mapping[str, Path]) -> int:
    """The optimizer steps that every training of a question set took, read off their metrics.

    Args:
        folders: of the trainings, by name.

    Raises:
        BudgetError: they did not take the same number.
    """
    steps = {name: last_step(folder / "metrics.jsonl") for name, folder in folders.items()}
    if len(set(steps.values())) != 1:
        raise BudgetError(
            f"trainings of one comparison took different numbers of steps: {steps}; delete the "
            f"folders that differ and run the comparison again"
        )
    return next(iter(steps.values()))


def last_step(metrics: Path) -> int:
    """The highest step that a training reported."""
    return max(int(line["step"]) for line in read_metrics(metrics))
