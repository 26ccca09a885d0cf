"""Attributes of a class, from its text, and FineGym's question tree."""

import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_data.attributes import (
    Attributes,
    attributes_of,
    family_of,
    read_question_tree,
)
from qa_data.files import SefarError
from qa_data.taxonomy import ElementClass, read_categories
from tests.finegym import finegym_folder

# Apparatus and text: kind, direction, turns, saltos, shape.
LEFT_OPEN = "split leap with 1.5 turn or more"
HEEL = "with heel of free leg forward"
VAULT = "flic-flac with 0.5 turn on, forward off"
SPOKEN = {
    "FX double salto backward tucked with 1 twist": ("salto", "backward", 1, 2, "tucked"),
    "FX salto forward stretched": ("salto", "forward", 0, 1, "stretched"),
    "UB (swing backward) double salto forward piked": ("salto", "forward", 0, 2, "piked"),
    "UB giant circle forward with 1.5 turn to handstand": ("giant circle", "forward", 1.5, 0, None),
    "UB giant circle forward": ("giant circle", "forward", 0, 0, None),
    "UB circle backward with hop 1 turn to handstand": ("circle with hop", "backward", 1, 0, None),
    "BB johnson with additional 0.5 turn": ("johnson", None, 0.5, 0, None),
    "FX johnson (switch leap with 0.25 turn to side split)": ("johnson", None, 0, 0, None),
    "FX split leap forward": ("split leap", None, 0, 0, None),
    f"FX {LEFT_OPEN}": (LEFT_OPEN, None, None, 0, None),
    "BB 1 illusion turn through split": ("illusion through split", None, 1, 0, None),
    f"FX 1 turn {HEEL}": (HEEL, None, 1, 0, None),
    "FX take-off forward, salto sideward tucked": ("take-off forward", "sideward", 0, 1, "tucked"),
    "BB jump forward with 0.5 twist and salto backward tucked": (
        *("jump forward and backward", None, 0.5, 1, "tucked"),
    ),
    "VT flic-flac with 0.5 turn on, piked salto forward with 1 turn off": (
        *(VAULT, None, 1, 1, "piked"),
    ),
    "VT flic-flac with 0.5 turn on, piked salto forward off": (VAULT, None, 0, 1, "piked"),
    "VT handspring forward on, no turn off": ("handspring forward on, off", None, 0, 0, None),
    "VT tsukahara tucked": ("tsukahara", None, 0, 1, "tucked"),
    "VT tsukahara stretched salto": ("tsukahara", None, 0, 1, "stretched"),
    "VT tsukahara stretched without salto": (
        *("tsukahara without salto", None, 0, 0, "stretched"),
    ),
}
TREE = {
    "0": {"BTcode": "10", "questions": ["Salto?", "With  turn ?"], "code": "1.0"},
    "471": {"BTcode": "0", "questions": ["Salto?"], "code": "2"},
}


def element(event, text, set_id=21):
    return ElementClass(0, set_id, 0, event, text)


@pytest.mark.parametrize("spoken", SPOKEN)
def test_a_text_is_taken_apart(spoken):
    event, _, text = spoken.partition(" ")
    assert attributes_of(element(event, text)) == Attributes(*SPOKEN[spoken])


@given(
    kind=st.sampled_from(["giant circle", "stalder", "gainer", "whip"]),
    direction=st.sampled_from(["forward", "backward", "sideward", None]),
    turns=st.sampled_from([0, 0.5, 1, 1.5, 2, 3.5]),
    saltos=st.sampled_from([0, 1, 2, 3]),
    shape=st.sampled_from(["tucked", "piked", "stretched", None]),
)
def test_what_is_said_is_heard(kind, direction, turns, saltos, shape):
    words = [
        kind,
        {0: None, 1: "salto", 2: "double salto", 3: "triple salto"}[saltos],
        direction,
        shape,
        f"with {turns:g} twist" if turns else None,
    ]
    said = " ".join(word for word in words if word)
    assert attributes_of(element("FX", said)) == Attributes(kind, direction, turns, saltos, shape)


def test_front_and_back_saltos_of_the_floor_are_one_family():
    families = [family_of(element("FX", "x", set_id)) for set_id in (21, 24, 25, 41)]
    assert families == [21, 24, 24, 41]


def write(tmp_path, content):
    path = tmp_path / "tree.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_the_tree_is_read_by_glabel(tmp_path):
    tree = read_question_tree(write(tmp_path, TREE))
    assert tree[0].questions == ("Salto?", "With turn ?")
    assert [path.code for path in tree.values()] == ["10", "0"]
    assert list(tree) == [0, 471]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "tree.json cannot be read: .*; fetch it again"),
        ("[]", "holds no classes"),
        ({"01": TREE["0"]}, "key '01': expected a Glabel"),
        ({"7": []}, "key '7': questions are None"),
        ({"7": TREE["0"] | {"questions": []}}, r"key '7': questions are \[\]"),
        ({"7": TREE["0"] | {"BTcode": "12"}}, "key '7': BTcode is '12'"),
        ({"7": TREE["0"] | {"BTcode": "101"}}, "'101' has 3 answers to 2 questions"),
    ],
)
def test_a_broken_tree_is_refused_by_file_and_key(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(SefarError, match=message) as refused:
        read_question_tree(path)
    assert str(path) in str(refused.value)
    with pytest.raises(SefarError, match=r"no question tree at .*no\.json"):
        read_question_tree(tmp_path / "no.json")


@pytest.mark.lists
@pytest.mark.parametrize("benchmark", [99, 288])
def test_no_two_real_classes_of_a_family_have_the_same_attributes(benchmark):
    classes = read_categories(finegym_folder() / f"gym{benchmark}_categories.txt").values()
    counts = Counter((family_of(one), attributes_of(one)) for one in classes)
    assert set(counts.values()) == {1}


@pytest.mark.lists
def test_text_and_tree_agree_on_the_real_classes():
    folder = finegym_folder()
    tree = read_question_tree(folder / "finegym_glabel_to_Qtree.json")
    assert len(tree) == 530
    compared = Counter()
    for one in read_categories(folder / "gym288_categories.txt").values():
        found = attributes_of(one)
        path = tree[one.glabel]
        for question, bit in zip(path.questions, path.code, strict=True):
            asked = question.lower()
            count = re.fullmatch(r"(?:salto )?(?:with )?([0-9.]+) (?:turn|twist)\?", asked)
            if count and found.turns is not None:
                assert (found.turns == float(count[1])) == (bit == "1"), (one, question)
                compared["turns"] += 1
            if asked == "double salto?":
                assert (found.saltos == 2) == (bit == "1"), (one, question)
                compared["saltos"] += 1
            shape = re.match(r"(tuck|pike|stretched)(?:ed)? +salto", asked)
            if shape and found.shape:
                assert found.shape.startswith(shape[1]) == (bit == "1"), (one, question)
                compared["shape"] += 1
    assert min(compared.values()) >= 30, compared
