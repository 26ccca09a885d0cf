"""Lists and manifests in, manifest and question folders out, through the command line."""

import csv
import json

import pytest

from qa_data.manifest import Clip, by_split, read_manifest, write_manifest
from qa_data.questions import attach_classes, read_any, read_questions
from tests.finegym import finegym_folder
from tests.script_process import call_script

MOVES = [
    ("FX", 24, "salto forward tucked"),
    ("FX", 25, "salto backward tucked"),
    ("FX", 24, "salto forward piked"),
    ("FX", 25, "salto backward piked"),
    ("FX", 25, "whip salto backward"),
    ("UB", 43, "transition flight from high bar to low bar"),
    ("UB", 43, "transition flight from low bar to high bar"),
]


@pytest.fixture(scope="module")
def gym(tmp_path_factory):
    """Class list, element lists and question tree in FineGym's formats; empty files for videos."""
    root = tmp_path_factory.mktemp("gym")
    classes = [
        f"Clabel: {label}; set: {set_id}; Glabel: {label}; ({event}) {text}"
        for label, (event, set_id, text) in enumerate(MOVES)
    ]
    (root / "categories.txt").write_text("\n".join(classes), encoding="utf-8")
    (root / "videos").mkdir()
    for name, sources in {"train": range(40), "val": range(40, 60)}.items():
        lines = [
            f"source{source:05d}_E_000001_000090_A_{label:04d}_{label + 1:04d} {label}"
            for source in sources
            for label in range(len(MOVES))
            if (source + label) % 3  # an uneven number of clips
        ]
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for line in lines:
            (root / "videos" / f"{line.split()[0]}.mp4").touch()
    tree = {
        str(label): {"questions": ["Salto?", "Forward?"], "BTcode": f"{int('salto' in text)}0"}
        for label, (_, _, text) in enumerate(MOVES)
    }
    (root / "tree.json").write_text(json.dumps(tree), encoding="utf-8")
    return root


def list_arguments(gym, out):
    return [
        "--categories", gym / "categories.txt", "--train-list", gym / "train.txt",
        "--test-list", gym / "val.txt", "--rate", "0.3", "--out", out,
    ]  # fmt: skip


def build(*arguments):
    return call_script("build_gym_qa.py", *arguments)


