"""Training questions, baselines and cache keys of the rows of a comparison."""

import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qa_data.files import SefarError
from qa_data.questions import QuestionError
from sefar_mllm.build import load_tokenizer
from sefar_mllm.comparison import experiment
from sefar_mllm.comparison.baselines import predict_from_probs, predict_text_only
from sefar_mllm.comparison.experiment import (
    StaleError,
    code_hash,
    is_finished,
    model_hash,
    record_finished,
)
from sefar_mllm.comparison.rows import (
    CONDITION_ROWS,
    PATH_FIELDS,
    ROWS,
    comparable_symbols,
    option_symbols,
    permute_answers,
    read_question_folder,
    row_encoder,
    train_questions,
    trained_row,
)
from sefar_mllm.comparison.run import refuse_unlike_seeds, shared_steps
from sefar_mllm.encoders import ENCODERS
from sefar_mllm.linear_probe import fit_classifier
from sefar_mllm.prompt import marker_ids
from tests.oracles import toy_llm


def test_every_row_has_a_unique_name_and_an_encoder_that_exists():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    encoders = {row_encoder(row) for row in ROWS} - {None}
    assert encoders == set(PATH_FIELDS) == set(ENCODERS)
    assert all(trained_row(row.base).name == row.base for row in CONDITION_ROWS)


def test_every_control_with_rows_is_in_the_plan():
    found = {row.control for row in ROWS}
    assert found == {"", "C0", "C1", "C2", "C3", "C4", "C5", "C6", "C7", "C10", "C11"}


def test_wrong_videos_give_every_question_another_clip():
    asked = toy_llm.questions(9)
    wrong = train_questions(asked, "wrong_videos", seed=3)
    assert all(one.video != other.video for one, other in zip(asked, wrong, strict=True))
    assert all(
        one.source != asked[int(other.video[4:])].source
        and one.label != asked[int(other.video[4:])].label
        for one, other in zip(asked, wrong, strict=True)
    )
    assert sorted(one.video for one in wrong) == sorted(one.video for one in asked)
    assert [replace(one, video="") for one in wrong] == [replace(one, video="") for one in asked]


def test_wrong_answers_are_a_permutation_among_questions_with_as_many_options():
    pairs = [
        replace(one, question_id=f"two{i}", options=one.options[:2], answer=i % 2)
        for i, one in enumerate(toy_llm.questions(6))
    ]
    asked = toy_llm.questions(40) + pairs
    wrong = permute_answers(asked, random.Random(0))
    for count in (2, 4):
        before = [one.answer for one in asked if len(one.options) == count]
        after = [one.answer for one in wrong if len(one.options) == count]
        assert sorted(before) == sorted(after)
    changed = sum(one.answer != other.answer for one, other in zip(asked, wrong, strict=True))
    assert changed > 20  # three quarters of 40 and half of 6 are expected
    assert [one.video for one in wrong] == [one.video for one in asked]
    assert wrong != permute_answers(asked, random.Random(1))


def test_training_as_written_uses_the_questions():
    asked = toy_llm.questions(5)
    assert train_questions(asked, "as_written", seed=0) == asked


def test_class_probabilities_are_restricted_to_the_options():
    (asked, *_) = toy_llm.questions(1)
    question = replace(asked, options=("a", "b", "c"), option_labels=(5, 0, 3), answer=0, label=5)
    probs = torch.tensor([0.1, 0.5, 0.05, 0.2, 0.05, 0.1])
    (one,) = predict_from_probs({question.video: probs}, [question])
    expected = np.array([0.1, 0.1, 0.2]) / 0.4
    np.testing.assert_allclose(one.probs, expected, atol=1e-7)
    assert one.choice == 2 and one.first_letter == 2 and not one.strict


def test_classes_with_equal_texts_are_equally_right_without_a_language_model():
    (asked, *_) = toy_llm.questions(1)
    question = replace(asked, options=("a", "b", "a"), option_labels=(0, 1, 2), answer=0, label=0)
    for probs, strict in (([0.1, 0.2, 0.7], True), ([0.1, 0.7, 0.2], False)):
        (one,) = predict_from_probs({question.video: torch.tensor(probs)}, [question])
        assert one.strict is strict


def test_a_question_without_the_classes_of_its_options_is_refused():
    asked = toy_llm.questions(1)
    with pytest.raises(SefarError, match="does not have the classes of its options"):
        predict_from_probs({asked[0].video: torch.ones(4)}, asked)


def test_the_classifier_finds_the_optimum_of_its_loss():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 4, generator=generator) + labels[:, None] * torch.tensor(
        [1, 0, 2, 0]
    )
    head = fit_classifier(features, labels, 4)
    again = fit_classifier(features, labels, 4)
    assert torch.equal(head.weight, again.weight)
    # The gradient by hand: X' (P - Y) / n + decay W is zero at the optimum.
    probs = head(features).softmax(dim=-1)
    gap = probs - torch.eye(4)[labels]
    slope = gap.T @ features / len(labels) + 1e-3 * head.weight
    assert slope.abs().max() < 1e-4
    assert (probs.argmax(dim=-1) == labels).float().mean() > 0.8


def test_finished_work_is_reused_and_refused_for_other_inputs(tmp_path):
    record = tmp_path / "scored.json"
    inputs = {"questions": "ab12", "finetune": {"epochs": 3, "lora": {"lr": 1e-3}}}
    assert not is_finished(record, inputs)
    record_finished(record, inputs)
    assert is_finished(record, inputs)
    other = inputs | {"finetune": {"epochs": 3, "lora": {"lr": 2e-3}}}
    with pytest.raises(StaleError, match=r"finetune\.lora\.lr = 0\.001, but 0\.002"):
        is_finished(record, other)
    with pytest.raises(StaleError, match="shown = None, but reversed"):
        is_finished(record, inputs | {"shown": "reversed"})


