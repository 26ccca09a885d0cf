"""Classes are compared by name wherever a recognizer meets a manifest."""

import hashlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sefar_core
from qa_data.manifest import Clip, read_manifest, write_manifest
from sefar_core.checkpoint import (
    CheckpointError,
    build_model,
    load_for_classes,
    read_class_names,
    save_encoder,
)
from sefar_core.data.class_names import (
    ClassMismatch,
    class_names,
    match_classes,
    refuse_several_names,
)
from sefar_core.data.dataloaders import read_train_clips
from sefar_mllm.comparison import baselines
from tests.oracles import tiny

NAMES = ("FX salto", "UB salto", "stalder")
SCRIPT = Path(__file__).parents[3] / "scripts/evaluate_ssl.py"


def clip(name, label, text, event=None):
    return Clip(id=name, path=f"{name}.mp4", label=label, text=text, event=event, split="test")


CLIPS = [clip("a", 0, "salto", "FX"), clip("b", 2, "stalder"), clip("c", 1, "salto", "UB")]


@pytest.fixture
def run_dir(tmp_path):
    torch.manual_seed(0)
    for role in ("student", "teacher"):
        model = build_model(tiny.CONFIG, num_classes=3)
        save_encoder(model, tiny.CONFIG, tmp_path / "run" / role, class_names=NAMES)
    return tmp_path / "run"


def test_names_are_by_label_with_their_apparatus_and_gaps_stay_gaps():
    assert class_names(CLIPS) == NAMES
    assert class_names(CLIPS[:2]) == ("FX salto", None, "stalder")
    assert class_names([clip("x", 0, None), clip("y", 0, "Ku\u0308r")]) == ("Kür",)
    assert class_names([clip("x", 1, "class 1"), clip("y", 0, "class 1")]) == ("class 1", None)


@pytest.mark.parametrize(
    ("known", "asked", "state", "order", "unnamed"),
    [
        ("abc", "abc", "same", None, 0),
        ((*"ab", None), "abc", "same", None, 1),
        ("abc", "cab", "by_name", (2, 0, 1), 0),
        (None, "abc", "unchecked", None, 0),
        ("abc", (None, None, None), "unchecked", None, 0),
    ],
)
def test_classes_are_the_same_matched_by_name_or_unchecked(known, asked, state, order, unnamed):
    found = match_classes(known, asked)
    assert (found.state, found.order, found.unnamed) == (state, order, unnamed)


@pytest.mark.parametrize("asked", ["abd", "aab"])
def test_other_names_are_refused_and_named(asked):
    with pytest.raises(ClassMismatch, match="class . is '.' there and '.' here"):
        match_classes("abc", asked)
    with pytest.raises(ClassMismatch, match="2 classes"):
        match_classes("aab", "aba")  # names of two classes cannot be matched


def test_an_encoder_keeps_its_class_names_and_one_without_still_loads(run_dir):
    assert read_class_names(run_dir / "teacher") == read_class_names(run_dir) == NAMES
    before = sefar_core.load_encoder(run_dir)(tiny.elements())
    config = run_dir / "student/config.json"
    settings = json.loads(config.read_text())
    del settings["class_names"]
    config.write_text(json.dumps(settings))
    assert read_class_names(run_dir) is None
    torch.testing.assert_close(sefar_core.load_encoder(run_dir)(tiny.elements()), before)
    assert load_for_classes(run_dir, NAMES)[1].state == "unchecked"
    config.write_text(json.dumps(settings | {"class_names": ["FX salto"]}))
    with pytest.raises(CheckpointError, match="names other classes than its 3"):
        load_for_classes(run_dir, NAMES)


def test_scores_follow_the_order_of_the_manifest_or_other_classes_are_refused(run_dir):
    straight, same = load_for_classes(run_dir, NAMES)
    turned, match = load_for_classes(run_dir, (NAMES[1], NAMES[2], NAMES[0]))
    assert (same.state, match.state) == ("same", "by_name")
    expected = straight(tiny.elements())[:, [1, 2, 0]]
    torch.testing.assert_close(turned(tiny.elements()), expected, rtol=0, atol=1e-5)
    with pytest.raises(CheckpointError, match="other classes: 1 classes .* 'stalder' there") as one:
        load_for_classes(run_dir, (*NAMES[:2], "giant"))
    assert "\n" not in str(one.value)
    with pytest.raises(CheckpointError, match="scores 3 classes, but the manifest has 2"):
        load_for_classes(run_dir, NAMES[:2])


def test_the_head_of_a_recognizer_is_matched_by_name_and_says_so(run_dir, monkeypatch, capsys):
    """Beside the language model, class numbers of questions meet those of a recognizer."""
    monkeypatch.setattr(baselines, "evaluation_views", lambda *_, **__: [])
    monkeypatch.setattr(
        baselines, "class_probs", lambda model, *_: (model(tiny.elements()).softmax(-1), None)
    )
    asked = (NAMES[2], NAMES[0], NAMES[1])
    straight = baselines.recognizer_probs(run_dir, CLIPS[:2], Path(), "cpu", NAMES)
    assert capsys.readouterr().out == ""
    turned = baselines.recognizer_probs(run_dir, CLIPS[:2], Path(), "cpu", asked)
    assert "matched by name" in capsys.readouterr().out
    for name, row in straight.items():
        torch.testing.assert_close(turned[name], row[[2, 0, 1]], rtol=0, atol=1e-5)
    with pytest.raises(CheckpointError, match="other classes"):
        baselines.recognizer_probs(run_dir, CLIPS[:2], Path(), "cpu", ("x", "y", "z"))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("evaluate_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("manifest_is", ["this", "another"])
def test_an_old_run_says_what_could_not_be_checked(script, run_dir, tmp_path, manifest_is):
    manifest = tmp_path / "manifest.csv"
    write_manifest(CLIPS, manifest)
    own = hashlib.sha256(manifest.read_bytes()).hexdigest()
    kept = {"manifest_sha256": own if manifest_is == "this" else "0" * 64}
    (run_dir / "config.json").write_text(json.dumps(kept))
    settings = script.EvaluateSsl(run_dir=run_dir, manifest=manifest, video_root=tmp_path)

    def note(names):
        networks, match = script.load_networks(settings, names)
        assert set(networks) == {"student", "teacher"}
        return script.note_on_classes(settings, match)

    unchecked = note((None, None, None))
    assert unchecked.startswith("class names could not be checked")
    assert f"trained with {manifest_is} manifest" in unchecked
    assert note(NAMES) is None
    assert "matched by name" in note(NAMES[::-1])
    assert "names of 2 classes could not be compared" in note((NAMES[0], None, None))


def test_a_label_with_several_names_is_refused_by_training_and_evaluation(script, tmp_path):
    manifest = tmp_path / "m.csv"
    one = Clip(id="a", path="a.mp4", split="labeled", label=1, text="salto forward")
    other = replace(one, id="b", split="test", text="salto backward")
    write_manifest([one, other, replace(one, id="c", split="unlabeled")], manifest)
    named = "m.csv: label 1 has several names: salto backward, salto forward; correct"
    settings = script.EvaluateSsl(run_dir=tmp_path, manifest=manifest, video_root=tmp_path)
    with pytest.raises(ValueError, match=named):
        script.main(settings)
    with pytest.raises(ValueError, match=named):
        read_train_clips(manifest, need_unlabeled=True)
    one, other, _ = read_manifest(manifest)
    refuse_several_names([one, replace(other, label=6)], manifest)