@pytest.fixture(scope="module")
def manifest(gym):
    done = call_script(
        "make_splits.py", "finegym", *list_arguments(gym, gym / "splits"),
        "--video-root", gym / "videos", "--val-rate", "0.2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "labeled-test" in done.stdout
    return gym / "splits" / "manifest.csv"


@pytest.fixture(scope="module")
def actions(tmp_path_factory):
    """A manifest of another data set: classes have texts, but no apparatus and no sets."""
    path = tmp_path_factory.mktemp("actions") / "manifest.csv"
    clips = [
        Clip(id=f"{split}_{label}_{i}", path=f"{split}_{label}_{i}.avi", label=label,
             text=f"Action{label}", source=f"g{i}", split=split)
        for split in ("labeled", "test")
        for label in range(8)
        for i in range(3 + label % 2)
    ]  # fmt: skip
    write_manifest(clips, path)
    return path


def test_questions_of_a_manifest_are_written_in_both_formats_with_their_audit(
    gym, manifest, tmp_path
):
    done = build(
        "--manifest", manifest, "--categories", gym / "categories.txt",
        "--distractors", "public", "--common", "widen", "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "naive Bayes inverted" in done.stdout
    stems = ("train", "val", "test")
    names = {f"{stem}.json{end}" for stem in stems for end in ("", "l")} | {"audit.json"}
    assert {file.name for file in tmp_path.iterdir()} == names
    questions = read_questions(tmp_path / "test.jsonl")
    clips = read_manifest(manifest)
    assert [one.video for one in questions] == [clip.id for clip in by_split(clips, "test")]
    public = attach_classes(read_any(tmp_path / "test.json"), clips)
    assert [(one.label, one.options) for one in public] == [
        (one.label, one.options) for one in questions
    ]
    report = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert report["settings"]["distractors"] == "public"
    assert report["audits"]["test"]["rows"]["chance"]["micro"] == pytest.approx(0.25)


def test_finegyms_lists_alone_become_the_public_files_in_the_order_of_the_lists(gym, tmp_path):
    done = build(*list_arguments(gym, tmp_path), "--distractors", "public")
    assert done.returncode == 0, done.stderr
    built = {name: read_any(tmp_path / f"{name}.json") for name in ("train", "unlabel")}
    lines = (gym / "train.txt").read_text(encoding="utf-8").split()[::2]
    for questions in built.values():
        places = [lines.index(question.video) for question in questions]
        assert places == sorted(places)
    assert len(built["train"]) == round(0.3 * len(lines))
    assert len(built["train"]) + len(built["unlabel"]) == len(lines)
    text = (tmp_path / "val.json").read_text(encoding="utf-8")
    entries = json.loads(text)
    assert text == json.dumps(entries, indent=4)
    assert list(entries) == [f"{i:07d}" for i in range(len(entries))]
    val = (gym / "val.txt").read_text(encoding="utf-8").splitlines()
    for line, (key, entry) in zip(val, entries.items(), strict=True):
        video, label = line.split()
        assert list(entry) == [
            "answer", "question", "answer_type", "question_id", "dataset", "video", "frame_length",
        ]  # fmt: skip
        assert (entry["video"], entry["question_id"], entry["frame_length"]) == (video, key, None)
        assert f" {entry['answer']}.{MOVES[int(label)][2]}" in entry["question"]
        assert entry["question"].startswith("What gymnastics move is this athlete performing? A.")
    report = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert set(report["audits"]) == {"val"}
    kept = {name: report["settings"][name] for name in ("train_list", "rate", "draw", "options")}
    assert kept == {"train_list": "train.txt", "rate": 0.3, "draw": "stratified", "options": 4}


@pytest.mark.parametrize(
    ("arguments", "types"),
    [
        (["--distractors", "attribute", "--common", "keep", "--wordings", "7"], {"what"}),
        (["--questions", "attributes"], {"direction", "shape"}),
        (["--questions", "pairs"], {"pair"}),
    ],
)
def test_grids_attributes_and_pairs_are_built_audited_and_the_same_again(
    gym, tmp_path, arguments, types
):
    outs = [tmp_path / "1", tmp_path / "2"]
    for out in outs:
        done = build(*list_arguments(gym, out), *arguments, "--attributes", gym / "tree.json")
        assert done.returncode == 0, done.stderr
    first, second = ({file.name: file.read_bytes() for file in out.iterdir()} for out in outs)
    assert first == second
    questions = read_questions(outs[0] / "val.jsonl")
    assert {question.answer_type for question in questions} <= types
    stems = {question.stem for question in questions}
    assert len(stems) == (7 if "--wordings" in arguments else len(types))
    assert all(stem.endswith("?") for stem in stems)
    report = json.loads(first["audit.json"])
    idle = {"what": set(), "pair": {"distractors", "options"}}.get(min(types), {"distractors"})
    assert {"distractors", "options"} - set(report["settings"]) == idle
    title = "val, which, attribute: " if not idle else f"val, {arguments[1]}: "
    assert title in " ".join(done.stdout.split())
    pools = report["pools"]["val"]
    assert sum(pool["clips"] for pool in pools if pool["asked"]) == len(questions)
    rows = report["audits"]["val"]["rows"]
    assert ("code nearest the others" in rows) == (types != {"direction", "shape"})


@pytest.mark.parametrize("rule", ["public", "distinct", "prior"])
def test_a_manifest_of_another_data_set_needs_no_class_list(actions, tmp_path, rule):
    done = build(
        "--manifest", actions, "--distractors", rule, "--dataset", "ucf101",
        "--stem", "What is going on?", "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    questions = read_questions(tmp_path / "test.jsonl")
    assert len(questions) == 28
    text = (tmp_path / "audit.json").read_text(encoding="utf-8")
    assert not {"rate", "draw"} & set(json.loads(text)["settings"])
    assert "known" not in text
    assert {(one.stem, one.dataset) for one in questions} == {("What is going on?", "ucf101")}
    assert all(one.options[one.answer] == f"Action{one.label}" for one in questions)


def test_what_cannot_be_built_is_refused_and_nothing_is_written(gym, actions, tmp_path):
    out = tmp_path / "out"
    lone, known = ["--out", out], list_arguments(gym, out)
    foreign = ["--manifest", actions, *lone]
    refused = {
        "reads apparatus and sets of FineGym's class list": foreign,
        "give --manifest, or FineGym's lists": lone,
        "one benchmark": [*known, "--test-list", gym / "train.txt"],
        "rate must be in (0, 1]": [*known, "--rate", "2"],
        "--rate 0.1 has no effect with --manifest": [*foreign, "--rate", "0.1"],
        "--distractors hard has no effect with --questions pairs": [
            *known, "--questions", "pairs", "--distractors", "hard",
        ],
        "--options 4 has no effect": [*known, "--questions", "pairs", "--options", "4"],
    }  # fmt: skip
    for message, arguments in refused.items():
        done = build(*arguments)
        assert done.returncode == 1 and message in done.stderr, (message, done.stderr)
        assert len(done.stderr.splitlines()) == 1
    done = build(*known[:-1], gym / "train.txt")
    assert done.returncode == 2 and "it is not a folder" in done.stderr
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.lists
def test_the_public_rule_on_the_real_lists_asks_about_every_clip_in_its_place(tmp_path):
    folder = finegym_folder()
    done = build(
        "--categories", folder / "gym99_categories.txt", "--draw", "unstratified",
        "--train-list", folder / "gym99_train_element_v1.1.txt",
        "--test-list", folder / "gym99_val_element.txt",
        "--distractors", "public", "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = {name: len(read_any(tmp_path / f"{name}.json")) for name in ("train", "val")}
    assert counts == {"train": 1316, "val": 8521}


def test_splits_are_written_without_the_labels_of_unlabeled_clips(manifest):
    clips = read_manifest(manifest)
    report = json.loads((manifest.parent / "splits.json").read_text(encoding="utf-8"))
    for split_name, count in report["clips"].items():
        assert len(by_split(clips, split_name)) == count > 0
    rows = csv.DictReader(manifest.read_text(encoding="utf-8").splitlines())
    assert {row["label"] for row in rows if row["split"] == "unlabeled"} == {""}
    assert report["leaks"]["val-test"]["sources"] == report["leaks"]["labeled-val"]["sources"] == 0
