"""The tables of the blind audit, from invented audits and from lists laid out as FineGym's."""

import json
from itertools import product

from benchmarks.blind_audit import BlindAudit, furthest, main, table
from qa_data.blind import Accuracy, Audit
from tests.oracles.finegym_lists import category_list


def make_audit(bound, **micro):
    return Audit(
        num_questions=100,
        rows={
            name: Accuracy(micro=value, micro_se=0.04, macro=value / 2, macro_se=0.05)
            for name, value in micro.items()
        },
        bound=bound,
        repeats={"some_option_twice": 3, "right_option_twice": 1},
        letters={"A": 100},
        shared_sources=0,
        questions_of_shared_sources=0,
    )


def test_a_cell_is_a_mean_with_its_standard_error_and_the_furthest_rule_is_named():
    found = [make_audit(0.25, longest=value) for value in (0.2, 0.3, 0.4, 0.5)]
    other = [make_audit(None, shortest=0.25)] * 4
    assert table({"hard": found, "public": other}, "micro") == [
        "| answers by | hard | public |",
        "|---|---|---|",
        "| questions | 100 | 100 |",
        "| an option twice | 3 | 3 |",
        "| the right option twice | 1 | 1 |",
        "| **bound** | **25.00** | none |",
        # deviation of 0.2 0.3 0.4 0.5: 0.1291, over sqrt(4)
        "| longest | 35.0 ± 6.5 |  |",
        "| shortest |  | 25.0 ± 0.0 |",
    ]
    assert table({"hard": found}, "macro")[2:] == ["| longest | 17.5 ± 3.2 |"]
    # A single seed has the error of its questions.
    assert table({"hard": found[:1]}, "macro")[2:] == ["| longest | 10.0 ± 5.0 |"]
    found = [make_audit(0.25, longest=0.26, shortest=0.20)] * 4
    assert furthest({"hard": found, "public": other}) == (
        "More than 2 standard errors of the mean off their bound: 1 of 2 comparisons; the "
        "furthest is shortest on hard, -2.5."
    )


def test_the_tables_of_lists_are_printed_and_written(tmp_path, capsys):
    """Of an invented Gym99: 3 sets of 8 classes, a grid in each, a few clips a class."""
    parts = product(("forward", "backward"), ("tucked", "stretched"), (1, 2))
    texts = [f"salto {way} {shape} with {turns} twist" for way, shape, turns in parts]
    sets = product((("FX", 25), ("BB", 33), ("UB", 44)), texts)
    rows = [(label, number, event, text) for label, ((event, number), text) in enumerate(sets)]
    (tmp_path / "gym99_categories.txt").write_text(category_list(rows))
    tree = {
        str(3 * label): {"BTcode": f"{label % 8:03b}", "questions": ["a?", "b?", "c?"], "code": "1"}
        for label in range(24)
    }
    (tmp_path / "finegym_glabel_to_Qtree.json").write_text(json.dumps(tree))
    for name, video, clips in (("train_element_v1.1", "A" * 11, 40), ("val_element", "B" * 11, 4)):
        lines = [
            f"{video}_E_{label:06d}_{label + 1:06d}_A_{i:04d}_{i + 1:04d} {label}\n"
            for label in range(24)
            for i in range(clips + label % 3)
        ]
        (tmp_path / f"gym99_{name}.txt").write_text("".join(lines))

    out = tmp_path / "tables.md"
    main(BlindAudit(finegym=tmp_path, benchmarks=(99,), seeds=(0,), out=out))
    written = out.read_text(encoding="utf-8")
    assert capsys.readouterr().out == written
    assert written.count("\n### ") == 5
    assert "| answers by | public | distinct | prior | event_prior | set_prior |" in written
    assert "| questions | 120 | 120 | 120 | 120 | 120 |" in written
    assert "| apparatus known |" in written
    assert "| code nearest the others |" in written
