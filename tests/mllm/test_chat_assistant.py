import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sefar_mllm
from sefar_core.checkpoint import CheckpointError
from sefar_core.data.video import VideoReadError
from sefar_mllm.adapters import composite
from sefar_mllm.chat import assistant as module
from sefar_mllm.chat.assistant import load_encoder_of, printable
from sefar_mllm.chat.safe_video import VideoClip
from sefar_mllm.encoders.base import origin_of
from sefar_mllm.feature_cache import CacheError
from tests.oracles import toy_chat, videos


@pytest.fixture(scope="module")
def assistant(tmp_path_factory):
    return toy_chat.assistant(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    return videos.write_video(path, videos.numbered_frames(24), fps=24)


def test_a_video_is_watched_and_a_question_answered(assistant, clip):
    conversation = assistant.watch(str(clip))
    ids = conversation.prompt("Which move is this?")
    expected = toy_chat.greedy(assistant.model, ids, conversation.tokens, 6)
    text = assistant.tokenizer.decode(expected, skip_special_tokens=True)
    assert conversation.answer("Which move is this?") == printable(text).strip() != ""


def test_tokens_are_those_of_the_frames_at_the_encoders_moments(assistant, clip):
    frames = torch.from_numpy(videos.numbered_frames(24)[1::3].copy())  # (n + 1/2) / 8 of 24
    expected = assistant.encoder.encode(frames[None])[0]
    torch.testing.assert_close(assistant.watch(clip).tokens, expected, atol=0.15, rtol=0)
    half = assistant.watch(clip, start_s=0.5, end_s=1.0).tokens
    assert (half - expected).abs().max() > 0.15


def test_a_video_from_a_stranger_gives_the_same_tokens(assistant, clip, monkeypatch):
    def apart(clips, moments, *, workers):
        return [(video_clip, module.read_frames(video_clip, moments)) for video_clip in clips]

    monkeypatch.setattr(module, "read_frames_apart", apart)
    alone = assistant.watch(clip, untrusted=True)
    assert alone.tokens.equal(assistant.watch(clip).tokens)
    assert alone.limits == assistant.limits


def test_what_is_wrong_with_a_strangers_video_is_raised(assistant, clip, monkeypatch):
    broken = [(VideoClip(path=clip), VideoReadError("cannot decode clip.mp4"))]
    monkeypatch.setattr(module, "read_frames_apart", lambda *_, **__: broken)
    with pytest.raises(VideoReadError, match="cannot decode clip.mp4"):
        assistant.watch(clip, untrusted=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"digest": "4567"}, "digest = 4567"), ({"moments": (0.5,) * 8}, "moments")],
)
def test_another_encoder_than_in_training_is_refused(assistant, monkeypatch, changes, said):
    def build(folder, *, seed, device):
        return replace(toy_chat.encoder(), **changes)

    monkeypatch.setattr(module, "ENCODERS", {"random": build})
    with pytest.raises(CacheError, match=said):
        load_encoder_of(assistant.model, ".", encoder_dir="elsewhere")


def test_a_model_that_learned_from_shuffled_frames_does_not_chat(assistant, monkeypatch):
    encoder = composite(assistant.model).config.encoder
    monkeypatch.setitem(encoder["key"], "frame_order", "shuffled")
    monkeypatch.setattr(module, "ENCODERS", {"random": lambda *_, **__: toy_chat.encoder()})
    with pytest.raises(CacheError, match="frame_order = in_order"):
        load_encoder_of(assistant.model, ".", encoder_dir="elsewhere")


def test_an_encoder_is_looked_for_here_and_in_the_model_folder(assistant, monkeypatch, tmp_path):
    looked_in = []

    def build(folder, *, seed, device):
        looked_in.append(folder)
        return toy_chat.encoder()

    monkeypatch.setattr(module, "ENCODERS", {"random": build})
    monkeypatch.setitem(composite(assistant.model).config.encoder["origin"], "folder", "runs/sefar")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="^model was .* runs/sefar, .* by --encoder-dir$"):
        load_encoder_of(assistant.model, "model")
    for place in (tmp_path / "model" / "runs/sefar", tmp_path / "runs/sefar"):
        place.mkdir(parents=True)
        load_encoder_of(assistant.model, "model")
        assert looked_in[-1].samefile(place)


def test_the_place_of_an_encoder_is_kept_whole(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert origin_of(Path("runs/sefar"), 3) == {"folder": f"{tmp_path}/runs/sefar", "seed": 3}


def test_the_package_is_quick_to_import_and_has_its_entrance():
    code = "import sys, sefar_mllm; assert not {'torch', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sefar_mllm.from_pretrained is module.from_pretrained
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sefar_mllm.nothing  # noqa: B018
