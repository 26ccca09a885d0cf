"""Settings by name: the rows of the paper's tables, the public code's run, rivals, and the demo's.

A preset is one word, or several joined by `+` that are applied from left to right to the defaults,
which are the paper's: `gym288_5+vit_b+without_regulation` is a row of Table 3 on Gym288 with ViT-B.
Every word is a function from settings to settings. docs/paper_map.md has the source of each.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from sefar_core.ablations import (
    COMPONENTS,
    DECISIONS,
    ELEMENTS,
    PASSES,
    PERTURBED,
    RIVALS,
    PresetModifier,
    by_name,
    local_window,
)
from sefar_core.config import (
    DataConfig,
    ModelConfig,
    OptimConfig,
    TeacherConfig,
    TrainConfig,
    dotted,
)


def paper(config: TrainConfig) -> TrainConfig:
    """SeFAR as in the paper: ViT-S/16, 2-2-4 frames of 224 pixels, 30 epochs."""
    return config


def released(config: TrainConfig) -> TrainConfig:
    """SeFAR as its public code runs: the color axis is flipped instead of time.

    As in the other presets, and unlike the public code, clips of fewer than 8 frames and the edge
    of a crop are handled as docs/paper_map.md says, and passes over the unlabeled clips have no
    gap.
    """
    return replace(
        config,
        data=replace(config.data, placement="one_each", weak_flip=False),
        teacher=replace(config.teacher, dropout_passes=10, ema_every="micro_batch"),
        loss=replace(
            config.loss,
            perturbation="swap_red_blue",
            color_dropout=0.2,
            mix_partners="one_each",
            gamma_un=2.0,
            gamma_mix=2.0,
        ),
        leftovers="dropped",
        mixed_precision="no",
    )


def recommended(config: TrainConfig) -> TrainConfig:
    """SeFAR with the best result on validation clips: fine elements are short dense windows.

    On the synthetic gymnasts, five seeds: top-1 on validation clips 69 instead of 57, at least 6
    points more for each seed; no other change raised it by more than 2. Training on labels alone
    gains as much, though. docs/results.md.
    """
    return local_window(config)


def demo(config: TrainConfig) -> TrainConfig:
    """SeFAR on the synthetic gymnasts, small enough for two CPU cores."""
    return replace(
        config,
        model=ModelConfig(
            image_size=64,
            patch_size=16,
            dim=128,
            depth=4,
            num_heads=4,
            fusion_dim=128,
            dropout=0.2,
            pretrained=Path("demo:vit"),
        ),
        data=DataConfig(short_side=(64, 72), workers=0, store="raw"),
        teacher=TeacherConfig(ema_decay=0.98),
        loss=replace(config.loss, mix_on="probs", gamma_un=2.0, gamma_mix=2.0),
        optim=OptimConfig(kind="adamw", lr=5e-4, weight_decay=0.05, schedule="cosine"),
        batch_size=12,
        micro_batch_size=12,
        epochs=24,
        warmup_epochs=12,
        save_every_epochs=10,
    )


BASES = by_name(paper, released, recommended, demo)


def vit_s(config: TrainConfig) -> TrainConfig:
    """SeFAR-S: token width 384, 6 heads."""
    return replace(config, model=replace(config.model, dim=384, num_heads=6))


def vit_b(config: TrainConfig) -> TrainConfig:
    """SeFAR-B: token width 768, 12 heads."""
    return replace(config, model=replace(config.model, dim=768, num_heads=12))


NETWORKS = by_name(vit_s, vit_b)


def on_data_set(
    config: TrainConfig, *, classes: int | None, rate: float | None, flip: bool
) -> TrainConfig:
    """A data set of the tables at a labeled percentage; the manifest is checked against both."""
    return replace(
        config,
        data=replace(config.data, flip=flip and config.data.flip),
        expected_classes=classes,
        expected_rate=rate,
    )


# Classes (None: not published) and labeled percent. Something-Something has left and right classes.
RATES: dict[str, tuple[int | None, tuple[int, ...]]] = {
    "gym99": (99, (5, 10)),
    "gym288": (288, (5, 10)),
    "ub": (25, (10, 20)),
    "fx": (35, (10, 20)),
    "vt": (6, (10, 20)),
    "ub_s1": (15, (10, 20)),
    "fx_s1": (11, (10, 20)),
    "gym_new": (40, (5, 10)),
    "diving": (None, (1, 3, 5, 7, 10)),
    "diving_10m": (None, (10, 20)),
    "diving_5253b": (None, (10, 20)),
    "ucf101": (101, (1, 5, 10)),
    "hmdb51": (51, (40, 50, 60)),
}
DATA_SETS: Mapping[str, PresetModifier] = {
    f"{name}_{rate}": partial(on_data_set, classes=classes, rate=rate / 100, flip=True)
    for name, (classes, rates) in RATES.items()
    for rate in rates
} | {"sthsth": partial(on_data_set, classes=174, rate=None, flip=False)}

GROUPS: dict[str, Mapping[str, PresetModifier]] = {
    "whole runs": BASES,
    "networks": NETWORKS,
    "data sets, labeled percent": DATA_SETS,
    "rivals": RIVALS,
    "components left out": COMPONENTS,
    "sampling combinations": ELEMENTS,
    "temporal perturbations": PERTURBED,
    "predictions of the teacher": PASSES,
    "single decisions": DECISIONS,
}
WORDS: dict[str, PresetModifier] = {
    name: word for group in GROUPS.values() for name, word in group.items()
}


def preset(name: str) -> TrainConfig:
    """The settings of a preset: a word, or words joined by `+`.

    >>> preset("gym99_5+vit_b").model.dim
    768

    Raises:
        ValueError: a word that is not known, or that undoes what one before it set; only a whole
            run that comes first may be changed.
    """
    config = TrainConfig()
    set_by: dict[str, str] = {}
    for number, word in enumerate(name.split("+")):
        if word not in WORDS:
            near = get_close_matches(word, WORDS)
            meant = f"did you mean {' or '.join(near)}?" if near else "see train_ssl.py --help"
            raise ValueError(f"there is no preset {word!r}; {meant}")
        changed = changes(config, WORDS[word](config))
        if undone := sorted(changed & set_by.keys()):
            raise ValueError(
                f"{word!r} sets {undone[0]}, and so does {set_by[undone[0]]!r} before it; take one "
                f"of them, or put a whole run first"
            )
        if number > 0 or word not in BASES:
            set_by |= dict.fromkeys(changed, word)
        config = WORDS[word](config)
    return config


def changes(before: TrainConfig, after: TrainConfig) -> set[str]:
    """The dotted names of the settings in which two differ."""
    old, new = dotted(asdict(before)), dotted(asdict(after))
    return {name for name in new if new[name] != old[name]}
