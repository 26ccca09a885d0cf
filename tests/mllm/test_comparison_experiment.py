"""Experiments train on and ask what row, condition and seed say, and are cached by them."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from qa_data.questions import LETTERS
from sefar_mllm.comparison import experiment
from sefar_mllm.comparison.experiment import (
    StaleError,
    code_hash,
    experiment_settings,
    extract_features,
    feature_jobs,
    is_finished,
    model_hash,
    record_finished,
    run_experiment,
    run_parallel,
)
from sefar_mllm.comparison.rows import (
    BASELINE_ROWS,
    CONDITION_ROWS,
    FRAME_ORDERS,
    LETTER_ROWS,
    TRAINED_ROWS,
    trained_row,
)
from sefar_mllm.scoring import read_predictions
from tests.oracles.toy_comparison import (
    CLIPS,
    SYMBOLS,
    TEST,
    TRAIN,
    Stubs,
    comparison,
    prediction,
    setup_of,
)


@pytest.fixture
def stubs(monkeypatch):
    return Stubs(monkeypatch)


@pytest.fixture
def config(tmp_path):
    """A recognizer of each seed for `sefar`, one for `supervised`; image models as given."""
    return comparison(
        tmp_path,
        Path("llm"),
        sefar=(tmp_path / "sefar", tmp_path / "again"),
        clip=tmp_path / "clip",
        eva=tmp_path / "eva",
    )


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return tmp_path_factory.mktemp("tokens")


@pytest.fixture
def setup(config, tokens):
    return setup_of(config, tokens)


def baseline_row(name):
    return next(row for row in BASELINE_ROWS if row.name == name)


@pytest.mark.parametrize("row", TRAINED_ROWS, ids=lambda row: row.name)
def test_each_row_is_trained_on_what_its_variant_says(setup, stubs, row):
    run_experiment(row, "own_video", 3, setup)
    ((config, learned, tokens, out),) = stubs.trained
    own = row.encoder in ("random", "sefar", "sefar_elements", "sefar_fused")
    assert tokens == row.encoder + ("-seed-3" if own else "")
    assert (config.seed, out) == (3, setup.out / "runs/qa-hard" / row.name / "seed-3")
    same_videos = [one.video == other.video for one, other in zip(TRAIN, learned, strict=True)]
    same_answers = [one.answer == other.answer for one, other in zip(TRAIN, learned, strict=True)]
    assert [one.options for one in learned] == [one.options for one in TRAIN]
    if row.train_variant == "wrong_videos":
        of = {one.video: one for one in TRAIN}
        assert not any(same_videos) and all(same_answers)
        assert all(of[one.video].label != one.label for one in learned)
        assert all(of[one.video].source != one.source for one in learned)
    elif row.train_variant == "wrong_answers":
        assert all(same_videos) and not all(same_answers)
        assert sorted(one.answer for one in learned) == sorted(one.answer for one in TRAIN)
    else:
        assert learned == TRAIN
    assert ("other_formats" in setup.conditions_of(row)) == (row.train_variant == "as_written")


@pytest.mark.parametrize("changed", CONDITION_ROWS, ids=lambda row: row.name)
def test_each_condition_changes_what_its_name_says(setup, stubs, changed):
    row = trained_row(changed.base)
    assert changed.condition in setup.conditions_of(row)
    folder = run_experiment(row, changed.condition, 3, setup)
    assert folder == setup.out / "runs/qa-hard" / changed.name / "seed-3"
    ((tokens, letters, shown),) = stubs.asked
    own = "-seed-3" if row.encoder in ("sefar", "random") else ""
    order = f"-frames_{changed.condition}" if changed.condition in FRAME_ORDERS else ""
    assert tokens == row.encoder + own + order
    assert letters == (SYMBOLS[changed.condition] if changed in LETTER_ROWS else LETTERS)
    answers = read_predictions(folder / "predictions.jsonl")
    if changed.condition == "wrong_videos":
        of = {one.video: one for one in TEST}
        assert sorted(shown) == sorted(shown.values()) == sorted(of)
        assert all(of[a].label != of[b].label for a, b in shown.items())
        assert all(of[a].source != of[b].source for a, b in shown.items())
        assert [one.shown for one in answers] == [shown[one.video] for one in answers]
        run_experiment(row, changed.condition, 0, setup)
        assert stubs.asked[1][2] != shown  # another seed, another draw
    else:
        assert shown is None and all(one.shown == one.video for one in answers)


def test_every_experiment_has_its_own_cache_key(setup):
    row = trained_row("sefar")
    keys = {
        (condition, seed): experiment_settings(row, condition, seed, setup)
        for condition in setup.conditions_of(row)
        if condition != "other_formats"
        for seed in (0, 3)
    }
    assert len(keys) == 14 and all(
        one == other or keys[one] != keys[other] for one in keys for other in keys
    )
    named = keys["reversed", 3]  # its fields are the format of the records on disk
    assert set(named) == {"questions", "training", "tokens", "shown", "markers"}
    trained = {"questions", "lessons", "tokens", "language_model", "finetune"}
    assert set(named["training"]) == trained
    assert named["shown"] == "reversed" and named["training"]["finetune"]["seed"] == 3
    assert named["training"]["tokens"]["digest"] == "sefar-seed-3"
    assert named["tokens"]["digest"] == "sefar-seed-3-frames_reversed"


@pytest.mark.parametrize("several", [False, True])
def test_experiments_read_the_caches_that_are_filled_by_the_encoder_of_their_seed(
    config, tokens, stubs, several
):
    config = config if several else replace(config, sefar=config.sefar[:1])
    setup = setup_of(config, tokens)
    read = {
        setup.tokens(row.encoder, seed, condition).name
        for row in setup.trained_rows()
        for condition in setup.conditions_of(row)
        for seed in setup.seeds
    }
    jobs = feature_jobs(setup)
    filled = [setup.tokens(encoder, seed, order).name for encoder, order, seed in jobs]
    assert len(set(filled)) == len(filled) and set(filled) == read
    for encoder, order, seed in jobs:
        if order == "in_order" and encoder in ("sefar", "random", "supervised"):
            extract_features(encoder, order, seed, CLIPS, replace(setup, out=setup.out / "new"))
    found = dict(stubs.encoded)
    assert found["random-seed-3"] == ("again 3" if several else "sefar 3")
    assert found["supervised"] == "supervised"
    assert found.get("sefar-seed-3") == ("again" if several else None)


def test_rows_without_a_language_model_use_each_recognizer(setup, stubs):
    for name in ("sefar_head", "sefar_classifier", "supervised_head", "prior"):
        row = baseline_row(name)
        folders = [run_experiment(row, "own_video", seed, setup) for seed in setup.seeds_of(row)]
        assert len(folders) == (2 if name.startswith("sefar") else 1)
        answers = read_predictions(folders[-1] / "predictions.jsonl")
        assert [one.question_id for one in answers] == [one.question_id for one in TEST]
        if name != "prior":  # stub and tokens name the class
            assert all(one.choice == one.answer for one in answers)
    assert [folder for folder, _, _ in stubs.asked] == ["sefar", "again", "supervised"]


def test_changed_labels_are_refused_for_an_old_classifier(setup):
    row = baseline_row("supervised_classifier")
    folder = run_experiment(row, "own_video", 0, setup)
    assert run_experiment(row, "own_video", 0, setup) == folder
    relabeled = replace(setup, clips=[replace(CLIPS[0], label=3), *CLIPS[1:]])
    with pytest.raises(StaleError, match=r"labels\.clip0 = 0, but 3 is requested"):
        run_experiment(row, "own_video", 0, relabeled)


@pytest.mark.parametrize("name", ["text_only", "supervised_head"])
def test_rows_without_fine_tuning_are_credited_by_text(config, tokens, monkeypatch, name):
    twice = replace(TEST[0], options=("salto", "piked", "salto", "leap"), answer=0)
    monkeypatch.setattr(experiment, "predict_text_only", lambda *_, **__: [prediction(twice, 2)])
    monkeypatch.setattr(experiment, "recognizer_probs", lambda *_: {})
    monkeypatch.setattr(experiment, "predict_from_probs", lambda *_: [prediction(twice, 2)])
    setup = setup_of(config, tokens, test=[twice])
    folder = run_experiment(baseline_row(name), "own_video", 0, setup)
    (one,) = read_predictions(folder / "predictions.jsonl")
    assert one.choice == one.answer == one.first_letter == 2


def test_finished_work_is_reused_and_refused_for_other_inputs(tmp_path, monkeypatch):
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
    monkeypatch.setattr(experiment, "code_hash", lambda: "changed")
    with pytest.raises(StaleError, match=r"made with code = \w{16}, but changed is requested"):
        is_finished(record, inputs)


@pytest.mark.parametrize("text", ['{"code": ', "[1]"])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "scored.json").write_text(text)
    with pytest.raises(StaleError, match=rf"scored\.json is damaged .*delete {tmp_path} "):
        is_finished(tmp_path / "scored.json", {"questions": "ab12"})


def test_files_that_only_read_finished_work_are_not_hashed_and_all_others_are():
    root = Path(experiment.__file__).parents[2]
    assert all((root / name).is_file() for name in experiment.ONLY_READ)
    readers = {Path(name).stem for name in experiment.ONLY_READ} | {"run"}
    for path in (root / "sefar_mllm/comparison").glob("*.py"):
        if path.stem not in readers:
            imported = re.findall(r"from sefar_mllm\.comparison\.(\w+) import", path.read_text())
            assert not readers & set(imported), path


def test_hashes_follow_the_files_of_the_code_and_of_a_language_model(tmp_path):
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)

    def hashes(name, text):
        (folder / name).write_text(text)
        return code_hash.__wrapped__((folder,)), model_hash(str(folder))

    code, model = hashes("inner/one.py", "x = 1\n")
    assert hashes("config.json", "{}")[0] == code != hashes("inner/one.py", "x = 2\n")[0]
    assert hashes("README.md", "about it")[1] == hashes("config.json", "{}")[1] != model
    assert model_hash("lmsys/vicuna-7b-v1.5") == "lmsys/vicuna-7b-v1.5"


def test_results_are_in_the_order_of_the_items(capsys, monkeypatch):
    assert run_parallel(abs, [(-3,), (2,), (-1,)], jobs=1, label=str) == [3, 2, 1]
    assert "[3/3] -1" in capsys.readouterr().out
    others_are_done = Event()

    def work(number):
        if number == -3:
            assert others_are_done.wait(60)
        if number == -1:
            others_are_done.set()
        return abs(number)

    def threads(max_workers, **_):
        return ThreadPoolExecutor(max_workers)

    monkeypatch.setattr(experiment, "ProcessPoolExecutor", threads)  # the first ends last
    assert run_parallel(work, [(-3,), (2,), (-1,)], jobs=2, label=str) == [3, 2, 1]
    assert "[3/3] -3" in capsys.readouterr().out


@pytest.mark.slow
def test_an_error_in_a_worker_process_ends_the_work():
    with pytest.raises(TypeError):
        run_parallel(abs, [("two",)], jobs=2, label=str)
