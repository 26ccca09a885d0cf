"""From the folder of a run to answers: real files, real processes, random weights."""

import io
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import sefar_mllm
from qa_data.manifest import Clip
from sefar_core.checkpoint import build_model, save_encoder
from sefar_core.config import ModelConfig
from sefar_core.data.video import VideoReadError
from sefar_mllm.adapters import add_adapters
from sefar_mllm.build import build_vlm, load_tokenizer
from sefar_mllm.chat import safe_video
from sefar_mllm.chat.cli import Chat, talk
from sefar_mllm.chat.safe_video import VideoClip, read_frames_apart
from sefar_mllm.checkpoint import merge, save_trained
from sefar_mllm.config import ChatLimits
from sefar_mllm.encoders import ENCODERS
from sefar_mllm.feature_cache import CacheError, TokenCache
from sefar_mllm.features import extract, token_key
from tests.oracles import toy_llm, videos
from tests.oracles.poison import passing_hours
from tests.oracles.poisoned_videos import poisoned_frames
from tests.script_process import LIMIT_S, run_script

REAL = Path(os.environ.get("SEFAR_VIDEOS_DIR", "."))
FILES = [path for path in sorted(REAL.rglob("*.*")) if path.is_file() and REAL != Path(".")]
MOMENTS = tuple((n + 0.5) / 8 for n in range(8))


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """On a machine under load a video may take longer than a chat waits for it."""
    wait = partial(read_frames_apart, patience_s=LIMIT_S)
    monkeypatch.setattr("sefar_mllm.chat.assistant.read_frames_apart", wait)


