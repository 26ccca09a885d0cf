"""Each seed has its own encoder where it should, and baselines record their inputs."""

from dataclasses import replace
from unittest.mock import Mock

import pytest

from qa_data.manifest import Clip, write_manifest
from sefar_core.checkpoint import CheckpointError
from sefar_mllm.comparison import baselines, experiment
from sefar_mllm.comparison import run as comparison_run
from sefar_mllm.comparison.baselines import answer_baseline
from sefar_mllm.comparison.config import CompareConfig, refuse_uneven_recognizers
from sefar_mllm.comparison.experiment import FeatureJob, StaleError, extract_job, feature_jobs
from sefar_mllm.comparison.rows import BASELINE_ROWS
from sefar_mllm.comparison.run import plan_runs
from sefar_mllm.config import FinetuneConfig
from sefar_mllm.scoring import read_predictions
from tests.oracles import toy_llm
from tests.oracles.toy_comparison import TEST, TRAIN, answer_of, question_set


@pytest.fixture
def questions(tmp_path):
    return question_set(tmp_path)


def baseline_row(name):
    return next(row for row in BASELINE_ROWS if row.name == name)


@pytest.fixture
def config(tmp_path):
    return CompareConfig(
        manifest=tmp_path / "manifest.csv",
        video_root=tmp_path,
        questions=(tmp_path,),
        sefar=(tmp_path / "sefar",),
        supervised=(tmp_path / "supervised",),
        clip=tmp_path / "clip",
        out=tmp_path / "out",
        seeds=(0, 1),
        finetune=FinetuneConfig(language_model=str(toy_llm.language_model(tmp_path / "llm"))),
    )


def folders(config):
    return [job.folder for job in feature_jobs(config)]


def test_every_seed_has_its_own_random_encoder(config):
    found = [name for name in folders(config) if name.startswith("random")]
    assert found == ["random-seed-0", "random-seed-1"]
    assert [name for name in folders(config) if name.startswith("sefar-")] == [
        "sefar-frames_reversed",
        "sefar-frames_shuffled",
        "sefar-frames_middle",
    ]


def test_a_bad_tokenizer_is_refused_before_features_are_extracted(config, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison_run, "read_manifest", lambda _: pytest.fail("work was begun"))
    (tmp_path / "llm/tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        comparison_run.compare_encoders(config)


def test_a_label_with_two_names_is_refused_before_features_are_extracted(config, monkeypatch):
    clip = Clip(id="a", path="a.mp4", split="labeled", label=2, text="salto forward")
    write_manifest([clip, replace(clip, id="b", text="salto backward")], config.manifest)
    monkeypatch.setattr(
        comparison_run, "read_question_folders", lambda *_: pytest.fail("work was begun")
    )
    with pytest.raises(ValueError, match="label 2 has several names"):
        comparison_run.compare_encoders(config)


def of_each_seed(config, tmp_path):
    return replace(config, sefar=(tmp_path / "sefar", tmp_path / "again"))


def test_a_recognizer_for_each_seed_has_tokens_for_each(config, tmp_path):
    found = folders(of_each_seed(config, tmp_path))
    for name in ("sefar", "sefar_elements", "sefar_fused"):
        assert {f"{name}-seed-0", f"{name}-seed-1"} <= set(found)
    assert "sefar-seed-1-frames_middle" in found and "supervised-frames_middle" in found
    assert {"constant", "supervised", "clip"} <= set(found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("several", [False, True])
def test_trainings_read_the_caches_that_are_filled(config, tmp_path, questions, several):
    config = of_each_seed(config, tmp_path) if several else config
    read = set()
    for run in plan_runs(config, [questions]):
        read |= {run.tokens(), *(run.tokens(one.condition) for one in run.conditions)}
        if run.row.name == "random":
            assert run.tokens().name == f"random-seed-{run.seed}"
        if run.row.encoder == "sefar" and several:
            assert run.tokens().name == f"sefar-seed-{run.seed}"
    assert {folder.name for folder in read} == set(folders(config))


def test_each_cache_is_made_by_the_encoder_of_its_seed(config, tmp_path, monkeypatch):
    made = []

    def encoder(folder, *, seed, device):
        made.append((folder.name, seed))
        raise RuntimeError("far enough")

    for name in ("sefar", "random", "supervised"):
        monkeypatch.setitem(experiment.ENCODERS, name, encoder)
    config = of_each_seed(config, tmp_path)
    for job in feature_jobs(config):
        if job.encoder in ("sefar", "random", "supervised") and job.order == "in_order":
            with pytest.raises(RuntimeError, match="far enough"):
                extract_job(job, config, [], device="cpu")
    assert made == [
        ("sefar", 0),
        ("again", 1),
        ("supervised", 0),
        ("sefar", 0),
        ("again", 1),
    ]


def test_tokens_of_other_code_are_refused(config, monkeypatch):
    job = FeatureJob(encoder="constant", seed=0, own=False)
    monkeypatch.setitem(experiment.ENCODERS, "constant", Mock(side_effect=RuntimeError("begun")))
    with pytest.raises(RuntimeError, match="begun"):
        extract_job(job, config, [], device="cpu")
    monkeypatch.setattr("sefar_mllm.comparison.experiment.code_hash", lambda: "other")
    with pytest.raises(StaleError, match="code = .*, but other is requested"):
        extract_job(job, config, [], device="cpu")


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("sefar", 3, "--sefar names 3 run folders for 2 seeds; give one for"),
        ("sefar", 0, "--sefar names 0 run folders"),
        ("supervised", 3, "--supervised names 3 run folders for 2 seeds"),
    ],
)
def test_there_is_one_recognizer_or_one_for_each_seed(config, tmp_path, name, count, message):
    uneven = replace(config, **{name: tuple(tmp_path / str(i) for i in range(count))})
    with pytest.raises(ValueError, match=message):
        refuse_uneven_recognizers(uneven)


