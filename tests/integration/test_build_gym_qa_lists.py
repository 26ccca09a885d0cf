"""FineGym's lists alone, or another data set's manifest, become question folders."""

import json

import pytest

from qa_data.manifest import Clip, write_manifest
from qa_data.questions import read_any, read_questions
from tests.finegym import finegym_folder
from tests.script_process import run_script

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
def lists(tmp_path_factory):
    """Class list, element lists and question tree in FineGym's formats, and nothing else."""
    root = tmp_path_factory.mktemp("lists")
    classes = [
        f"Clabel: {label}; set: {set_id}; Glabel: {label}; ({event}) {text}"
        for label, (event, set_id, text) in enumerate(MOVES)
    ]
    (root / "categories.txt").write_text("\n".join(classes), encoding="utf-8")
    for name, sources in {"train": range(40), "val": range(40, 60)}.items():
        lines = [
            f"source{source:05d}_E_000001_000090_A_{label:04d}_{label + 1:04d} {label}"
            for source in sources
            for label in range(7)
            if (source + label) % 3  # an uneven number of clips
        ]
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tree = {
        str(label): {"questions": ["Salto?", "Forward?"], "BTcode": f"{int('salto' in text)}0"}
        for label, (_, _, text) in enumerate(MOVES)
    }
    (root / "tree.json").write_text(json.dumps(tree), encoding="utf-8")
    return root


def list_arguments(lists, out):
    return [
        "--categories", lists / "categories.txt", "--train-list", lists / "train.txt",
        "--test-list", lists / "val.txt", "--rate", "0.3", "--out", out,
    ]  # fmt: skip


def test_finegyms_lists_alone_become_the_public_files_in_the_order_of_the_lists(lists, tmp_path):
    done = run_script(
        "build_gym_qa.py", *list_arguments(lists, tmp_path), "--distractors", "public"
    )
    assert done.returncode == 0, done.stderr
    built = {name: read_any(tmp_path / f"{name}.json") for name in ("train", "unlabel")}
    lines = (lists / "train.txt").read_text(encoding="utf-8").split()[::2]
    for questions in built.values():
        places = [lines.index(question.video) for question in questions]
        assert places == sorted(places)
    assert len(built["train"]) == round(0.3 * len(lines))
    assert len(built["train"]) + len(built["unlabel"]) == len(lines)
    text = (tmp_path / "val.json").read_text(encoding="utf-8")
    entries = json.loads(text)
    assert text == json.dumps(entries, indent=4)
    assert list(entries) == [f"{i:07d}" for i in range(len(entries))]
    for line, (key, entry) in zip(
        (lists / "val.txt").read_text(encoding="utf-8").splitlines(), entries.items(), strict=True
    ):
        video, label = line.split()
        assert list(entry) == [
            "answer", "question", "answer_type", "question_id", "dataset", "video", "frame_length",
        ]  # fmt: skip
        assert (entry["video"], entry["question_id"], entry["frame_length"]) == (video, key, None)
        assert f" {entry['answer']}.{MOVES[int(label)][2]}" in entry["question"]
        assert entry["question"].startswith("What gymnastics move is this athlete performing? A.")
    report = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert set(report["audits"]) == {"val"}
    told = {name: report["settings"][name] for name in ("train_list", "rate", "draw", "options")}
    assert told == {"train_list": "train.txt", "rate": 0.3, "draw": "stratified", "options": 4}


@pytest.mark.parametrize(
    ("arguments", "types"),
    [
        (["--distractors", "attribute", "--common", "keep", "--wordings", "7"], {"what"}),
        (["--questions", "attributes"], {"direction", "shape"}),
        (["--questions", "pairs"], {"pair"}),
    ],
)
def test_grids_attributes_and_pairs_are_built_audited_and_the_same_again(
    lists, tmp_path, arguments, types
):
    outs = [tmp_path / "1", tmp_path / "2"]
    for out in outs:
        done = run_script(
            "build_gym_qa.py", *list_arguments(lists, out), *arguments,
            "--attributes", lists / "tree.json",
        )  # fmt: skip
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