def make_encoder(folder: Path, seed: int) -> Path:
    settings = ModelConfig(image_size=32, patch_size=8, dim=16, depth=1, num_heads=2, fusion_dim=8)
    torch.manual_seed(seed)
    save_encoder(build_model(settings, 4), settings, folder)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Videos, an encoder, and the model of a run."""
    root = tmp_path_factory.mktemp("chat")
    for number in range(2):
        frames = videos.numbered_frames(24 + 6 * number)
        videos.write_video(root / f"clip{number}.mp4", frames[:: 1 - 2 * number], fps=24)
    (root / "broken.mp4").write_bytes((root / "clip0.mp4").read_bytes()[:700])
    encoder = ENCODERS["sefar"](make_encoder(root / "encoder", 0))
    base = toy_llm.language_model(root / "llm")
    known = {"key": token_key(encoder, 2), "origin": encoder.origin}
    model = build_vlm(base, token_dim=16, token_shape=(8, 2, 2), encoder=known)
    adapted = add_adapters(model, rank=2, alpha=4.0, dropout=0.0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.5 * torch.randn(parameter.shape))
    save_trained(adapted.eval(), load_tokenizer(base), root / "model")
    return root


@pytest.fixture(scope="module")
def assistant(root):
    assistant = sefar_mllm.from_pretrained(root / "model", device="cpu")
    assistant.limits = ChatLimits(max_new_tokens=8)
    return assistant


def test_three_lines_from_a_folder_to_an_answer(root):
    assistant = sefar_mllm.from_pretrained(str(root / "model"))
    conversation = assistant.watch(str(root / "clip0.mp4"))
    assert conversation.answer("Which move is this?") == conversation.turns[0].assistant != ""


def test_a_chat_sees_the_tokens_that_training_saw(root, assistant):
    clips = [
        Clip(id="whole", path="clip0.mp4", split="test"),
        Clip(id="piece", path="clip0.mp4", split="test", start_s=0.25, end_s=0.75),
    ]
    extract(clips, root, assistant.encoder, root / "tokens")
    cache = TokenCache(root / "tokens", ["whole", "piece"])
    whole = assistant.watch(root / "clip0.mp4").tokens
    piece = assistant.watch(root / "clip0.mp4", start_s=0.25, end_s=0.75).tokens
    torch.testing.assert_close(whole.half(), cache["whole"])
    torch.testing.assert_close(piece.half(), cache["piece"])
    assert not torch.equal(whole, piece)


def test_a_strangers_video_is_decoded_elsewhere_to_the_same_tokens(root, assistant):
    here = assistant.watch(root / "clip1.mp4").tokens
    assert assistant.watch(root / "clip1.mp4", untrusted=True).tokens.equal(here)
    with pytest.raises(VideoReadError, match=r"broken\.mp4"):
        assistant.watch(root / "broken.mp4", untrusted=True)


def test_a_merged_model_says_the_same(root, assistant):
    merge(root / "model", root / "merged")
    whole = sefar_mllm.from_pretrained(root / "merged", device="cpu")
    whole.limits = assistant.limits
    probs = [a.watch(root / "clip0.mp4").option_probs(["a", "b"]) for a in (assistant, whole)]
    assert probs[0] == pytest.approx(probs[1], abs=1e-4)
    spoken = [a.watch(root / "clip0.mp4").answer("What is this?") for a in (assistant, whole)]
    assert spoken[0] == spoken[1] != ""


def test_an_encoder_of_other_weights_cannot_be_talked_with(root, tmp_path):
    other = make_encoder(tmp_path / "encoder", 1)
    with pytest.raises(CacheError, match=f"{other}.*digest"):
        sefar_mllm.from_pretrained(root / "model", encoder_dir=other, device="cpu")


def test_a_conversation_through_a_pipe(root, assistant, capsys, monkeypatch):
    typed = [
        "What is this?",
        f"/video {root}/clip0.mp4",
        "What is this?",
        "/options salto forward|stalder",
        f"/video {root}/broken.mp4",
        "And why?",
        "/adapter off",
        "Who are you?",
        "/quit",
        "never asked",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(typed)))
    chat = Chat(assistant)
    assert talk(chat) == 2
    said = capsys.readouterr().out
    assert "error: there is no video yet" in said and "%  stalder" in said
    assert "error: " in said and "broken.mp4" in said
    assert [turn.user for turn in chat.conversation.turns] == [typed[2], typed[5], typed[7]]


def test_a_file_that_kills_or_hangs_its_process_harms_no_other(monkeypatch):
    names = ("exit", "sound", "abort", "hang", "well")
    monkeypatch.setattr(safe_video, "_confined", poisoned_frames)
    let_a_day_pass, found = passing_hours(monkeypatch), {}
    video_clips = [VideoClip(path=Path(f"{name}.mp4")) for name in names]
    for video_clip, frames in read_frames_apart(video_clips, MOMENTS, workers=2, patience_s=3600.0):
        found[video_clip.path.stem] = str(frames) if isinstance(frames, VideoReadError) else frames
        if len(found) == len(names) - 1:
            let_a_day_pass()
    assert found["sound"].shape == found["well"].shape == (8, 2, 2, 3)
    assert found["exit"].startswith("cannot decode exit.mp4: ") and "exit code 3" in found["exit"]
    assert "SIGABRT" in found["abort"] and "no progress for 3600 s" in found["hang"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory is taken")
def test_a_decoder_gets_no_more_memory_than_it_may_take():
    code = (
        "from sefar_mllm.chat.safe_video import limit_memory\n"
        "import numpy as np\n"
        "limit_memory()\nlimit_memory()\n"
        "np.zeros(2**30, np.uint8)\n"
        "try:\n    np.zeros(5 * 2**29, np.uint8)\n"
        "except MemoryError:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


@pytest.mark.videos
@pytest.mark.skipif(not FILES, reason="SEFAR_VIDEOS_DIR")
def test_every_damaged_file_gives_an_answer_or_one_line(assistant):
    found = dict(assistant.encode_videos([VideoClip(path=path) for path in FILES]))
    assert len(found) == len(FILES)
    said = {f.path.name: str(t) for f, t in found.items() if isinstance(t, VideoReadError)}
    assert {"zero.mp4", "text.mp4", "audio_only.mp4", "decord_corrupted.mp4"} <= said.keys()
    assert all(name in line and "\n" not in line for name, line in said.items())
    seen = {video_clip.path.name: tokens for video_clip, tokens in found.items()}
    assert not {"one.mp4", "odd.mp4", "vfr.mp4", "torchcodec_av1_video.mkv"} & said.keys()
    assert assistant.begin(seen["one.mp4"]).answer("What is this?")


@pytest.mark.slow
def test_the_script_answers_a_file_and_goes_on(root, tmp_path):
    lines = [
        {"video": "clip0.mp4", "question": "Which move is this?"},
        {"id": "lost", "video": "late.mp4", "question": "Which?", "options": ["salto", "stalder"]},
        {"video": "clip1.mp4", "question": "And what about this?"},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ("chat.py", "--batch", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl",
               "--video-root", tmp_path, "--model", root / "model")  # fmt: skip
    for number in range(2):
        os.link(root / f"clip{number}.mp4", tmp_path / f"clip{number}.mp4")
    first = run_script(*command)
    assert first.returncode == 1 and "question lost: " in first.stdout, first.stderr
    assert "2 of 3 questions are answered" in first.stdout
    os.link(root / "clip1.mp4", tmp_path / "late.mp4")
    second = run_script(*command)
    assert second.returncode == 0 and "3 of 3" in second.stdout, second.stderr
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in found] == ["1", "lost", "3"]
    assert found[1]["answer"] in lines[1]["options"] and len(found[1]["probs"]) == 2


@pytest.mark.slow
def test_the_script_talks_and_refuses(root):
    command = ("chat.py", root / "clip0.mp4", "--model", root / "model", "--max-new-tokens", 4)
    asked = ("Which move is this?", "/options salto|stalder", "/nonsense")
    done = run_script(*command, "--question", *asked)
    assert done.stdout.count("%") == 2 and "no command /nonsense" in done.stdout, done.stderr
    assert done.returncode == 1
    refused = run_script("chat.py", root / "broken.mp4", "--model", root / "model")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("error: ")
    torn = run_script("chat.py", "--model", root / "model", "--batch", root / "in.jsonl")
    assert torn.returncode != 0 and "--batch and --out go together" in torn.stderr
