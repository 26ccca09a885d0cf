"""What a Gym-QA folder is built from."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from qa_data.build import QuestionPlan, audit_sets, build_sets, check_out, classes_of, write_sets
from qa_data.finegym import read_elements, to_clips
from qa_data.generate import PARAPHRASES, paraphrase
from qa_data.manifest import Clip
from qa_data.questions import STEM, QuestionError
from qa_data.taxonomy import ElementClass, read_categories
from sefar_core.data.splits import SplitConfig, draw_labeled
from tests.finegym import finegym_folder

CLASSES = {label: ElementClass(label, 21, label, "FX", f"t{label}") for label in range(6)}


def clips_of(split, num_clips=60):
    return [
        Clip(id=f"{split}{i}", path="x", label=i % 6, text=f"t{i % 6}", source="s", split=split)
        for i in range(num_clips)
    ]


CLIPS = [*clips_of("labeled"), *clips_of("val"), *clips_of("test")]


def test_each_split_is_a_file_and_unlabeled_clips_are_asked_about_where_their_class_is_known():
    plan = QuestionPlan(rule="public")
    told = [*CLIPS, *clips_of("unlabeled")]
    untold = [*CLIPS, Clip(id="u", path="x", split="unlabeled")]
    assert list(build_sets(told, CLASSES, plan)) == ["train", "unlabel", "val", "test"]
    assert list(build_sets(untold, CLASSES, plan)) == ["train", "val", "test"]


def test_a_wording_is_drawn_for_each_clip_and_says_nothing_else():
    plain = build_sets(CLIPS, CLASSES, QuestionPlan())["val"].questions
    many = build_sets(CLIPS, CLASSES, QuestionPlan(wordings=7))["val"].questions
    assert {one.stem for one in plain} == {STEM}
    assert [one.options for one in plain] == [one.options for one in many]
    counts = Counter(one.stem for seed in range(20) for one in paraphrase(plain, 7, seed))
    assert set(counts) == set(PARAPHRASES)
    # 1,200 questions over 7 wordings: standard deviation 12
    assert all(abs(count - 1200 / 7) < 50 for count in counts.values())
    assert all(wording.endswith("?") for wording in PARAPHRASES)
    for number in (0, 8):
        with pytest.raises(QuestionError, match=f"{number} wordings, but there are 7"):
            paraphrase([], number, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_options": 1}, "got 1 options; take 2 to 26"),
        ({"kind": "pairs", "wordings": 2}, "about pairs have one wording"),
        ({"kind": "attributes", "common": "keep"}, "got 1 wordings and common keep"),
        ({"stem": "Say what"}, "must end in a question mark"),
        ({"stem": "What?", "wordings": 2}, "a stem of your own"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(QuestionError, match=message):
        QuestionPlan(**settings)


def test_classes_are_read_off_the_clips_which_name_each_by_one_name():
    found = classes_of([*CLIPS, Clip(id="u", path="x", split="unlabeled")])
    assert {label: one.text for label, one in found.items()} == {n: f"t{n}" for n in range(6)}
    for text, message in (
        (None, "clip n of class 2 has no text"),
        ("other", "class 2 is 't2' for clip labeled2 and 'other' for"),
    ):
        with pytest.raises(QuestionError, match=message):
            classes_of([*CLIPS, Clip(id="n", path="x", label=2, text=text, split="val")])
    with pytest.raises(QuestionError, match="0 labeled, 60 validation and 60 test clips"):
        build_sets(CLIPS[60:], CLASSES, QuestionPlan())


def test_every_kind_of_question_bears_the_data_set_and_a_stem_of_ones_own():
    plan = QuestionPlan(stem="What is going on?", dataset="mine", rule="prior")
    for one in build_sets(CLIPS, CLASSES, plan)["test"].questions:
        assert (one.stem, one.dataset) == ("What is going on?", "mine")
    classes = {
        label: ElementClass(label, 24 + label, label, "FX", f"salto {word} tucked")
        for label, word in enumerate(("forward", "backward"))
    }
    clips = [replace(clip, label=(clip.label or 0) % 2, text=None) for clip in CLIPS]
    for asked in ("attributes", "pairs"):
        for one in build_sets(clips, classes, QuestionPlan(kind=asked, dataset="mine")).values():
            assert {question.dataset for question in one.questions} == {"mine"}, asked


def skewed(split, counts=(9, 1, 1, 1, 1, 1)):
    """Floor clips of which most are of one class, and as many bar clips of each class."""
    labels = [label for label, n in enumerate(counts) for _ in range(n)]
    labels += [label for label in range(6, 10) for _ in range(6)]
    return [
        Clip(id=f"{split}{i}", path="x", label=label, source="s", split=split)
        for i, label in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("common", "asked"), [("leave_out", {"UB"}), ("keep", {"FX", "UB"}), ("widen", {"FX", "UB"})]
)
def test_training_keeps_what_validation_leaves_out(common, asked):
    bars = {label: ElementClass(label, 41, label, "UB", f"t{label}") for label in range(6, 10)}
    clips = [clip for split in ("labeled", "unlabeled", "val") for clip in skewed(split)]
    sets = build_sets(clips, CLASSES | bars, QuestionPlan(common=common))
    assert {one.event for one in sets["val"].questions} == asked
    for name in ("train", "unlabel"):
        assert len(sets[name].questions) == 38
        by_pool = {pool.pool: pool.bound for pool in sets[name].pools}
        assert by_pool == pytest.approx({"event FX": 9 / 14, "event UB": 1 / 4})


@pytest.mark.slow
@pytest.mark.lists
def test_vault_is_asked_about_in_training_and_not_in_validation_of_gym99():
    folder = finegym_folder()
    classes = read_categories(folder / "gym99_categories.txt")
    pool, val = (
        to_clips(read_elements(folder / name), classes, split=split)
        for name, split in (
            ("gym99_train_element_v1.1.txt", "labeled"),
            ("gym99_val_element.txt", "val"),
        )
    )
    train = draw_labeled(pool, SplitConfig(rate=0.05))
    sets = build_sets([*train, *val], classes, QuestionPlan())
    assert {name: len(one.questions) for name, one in sets.items()} == {"train": 1316, "val": 8075}
    assert "VT" in {one.event for one in sets["train"].questions}
    assert "VT" not in {one.event for one in sets["val"].questions}


def test_classes_of_one_set_have_no_rows_of_the_set_that_is_known():
    sets = build_sets(CLIPS, CLASSES, QuestionPlan())
    rows = audit_sets(sets, CLASSES)["val"].rows
    assert not [name for name in rows if "known" in name]
    two = {label: replace(one, set_id=21 + label % 2) for label, one in CLASSES.items()}
    rows = audit_sets(sets, two)["val"].rows
    known = [name for name in rows if "known" in name]
    assert known == ["set known", "set known, commonest answer"]


SETS = build_sets(CLIPS, CLASSES, QuestionPlan(rule="public"))


def names_in(folder):
    return {file.name for file in folder.iterdir()}


def test_a_folder_holds_one_build_and_what_else_was_there(tmp_path):
    (tmp_path / "features.bin").touch()
    write_sets(SETS, {}, tmp_path, settings={"seed": 0})
    smaller = {name: SETS[name] for name in ("train", "val")}
    write_sets(smaller, {}, tmp_path, settings={"seed": 1})
    files = {"train.json", "train.jsonl", "val.json", "val.jsonl"}
    assert names_in(tmp_path) == files | {"audit.json", "features.bin"}
    report = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert report["settings"] == {"seed": 1}


@pytest.mark.parametrize("report", [None, "{}", "no json"])
def test_question_files_that_no_build_left_are_named_and_stay(tmp_path, report):
    (tmp_path / "unlabel.json").write_text("mine", encoding="utf-8")
    if report is not None:
        (tmp_path / "audit.json").write_text(report, encoding="utf-8")
    before = names_in(tmp_path)
    for refused in (
        lambda: write_sets(SETS, {}, tmp_path, settings={}),
        lambda: check_out(tmp_path),
    ):
        with pytest.raises(QuestionError, match=r"holds unlabel\.json.* no audit\.json of an earl"):
            refused()
    assert names_in(tmp_path) == before
    assert (tmp_path / "unlabel.json").read_text(encoding="utf-8") == "mine"
    for out in (tmp_path / "unlabel.json", tmp_path / "unlabel.json" / "deeper"):
        with pytest.raises(QuestionError, match="unlabel.json is a file; give a folder"):
            check_out(out)
    check_out(tmp_path / "not" / "there")


def test_a_set_that_cannot_be_written_leaves_an_earlier_build_as_it_was(tmp_path):
    out = tmp_path / "out"
    broken = replace(SETS["val"], questions=[replace(SETS["val"].questions[0], answer=9)])
    bad = {"train": replace(SETS["train"], questions=SETS["test"].questions), "val": broken}
    with pytest.raises(QuestionError) as caught:
        write_sets(bad, {}, out, settings={})
    assert str(caught.value).startswith(f"{out}/val.json, question 0000000: ")
    assert not out.exists()
    write_sets(SETS, {}, out, settings={})
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(QuestionError):
        write_sets(bad, {}, out, settings={})
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