@pytest.fixture(scope="module")
def actions(tmp_path_factory):
    """A manifest of another data set: classes have texts, but no apparatus and no sets."""
    path = tmp_path_factory.mktemp("actions") / "manifest.csv"
    clips = [
        Clip(
            id=f"{split}_{label}_{i}",
            path=f"{split}_{label}_{i}.avi",
            label=label,
            text=f"Action{label}",
            source=f"g{i}",
            split=split,
        )
        for split in ("labeled", "test")
        for label in range(8)
        for i in range(3 + label % 2)
    ]
    write_manifest(clips, path)
    return path


def test_a_manifest_of_another_data_set_needs_no_class_list(actions, tmp_path):
    for rule in ("public", "distinct", "prior"):
        done = run_script(
            "build_gym_qa.py", "--manifest", actions, "--distractors", rule, "--dataset", "ucf101",
            "--stem", "What is going on?", "--out", tmp_path / rule,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        questions = read_questions(tmp_path / rule / "test.jsonl")
        assert len(questions) == 28
        text = (tmp_path / rule / "audit.json").read_text(encoding="utf-8")
        assert not {"rate", "draw"} & set(json.loads(text)["settings"])
        assert "known" not in text
        assert {(one.stem, one.dataset) for one in questions} == {("What is going on?", "ucf101")}
        assert all(one.options[one.answer] == f"Action{one.label}" for one in questions)


def test_what_cannot_be_built_is_refused_and_nothing_is_written(lists, actions, tmp_path):
    out = tmp_path / "out"
    lone = ["--out", out]
    known = list_arguments(lists, out)
    refused = {
        "reads apparatus and sets of FineGym's class list": ["--manifest", actions, *lone],
        "give --manifest, or FineGym's lists": lone,
        "or FineGym's lists: --categories": ["--train-list", lists / "train.txt", *lone],
        "one benchmark": [
            *known[:4], "--test-list", lists / "train.txt", *lone,
        ],
        "got 8 wordings, but there are 7": [*known, "--wordings", "8"],
        "have one wording": [*known, "--wordings", "2", "--questions", "pairs"],
        "must end in a question mark": [*known, "--stem", "Say"],
        "no question tree at": [*known, "--attributes", out / "tree.json"],
        "rate must be in (0, 1]": [*known, "--rate", "2"],
        "1 options": [*known, "--options", "1"],
        "--rate 0.1 has no effect with --manifest": ["--manifest", actions, "--rate", "0.1", *lone],
        "--draw stratified has no effect": ["--manifest", actions, "--draw", "stratified", *lone],
        "--distractors hard has no effect with --questions pairs": [
            *known, "--questions", "pairs", "--distractors", "hard",
        ],
        "--options 4 has no effect": [*known, "--questions", "pairs", "--options", "4"],
    }  # fmt: skip
    for message, arguments in refused.items():
        done = run_script("build_gym_qa.py", *arguments)
        assert done.returncode == 1, message
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    done = run_script("build_gym_qa.py", *known[:-1], lists / "train.txt")
    assert done.returncode == 2 and "it is not a folder" in done.stderr
    assert not out.exists()


@pytest.mark.lists
def test_the_public_rule_on_the_real_lists_asks_about_every_clip_in_its_place(tmp_path):
    folder = finegym_folder()
    done = run_script(
        "build_gym_qa.py", "--categories", folder / "gym99_categories.txt",
        "--train-list", folder / "gym99_train_element_v1.1.txt",
        "--test-list", folder / "gym99_val_element.txt", "--draw", "unstratified",
        "--distractors", "public", "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = {name: len(read_any(tmp_path / f"{name}.json")) for name in ("train", "val")}
    assert counts == {"train": 1316, "val": 8521}
