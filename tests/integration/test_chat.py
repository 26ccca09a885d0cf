"""From the folder of a run to answers, and what a stranger wrote into files never reaches the
terminal as it is."""

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
from qa_data.manifest import Clip, read_manifest
from sefar_core.checkpoint import build_model, save_encoder
from sefar_core.data.video import VideoReadError
from sefar_mllm.adapters import add_adapters
from sefar_mllm.build import build_vlm, load_tokenizer
from sefar_mllm.chat import safe_video
from sefar_mllm.chat.assistant import Assistant
from sefar_mllm.chat.cli import Chat, talk
from sefar_mllm.chat.safe_video import VideoClip, read_frames_apart
from sefar_mllm.checkpoint import merge, save_trained
from sefar_mllm.config import ChatLimits
from sefar_mllm.encoders import ENCODERS
from sefar_mllm.feature_cache import CacheError, TokenCache
from sefar_mllm.features import extract, token_key
from tests.oracles.poison import passing_hours, poisoned_frames
from tests.script_process import LIMIT_S, call_script
from tests.world import MODEL

REAL = Path(os.environ.get("SEFAR_VIDEOS_DIR", "."))
FILES = [path for path in sorted(REAL.rglob("*.*")) if path.is_file() and REAL != Path(".")]
MOMENTS = tuple((n + 0.5) / 8 for n in range(8))
ESCAPE = "\x1b[2J\x9b31m"


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """On a machine under load a video may take longer than a chat waits for it."""
    wait = partial(read_frames_apart, patience_s=LIMIT_S)
    monkeypatch.setattr("sefar_mllm.chat.assistant.read_frames_apart", wait)


@pytest.fixture(scope="module")
def model(world, tmp_path_factory) -> Path:
    """A model of the world's recognizer that talks, its projector and adapter far from a start."""
    encoder = ENCODERS["sefar"](world.recognizer)
    known = {"key": token_key(encoder, 2), "origin": encoder.origin}
    base = world.language_model
    vlm = build_vlm(base, token_dim=encoder.dim, token_shape=(8, 2, 2), encoder=known)
    adapted = add_adapters(vlm, rank=2, alpha=4.0, dropout=0.0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.5 * torch.randn(parameter.shape))
    folder = tmp_path_factory.mktemp("talking") / "model"
    save_trained(adapted.eval(), load_tokenizer(base), folder)
    return folder


@pytest.fixture(scope="module")
def clips(world) -> list[Clip]:
    """Test clips, which no training saw."""
    return [c for c in read_manifest(world.gym / "manifest.csv") if c.split == "test"]


@pytest.fixture(scope="module")
def videos(world, clips, tmp_path_factory) -> Path:
    """Two videos, and one that is cut off."""
    folder = tmp_path_factory.mktemp("chat")
    for number in range(2):
        os.link(world.gym / "videos" / clips[number].path, folder / f"clip{number}.mp4")
    (folder / "broken.mp4").write_bytes((folder / "clip0.mp4").read_bytes()[:700])
    return folder


@pytest.fixture(scope="module")
def assistant(model):
    assistant = sefar_mllm.from_pretrained(model, device="cpu")
    assistant.limits = ChatLimits(max_new_tokens=8)
    return assistant


def test_three_lines_from_a_folder_to_an_answer(model, videos):
    assistant = sefar_mllm.from_pretrained(str(model))
    conversation = assistant.watch(str(videos / "clip0.mp4"))
    assert conversation.answer("Which move is this?") == conversation.turns[0].assistant != ""


def test_a_chat_sees_the_tokens_that_training_saw(world, clips, videos, assistant, tmp_path):
    whole = assistant.watch(videos / "clip0.mp4").tokens
    torch.testing.assert_close(whole.half(), TokenCache(world.tokens, [clips[0].id])[clips[0].id])
    piece = Clip(id="piece", path="clip0.mp4", split="test", start_s=0.25, end_s=0.75)
    extract([piece], videos, assistant.encoder, tmp_path)
    seen = assistant.watch(videos / "clip0.mp4", start_s=0.25, end_s=0.75).tokens
    torch.testing.assert_close(seen.half(), TokenCache(tmp_path, ["piece"])["piece"])
    assert not torch.equal(whole, seen)


def test_a_strangers_video_is_decoded_elsewhere_to_the_same_tokens(videos, assistant):
    here = assistant.watch(videos / "clip1.mp4").tokens
    assert assistant.watch(videos / "clip1.mp4", untrusted=True).tokens.equal(here)
    with pytest.raises(VideoReadError, match=r"broken\.mp4"):
        assistant.watch(videos / "broken.mp4", untrusted=True)


def test_a_merged_model_says_the_same(model, videos, assistant, tmp_path):
    merge(model, tmp_path / "merged")
    whole = sefar_mllm.from_pretrained(tmp_path / "merged", device="cpu")
    whole.limits = assistant.limits
    one, other = (a.watch(videos / "clip0.mp4") for a in (assistant, whole))
    assert one.option_probs(["a", "b"]) == pytest.approx(other.option_probs(["a", "b"]), abs=1e-4)
    assert one.answer("What is this?") == other.answer("What is this?") != ""