@pytest.mark.parametrize("text", ["", '{"code": ', "[1]", "7"])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "scored.json").write_text(text)
    with pytest.raises(StaleError, match=rf"scored\.json is damaged .*delete {tmp_path} "):
        is_finished(tmp_path / "scored.json", {"questions": "ab12"})


@pytest.mark.parametrize("text", ["", '{"settings": ', "[1]", '{"settings": {}}'])
def test_a_damaged_audit_is_named(tmp_path, text):
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(QuestionError, match=rf"{tmp_path}/audit\.json .*build_gym_qa"):
        read_question_folder(tmp_path, [])


def test_work_of_other_code_is_refused(tmp_path, monkeypatch):
    record = tmp_path / "scored.json"
    record_finished(record, {"questions": "ab12"})
    assert is_finished(record, {"questions": "ab12"})
    monkeypatch.setattr(experiment, "code_hash", lambda: "changed")
    with pytest.raises(StaleError, match=r"made with code = \w{16}, but changed is requested"):
        is_finished(record, {"questions": "ab12"})


def test_the_hash_of_the_code_follows_every_file_of_a_package(tmp_path):
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    (package / "one.py").write_text("x = 1\n")
    (package / "inner/two.py").write_text("y = 2\n")
    found = [code_hash.__wrapped__((package,))]
    (package / "inner/two.py").write_text("y = 3\n")
    found.append(code_hash.__wrapped__((package,)))
    (package / "one.py").rename(package / "renamed.py")
    found.append(code_hash.__wrapped__((package,)))
    (package / "notes.txt").write_text("no code")
    assert len(set(found)) == 3
    assert code_hash.__wrapped__((package,)) == found[-1]


def test_files_that_only_read_finished_work_are_not_hashed_and_all_others_are():
    root = Path(experiment.__file__).parents[2]
    assert all((root / name).is_file() for name in experiment.ONLY_READ)
    readers = {Path(name).stem for name in experiment.ONLY_READ} | {"run"}
    for path in (root / "sefar_mllm/comparison").glob("*.py"):
        if path.stem not in readers:
            imported = re.findall(r"from sefar_mllm\.comparison\.(\w+) import", path.read_text())
            assert not readers & set(imported), path


def test_the_hash_of_a_language_model_follows_its_files(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "README.md").write_text(name)
    assert model_hash(str(tmp_path / "one")) == model_hash(str(tmp_path / "two"))
    (tmp_path / "two/config.json").write_text("[]")
    assert model_hash(str(tmp_path / "one")) != model_hash(str(tmp_path / "two"))
    assert model_hash("lmsys/vicuna-7b-v1.5") == "lmsys/vicuna-7b-v1.5"


def test_seeds_of_a_row_are_networks_of_one_width_and_of_other_weights():
    def key(digest, dim=8, frame_order="in_order"):
        return {"encoder": "sefar", "digest": digest, "dim": dim, "frame_order": frame_order}

    refuse_unlike_seeds({"a": key("one"), "b": key("two"), "c": key("one", frame_order="middle")})
    with pytest.raises(SefarError, match=r"two networks of sefar have the same weights \(a, b\)"):
        refuse_unlike_seeds({"a": key("one"), "b": key("one")})
    with pytest.raises(SefarError, match="tokens of different widths"):
        refuse_unlike_seeds({"a": key("one"), "b": key("two", dim=16)})


def test_trainings_with_unequal_steps_are_refused(tmp_path):
    for name, steps in (("sefar", 9), ("clip", 9), ("eva", 8)):
        (tmp_path / name).mkdir()
        lines = [f'{{"step": {step}, "loss": 1.0}}\n' for step in range(1, steps + 1)]
        (tmp_path / name / "metrics.jsonl").write_text("".join(lines))
    folders = {name: tmp_path / name for name in ("sefar", "clip")}
    assert shared_steps(folders) == 9
    with pytest.raises(SefarError, match="'eva': 8"):
        shared_steps(folders | {"eva": tmp_path / "eva"})


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    return str(toy_llm.language_model(tmp_path_factory.mktemp("llm")))


def test_symbols_of_a_control_can_be_scored_by_one_token_each(language_model):
    tokenizer = load_tokenizer(language_model)
    for condition, symbols in option_symbols(tokenizer, 4, seed=0).items():
        assert len(set(symbols)) == 4 and not set(symbols) & set("ABCD")
        assert condition == ("letters_digits" if symbols.isdigit() else "letters_drawn")
        marker_ids(tokenizer, symbols)  # refuses what is not comparable
    assert set(comparable_symbols(tokenizer, "ABCD")) <= set("ABCD")


def test_the_text_only_row_reads_no_clip(language_model):
    asked = toy_llm.questions(6)
    found = predict_text_only(language_model, asked, batch_size=4, device="cpu")
    assert [one.question_id for one in found] == [one.question_id for one in asked]
    assert {one.shown for one in found} == {""}
    alike = [one.probs for one in found if one.answer == found[0].answer]
    for other in alike:  # the same text, whichever the clip
        np.testing.assert_allclose(other, alike[0], atol=1e-5)


def test_a_prompt_longer_than_the_context_is_refused(language_model):
    asked = toy_llm.questions(3)
    asked[2] = replace(asked[2], stem="why " * 400)
    with pytest.raises(ValueError, match="question 0000002: without video .* reads 512; shorten"):
        predict_text_only(language_model, asked, batch_size=4, device="cpu")
