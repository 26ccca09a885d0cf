import pytest
import torch
from torch import nn

from sefar_core.config import LossConfig, ModelConfig, OptimConfig, TeacherConfig, TrainConfig
from sefar_core.loop import build_optimizer


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
        (lambda: TeacherConfig(dropout_passes=-1), "teacher.dropout_passes"),
        (lambda: LossConfig(threshold=2.0), "loss.threshold"),
        (lambda: OptimConfig(lr=0.0), "optim.lr"),
        (lambda: TrainConfig(batch_size=10, micro_batch_size=4), "multiple of micro_batch_size"),
        (lambda: TrainConfig(warmup_epochs=31), "warmup_epochs"),
        (lambda: TrainConfig(steps=0), "steps must be at least 1"),
        (lambda: TrainConfig(keep_last=0), "keep_last"),
    ],
)
def test_nonsense_settings_are_refused_by_their_dotted_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