def test_an_encoder_of_other_weights_cannot_be_talked_with(model, tmp_path):
    torch.manual_seed(1)
    save_encoder(build_model(MODEL, 12), MODEL, tmp_path)
    with pytest.raises(CacheError, match=f"{tmp_path}.*digest"):
        sefar_mllm.from_pretrained(model, encoder_dir=tmp_path, device="cpu")


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


def test_the_script_answers_a_file_and_resumes(model, videos, tmp_path):
    lines = [
        {"video": "clip0.mp4", "question": "Which move is this?"},
        {"id": f"lost{ESCAPE}", "video": f"{ESCAPE}.mp4", "question": "Which?",
         "options": ["salto", "stalder"]},
        {"video": "clip1.mp4", "question": "And what about this?"},
    ]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for number in range(2):
        os.link(videos / f"clip{number}.mp4", tmp_path / f"clip{number}.mp4")
    command = ("chat.py", "--batch", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl",
               "--video-root", tmp_path, "--model", model, "--max-new-tokens", 4)  # fmt: skip
    first = call_script(*command)
    assert first.returncode == 1 and "2 of 3 questions are answered" in first.stdout, first.stderr
    assert "question lost[2J31m: " in first.stdout and "[2J31m.mp4" in first.stdout
    assert "\x1b" not in first.stdout and "\x9b" not in first.stdout
    os.link(videos / "clip1.mp4", tmp_path / f"{ESCAPE}.mp4")
    second = call_script(*command)
    assert second.returncode == 0 and "3 of 3" in second.stdout, second.stderr
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in found] == ["1", lines[1]["id"], "3"]
    assert found[1]["answer"] in lines[1]["options"] and len(found[1]["probs"]) == 2
    third = call_script(*command[:-1], 5)  # tokens; what answers depend on is beside them
    assert third.returncode == 1 and "out.jsonl" in third.stderr


def test_the_script_talks_and_refuses(model, videos):
    command = ("chat.py", videos / "clip0.mp4", "--model", model, "--max-new-tokens", 4)
    asked = ("Which move is this?", "/options salto|stalder", "/nonsense")
    done = call_script(*command, "--question", *asked)
    assert done.stdout.count("%") == 2 and "no command /nonsense" in done.stdout, done.stderr
    assert done.returncode == 1
    typed = call_script(*command, stdin="Which move is this?\n/quit\n")
    assert typed.returncode == 0 and typed.stdout.splitlines()[0] == done.stdout.splitlines()[0]
    refused = call_script("chat.py", videos / "broken.mp4", "--model", model)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("error: ")
    torn = call_script("chat.py", "--model", model, "--batch", videos / "in.jsonl")
    assert torn.returncode != 0 and "--batch and --out go together" in torn.stderr


@pytest.fixture
def nobody(monkeypatch):
    """An assistant that is loaded with the settings of a command, and answers nothing."""
    made = Assistant.__new__(Assistant)

    def load(folder, **how):
        made.asked = how
        return made

    monkeypatch.setattr(sefar_mllm, "from_pretrained", load, raising=False)
    return made


def test_settings_are_passed_on(nobody, model):
    call_script("chat.py", "--model", model, "--four-bit", "--compiled", "--max-turns", 3)
    assert nobody.asked["four_bit"] and nobody.compiled and nobody.limits.max_turns == 3


@pytest.mark.parametrize(
    ("video", "out", "expected"),
    [
        (f"{ESCAPE}/../../b.mp4", "out.jsonl", "leads out of --video-root"),
        ("b.mp4", "in.jsonl", "in.jsonl"),
        ("b.mp4", "missing/out.jsonl", "missing/out.jsonl"),
    ],
)
def test_a_batch_that_cannot_be_is_refused_before_the_model_is_loaded(
    nobody, model, tmp_path, video, out, expected
):
    line = {"id": f"a{ESCAPE}", "video": video, "question": "Why?"}
    (tmp_path / "in.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "missing").touch()
    done = call_script(
        "chat.py", "--batch", tmp_path / "in.jsonl", "--out", tmp_path / out,
        "--video-root", tmp_path, "--model", model,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    (said,) = done.stderr.splitlines()
    assert said.startswith("error: ") and expected in said and "delete" not in said
    assert "\x1b" not in said and "\x9b" not in said
    assert json.loads((tmp_path / "in.jsonl").read_text()) == line


def test_a_conversation_through_a_pipe(videos, assistant, capsys, monkeypatch):
    typed = [
        "What is this?",
        f"/video {videos}/clip0.mp4",
        "What is this?",
        "/options salto forward|stalder",
        f"/video {videos}/broken.mp4",
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


@pytest.mark.slow
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
