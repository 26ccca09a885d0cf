"""What scripts/evaluate_ssl.py prints of its scores, and which class lists it refuses."""

import importlib.util
from pathlib import Path
from unicodedata import normalize

import pytest

from qa_data.manifest import Clip
from qa_data.taxonomy import read_categories

SCRIPT = Path(__file__).parents[2] / "scripts/evaluate_ssl.py"
CATEGORIES = (
    "Clabel:   0; set:  21; Glabel:   8; (FX) split jump\n"
    "Clabel:   1; set:  41; Glabel:   9; (UB) giant circle\n"
)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("evaluate_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("value", "limits", "cell"),
    [
        (0.5, (0.25, 0.75), "50.0% [25.0%, 75.0%]"),
        (0.5, None, "50.0% (no interval)"),
        (None, None, "-"),
    ],
)
def test_a_share_is_shown_with_its_interval_or_that_it_has_none(script, value, limits, cell):
    assert script.shown({"top1": value, "top1_interval": limits}, "top1") == cell
    assert script.shown({"top5": 0.5}, "top5") == "50.0%"


def test_the_table_prints_names_as_they_are(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    settings = script.EvaluateSsl(
        run_dir=tmp_path / "run [b]", manifest=tmp_path / "m.csv", video_root=tmp_path
    )
    keys = ("top1", "top5", "mean_class", "direction", "majority")
    row = dict.fromkeys(keys, 0.5) | {"top1_interval": None, "direction_interval": None}
    script.show({"student": row}, settings)
    printed = capsys.readouterr().out
    assert "run [b] on test" in printed and printed.count("50.0% (no interval)") == 2


@pytest.mark.parametrize(
    ("texts", "refused"),
    [
        (("split jump", "giant circle"), False),
        ((None, "class 1"), False),
        (("giant circle", "split jump"), True),
    ],
)
def test_a_class_list_of_another_order_is_refused(script, tmp_path, texts, refused):
    categories = tmp_path / "categories.txt"
    categories.write_text(CATEGORIES)
    clips = [
        Clip(id=str(label), path="x.mp4", label=label, text=text, event="FX", split="test")
        for label, text in enumerate(texts)
    ]
    settings = script.EvaluateSsl(
        run_dir=tmp_path, manifest=tmp_path / "m.csv", video_root=tmp_path, categories=categories
    )
    assert len(read_categories(categories)) == 2
    if refused:
        with pytest.raises(ValueError, match=r"class 0 is 'split jump' in .*categories.txt, but"):
            script.classes_of(settings, clips)
    else:
        assert script.classes_of(settings, clips)[0] == ["FX split jump", "UB giant circle"]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_class_list_in_another_spelling_is_the_same(script, tmp_path, forms):
    listed, known = (normalize(form, "K\u00fcr jump") for form in forms)
    categories = tmp_path / "categories.txt"
    categories.write_text(CATEGORIES.replace("split jump", listed), encoding="utf-8")
    clip = Clip(id="0", path="x.mp4", label=0, text=known, event="FX", split="test")
    settings = script.EvaluateSsl(
        run_dir=tmp_path, manifest=tmp_path / "m.csv", video_root=tmp_path, categories=categories
    )
    assert script.classes_of(settings, [clip])[0][0] == f"FX {listed}"
