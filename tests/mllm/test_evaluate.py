import io
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from qa_data.blind import audit
from qa_data.files import SefarError
from qa_data.terminal import console
from sefar_core.intervals import Interval
from sefar_mllm.adapters import add_adapters
from sefar_mllm.build import build_vlm
from sefar_mllm.config import EvaluateConfig
from sefar_mllm.evaluation.diagnostics import Diagnosis
from sefar_mllm.evaluation.evaluate import (
    blind_predictions,
    control,
    diagnose_file,
    open_tokens,
    score_file,
    shown_clips,
    text_scored,
    write_metrics,
)
from sefar_mllm.evaluation.metrics import compute_metrics
from sefar_mllm.evaluation.report import diagnosis_table, plot_set, score_table, subset_table
from sefar_mllm.feature_cache import CacheError
from sefar_mllm.scoring import read_predictions
from tests.oracles import toy_llm
from tests.oracles.toy_answers import made

QUESTIONS = toy_llm.questions(8)
HALF = Interval(value=0.5, low=0.25, high=0.75)
DIAGNOSIS = Diagnosis(
    unreadable=0.125, generated=HALF, agreement=0.875, generated_gap=HALF, rotation_gap=HALF,
    text_sum=HALF, text_mean=HALF, interpretation="[b]well[/b]",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the questions' tokens, in order and reversed."""
    root = tmp_path_factory.mktemp("evaluate")
    toy_llm.cache(root / "tokens", QUESTIONS)
    toy_llm.cache(root / "reversed", QUESTIONS, key=toy_llm.KEY | {"frame_order": "reversed"})
    return root


@pytest.fixture(scope="module")
def model(llm):
    shape = {"token_dim": toy_llm.DIM, "token_shape": toy_llm.SHAPE}
    vlm = build_vlm(llm, **shape, encoder={"key": toy_llm.KEY})
    return add_adapters(vlm, rank=2, alpha=4.0, dropout=0.0).eval()


def settings(root, out="out", **changes):
    known = {"model": root / "model", "encoder_features": root / "tokens", "resamples": 100}
    questions = (root / "test.jsonl",)
    return EvaluateConfig(**known | {"questions": questions, "out": root / out} | changes)


def measured(predictions, **subsets):
    rng = np.random.default_rng(0)
    return compute_metrics(predictions, resamples=100, rng=rng, **subsets)


def third_class_right():
    return made(40, lambda i, label: label == 3)


def test_the_written_predictions_give_the_numbers(root, model, tokenizer):
    config = settings(root)
    subsets = {"first": {QUESTIONS[0].question_id}}
    got = score_file(config, model, tokenizer, QUESTIONS, name="test", subsets=subsets)
    written = read_predictions(root / "out/predictions-test.jsonl")
    assert got == measured(written, subsets=subsets)
    assert [p.question_id for p in written] == [q.question_id for q in QUESTIONS]
    assert got.subsets["first"].num_questions == 1


def test_the_control_of_mismatched_videos_shows_others_and_is_named(root, model, tokenizer):
    config = settings(root, "wrong", shuffle_videos=True)
    score_file(config, model, tokenizer, QUESTIONS, name="test")
    written = read_predictions(root / "wrong/predictions-test.jsonl")
    assert all(p.shown != p.video for p in written)
    assert {p.video: p.shown for p in written} == shown_clips(config, QUESTIONS)
    assert control(config) == "another clip's video"


def test_the_control_of_frame_order_lets_that_alone_differ(root, model, tmp_path):
    turned = {"encoder_features": root / "reversed"}
    with pytest.raises(CacheError, match="frame_order = reversed"):
        open_tokens(settings(root, **turned), model, QUESTIONS)
    config = settings(root, **turned, frame_order="reversed")
    assert open_tokens(config, model, QUESTIONS).key["frame_order"] == "reversed"
    assert control(config) == "frames reversed"
    with pytest.raises(CacheError, match="has frames in_order, but frame_order is reversed"):
        open_tokens(settings(root, frame_order="reversed"), model, QUESTIONS)
    key = toy_llm.KEY | {"frame_order": "reversed", "digest": "other"}
    toy_llm.cache(tmp_path / "other", QUESTIONS, key=key)
    config = settings(root, encoder_features=tmp_path / "other", frame_order="reversed")
    with pytest.raises(CacheError, match="digest = other"):
        open_tokens(config, model, QUESTIONS)


def test_other_letters_change_the_prompts_and_must_suffice(root, model, tokenizer):
    plain = score_file(settings(root), model, tokenizer, QUESTIONS, name="test")
    turned = settings(root, letters="DCBA", shuffle_videos=False)
    found = score_file(turned, model, tokenizer, QUESTIONS, name="turned")
    assert found.calibration.confidence != plain.calibration.confidence
    assert control(replace(turned, shuffle_videos=True)) == "another clip's video, letters DCBA"
    with pytest.raises(SefarError, match="4 options, but the letters are 12"):
        score_file(settings(root, letters="12"), model, tokenizer, QUESTIONS, name="test")


def test_diagnostics_write_generated_answers_and_read_the_predictions(root, model, tokenizer):
    config = settings(root, "diagnosed", diagnostics=True)
    with pytest.raises(SefarError, match="no predictions at"):
        diagnose_file(config, model, tokenizer, QUESTIONS, name="test")
    score_file(config, model, tokenizer, QUESTIONS, name="test")
    found = diagnose_file(config, model, tokenizer, QUESTIONS, name="test")
    generated, texts = (
        [json.loads(line) for line in (config.out / f"{stem}-test.jsonl").read_text().splitlines()]
        for stem in ("spoken", "option-text")
    )
    ids = [q.question_id for q in QUESTIONS]
    assert [row["question_id"] for row in generated] == [row["question_id"] for row in texts] == ids
    assert found.unreadable == np.mean([row["choice"] is None for row in generated])
    best = [int(np.argmax(row["log_probs"])) == row["answer"] for row in texts]
    assert found.text_sum.value == np.mean(best)


def test_options_with_the_right_text_are_right():
    (question,) = toy_llm.questions(1)
    question = replace(question, question_id="0", options=("a", "b", "c", "b"), answer=1)
    (plain,) = made(1, lambda i, label: True)
    cases = [  # probabilities and first letter; answer, choice and first letter after crediting
        ((0.1, 0.5, 0.2, 0.2), 3, (1, 1, 1)),
        ((0.1, 0.2, 0.2, 0.5), 1, (3, 3, 3)),
        ((0.5, 0.2, 0.1, 0.2), 2, (1, 0, 2)),
    ]
    for probs, letter, expected in cases:
        prediction = replace(plain, answer=1, probs=probs, first_letter=letter)
        (found,) = text_scored([prediction], [question])
        assert (found.answer, found.choice, found.first_letter) == expected
        assert found.probs == probs
    predictions = made(12, lambda i, label: i % 3 == 0)
    questions = [
        replace(q, question_id=p.question_id, answer=p.answer)
        for q, p in zip(toy_llm.questions(12), predictions, strict=True)
    ]
    assert text_scored(predictions, questions) == predictions


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"letters": "1231"}, "letters must be two or more different ones, got '1231'"),
        ({"letters": "1"}, "two or more"),
        ({"letters": "1234", "diagnostics": True}, "diagnostics use the letters A, B, C"),
        ({"resamples": 10}, "resamples at least 100"),
        ({"questions": ()}, "questions is empty"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        settings(tmp_path, **changes)


def test_tables_name_the_control_and_every_subset():
    subsets = {"unseen_sources": {"1", "2"}, "right_text_twice": set()}
    one = measured(third_class_right(), subsets=subsets)
    scores = score_table({"public": one, "hard": one}, control="frames reversed")
    assert scores.row_count == 2
    assert str(scores.title).startswith("control (frames reversed)")
    assert "control" not in score_table({"public": one}, control=None).title
    subset_rows = subset_table({"public": one}, control=None)
    cells = [str(cell) for cell in subset_rows.columns[1].cells]
    assert cells == ["FX", "UB", "unseen sources", "right text twice"]
    assert "no questions" in list(subset_rows.columns[4].cells)


def test_names_are_printed_as_they_are():
    name, event = "old [on/off] [/] :smile: $5_a", "[red]beam_B"
    one = measured([replace(p, event=event) for p in third_class_right()])
    terminal = Console(file=io.StringIO(), width=300)
    terminal.print(
        score_table({name: one}, control="letters [/]12"),
        subset_table({name: one}, control=None),
        diagnosis_table({name: DIAGNOSIS}, control=None),
    )
    printed = terminal.file.getvalue()
    assert printed.count(name) == 4  # one a table, and one of the interpretation
    assert event in printed and "letters [/]12" in printed and "[b]well[/b]" in printed


def test_metrics_json_has_numbers_control_settings_and_versions(tmp_path):
    one = measured(third_class_right())
    config = settings(tmp_path, ".", shuffle_videos=True)
    write_metrics(config, {"hard": one}, {"hard": DIAGNOSIS})
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["control"] == "another clip's video"
    hard = found["sets"]["hard"]
    assert hard["micro"] == {"value": one.micro.value, "low": one.micro.low, "high": one.micro.high}
    assert hard["per_class"]["3"]["micro"]["value"] == 1
    assert hard["per_event"]["UB"]["num_sources"] == 5
    assert len(hard["calibration"]["bins"]) == 15
    assert found["diagnostics"]["hard"]["verdict"] == "[b]well[/b]"
    assert (found["settings"]["resamples"], found["settings"]["shuffle_videos"]) == (100, True)
    assert {"commit", "packages", "command"} <= found["run"].keys()
    table = diagnosis_table({"hard": DIAGNOSIS}, control=None)
    assert next(iter(table.columns[1].cells)) == "50.0 [25.0, 75.0]"


def test_plots_are_drawn_with_any_class_names_and_without_classes(tmp_path):
    names = ("costs $5^{ and $6_}", "a_b $x^2$", "salto [on/off]", "跳躍")
    questions = [replace(q, options=names) for q in toy_llm.questions(40)]
    nameless = [replace(p, label=None) for p in third_class_right()]
    rows = (("$5^{", third_class_right(), questions[:5]), ("own", nameless, None))
    for name, predictions, train in rows:
        plot_set(measured(predictions), questions, tmp_path, name=name, train=train)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "classes-$5^{.png", "letters-$5^{.png", "letters-own.png", "reliability-$5^{.png",
        "reliability-own.png",
    ]  # fmt: skip


