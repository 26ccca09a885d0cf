"""The arms of the evidence: what each changes in the run of the demo."""

from dataclasses import replace
from typing import Any, NamedTuple

from sefar_core.config import TrainConfig
from sefar_core.presets import preset

EPOCHS, LONG_EPOCHS, WARMUP_EPOCHS = 20, 60, 12
TRAINING = "without-val.csv"  # a run evaluates on validation clips if it is given any


class Arm(NamedTuple):
    """Changes to the run of the demo: words of a preset, then single settings, and its length."""

    words: str = ""
    changes: dict[str, Any] = {}
    epochs: int = EPOCHS


# The teacher moves as far in four micro-batches a step as in one.
QUARTER = {"teacher.ema_decay": 0.98**0.25}
SMALL = {"micro_batch_size": 3}
ARMS = {
    "sefar": Arm(),
    "paper_weights": Arm("mix_on_logits", {"loss.gamma_un": 1.0, "loss.gamma_mix": 1.0}),
    "supervised": Arm("supervised"),
    "fixmatch": Arm("fixmatch"),
    "fixmatch_0.7": Arm("fixmatch", {"loss.threshold": 0.7}),
    "svformer": Arm("svformer"),
    "svformer_on_probs": Arm("svformer", {"loss.mix_on": "probs"}),
    **{name: Arm(name) for name in ("without_dual_elements", "without_perturbation")},
    **{name: Arm(name) for name in ("without_regulation", "without_mixing")},
    **{name: Arm(name) for name in ("perturb_unchanged", "perturb_slow", "perturb_shuffle_all")},
    **{name: Arm(name) for name in ("perturb_shuffle_fine", "perturb_repeat_half")},
    **{name: Arm(name) for name in ("perturb_reverse_all", "perturb_swap_red_blue")},
    **{name: Arm(name) for name in ("local_window", "shared_moments", "mix_on_logits")},
    **{f"passes_{passes}": Arm(f"passes_{passes}") for passes in (1, 2, 5, 20, 100, 1000)},
    "micro_batches": Arm("", SMALL),
    "ema_every_micro_batch": Arm("ema_every_micro_batch", SMALL | QUARTER),
    "released": Arm("released", SMALL | QUARTER | {"loss.mix_on": "logits"}),
    "window_supervised": Arm("local_window+supervised"),
    "window_fixmatch_0.7": Arm("local_window+fixmatch", {"loss.threshold": 0.7}),
    "window_unchanged": Arm("local_window+perturb_unchanged"),
    "window_long": Arm("local_window", epochs=LONG_EPOCHS),
    "window_supervised_long": Arm("local_window+supervised", epochs=LONG_EPOCHS),
}


def settings_of(arm: str, seed: int) -> TrainConfig:
    """The demo's settings with the changes of an arm, at the arm's length and in bf16."""
    words, changes, epochs = ARMS[arm]
    config = preset("+".join(word for word in ("demo", words) if word))
    for name, value in changes.items():
        *group, setting = name.split(".")
        if group:
            part = replace(getattr(config, group[0]), **{setting: value})
            config = replace(config, **{group[0]: part})
        else:
            config = replace(config, **{setting: value})
    supervised_only = config.warmup_epochs == config.epochs
    return replace(
        config,
        seed=seed,
        epochs=epochs,
        warmup_epochs=epochs if supervised_only else WARMUP_EPOCHS,
        save_every_epochs=WARMUP_EPOCHS,
        mixed_precision="bf16",
    )


def warm_up_key(config: TrainConfig) -> str:
    """What arms must share to start from one warm-up: the network, the views of the clips, and the
    learning-rate schedule.
    """
    model, data = config.model, config.data
    sizes = "-".join(map(str, model.sizes))
    parts = (sizes, model.sampling, data.placement, config.micro_batch_size, config.epochs)
    return "-".join(map(str, parts))
