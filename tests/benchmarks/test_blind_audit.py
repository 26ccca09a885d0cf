"""The tables of the blind audit, from invented audits and from lists laid out as FineGym's."""

import json

import pytest

from benchmarks.blind_audit import BlindAudit, furthest, main, table
from qa_data.blind import Accuracy, Audit


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


def test_a_cell_is_the_mean_over_the_seeds_and_its_standard_error():
    found = [make_audit(0.25, longest=value) for value in (0.2, 0.3, 0.4, 0.5)]
    other = [make_audit(None, shortest=0.25)] * 4
    lines = table({"hard": found, "public": other}, "micro")
    assert lines == [
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


def test_a_single_seed_has_the_error_of_its_questions():
    assert table({"hard": [make_audit(0.25, longest=0.2)]}, "macro")[2] == (
        "| longest | 10.0 ± 5.0 |"
    )


def test_the_rule_furthest_from_its_bound_is_named():
    found = [make_audit(0.25, longest=0.26, shortest=0.20)] * 4
    public = [make_audit(None, longest=0.9)] * 4
    assert furthest({"hard": found, "public": public}) == (
        "More than 2 standard errors of the mean off their bound: 1 of 2 comparisons; the "
        "furthest is shortest on hard, -2.5."
    )


@pytest.fixture
def finegym(tmp_path):
    """Lists of an invented Gym99: 3 sets of 8 classes, a grid in each, a few clips a class."""
    texts = [
        f"salto {direction} {shape} with {turns} twist"
        for direction in ("forward", "backward")
        for shape in ("tucked", "stretched")
        for turns in (1, 2)
    ]
    classes = [(event, text) for event in ("FX", "BB", "UB") for text in texts]
    tens = {"FX": 25, "BB": 33, "UB": 44}
    lines = [
        f"Clabel: {i}; set: {tens[event]}; Glabel: {i}; ({event}) {text}"
        for i, (event, text) in enumerate(classes)
    ]
    (tmp_path / "gym99_categories.txt").write_text("\n".join(lines))
    tree = {
        str(i): {"BTcode": f"{i % 8:03b}", "questions": ["a?", "b?", "c?"], "code": "1"}
        for i in range(24)
    }
    (tmp_path / "finegym_glabel_to_Qtree.json").write_text(json.dumps(tree))
    for name, video, clips in (
        ("gym99_train_element_v1.1", "AAAAAAAAAAA", 40),
        ("gym99_val_element", "BBBBBBBBBBB", 4),
    ):
        rows = [
            f"{video}_E_{label:06d}_{label + 1:06d}_A_{i:04d}_{i + 1:04d} {label}"
            for label in range(24)
            for i in range(clips + label % 3)
        ]
        (tmp_path / f"{name}.txt").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_the_tables_of_lists_are_printed_and_written(finegym, tmp_path, capsys):
    out = tmp_path / "tables.md"
    main(BlindAudit(finegym=finegym, benchmarks=(99,), seeds=(0,), out=out))
    written = out.read_text(encoding="utf-8")
    assert capsys.readouterr().out == written
    assert written.count("\n### ") == 5
    assert "| answers by | public | distinct | prior | event_prior | set_prior |" in written
    assert "| questions | 120 | 120 | 120 | 120 | 120 |" in written
    assert "| apparatus known |" in written
    assert "| code nearest the others |" in written
