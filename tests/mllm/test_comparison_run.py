"""The comparison from the plan to the page, with nothing learned: see `Stubs`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qa_data.files import SefarError
from qa_data.manifest import write_manifest
from sefar_core.checkpoint import CheckpointError
from sefar_mllm.comparison import experiment
from sefar_mllm.comparison import run as comparison_run
from sefar_mllm.comparison.experiment import StaleError
from sefar_mllm.comparison.run import compare_encoders, shared_budget
from tests.oracles.toy_comparison import CLIPS, Stubs, comparison, setup_of

COMMITTED = Path(__file__).parents[2] / "benchmarks/results/2026-11-28-comparison.json"


@pytest.fixture(scope="module")
def config(tmp_path_factory, world):
    root = tmp_path_factory.mktemp("stubs")
    sefar = (root / "sefar", root / "again")
    return comparison(root, world.language_model, sefar=sefar, lr_grid=(1.0, 2.0), dev_rate=0.25)


@pytest.fixture(scope="module")
def stubs(config):
    with pytest.MonkeyPatch.context() as patch:
        yield Stubs(patch)


@pytest.fixture(scope="module")
def found(config, stubs):
    return compare_encoders(config)


def test_a_model_that_sees_is_better_than_a_blind_one_and_no_better_than_its_equal(found):
    decided = {one["second"]: one for one in found["verdicts"]}
    claims = {name: one["claimed"] for name, one in decided.items()}
    assert claims["constant"] is claims["random"] is True
    assert claims["supervised"] is False and claims["clip"] is claims["eva"] is None
    assert decided["eva"]["words"] == "sefar against eva: not measured."
    rows = found["sets"]["qa-hard"]["rows"]
    shares = {name: row and row["micro"]["mean"]["value"] for name, row in rows.items()}
    assert shares["sefar"] == shares["sefar-reversed"] == shares["sefar_head"] == 1
    assert shares["sefar-wrong_videos"] == 0 and shares["constant"] == 0.25
    assert shares["clip"] is shares["eva_probe-wrong_videos"] is None


def test_learning_rates_are_chosen_on_validation_questions_of_the_first_seed(found, config, stubs):
    factors = found["budget"]["factors"]
    assert len(factors) == 2 * 8 and set(factors.values()) == {2.0}  # its rate is the stub's score
    lr, projector_lr = config.finetune.lora.lr, config.finetune.projector_lr
    used = {True: [], False: []}
    for one, _, _, folder in stubs.trained:
        rates = one.lora.lr / lr, one.projector_lr / projector_lr
        used["tuning" in folder.parts].append((one.seed, one.dev_rate, *rates))
    assert set(used[True]) == {(0, 0.25, 1.0, 1.0), (0, 0.25, 2.0, 2.0)}
    assert set(used[False]) == {(0, 0.0, 2.0, 2.0), (3, 0.0, 2.0, 2.0)}
    assert (len(used[True]), len(used[False])) == (2 * 2 * 6, 2 * 2 * 8)


def test_numbers_budget_page_and_plots_are_written(found, config):
    stored = json.loads((config.out / "comparison.json").read_text())
    assert stored["run"]["packages"]["torch"]
    budget = stored["budget"]
    assert budget["tokens"] == 2 * config.grid**2 and budget["seeds"] == [0, 3]
    assert budget["steps"] == {"qa-public": 2, "qa-hard": 2}
    assert budget["recognizers"] == {"sefar": 2, "supervised": 1}
    one = stored["sets"]["qa-hard"]
    assert {"sefar-shuffled", "supervised-middle", "random-wrong_videos"} <= one["losses"].keys()
    assert {"supervised-reversed", "random-wrong_videos"} <= one["more_lost"].keys()
    assert one["rows"]["sefar_head"]["num_seeds"] == one["rows"]["sefar_classifier"]["num_seeds"]
    assert len(one["mcnemar_p"]["sefar_head"]) == one["rows"]["sefar_head"]["num_seeds"] == 2
    assert one["rows"]["prior"]["num_seeds"] == one["rows"]["text_only"]["num_seeds"] == 1
    assert one["told"]["sefar"]["text_information"]["mean"]["value"] is not None
    trained = {"sefar", "supervised", "random", "constant", "sefar_elements", "sefar_fused"}
    assert set(one["told"]) == trained
    committed = json.loads(COMMITTED.read_text())
    before = next(iter(committed["sets"].values()))
    for name in ("rows", "told"):
        assert one[name]["sefar"].keys() == before[name]["sefar"].keys()
    assert one.keys() == before.keys() and one["rows"].keys() == before["rows"].keys()
    assert (stored.keys(), budget.keys()) == (committed.keys(), committed["budget"].keys())
    page = (config.out / "comparison.md").read_text()
    assert "| eva | - | EVA-CLIP ViT-g/14 | not measured |" in page
    assert "published, Table 5" in page and "49.0" in page
    assert "each row has its best factor of 1, 2, chosen with the first seed on 25 %" in page
    assert {path.name for path in (config.out / "plots").iterdir()} == {
        f"qa-{rule}-{what}.png"
        for rule in ("public", "hard")
        for what in ("rows", "classes", "letters", "learning")
    }


def test_finished_work_is_read_lost_work_done_again_and_stale_work_refused(
    found, config, stubs, monkeypatch
):
    monkeypatch.setattr(comparison_run, "write_results", lambda *_: {})
    done = len(stubs.trained), len(stubs.asked), len(stubs.formats)
    folder = config.out / "runs/qa-hard/sefar-wrong_videos/seed-3"
    before = (folder / "predictions.jsonl").read_bytes()
    for path in folder.iterdir():
        path.unlink()
    compare_encoders(config)
    assert (folder / "predictions.jsonl").read_bytes() == before
    again = len(stubs.trained), len(stubs.asked), len(stubs.formats)
    assert again == (done[0], done[1] + 1, done[2])
    longer = replace(config.finetune, epochs=9)
    with pytest.raises(StaleError, match=r"finetune\.epochs = 5, but 9 is requested"):
        compare_encoders(replace(config, finetune=longer))
    path = config.questions[0] / "test.jsonl"
    kept = path.read_text()
    path.write_text(kept.replace("salto forward tucked", "salto forward piked"))
    with pytest.raises(StaleError, match="questions = "):
        compare_encoders(config)
    path.write_text(kept)
    monkeypatch.setattr(experiment, "code_hash", lambda: "newer")
    with pytest.raises(StaleError, match=r"code = \w{16}, but newer is requested"):
        compare_encoders(config)
    assert len(stubs.trained) == done[0]


def test_bad_input_is_refused_before_any_work(config, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison_run, "extract_all", lambda _: pytest.fail("work was begun"))
    renamed = [replace(CLIPS[0], text="leap"), *CLIPS[1:]]
    write_manifest(renamed, tmp_path / "manifest.csv")
    with pytest.raises(ValueError, match="label 0 has several names"):
        compare_encoders(replace(config, manifest=tmp_path / "manifest.csv"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        compare_encoders(
            replace(config, finetune=replace(config.finetune, language_model=str(tmp_path)))
        )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"grid": 1}, "encoders with different numbers of tokens cannot be compared: grid"),
        ({"moments": [0.5]}, "encoders that saw different moments of a clip"),
        ({"dim": 16}, r"the networks of sefar have tokens of different widths \(a, b\)"),
        ({"digest": "one"}, r"two networks of sefar have the same weights \(a, b\)"),
    ],
)
def test_rows_without_one_budget_are_refused(tmp_path, changed, message):
    config = comparison(tmp_path, tmp_path)
    key = {"encoder": "sefar", "dim": 8, "grid": 2, "moments": [0.25], "frame_order": "in_order"}
    keys = {
        "a": key | {"digest": "one"},
        "b": key | {"digest": "two"},
        "c": key | {"digest": "one", "frame_order": "middle"},
        "d": key | {"digest": "one", "encoder": "sefar_fused", "grid": 1},
    }
    assert shared_budget(config, keys)["tokens"] == 4
    with pytest.raises((SefarError, ValueError), match=message):
        shared_budget(config, keys | {"b": keys["b"] | changed})


def test_trainings_with_unequal_steps_are_refused(tmp_path):
    setup = setup_of(comparison(tmp_path, tmp_path), tmp_path)
    for row in setup.trained_rows():
        for seed in setup.seeds:
            metrics = setup.folder(row.name, seed) / "metrics.jsonl"
            metrics.parent.mkdir(parents=True)
            steps = 8 if (row.name, seed) == ("random", 3) else 9
            metrics.write_text(
                "".join(f'{{"step": {step}, "loss": 1.0}}\n' for step in range(1, steps + 1))
            )
    with pytest.raises(SefarError, match="'qa-hard random seed 3': 8"):
        comparison_run.shared_steps(setup)
