from dataclasses import replace

import pytest
import torch

from qa_data.manifest import Clip
from sefar_core.config import OptimConfig, TrainConfig
from sefar_core.data.dataloaders import TrainClips
from sefar_core.presets import GROUPS, preset
from sefar_core.train import choose_precision, plan, refuse_other_data


def clips(labeled: int, unlabeled: int, classes: int) -> TrainClips:
    one = Clip(id="a", path="a.mp4", split="labeled", label=0)
    return TrainClips([one] * labeled, [one] * unlabeled, (None,) * classes)


def test_the_public_lists_pass_as_their_data_sets():
    refuse_other_data(preset("gym99_5"), clips(1316, 25004, 99))
    refuse_other_data(preset("ub_20"), clips(1918, 7676, 25))
    refuse_other_data(preset("ucf101_10"), clips(1010, 8527, 101))  # 10.6 % in truth
    refuse_other_data(TrainConfig(), clips(1, 3, 7))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (clips(1316, 25004, 98), "98 classes, but 99 are expected"),
        (clips(2632, 23688, 99), "10.0% of the training clips are labeled, but 5% are expected"),
    ],
)
def test_a_manifest_of_another_data_set_or_share_is_refused(found, message):
    with pytest.raises(ValueError, match=message):
        refuse_other_data(preset("gym99_5"), found)


def test_the_released_schedule_has_the_published_number_of_steps():
    # Gym99 at 5 %: 20 steps an epoch, UCF101 at 1 %: one, read off the public code.
    assert plan(preset("released"), 1316).num_steps == 30 * 20
    assert plan(preset("released"), 101).num_steps == 30
    assert plan(replace(preset("paper"), steps=100), 1316).num_steps == 100


@pytest.mark.parametrize(
    ("on_gpu", "kept_off", "setting", "chosen"),
    [
        (True, "", "auto", "bf16"),
        (True, "true", "auto", "no"),
        (False, "", "auto", "no"),
        (True, "", "no", "no"),
        (False, "", "bf16", "bf16"),
    ],
)
def test_products_are_of_bf16_on_a_gpu_unless_settings_say_otherwise(
    on_gpu, kept_off, setting, chosen, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    monkeypatch.setenv("ACCELERATE_USE_CPU", kept_off or "false")
    assert choose_precision(TrainConfig(mixed_precision=setting)) == chosen


def test_a_rate_that_would_never_reach_its_height_is_refused():
    rising = replace(preset("paper"), optim=OptimConfig(rate_warmup_steps=100))
    with pytest.raises(ValueError, match="rate_warmup_steps must be below the run's 100 steps"):
        plan(replace(rising, steps=100), 1316)
    assert plan(replace(rising, steps=101), 1316).num_steps == 101


def test_no_preset_clips_or_warms_the_rate_up():
    for words in GROUPS.values():
        for name in words:
            assert preset(name).optim.clip_norm is None
            assert preset(name).optim.rate_warmup_steps == 0