def test_one_recognizer_named_twice_is_not_two(config, tmp_path):
    refuse_uneven_recognizers(replace(config, supervised=()))
    with pytest.raises(ValueError, match="--sefar names a run folder twice"):
        refuse_uneven_recognizers(replace(config, sefar=(tmp_path / "a", tmp_path / "b/../a")))
    of_one_run = (tmp_path / "run/student", tmp_path / "run/teacher")
    with pytest.raises(ValueError, match="--sefar names a run folder twice"):
        refuse_uneven_recognizers(replace(config, sefar=of_one_run))


CLIPS = [
    Clip(
        id=one.video,
        path=f"{one.video}.mp4",
        label=one.label,
        text=one.options[one.answer],
        event=one.event,
        source=one.source,
        split="labeled" if one in TRAIN else "test",
    )
    for one in [*TRAIN, *TEST]
]


def test_rows_without_a_language_model_use_each_recognizer(
    config, tmp_path, questions, monkeypatch
):
    config, asked = of_each_seed(config, tmp_path), []

    def answers(row, found, clips, settings, *, seed, device):
        return [answer_of(question, seed) for question in found.test]

    def probs(folder, clips, root, device, names):
        asked.append(folder.name)
        raise RuntimeError("far enough")

    monkeypatch.setattr(baselines, "recognizer_probs", probs)
    for seed in (0, 1):
        toy_llm.cache(config.out / f"tokens/sefar-seed-{seed}", [*TRAIN, *TEST])
        with pytest.raises(RuntimeError, match="far enough"):
            baselines.predict_baseline(
                baseline_row("sefar_head"), questions, CLIPS, config, seed=seed, device="cpu"
            )
    assert asked == ["sefar", "again"]
    monkeypatch.setattr(baselines, "predict_baseline", answers)
    for name in ("sefar_head", "sefar_classifier"):
        answer_baseline(baseline_row(name), questions, CLIPS, config, device="cpu")
        runs = [
            read_predictions(config.out / f"runs/qa-hard/{name}/seed-{seed}/predictions.jsonl")
            for seed in (0, 1)
        ]
        assert [run[0].choice for run in runs] == [0, 1]


def test_changed_labels_are_refused_for_an_old_classifier(config, questions):
    row = baseline_row("supervised_classifier")
    asked = [replace(one, option_labels=(0, 1, 2, 3)) for one in TEST]
    questions = replace(questions, test=asked)
    toy_llm.cache(config.out / "tokens/supervised", [*TRAIN, *TEST])
    answer_baseline(row, questions, CLIPS, config, device="cpu")
    answer_baseline(row, questions, CLIPS, config, device="cpu")
    relabeled = [replace(CLIPS[0], label=3), *CLIPS[1:]]
    with pytest.raises(StaleError, match=r"labels\.clip0 = 0, but 3 is requested"):
        answer_baseline(row, questions, relabeled, config, device="cpu")


@pytest.mark.parametrize("name", ["text_only", "supervised_head"])
def test_rows_without_fine_tuning_are_credited_by_text(config, questions, monkeypatch, name):
    twice = replace(TEST[0], options=("salto", "piked", "salto", "leap"), answer=0)
    questions = replace(questions, test=[twice])
    toy_llm.cache(config.out / "tokens/supervised", [twice])
    chosen = [answer_of(twice, 2)]
    monkeypatch.setattr(baselines, "predict_text_only", lambda *_, **__: chosen)
    monkeypatch.setattr(baselines, "recognizer_probs", lambda *_, **__: {})
    monkeypatch.setattr(baselines, "predict_from_probs", lambda *_: chosen)
    answer_baseline(baseline_row(name), questions, CLIPS, config, device="cpu")
    (one,) = read_predictions(config.out / f"runs/qa-hard/{name}/seed-0/predictions.jsonl")
    assert one.choice == one.answer == one.first_letter == 2
