from dataclasses import asdict
from itertools import product

import pytest
import torch

from sefar_core.ablations import COMPONENTS, PERTURBED, RIVALS
from sefar_core.checkpoint import build_model
from sefar_core.config import TeacherConfig, TrainConfig, dotted
from sefar_core.presets import DATA_SETS, GROUPS, NETWORKS, WORDS, preset
from sefar_core.teacher import EmaTeacher
from tests.oracles import tiny


def changes(name: str, base: str = "paper") -> dict:
    before, after = dotted(asdict(preset(base))), dotted(asdict(preset(name)))
    return {key: after[key] for key in after if after[key] != before[key]}


def test_the_paper_s_preset_is_frozen_to_its_decisions():
    config = dotted(asdict(preset("paper")))
    expected = {
        "model.sizes": (2, 2, 4), "model.sampling": "interleaved", "model.image_size": 224,
        "model.dim": 384, "model.depth": 12, "model.num_heads": 6, "model.drop_path_rate": 0.1,
        "model.fusion_dim": 256, "model.dropout": 0.5,
        "data.short_side": (256, 320), "data.flip": True, "data.weak_flip": True,
        "data.placement": "one_for_all", "data.moments": "independent",
        "teacher.ema_decay": None, "teacher.dropout_passes": 10, "teacher.ema_every": "step",
        "loss.perturbation": "reverse_fine", "loss.color_dropout": 0.0,
        "loss.regulation": "adaptive", "loss.mix_on": "logits", "loss.mix_partners": "one_for_all",
        "loss.mix_targets": "soft", "loss.mix_concentration": 10.0, "loss.gamma_un": 1.0,
        "loss.gamma_mix": 1.0, "loss.ramp": "sine",
        "optim.kind": "sgd", "optim.lr": 0.005, "optim.weight_decay": 1e-3,
        "optim.schedule": "step", "batch_size": 64, "micro_batch_size": 8,
        "unlabeled_per_labeled": 3, "epochs": 30, "warmup_epochs": 5, "steps": None,
        "leftovers": "kept", "mixed_precision": "auto",
    }  # fmt: skip
    assert {key: config[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "released",
            {
                "data.placement": "one_each", "data.weak_flip": False,
                "teacher.ema_every": "micro_batch",
                "loss.perturbation": "swap_red_blue", "loss.color_dropout": 0.2,
                "loss.mix_partners": "one_each", "loss.gamma_un": 2.0, "loss.gamma_mix": 2.0,
                "leftovers": "dropped", "mixed_precision": "no",
            },
        ),
        ("recommended", {"model.sampling": "local_window"}),
        (
            "fixmatch",
            {
                "teacher.ema_decay": 0.0, "teacher.dropout_passes": 0, "loss.gamma_mix": 0.0,
                "loss.regulation": "fixed", "loss.threshold": 0.95, "loss.ramp": "none",
            },
        ),
        (
            "svformer",
            {
                "model.sizes": (8,), "teacher.dropout_passes": 0, "loss.perturbation": "warp",
                "loss.color_dropout": 0.2, "loss.regulation": "fixed", "loss.mix_targets": "sharp",
                "loss.gamma_un": 2.0, "loss.gamma_mix": 2.0, "loss.ramp": "none",
            },
        ),
        ("gym288_10", {"expected_classes": 288, "expected_rate": 0.1}),
        ("sthsth", {"expected_classes": 174, "data.flip": False}),
        ("passes_1", {"teacher.dropout_passes": 1, "loss.regulation": "confidence_only"}),
    ],
)  # fmt: skip
def test_a_word_changes_these_of_the_paper_s_settings_alone(name, expected):
    assert changes(name) == expected


@pytest.mark.parametrize("name", WORDS)
def test_every_word_makes_settings_alone_and_every_other_on_the_demo(name):
    for config in (preset(name), preset(f"demo+{name}" if name != "demo" else name)):
        assert isinstance(config, TrainConfig)
        assert config.optim.clip_norm is None  # no preset clips,
        assert config.optim.rate_warmup_steps == 0  # or warms the rate up


@pytest.mark.parametrize(
    ("batch", "every", "expected"),
    [(64, "step", 0.9999**8), (8, "step", 0.9999), (64, "micro_batch", 0.9999)],
)
def test_the_teacher_moves_as_far_for_a_clip_as_in_the_public_code(batch, every, expected):
    config = TrainConfig(batch_size=batch, teacher=TeacherConfig(ema_every=every))
    assert config.ema_decay == pytest.approx(expected)
    assert TrainConfig(teacher=TeacherConfig(ema_decay=0.5)).ema_decay == 0.5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("passes_2+passes_5", "and so does"),
        ("passes_1+released", "and so does"),
        ("vit_b+demo", "and so does"),
        ("without_perturbation+perturb_slow", "and so does"),
        ("gym99_5+fixmach", "no preset 'fixmach'; did you mean fixmatch"),
    ],
)
def test_a_word_that_is_unknown_or_undoes_what_another_set_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        preset(name)


def test_every_data_set_is_there_for_both_networks_and_with_every_component_left_out():
    for data_set, network, component in product(DATA_SETS, NETWORKS, COMPONENTS):
        config = preset(f"{data_set}+{network}+{component}")
        assert config.model.dim == {"vit_s": 384, "vit_b": 768}[network]
        assert changes(f"{data_set}+{network}+{component}", f"{data_set}+{network}")


def test_words_of_the_groups_do_not_hide_one_another():
    assert len(WORDS) == sum(map(len, GROUPS.values()))
    assert len(PERTURBED) == 9 and len(RIVALS) == 3


def test_a_whole_run_that_comes_first_may_be_changed():
    assert preset("demo+vit_b").model.dim == 768
    assert preset("demo+mix_on_logits").loss.mix_on == "logits"
    assert preset("released+passes_2").teacher.dropout_passes == 2


def test_the_student_is_fixmatch_s_own_teacher():
    config = preset("demo+fixmatch")
    torch.manual_seed(0)
    student = build_model(config.model, num_classes=12)
    teacher = EmaTeacher(
        student, decay=config.ema_decay, dropout_passes=config.teacher.dropout_passes
    )
    tiny.move(student)
    teacher.update(student)
    clips = tiny.elements(side=64)
    with torch.no_grad():
        expected = student.eval()(clips).softmax(dim=-1)
    torch.testing.assert_close(teacher.predict(clips).probs, expected)
