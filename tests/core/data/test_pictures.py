"""Pictures that scaling would blow up are refused wherever frames are read."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from qa_data.manifest import Clip
from sefar_core.data.check_videos import check_clips
from sefar_core.data.dataset import read_from_folder
from sefar_core.data.frame_cache import CacheConfig, open_frame_cache
from sefar_core.data.pictures import MAX_SIDE_RATIO, side_ratio_problem
from sefar_core.data.video import VideoReadError
from tests.oracles import videos

CLIPS = [
    Clip(id="film", path="film.mp4", split="unlabeled"),
    Clip(id="pictures", path="pictures", split="unlabeled"),
]


@pytest.fixture
def wide(tmp_path) -> Path:
    """A film and a folder of pictures of 68 x 4 pixels, under a root."""
    frames = np.zeros((3, 4, 68, 3), np.uint8)
    videos.write_video(tmp_path / "film.mp4", frames)
    (tmp_path / "pictures").mkdir()
    for number, frame in enumerate(frames):
        assert cv2.imwrite(str(tmp_path / f"pictures/{number}.png"), frame)
    return tmp_path


@pytest.mark.parametrize(
    ("width", "height"), [(16, 1), (1, 16), (320, 240), (1, 1), (1600, 100), (100, 1600)]
)
def test_pictures_up_to_the_limit_may_be_scaled(width, height):
    assert MAX_SIDE_RATIO == 16
    assert side_ratio_problem(width, height) is None


@pytest.mark.parametrize(("width", "height"), [(17, 1), (1, 17), (30000, 1), (1601, 100)])
def test_elongated_pictures_are_named_with_their_size_and_the_limit(width, height):
    words = side_ratio_problem(width, height)
    assert f"{width} x {height} pixels" in words and "at most 16 times" in words


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.id)
def test_training_and_evaluation_refuse_them_by_file(wide, clip):
    with pytest.raises(VideoReadError, match=rf"{wide}/{clip.path}.* has pictures of 68 x 4"):
        read_from_folder(clip, [0.1, 0.6], root=wide)


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.id)
def test_a_frame_cache_refuses_them_by_file(wide, clip):
    with pytest.raises(VideoReadError, match=rf"{wide}/{clip.path}.* has pictures of 68 x 4"):
        open_frame_cache([clip], wide, CacheConfig(wide / "store"))


def test_the_check_calls_a_folder_of_them_broken(wide):
    for quick in (True, False):
        ((found,),) = check_clips(CLIPS[1:], wide, quick=quick, workers=0)
        assert "68 x 4 pixels" in found.faults[0].words
