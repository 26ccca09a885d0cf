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
from sefar_mllm.chat.assistant import load_encoder_of
from sefar_mllm.chat.safe_video import VideoClip
from sefar_mllm.encoders.base import origin_of
from sefar_mllm.feature_cache import CacheError
from tests.oracles import toy_chat, videos


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    return videos.write_video(path, videos.numbered_frames(24), fps=24)


def test_tokens_are_those_of_the_frames_at_the_encoders_moments(assistant, clip):
    frames = torch.from_numpy(videos.numbered_frames(24)[1::3].copy())  # (n + 1/2) / 8 of 24
    expected = assistant.encoder.encode(frames[None])[0]
    conversation = assistant.watch(str(clip))
    torch.testing.assert_close(conversation.tokens, expected, atol=0.15, rtol=0)
    assert conversation.answer("Which move is this?") != ""
    half = assistant.watch(clip, start_s=0.5, end_s=1.0).tokens
    assert (half - expected).abs().max() > 0.15


def test_an_untrusted_video_is_decoded_apart_with_the_same_result(assistant, clip, monkeypatch):
    def apart(clips, moments, *, workers):
        return [(video_clip, module.read_frames(video_clip, moments)) for video_clip in clips]

    monkeypatch.setattr(module, "read_frames_apart", apart)
    conversation = assistant.watch(clip, untrusted=True)
    assert conversation.tokens.equal(assistant.watch(clip).tokens)
    assert conversation.limits == assistant.limits
    broken = [(VideoClip(path=clip), VideoReadError("cannot decode clip.mp4"))]
    monkeypatch.setattr(module, "read_frames_apart", lambda *_, **__: broken)
    with pytest.raises(VideoReadError, match="cannot decode clip.mp4"):
        assistant.watch(clip, untrusted=True)


@pytest.mark.parametrize(
    ("encoder", "key", "words"),
    [
        ({"digest": "4567"}, {}, "digest = 4567"),
        ({"moments": (0.5,) * 8}, {}, "moments"),
        ({}, {"frame_order": "shuffled"}, "frame_order = in_order"),
    ],
)
def test_another_encoder_than_in_training_is_refused(assistant, monkeypatch, encoder, key, words):
    build = {"random": lambda *_, **__: replace(toy_chat.encoder(), **encoder)}
    monkeypatch.setattr(module, "ENCODERS", build)
    for name, value in key.items():
        monkeypatch.setitem(composite(assistant.model).config.encoder["key"], name, value)
    with pytest.raises(CacheError, match=words):
        load_encoder_of(assistant.model, ".", encoder_dir="elsewhere")


def test_a_relative_encoder_folder_counts_from_here_or_from_the_model_folder(
    assistant, monkeypatch, tmp_path
):
    given = []

    def build(folder, *, seed, device):
        given.append(folder)
        return toy_chat.encoder()

    monkeypatch.setattr(module, "ENCODERS", {"random": build})
    monkeypatch.setitem(composite(assistant.model).config.encoder["origin"], "folder", "runs/sefar")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="^model was .* runs/sefar, .* by --encoder-dir$"):
        load_encoder_of(assistant.model, "model")
    for place in (tmp_path / "model" / "runs/sefar", tmp_path / "runs/sefar"):
        place.mkdir(parents=True)
        load_encoder_of(assistant.model, "model")
        assert given[-1].samefile(place)
    assert origin_of(Path("runs/sefar"), 3) == {"folder": f"{tmp_path}/runs/sefar", "seed": 3}


@pytest.mark.slow
def test_importing_the_package_loads_no_torch():
    code = "import sys, sefar_mllm; assert not {'torch', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_has_its_entrance():
    assert sefar_mllm.from_pretrained is module.from_pretrained
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sefar_mllm.nothing  # noqa: B018
