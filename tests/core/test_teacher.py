from dataclasses import replace

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from sefar_core.teacher import EmaTeacher, summarize
from tests.oracles import method as oracle
from tests.oracles import tiny


@pytest.fixture
def student() -> nn.Module:
    return tiny.network(replace(tiny.CONFIG, drop_path_rate=0.3), spread=0.0)


def test_summary_is_mean_winner_confidence_and_unbiased_spread():
    probs = torch.rand(7, 4, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)
    got = summarize(probs)
    for clip in range(4):
        mean, label, confidence, spread = oracle.pseudo_label(probs[:, clip].tolist())
        assert got.probs[clip].tolist() == pytest.approx(mean, abs=1e-6)
        assert got.label[clip] == label
        assert got.confidence[clip].item() == pytest.approx(confidence, abs=1e-6)
        assert got.spread[clip].item() == pytest.approx(spread, abs=1e-6)


def test_one_backbone_pass_is_as_good_as_many_full_ones(student):
    teacher = EmaTeacher(student, decay=0.9, dropout_passes=4000)
    passes = []
    hook = teacher.network.backbone.patch_embed.register_forward_hook(lambda *_: passes.append(1))
    torch.manual_seed(0)
    fast = teacher.predict(tiny.elements(3))
    assert len(passes) == 2  # elements of two frames together, the one of four by itself
    hook.remove()
    full = teacher.network
    full.dropout.train()  # the schedule of the public code: the whole network, again and again
    many = [clip.repeat(400, 1, 1, 1, 1) for clip in tiny.elements(3)]
    with torch.no_grad():
        runs = torch.cat([full(many).softmax(-1).unflatten(0, (400, 3)) for _ in range(10)])
    slow = summarize(runs)
    torch.testing.assert_close(fast.probs, slow.probs, atol=0.015, rtol=0)
    torch.testing.assert_close(fast.spread, slow.spread, atol=0.01, rtol=0.1)
    assert fast.spread.min() > 0.01


def test_updates_move_every_tensor_toward_the_student_by_one_minus_decay(student):
    """By hand, and as timm's average moves over many steps."""
    ours = EmaTeacher(student, decay=0.75, dropout_passes=2)
    theirs = ModelEmaV3(student, decay=0.75)
    for _ in range(5):
        before = {name: tensor.clone() for name, tensor in ours.network.state_dict().items()}
        tiny.move(student)
        ours.update(student)
        theirs.update(student)
        for name, tensor in ours.network.state_dict().items():
            expected = 0.75 * before[name] + 0.25 * student.state_dict()[name]
            torch.testing.assert_close(tensor, expected)
            torch.testing.assert_close(tensor, theirs.module.state_dict()[name])


def test_the_teacher_is_not_trained_and_draws_no_depth(student):
    teacher = EmaTeacher(student, decay=0.9, dropout_passes=2)
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert not any(part.requires_grad for part in teacher.predict(tiny.elements()))


def test_dropout_hidden_in_the_backbone_is_refused_by_name(student):
    mlp = student.backbone.blocks[1].mlp
    mlp.fc2 = nn.Sequential(mlp.fc2, nn.Dropout(0.1))
    with pytest.raises(ValueError, match=r"backbone\.blocks\.1\.mlp\.fc2\.1"):
        EmaTeacher(student, decay=0.9, dropout_passes=2)


@pytest.mark.parametrize(("decay", "passes"), [(1.0, 2), (-0.1, 2), (0.9, -1)])
def test_settings_out_of_range_are_refused(student, decay, passes):
    with pytest.raises(ValueError, match="decay|dropout_passes"):
        EmaTeacher(student, decay=decay, dropout_passes=passes)
