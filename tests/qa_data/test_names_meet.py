"""Names from a Mac are decomposed (NFD), lists composed (NFC): they are one name everywhere."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import pytest
import torch

from qa_data.export.writers import video_files
from qa_data.files import composed, folded, on_disk
from qa_data.finegym import TimeSpan
from qa_data.manifest import Clip, ManifestError, read_manifest, write_manifest
from qa_data.questions import Question, QuestionError, attach_classes, check_videos
from scripts import make_splits
from sefar_core.data.check_videos import check_file
from sefar_core.data.dataloaders import refuse_missing
from sefar_core.data.dataset import read_from_folder
from sefar_core.data.datasets.find_files import read_folders
from sefar_core.data.frame_cache import CacheConfig, open_frame_cache
from sefar_core.data.leaks import files_of, near_duplicates
from sefar_core.data.splits import SplitConfig
from sefar_mllm.chat.batch import BatchQuestion, path_of
from sefar_mllm.evaluation.metrics import unseen_sources
from sefar_mllm.evaluation.significance import align_runs
from sefar_mllm.feature_cache import TokenCache, spans_of, write_tokens
from tests.oracles import videos
from tests.oracles.toy_answers import predictions

NFC, NFD = "K\u00fcr", "Ku\u0308r"


def clip(name, **change):
    told = {"id": name, "path": f"{name}.mp4", "label": 3, "text": "salto", "split": "labeled"}
    return Clip(**told | change)


def test_names_are_compared_composed_and_folded():
    assert composed(NFD) == NFC != NFD
    assert folded(NFD.upper()) == folded(NFC) == "k\u00fcr"


def test_a_manifest_refuses_two_ids_that_look_alike(tmp_path):
    path = tmp_path / "manifest.csv"
    with pytest.raises(ManifestError, match="another clip's too"):
        write_manifest([clip(NFC), clip(NFD)], path)
    write_manifest([clip(NFD)], path)
    assert read_manifest(path) == [clip(NFD)]  # spelled as it was
    path.write_text(path.read_text(encoding="utf-8") + f"{NFC},x.mp4,,,1,t,,,labeled\n", "utf-8")
    with pytest.raises(ManifestError, match="line 3: clip .* is in line 2 already"):
        read_manifest(path)


@pytest.mark.parametrize(("asked", "kept"), [(NFC, NFD), (NFD, NFC)])
def test_tokens_are_found_under_either_spelling(tmp_path, asked, kept):
    key = {"format": 3, "encoder": "sefar", "digest": "abc", "moments": [0.5], "dim": 4, "grid": 1}
    key |= {"frame_order": "in_order"}
    tokens = torch.arange(4.0).reshape(1, 1, 1, 4)
    span = [f"{kept}.mp4", None, None, 1, 100]
    write_tokens(tmp_path, key, {"folder": "x", "seed": 0}, {kept: span}, [tokens])
    cache = TokenCache(tmp_path, [asked])
    assert torch.equal(cache[asked], tokens.half()) and cache.spans == {asked: span}


def file_of_clip(root, path):
    seen = []
    frames = torch.zeros(1, 2, 2, 3)
    clip_at = clip("x", path=path)
    read_from_folder(clip_at, [0.5], root=root, read=lambda at, *_, **__: seen.append(at) or frames)
    return seen


def size_in_cache(root, path):
    (span,) = spans_of([clip("x", path=path)], root).values()
    return span[3:]


def fault_of_check(root, path):
    (health,) = check_file([clip("x", path=path)], lambda: None, video_root=root, quick=True)
    return [(fault.kind, fault.words.rpartition("Kür.mp4")[2]) for fault in health.faults]


def first_file(root, path):
    return files_of([clip("x", path=path)], root)["x"]


def video_of_batch(root, path):
    return path_of(BatchQuestion(id="1", video=path, question="?"), root)


def frames_in_store(root, path):
    (root / "store").mkdir(exist_ok=True)
    listed = clip("x", path=path)
    settings = CacheConfig(Path(tempfile.mkdtemp(dir=root / "store")), "raw", None)
    return open_frame_cache([listed], root, settings).read(listed, [0.0, 1.0]).tolist()


@pytest.mark.parametrize(
    "look_up",
    [size_in_cache, fault_of_check, first_file, video_of_batch, frames_in_store, file_of_clip],
)
@pytest.mark.parametrize(("listed", "kept"), [(NFC, NFD), (NFD, NFC)])
def test_a_file_is_the_same_to_every_reader_under_either_spelling(tmp_path, look_up, listed, kept):
    if look_up is frames_in_store:
        videos.write_video(tmp_path / f"{kept}.mp4", videos.numbered_frames(3))
    else:
        (tmp_path / f"{kept}.mp4").write_bytes(b"no video")
    expected = look_up(tmp_path, f"{kept}.mp4")
    assert expected not in ([], [None], None)
    assert look_up(tmp_path, f"{listed}.mp4") == expected


@pytest.mark.parametrize(("asked", "kept"), [(NFC, NFD), (NFD, NFC)])
def test_questions_answers_and_exports_meet_under_either_spelling(asked, kept):
    question = Question(question_id="0", video=asked, stem="?", options=("salto", "turn"), answer=0)
    (found,) = attach_classes([question], [clip(kept, source="film")])
    assert (found.video, found.label, found.source) == (kept, 3, "film")
    with pytest.raises(QuestionError, match="is not in the manifest"):
        attach_classes([replace(question, video="Kur")], [clip(kept)])
    check_videos([question], [kept])
    files = video_files([question], Path("videos"), [clip(kept, path="FX/film.mkv")])
    assert files == {asked: "videos/FX/film.mkv"}
    (right,) = (replace(one, video=asked) for one in predictions([1.0], ["s"], [0]))
    (wrong,) = (replace(one, video=kept) for one in predictions([0.0], ["s"], [0]))
    assert align_runs([[right], [wrong]]).tolist() == [[1.0], [0.0]]


def test_make_splits_prints_names_as_they_are_and_what_it_left_out(tmp_path, capsys):
    places = [f"{name}/p{n % 2}_{n}.mp4" for name in ("jump [/]", "spin [b]") for n in range(4)]
    for place in (*(f"mine/{place}" for place in places), "exam/jump [/]/p9_0.mp4"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(place.encode())
    (tmp_path / "mine/spin [b]/notes.webp").touch()

    def cut(**options):
        settings = make_splits.MakeSplits(
            listing=read_folders(tmp_path / "mine", test_root=tmp_path / "exam"),
            video_root=tmp_path,
            out=tmp_path / "out",
            split=SplitConfig(rate=0.5, one_sided="keep"),
            **options,
        )
        make_splits.main(settings)
        return capsys.readouterr().out

    printed = cut(source_pattern="^(p[0-9])_")
    assert "spin [b]" in printed and "1 files of other endings are not clips: 1 .webp" in printed
    clips = read_manifest(tmp_path / "out/manifest.csv")
    assert {one.source for one in clips} == {"p0", "p1", "p9"}
    report = json.loads((tmp_path / "out/splits.json").read_text())
    assert (report["other_files"], report["source_pattern"]) == ({".webp": 1}, "^(p[0-9])_")
    (tmp_path / "mine/spin_[b]").mkdir()
    (tmp_path / "mine/spin_[b]/1.mp4").write_bytes(b"third")
    assert "spin [b] is the name of several labels: 1, 2" in cut()


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_each_part_of_a_path_is_found_under_its_own_spelling(tmp_path, forms):
    folder, file = normalize(forms[0], "Würzburg"), normalize(forms[1], "Kür.mp4")
    (tmp_path / folder).mkdir()
    (tmp_path / folder / file).touch()
    listed = tmp_path / normalize("NFC", "Würzburg") / normalize("NFC", "Kür.mp4")
    assert on_disk(listed) == tmp_path / folder / file
    assert on_disk(tmp_path / "gone") == tmp_path / "gone"
    refuse_missing([clip("x", path="Würzburg/Kür.mp4")], tmp_path)


def test_sources_meet_in_clips_questions_and_near_duplicates():
    one, other = (normalize(form, "Müller") for form in ("NFC", "NFD"))
    first = clip("1", path=f"{other}.mp4", source=other, start_s=0.0, end_s=2.0)
    second = clip("2", path="x.mp4", source=one, start_s=None)
    assert first.source == second.source
    times = {"2": TimeSpan(0.0, 2.0)}
    assert list(near_duplicates([first, second], times=times)) == [(0, 1)]
    asked = Question(
        question_id="0", video="3", stem="What?", options=("a", "b"), answer=0, source=other
    )
    assert unseen_sources([asked], [second]) == frozenset()
