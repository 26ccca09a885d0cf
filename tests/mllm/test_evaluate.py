import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from qa_data.files import SefarError
from qa_data.terminal import console
from sefar_core.intervals import Interval
from sefar_mllm.adapters import add_adapters
from sefar_mllm.build import build_vlm, load_tokenizer
from sefar_mllm.config import EvaluateConfig
from sefar_mllm.evaluation.diagnostics import Diagnosis
from sefar_mllm.evaluation.evaluate import (
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


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, its tokenizer, questions, and their tokens in order and reversed."""
    root = tmp_path_factory.mktemp("evaluate")
    folder = toy_llm.language_model(root / "llm")
    whole = build_vlm(
        folder,
        token_dim=toy_llm.DIM,
        token_shape=toy_llm.SHAPE,
        encoder={"key": toy_llm.KEY},
    )
    model = add_adapters(whole, rank=2, alpha=4.0, dropout=0.0).eval()
    asked = toy_llm.questions(8)
    toy_llm.cache(root / "tokens", asked)
    toy_llm.cache(root / "reversed", asked, key=toy_llm.KEY | {"frame_order": "reversed"})
    return root, model, load_tokenizer(folder), asked


def settings(root, out="out", **changes):
    known = {"model": root / "model", "encoder_features": root / "tokens", "resamples": 100}
    questions = (root / "test.jsonl",)
    return EvaluateConfig(**known | {"questions": questions, "out": root / out} | changes)


def prediction(**changes):
    return replace(made(1, lambda i, label: True)[0], answer=1, **changes)


def test_the_written_predictions_give_the_numbers(world):
    root, model, tokenizer, asked = world
    config = settings(root)
    subsets = {"first": {asked[0].question_id}}
    got = score_file(config, model, tokenizer, asked, name="test", subsets=subsets)
    written = read_predictions(root / "out/predictions-test.jsonl")
    rng = np.random.default_rng(config.seed)
    assert got == compute_metrics(written, resamples=100, rng=rng, subsets=subsets)
    assert [p.question_id for p in written] == [q.question_id for q in asked]
    assert got.subsets["first"].num_questions == 1


def test_the_control_of_wrong_videos_shows_others_and_is_named(world):
    root, model, tokenizer, asked = world
    config = settings(root, "wrong", shuffle_videos=True)
    score_file(config, model, tokenizer, asked, name="test")
    written = read_predictions(root / "wrong/predictions-test.jsonl")
    assert all(p.shown != p.video for p in written)
    assert {p.video: p.shown for p in written} == shown_clips(config, asked)
    assert control(config) == "another clip's video"


def test_the_control_of_frame_order_lets_that_alone_differ(world):
    root, model, _, asked = world
    turned = {"encoder_features": root / "reversed"}
    with pytest.raises(CacheError, match="frame_order = reversed"):
        open_tokens(settings(root, **turned), model, asked)
    config = settings(root, **turned, frame_order="reversed")
    assert open_tokens(config, model, asked).key["frame_order"] == "reversed"
    assert control(config) == "frames reversed"
    with pytest.raises(CacheError, match="has frames in_order, but frame_order is reversed"):
        open_tokens(settings(root, frame_order="reversed"), model, asked)


def test_another_encoder_is_refused_under_the_control_too(world, tmp_path):
    root, model, _, asked = world
    key = toy_llm.KEY | {"frame_order": "reversed", "digest": "other"}
    toy_llm.cache(tmp_path / "other", asked, key=key)
    config = settings(root, encoder_features=tmp_path / "other", frame_order="reversed")
    with pytest.raises(CacheError, match="digest = other"):
        open_tokens(config, model, asked)


def test_other_letters_change_the_prompts_and_must_suffice(world):
    root, model, tokenizer, asked = world
    plain = score_file(settings(root), model, tokenizer, asked, name="test")
    turned = score_file(settings(root, letters="DCBA"), model, tokenizer, asked, name="turned")
    assert turned.calibration.confidence != plain.calibration.confidence
    assert control(settings(root, letters="DCBA", shuffle_videos=True)) == (
        "another clip's video, letters DCBA"
    )
    with pytest.raises(SefarError, match="4 options, but the letters are 12"):
        score_file(settings(root, letters="12"), model, tokenizer, asked, name="test")


def test_diagnostics_write_generated_answers_and_read_the_predictions(world):
    root, model, tokenizer, asked = world
    config = settings(root, "diagnosed", diagnostics=True)
    with pytest.raises(SefarError, match="no predictions at"):
        diagnose_file(config, model, tokenizer, asked, name="test")
    score_file(config, model, tokenizer, asked, name="test")
    found = diagnose_file(config, model, tokenizer, asked, name="test")
    assert isinstance(found, Diagnosis)
    generated, texts = (
        [
            json.loads(line)
            for line in (root / f"diagnosed/{stem}-test.jsonl").read_text().splitlines()
        ]
        for stem in ("spoken", "option-text")
    )
    ids = [q.question_id for q in asked]
    assert [row["question_id"] for row in generated] == [row["question_id"] for row in texts] == ids
    assert found.unreadable == np.mean([row["choice"] is None for row in generated])
    best = [int(np.argmax(row["log_probs"])) == row["answer"] for row in texts]
    assert found.text_sum.value == np.mean(best)


def test_options_with_the_right_text_are_right():
    (question,) = toy_llm.questions(1)
    question = replace(question, question_id="0", options=("a", "b", "c", "b"), answer=1)
    by_file = prediction(probs=(0.1, 0.5, 0.2, 0.2), first_letter=3)
    by_twin = prediction(probs=(0.1, 0.2, 0.2, 0.5), first_letter=1)
    wrong = prediction(probs=(0.5, 0.2, 0.1, 0.2), first_letter=2)
    found = [text_scored([one], [question])[0] for one in (by_file, by_twin, wrong)]
    assert [(p.answer, p.choice, p.first_letter) for p in found] == [
        (1, 1, 1),
        (3, 3, 3),
        (1, 0, 2),
    ]
    assert [p.probs for p in found] == [by_file.probs, by_twin.probs, wrong.probs]


def test_questions_without_twins_stay_as_they_are():
    predictions = made(12, lambda i, label: i % 3 == 0)
    asked = [replace(q, question_id=str(i)) for i, q in enumerate(toy_llm.questions(12))]
    asked = [replace(q, answer=p.answer) for q, p in zip(asked, predictions, strict=True)]
    assert text_scored(predictions, asked) == predictions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"letters": "1231"}, "letters must be two or more different ones, got '1231'"),
        ({"letters": "1"}, "two or more"),
        ({"letters": "1234", "diagnostics": True}, "diagnostics use the letters A, B, C"),
        ({"resamples": 10}, "resamples at least 100"),
        ({"questions": ()}, "questions is empty"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, **changes)


def test_tables_name_the_control_and_every_subset():
    one = compute_metrics(
        made(40, lambda i, label: label == 3),
        resamples=100,
        rng=np.random.default_rng(0),
        subsets={"unseen_sources": {"1", "2"}, "right_text_twice": set()},
    )
    scores = score_table({"public": one, "hard": one}, control="frames reversed")
    assert scores.row_count == 2
    assert str(scores.title).startswith("control (frames reversed)")
    assert "control" not in score_table({"public": one}, control=None).title
    subsets = subset_table({"public": one}, control=None)
    cells = [str(cell) for cell in subsets.columns[1].cells]
    assert cells == ["FX", "UB", "unseen sources", "right text twice"]
    assert "no questions" in list(subsets.columns[4].cells)


def test_names_are_printed_as_they_are(tmp_path):
    name, event = "old [on/off] [/] :smile: $5_a", "[red]beam_B"
    predictions = [replace(one, event=event) for one in made(40, lambda i, label: label == 3)]
    one = compute_metrics(predictions, resamples=100, rng=np.random.default_rng(0))
    share = Interval(value=0.5, low=0.25, high=0.75)
    diagnosis = Diagnosis(
        unreadable=0.125, generated=share, agreement=0.875, generated_gap=share, rotation_gap=share,
        text_sum=share, text_mean=share, interpretation="[b]well[/b]",
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=300)
    for table in (
        score_table({name: one}, control="letters [/]12"),
        subset_table({name: one}, control=None),
        diagnosis_table({name: diagnosis}, control=None),
    ):
        console.print(table)
    printed = console.file.getvalue()
    assert printed.count(name) == 4  # one a table, and one of the verdict
    assert event in printed and "letters [/]12" in printed and "[b]well[/b]" in printed


def test_plots_show_class_names_that_look_like_formulas(tmp_path):
    names = {0: "costs $5^{ and $6_}", 1: "a_b $x^2$", 2: "salto [on/off]", 3: "跳躍"}
    asked = [replace(q, options=tuple(names.values())) for q in toy_llm.questions(40)]
    one = compute_metrics(
        made(40, lambda i, label: label == 3), resamples=100, rng=np.random.default_rng(0)
    )
    plot_set(one, asked, tmp_path, name="$5^{", train=None)
    assert len(list(tmp_path.iterdir())) == 3


def test_metrics_json_has_numbers_control_settings_and_versions(tmp_path):
    one = compute_metrics(
        made(40, lambda i, label: label == 3), resamples=100, rng=np.random.default_rng(0)
    )
    share = Interval(value=0.5, low=0.25, high=0.75)
    diagnosis = Diagnosis(
        unreadable=0.125, generated=share, agreement=0.875, generated_gap=share, rotation_gap=share,
        text_sum=share, text_mean=share, interpretation="all is well",
    )  # fmt: skip
    config = settings(tmp_path, ".", shuffle_videos=True)
    write_metrics(config, {"hard": one}, {"hard": diagnosis})
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["control"] == "another clip's video"
    hard = found["sets"]["hard"]
    assert hard["micro"] == {"value": one.micro.value, "low": one.micro.low, "high": one.micro.high}
    assert hard["per_class"]["3"]["micro"]["value"] == 1
    assert hard["per_event"]["UB"]["num_sources"] == 5
    assert len(hard["calibration"]["bins"]) == 15
    assert found["diagnostics"]["hard"]["verdict"] == "all is well"
    assert (found["settings"]["resamples"], found["settings"]["shuffle_videos"]) == (100, True)
    assert {"commit", "packages", "command"} <= found["run"].keys()
    table = diagnosis_table({"hard": diagnosis}, control=None)
    assert str(table.caption) == "hard: all is well"
    assert next(iter(table.columns[1].cells)) == "50.0 [25.0, 75.0]"


def test_plots_are_drawn_with_and_without_classes(tmp_path):
    predictions = made(40, lambda i, label: label == 3)
    nameless = [replace(p, label=None) for p in predictions]
    asked = toy_llm.questions(40)
    for name, answered, train in (("hard", predictions, asked[:5]), ("own", nameless, None)):
        one = compute_metrics(answered, resamples=100, rng=np.random.default_rng(0))
        plot_set(one, asked, tmp_path, name=name, train=train)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "classes-hard.png", "letters-hard.png", "letters-own.png", "reliability-hard.png",
        "reliability-own.png",
    ]  # fmt: skip


def test_one_source_video_gives_no_interval_in_any_table_plot_or_file(tmp_path):
    predictions = [replace(p, source="one") for p in made(40, lambda i, label: label == 3)]
    asked = toy_llm.questions(40)
    found = {"hard": compute_metrics(predictions, resamples=100, rng=np.random.default_rng(0))}
    plot_set(found["hard"], asked, tmp_path, name="hard", train=asked[:5])
    write_metrics(settings(tmp_path, "."), found)
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["sets"]["hard"]["micro"]["low"] is None
    terminal = console(io.StringIO(), width=300)
    terminal.print(score_table(found, control=None), subset_table(found, control=None))
    printed = terminal.file.getvalue()
    assert printed.count("(no interval)") >= 4 and "nan" not in printed
