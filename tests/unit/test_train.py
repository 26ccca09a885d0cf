import pytest
import torch
from torch import nn

from sefar_core.config import LossConfig, ModelConfig, OptimConfig, TeacherConfig, TrainConfig
from sefar_core.train import Schedule, build_optimizer, learning_rate


def test_a_run_takes_every_labeled_clip_epochs_times():
    # Gym99 at 5 %: 1,316 labels in batches of 64; the public code drops the rest of each pass.
    schedule = Schedule(num_labeled=1316, batch_size=64, epochs=30, warmup_epochs=5)
    assert schedule.num_steps == round(30 * 1316 / 64) == 617
    assert schedule.warmup_steps == 103


def test_fewer_labels_than_a_batch_still_train():
    schedule = Schedule(num_labeled=10, batch_size=64, epochs=30, warmup_epochs=5)
    assert schedule.num_steps == 5


def test_the_ramp_is_constant_within_an_epoch_and_ends_at_one():
    schedule = Schedule(num_labeled=640, batch_size=64, epochs=30, warmup_epochs=5)
    values = [schedule.ramp(step) for step in range(schedule.num_steps)]
    assert values[: schedule.warmup_steps] == [0.0] * 50
    assert [round(value, 3) for value in values[50:300:10]][:3] == [0.063, 0.125, 0.187]
    assert len(set(values[50:60])) == 1
    assert values[-1] == pytest.approx(1.0)


def test_supervised_only_is_a_warm_up_to_the_end():
    schedule = Schedule(num_labeled=640, batch_size=64, epochs=30, warmup_epochs=30)
    assert schedule.warmup_steps == schedule.num_steps


@pytest.mark.parametrize(
    ("progress", "factor"), [(0.0, 1), (0.83, 1), (0.84, 0.1), (0.93, 0.1), (0.94, 0.01)]
)
def test_the_published_rate_falls_at_25_and_28_of_30(progress, factor):
    assert learning_rate(OptimConfig(lr=0.005), progress) == pytest.approx(0.005 * factor)


def test_the_cosine_falls_from_the_rate_to_nearly_nothing():
    config = OptimConfig(lr=1.0, schedule="cosine")
    assert learning_rate(config, 0.0) == 1
    assert learning_rate(config, 0.5) == pytest.approx(0.5)
    assert learning_rate(config, 0.999) < 1e-4


def test_sgd_is_the_published_one():
    optimizer = build_optimizer(OptimConfig(), nn.Linear(2, 2))
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelConfig(image_size=100), "multiple of model.patch_size"),
        (lambda: ModelConfig(dim=100), "multiple of model.num_heads"),
        (lambda: ModelConfig(sizes=(2, 0)), "model.sizes"),
        (lambda: TeacherConfig(ema_decay=1.0), "teacher.ema_decay"),
        (lambda: TeacherConfig(dropout_passes=1), "teacher.dropout_passes"),
        (lambda: LossConfig(threshold=2.0), "loss.threshold"),
        (lambda: OptimConfig(lr=0.0), "optim.lr"),
        (lambda: TrainConfig(batch_size=10, micro_batch_size=4), "multiple of micro_batch_size"),
        (lambda: TrainConfig(warmup_epochs=31), "warmup_epochs"),
    ],
)
def test_nonsense_settings_are_refused_by_their_dotted_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