def test_one_source_video_gives_no_interval_in_any_table_plot_or_file(tmp_path):
    questions = toy_llm.questions(40)
    found = {"hard": measured([replace(p, source="one") for p in third_class_right()])}
    plot_set(found["hard"], questions, tmp_path, name="hard", train=questions[:5])
    write_metrics(settings(tmp_path, "."), found)
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["sets"]["hard"]["micro"]["low"] is None
    terminal = console(io.StringIO(), width=300)
    terminal.print(score_table(found, control=None), subset_table(found, control=None))
    printed = terminal.file.getvalue()
    assert printed.count("(no interval)") >= 4 and "nan" not in printed


TRAIN = [
    replace(q, answer=place, label=place)
    for place, q in zip([3, 3, 3, 1, 1, 0], toy_llm.questions(6), strict=True)
]


def blind(questions, train=TRAIN):
    return blind_predictions(questions, train, rng=np.random.default_rng(0))


def test_blind_rules_take_the_commonest_answer_and_the_longest_option():
    turned = [replace(q, options=tuple(np.roll(q.options, i))) for i, q in enumerate(TRAIN)]
    counts = Counter(q.options[q.answer] for q in TRAIN)
    found = blind(turned)
    for question, prior, longest in zip(turned, found["prior"], found["longest"], strict=True):
        assert question.options[prior.choice] == max(question.options, key=counts.__getitem__)
        assert prior.strict == (prior.choice == prior.answer)
        assert (prior.question_id, prior.label) == (question.question_id, question.label)
        assert len(question.options[longest.choice]) == max(map(len, question.options))
    two = [*toy_llm.questions(4), replace(toy_llm.questions(5, num_options=2)[4], answer=1)]
    assert [len(p.probs) for p in blind(two)["longest"]] == [4, 4, 4, 4, 2]
    with pytest.raises(SefarError, match="got 6 and 0"):
        blind(TRAIN, [])


def test_blind_accuracies_are_those_of_the_audit_and_ties_are_drawn():
    questions = toy_llm.questions(400)
    rows = audit(questions, TRAIN, {}).rows
    found = blind(questions)
    for name, rule in (("prior", "commonest answer"), ("longest", "longest option")):
        micro = np.mean([p.choice == p.answer for p in found[name]])
        assert micro == pytest.approx(rows[rule].micro, abs=0.06)
    never = [replace(q, options=("w", "x", "y", "z")) for q in TRAIN]
    letters = Counter(p.choice for p in blind(questions, never)["prior"])
    assert min(letters.values()) > 60
    assert blind(questions, never) == blind(questions, never)


def test_either_of_two_equal_texts_is_right_for_a_blind_rule():
    (question,) = toy_llm.questions(1)
    twice = [replace(question, options=("b", "a", "c", "a"), answer=1, question_id=str(i))
             for i in range(40)]  # fmt: skip
    found = blind(twice, [replace(question, options=("a", "d"), answer=0)])["prior"]
    assert {p.choice for p in found} == {1, 3}
    assert all(p.choice == p.answer for p in found)
