import json
from dataclasses import replace

import pytest

from benchmarks.arms import ARMS, settings_of, warm_up_key
from benchmarks.evidence import Run, code, main, warm_ups
from benchmarks.evidence_table import Table, interval, show

CONFIGS = {arm: settings_of(arm, seed=0) for arm in ARMS}
KEYS = {arm: warm_up_key(config) for arm, config in CONFIGS.items()}


def test_every_arm_differs_from_sefar_and_from_every_other():
    assert len(set(map(str, CONFIGS.values()))) == len(ARMS)
    for config in CONFIGS.values():
        assert config.seed == 0 and config.mixed_precision == "bf16"
        assert config.batch_size % config.micro_batch_size == 0


def test_arms_that_see_clips_alike_share_a_warm_up():
    assert KEYS["sefar"] == KEYS["supervised"] == KEYS["fixmatch"] == KEYS["passes_1000"]
    assert KEYS["window_supervised"] == KEYS["local_window"] == KEYS["window_unchanged"]
    assert KEYS["svformer"] == KEYS["without_dual_elements"] != KEYS["sefar"]
    assert KEYS["micro_batches"] == KEYS["ema_every_micro_batch"] != KEYS["sefar"]
    assert KEYS["window_long"] == KEYS["window_supervised_long"] != KEYS["local_window"]
    short = CONFIGS["local_window"]
    assert replace(CONFIGS["window_long"], epochs=short.epochs) == short != CONFIGS["window_long"]


def test_a_warm_up_is_the_same_whichever_arms_are_requested_and_its_first_state_stays():
    ours = warm_ups(seed=0)
    assert set(ours) == set(KEYS.values())
    for key, config in ours.items():
        assert warm_up_key(config) == key and config.warmup_epochs == config.epochs
        assert config.keep_last >= config.epochs // config.save_every_epochs + 1
    plain = CONFIGS["sefar"]
    warm = replace(plain, warmup_epochs=plain.epochs, keep_last=plain.epochs)
    assert ours[KEYS["sefar"]] == warm


def test_the_interval_is_student_s():
    # Mean 2, deviation 1, three seeds: 4.303 / sqrt(3) = 2.484.
    assert interval([0.01, 0.02, 0.03]) == "2.0 ± 2.5"
    assert interval([-0.01], sign="+") == "-1.0"
    assert interval([]) == "-"


def test_the_table_pairs_arms_by_seed(tmp_path, capsys):
    def line(arm: str, seed: int, top1: float) -> str:
        figures = {"top1": top1, "mean_class": top1, "direction": 0.5}
        scores = dict.fromkeys(("student val", "student test", "teacher test"), figures)
        return json.dumps({"arm": arm, "seed": seed, "code": code(), "scores": scores})

    lines = [line("sefar", 0, 0.5), line("sefar", 1, 0.7), line("fixmatch", 1, 0.6)]
    results = tmp_path / "results.jsonl"
    results.write_text("\n".join(lines) + "\n")
    show(Table(results=results))
    rows = {row.split("`")[1]: row for row in capsys.readouterr().out.splitlines()[2:]}
    assert "| 1 | 60.0 | -10.0 |" in rows["fixmatch"]
    assert "| 2 | 60.0 ± 127.1 | - |" in rows["sefar"]
    assert set(rows) == {"sefar", "fixmatch"}
    show(Table(results=results, arms=("supervised",)))
    assert "| `supervised` | 0 | not measured |" in capsys.readouterr().out


def test_errors_are_one_line(tmp_path):
    lines = [json.dumps({"arm": "sefar", "seed": s, "code": str(s), "scores": {}}) for s in (0, 1)]
    results = tmp_path / "results.jsonl"
    for text in (lines, lines[:1]):  # of two codes, of a code that is not this one
        results.write_text("\n".join(text) + "\n")
        with pytest.raises(SystemExit, match="error: .*versions of the code .*--results"):
            main(Run(results=results))
    with pytest.raises(SystemExit, match="no arm is named nope; the arms are sefar, "):
        main(Run(arms=("sefar", "nope")))
