import json
from dataclasses import replace

import pytest

from benchmarks.arms import ARMS, settings_of, warm_up_key
from benchmarks.evidence import Run, code, main, warm_ups
from benchmarks.evidence_table import Table, interval, show


def test_every_arm_differs_from_sefar_and_from_every_other():
    configs = {arm: settings_of(arm, seed=0) for arm in ARMS}
    assert len(set(map(str, configs.values()))) == len(ARMS)
    assert all(config.seed == 0 and config.mixed_precision == "bf16" for config in configs.values())


def test_arms_that_see_clips_alike_share_a_warm_up():
    keys = {arm: warm_up_key(settings_of(arm, seed=0)) for arm in ARMS}
    assert keys["sefar"] == keys["supervised"] == keys["fixmatch"] == keys["passes_1000"]
    assert keys["window_supervised"] == keys["local_window"] == keys["window_unchanged"]
    assert keys["svformer"] == keys["without_dual_elements"] != keys["sefar"]
    own = {
        keys[arm] for arm in ("local_window", "released", "micro_batches", "ema_every_micro_batch")
    }
    assert keys["sefar"] not in own and keys["micro_batches"] == keys["ema_every_micro_batch"]


def test_a_warm_up_is_the_same_whichever_arms_are_requested():
    ours = warm_ups(seed=0)
    assert set(ours) == {warm_up_key(settings_of(arm, seed=0)) for arm in ARMS}
    for key, config in ours.items():
        assert warm_up_key(config) == key and config.warmup_epochs == config.epochs
    plain = settings_of("sefar", seed=0)
    warm = replace(plain, warmup_epochs=plain.epochs, keep_last=plain.epochs)
    assert ours[warm_up_key(plain)] == warm


def test_arms_of_another_length_have_another_warm_up_whose_first_state_stays():
    long = settings_of("window_long", seed=0)
    short = settings_of("local_window", seed=0)
    assert replace(long, epochs=short.epochs) == short != long
    other = settings_of("window_supervised_long", seed=0)
    assert warm_up_key(long) == warm_up_key(other) != warm_up_key(short)
    warm = warm_ups(seed=0)[warm_up_key(long)]
    assert warm.keep_last >= warm.epochs // warm.save_every_epochs + 1


def test_the_interval_is_student_s():
    # Mean 2, deviation 1, three seeds: 4.303 / sqrt(3) = 2.484.
    assert interval([0.01, 0.02, 0.03]) == "2.0 ± 2.5"
    assert interval([-0.01], sign="+") == "-1.0"
    assert interval([]) == "-"


def test_the_table_pairs_arms_by_seed(tmp_path, capsys):
    def line(arm: str, seed: int, top1: float) -> str:
        figures = {"top1": top1, "mean_class": top1, "direction": 0.5}
        roles = ("student val", "student test", "teacher test")
        scores = dict.fromkeys(roles, figures)
        return json.dumps({"arm": arm, "seed": seed, "code": code(), "scores": scores})

    lines = [line("sefar", 0, 0.5), line("sefar", 1, 0.7), line("fixmatch", 1, 0.6)]
    (tmp_path / "results.jsonl").write_text("\n".join(lines) + "\n")
    show(Table(results=tmp_path / "results.jsonl"))
    rows = {row.split("`")[1]: row for row in capsys.readouterr().out.splitlines()[2:]}
    assert "| 1 | 60.0 | -10.0 |" in rows["fixmatch"]
    assert "| 2 | 60.0 ± 127.1 | - |" in rows["sefar"]
    assert set(rows) == {"sefar", "fixmatch"}
    show(Table(results=tmp_path / "results.jsonl", arms=("supervised",)))
    assert "| `supervised` | 0 | not measured |" in capsys.readouterr().out
    table = Table(results=tmp_path / "results.jsonl", arms=("sefar",), baseline="fixmatch")
    show(table)
    head, _, row = capsys.readouterr().out.splitlines()
    assert "minus `fixmatch`" in head and "| 2 | 60.0 ± 127.1 | +10.0 |" in row


@pytest.mark.parametrize("arm", ["sefar", "ema_every_micro_batch"])
def test_micro_batches_divide_the_batch(arm):
    config = settings_of(arm, seed=3)
    assert config.batch_size % config.micro_batch_size == 0


def test_the_teacher_moves_as_far_in_four_micro_batches_as_in_a_step():
    whole, parts = (settings_of(arm, 0) for arm in ("micro_batches", "ema_every_micro_batch"))
    assert parts.ema_decay**4 == pytest.approx(whole.ema_decay)
    assert parts.batch_size // parts.micro_batch_size == 4


def test_results_of_different_code_are_refused(tmp_path):
    lines = [json.dumps({"arm": "sefar", "seed": s, "code": str(s), "scores": {}}) for s in (0, 1)]
    (tmp_path / "results.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="2 versions of the code"):
        show(Table(results=tmp_path / "results.jsonl"))


def test_errors_are_one_line(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"arm": "sefar", "seed": 0, "code": "old"}\n')
    with pytest.raises(SystemExit, match="error: .*2 versions of the code .*--results"):
        main(Run(results=tmp_path / "results.jsonl"))
    with pytest.raises(SystemExit, match="no arm is named nope; the arms are sefar, "):
        main(Run(arms=("sefar", "nope")))
    with pytest.raises(SystemExit, match="no arm is named none"):
        main(Table(baseline="none"))
