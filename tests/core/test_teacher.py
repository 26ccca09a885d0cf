import pytest
import torch
from torch import nn

from sefar_core.checkpoint import build_model
from sefar_core.config import ModelConfig
from sefar_core.teacher import EmaTeacher, summarize
from tests.oracles import method as oracle

TINY = ModelConfig(
    image_size=32, patch_size=16, dim=16, depth=2, num_heads=2, fusion_dim=8, drop_path_rate=0.3
)


def student() -> nn.Module:
    torch.manual_seed(0)
    return build_model(TINY, num_classes=5)


def clips(batch: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, 3, frames, 32, 32, generator=generator) for frames in (2, 2, 4)]


def test_summary_is_mean_winner_confidence_and_unbiased_spread():
    probs = torch.rand(7, 4, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)
    got = summarize(probs)
    for clip in range(4):
        mean, label, confidence, spread = oracle.pseudo_label(probs[:, clip].tolist())
        assert got.probs[clip].tolist() == pytest.approx(mean, abs=1e-6)
        assert got.label[clip] == label
        assert got.confidence[clip].item() == pytest.approx(confidence, abs=1e-6)
        assert got.spread[clip].item() == pytest.approx(spread, abs=1e-6)


def test_one_backbone_pass_is_as_good_as_many_full_ones():
    teacher = EmaTeacher(student(), decay=0.9, dropout_passes=4000)
    torch.manual_seed(0)
    fast = teacher.predict(clips())
    full = teacher.network
    full.dropout.train()  # the schedule of the public code: the whole network, again and again
    many = [clip.repeat(400, 1, 1, 1, 1) for clip in clips()]
    with torch.no_grad():
        runs = torch.cat([full(many).softmax(-1).unflatten(0, (400, 3)) for _ in range(10)])
    slow = summarize(runs)
    torch.testing.assert_close(fast.probs, slow.probs, atol=0.015, rtol=0)
    torch.testing.assert_close(fast.spread, slow.spread, atol=0.01, rtol=0.1)
    assert fast.spread.min() > 0.01


def test_the_backbone_runs_once_whatever_the_number_of_passes():
    teacher = EmaTeacher(student(), decay=0.9, dropout_passes=50)
    calls = []
    teacher.network.backbone.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    teacher.predict(clips())
    assert len(calls) == 2  # elements of two frames together, the one of four by itself


def test_update_moves_every_tensor_toward_the_student_by_one_minus_decay():
    pupil = student()
    teacher = EmaTeacher(pupil, decay=0.75, dropout_passes=2)
    before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    with torch.no_grad():
        for tensor in pupil.parameters():
            tensor.add_(torch.randn_like(tensor))
    teacher.update(pupil)
    for name, tensor in teacher.network.state_dict().items():
        expected = 0.75 * before[name] + 0.25 * pupil.state_dict()[name]
        torch.testing.assert_close(tensor, expected)


def test_the_teacher_agrees_with_timm_s_average_over_many_steps():
    from timm.utils import ModelEmaV3

    pupil = student()
    ours = EmaTeacher(pupil, decay=0.9, dropout_passes=2)
    theirs = ModelEmaV3(pupil, decay=0.9)
    for _ in range(5):
        with torch.no_grad():
            for tensor in pupil.parameters():
                tensor.add_(torch.randn_like(tensor, dtype=torch.float32) * 0.1)
        ours.update(pupil)
        theirs.update(pupil)
    for name, tensor in theirs.module.state_dict().items():
        torch.testing.assert_close(ours.network.state_dict()[name], tensor)


def test_the_teacher_is_not_trained_and_draws_no_depth():
    pupil = student()
    teacher = EmaTeacher(pupil, decay=0.9, dropout_passes=2)
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in pupil.parameters())
    pseudo = teacher.predict(clips())
    assert not any(part.requires_grad for part in pseudo)


def test_dropout_hidden_in_the_backbone_is_refused_by_name():
    pupil = student()
    pupil.backbone.blocks[1].mlp.fc2 = nn.Sequential(
        pupil.backbone.blocks[1].mlp.fc2, nn.Dropout(0.1)
    )
    with pytest.raises(ValueError, match=r"backbone\.blocks\.1\.mlp\.fc2\.1"):
        EmaTeacher(pupil, decay=0.9, dropout_passes=2)


@pytest.mark.parametrize(("decay", "passes"), [(1.0, 2), (-0.1, 2), (0.9, -1)])
def test_settings_out_of_range_are_refused(decay, passes):
    with pytest.raises(ValueError, match="decay|dropout_passes"):
        EmaTeacher(student(), decay=decay, dropout_passes=passes)
