"""A small set on disk: real video files, the same whatever the number of processes."""

import dataclasses
import hashlib
import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from qa_data.files import SefarError
from qa_data.synthetic.dataset import clip_frames, make_set
from qa_data.synthetic.plan import SyntheticSettings, plan_clips
from tests.script_process import call_script

SETTINGS = SyntheticSettings(num_train=26, num_test=24, size=48, num_train_sources=3, seed=2)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "set"
    assert make_set(out, SETTINGS)
    return out


def test_the_folder_holds_what_it_promises(made):
    names = {path.name for path in made.iterdir()}
    assert names == {
        *("videos", "categories.txt", "set_categories.txt", "train_element.txt"),
        *("val_element.txt", "annotation_info.json", "contact_sheet.png", "synthetic.json"),
    }
    lists = [(made / name).read_text() for name in ("train_element.txt", "val_element.txt")]
    listed = {line.split()[0] for text in lists for line in text.splitlines()}
    assert {path.stem for path in (made / "videos").iterdir()} == listed
    sheet = cv2.imread(str(made / "contact_sheet.png"))
    assert sheet.shape == (12 * (96 + 16), 8 * 96, 3)
    record = json.loads((made / "synthetic.json").read_text())
    assert sum(record["counts"]["train"].values()) == 26


def test_the_files_are_h264_and_show_the_frames(made):
    for clip in plan_clips(SETTINGS)[:6]:
        with av.open(str(made / "videos" / f"{clip.id}.mp4")) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264" and stream.average_rate == clip.draft.fps
            shown = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
        drawn = clip_frames(clip, SETTINGS)
        assert shown.shape == drawn.shape == (clip.draft.num_frames, 48, 48, 3)
        assert np.abs(shown.astype(float) - drawn).mean() < 12


def test_a_set_that_is_there_is_left_as_it_is_and_another_folder_refused(made, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert not make_set(made, SETTINGS)
    with pytest.raises(SefarError, match="seed is 2 there and 3 here"):
        make_set(made, dataclasses.replace(SETTINGS, seed=3))
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    (tmp_path / "thesis.txt").write_text("not a set")
    with pytest.raises(SefarError, match="not a synthetic set"):
        make_set(tmp_path, SETTINGS)
    assert (tmp_path / "thesis.txt").read_text() == "not a set"


@pytest.mark.slow
def test_an_interrupted_run_leaves_nothing_and_two_processes_finish_with_the_bytes_of_one(
    made, tmp_path, monkeypatch
):
    def stop(*_):
        raise KeyboardInterrupt

    out = tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setattr("qa_data.synthetic.dataset._write_lists", stop)
        with pytest.raises(KeyboardInterrupt):
            make_set(out, SETTINGS)
    assert not out.exists()
    make_set(out, SETTINGS, workers=2)
    assert hashes(out) == hashes(made)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_control_has_the_same_lists_and_only_the_videos_asked_for(made, tmp_path):
    control = dataclasses.replace(SETTINGS, without="figure_and_apparatus", only_test=True)
    make_set(tmp_path / "control", control)
    for name in ("categories.txt", "train_element.txt", "val_element.txt", "annotation_info.json"):
        assert (tmp_path / "control" / name).read_bytes() == (made / name).read_bytes()
    rendered = {path.stem for path in (tmp_path / "control" / "videos").iterdir()}
    test_ids = {line.split()[0] for line in (made / "val_element.txt").read_text().splitlines()}
    assert rendered == test_ids
    found, whole = hashes(tmp_path / "control"), hashes(made)
    assert all(found[f"videos/{i}.mp4"] != whole[f"videos/{i}.mp4"] for i in test_ids)


def test_the_script_says_what_it_did_and_refuses_in_one_line(made):
    where = ("make_synthetic_gym.py", "--out", made, "--num-train", 26, "--num-test", 24)
    where += ("--num-train-sources", 3, "--size", 48)
    for more, code, said in [
        (("--seed", 2), 0, "already there"),
        (("--seed", 9), 1, "seed is 2 there and 9 here"),
    ]:
        done = call_script(*where, *more, columns=200)
        assert done.returncode == code and said in done.stdout + done.stderr
