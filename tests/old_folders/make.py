"""Make folders.tar.xz, public.tar.xz and expected.json: what users of commit 2d0ecd3 have on disk.

Run it with the code of that commit on PYTHONPATH; it refuses any other:

    git worktree add ../at2d0ecd3 2d0ecd3
    PYTHONPATH=../at2d0ecd3 OMP_NUM_THREADS=1 .venv/bin/python tests/old_folders/make.py

The scripts of that commit run as a user runs them, in a temporary folder and with relative paths,
so that no path of the machine gets into the files. Needs the program ffmpeg.
tests/integration/test_old_folders.py reads the result with the present code.
"""

import contextlib
import json
import math
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import sefar_core
from sefar_core import train
from sefar_core.checkpoint import build_model, save_encoder
from sefar_core.config import ModelConfig
from sefar_core.data import readers, torchcodec_reader, video
from sefar_mllm.demo.tokenizer import make_tokenizer
from sefar_mllm.encoders.probe import read_probe
from sefar_mllm.folders.checkpoint import load_tokenizer
from sefar_mllm.training import stage
from tests.oracles import finegym_lists, image_folders
from tests.oracles.videos import numbered_frames, write_video

COMMIT = "2d0ecd3"
CODE = Path(sefar_core.__file__).parents[1]
HERE = Path(__file__).resolve().parent
MADE_AT = 1_700_000_000  # frame caches know a video by its time, too; archives keep whole seconds
NUM_CLASSES = 6
STOP_STEP, STOP_MICRO = 5, 10  # in the middle of an epoch with a teacher, and of the joint stage

RECOGNIZER = (
    *("--model.image-size", 16, "--model.patch-size", 8, "--model.dim", 8, "--model.depth", 2),
    *("--model.num-heads", 2, "--model.fusion-dim", 8, "--model.pretrained", "None"),
    *("--data.short-side", 16, 18, "--teacher.dropout-passes", 3, "--teacher.ema-decay", 0.5),
    *("--unlabeled-per-labeled", 1, "--batch-size", 4, "--micro-batch-size", 2),
    *("--epochs", 3, "--warmup-epochs", 1, "--save-every-epochs", 1),
    *("--mixed-precision", "no", "--optim.lr", 0.005),
)
FINETUNE = (
    *("--language-model", "llm", "--lora.rank", 2, "--lora.alpha", 4, "--lora.dropout", 0.1),
    *("--lora.lr", 0.01, "--projector-lr", 0.01),
    *("--projector-epochs", 1, "--epochs", 2, "--batch-size", 4, "--micro-batch-size", 2),
    *("--answer-style", "mixed", "--token-noise", 0.1, "--dev-rate", 0.3),
    *("--save-every-steps", 1),
)
DATA = ("--manifest", "splits/manifest.csv", "--video-root", "gym/videos")
QUESTIONS = ("--encoder-features", "tokens/sefar", "--questions")


def main() -> None:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=CODE, capture_output=True, text=True, check=True,
    )  # fmt: skip
    if told.stdout.strip() != COMMIT:
        raise SystemExit(f"{CODE} is at {told.stdout.strip()}, not at {COMMIT}: set PYTHONPATH")
    expected: dict = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make_inputs()
        expected["ssl"] = train_recognizers()
        expected["public"] = make_public()
        make_tokens()
        expected["probe"] = make_probe()
        expected["mllm"] = finetune()
        export()
        trim()
        for lock in Path().rglob("lock"):
            lock.write_text("process 4711 on another-machine\n")
        pack(HERE / "public.tar.xz", ["public.pyth"])
        Path("public.pyth").unlink()
        pack(HERE / "folders.tar.xz", sorted(path.name for path in Path().iterdir()))
    text = json.dumps(expected, indent=1) + "\n"
    (HERE / "expected.json").write_text(text, encoding="utf-8")


def script(name: str, *arguments: object) -> None:
    """Run a script of the commit in this process."""
    before = sys.argv
    sys.argv = [str(CODE / "scripts" / f"{name}.py"), *map(str, arguments)]
    print("$", name, *sys.argv[1:], flush=True)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        sys.argv = before


@contextlib.contextmanager
def stopped(owner: object, name: str, calls: int) -> Iterator[None]:
    """SIGTERM comes in a call of a function: the script saves its state and ends with 143."""
    whole: Callable = getattr(owner, name)
    seen: list[int] = []

    def told(*parts, **named):
        seen.append(1)
        if len(seen) == calls:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(*parts, **named)

    setattr(owner, name, told)
    try:
        yield
    except SystemExit as end:
        assert end.code == 143, end.code
    else:
        raise AssertionError("the script was not stopped")
    finally:
        setattr(owner, name, whole)


def make_inputs() -> None:
    """Lists, videos, splits, questions, and a language model."""
    for place in ("gym/videos", "runs"):
        Path(place).mkdir(parents=True)
    rows = [(label, 21, "FX", f"move {label}") for label in range(NUM_CLASSES)]
    Path("gym/categories.txt").write_text(finegym_lists.category_list(rows), encoding="utf-8")
    for name, sources in {"train": range(5), "val": range(5, 7)}.items():
        lines = [
            f"source{source:05d}_E_000001_000090_A_{label:04d}_{label + 1:04d} {label}"
            for source in sources
            for label in range(NUM_CLASSES)
        ]
        Path(f"gym/{name}_element.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for number, line in enumerate(lines):
            clip_id, label = line.split()
            path = write_video(Path(f"gym/videos/{clip_id}.mp4"), picture(int(label), number))
            os.utime(path, (MADE_AT, MADE_AT))
    script(
        "make_splits", "finegym", "--categories", "gym/categories.txt", "--out", "splits",
        "--train-list", "gym/train_element.txt", "--test-list", "gym/val_element.txt",
        "--video-root", "gym/videos", "--rate", 0.7, "--val-rate", 0.25,
    )  # fmt: skip
    script(
        "build_gym_qa", "--manifest", "splits/manifest.csv", "--categories", "gym/categories.txt",
        "--distractors", "public", "--out", "qa",
    )  # fmt: skip
    make_tokenizer(Path("llm"), size=640, seed=0)
    vocabulary = len(load_tokenizer("llm"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    marks = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = LlamaConfig(
        vocab_size=vocabulary, num_attention_heads=2, max_position_embeddings=512,
        initializer_range=0.3, **sizes, **marks,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())  # half of the bytes are 0 and take no room
    model.save_pretrained("llm")


def picture(label: int, number: int) -> np.ndarray:
    """Eight frames in the color of a class, in which a bright block moves."""
    frames = np.full((8, 24, 32, 3), 7 * number, np.uint8)
    frames[..., label % 3] = 120 + 20 * label
    for place, frame in enumerate(frames):
        frame[8:16, 3 * place : 3 * place + 8] = 255
    return frames


def train_recognizers() -> dict:
    """A run that was stopped, the same carried through, a rival, and one by reader torchcodec."""
    ours = ("demo", *DATA, *RECOGNIZER, "--run-dir")
    with stopped(train, "optimizer_step", STOP_STEP):
        script("train_ssl", *ours, "runs/stopped")
    shutil.copytree("runs/stopped", "runs/sefar")
    script("train_ssl", *ours, "runs/sefar")
    shutil.rmtree("runs/sefar/states")
    rival = ("--data.store", "jpeg", "--optim.kind", "sgd", "--keep-last", 1)
    script("train_ssl", "demo+supervised", *DATA, *RECOGNIZER, *rival, "--warmup-epochs", 3,
           "--run-dir", "runs/supervised")  # fmt: skip
    torchcodec_reader.check = lambda: None  # not installed, but auto reads the same frames
    readers.READERS["torchcodec"] = video.read_fractions
    other = ("--data.store", "none", "--data.reader", "torchcodec", "--keep-last", 1)
    with stopped(train, "optimizer_step", STOP_STEP):
        script("train_ssl", "demo", *DATA, *RECOGNIZER, *other, "--run-dir", "runs/torchcodec")
    assert metrics("runs/torchcodec") == metrics("runs/stopped")
    script(
        "evaluate_ssl", "--run-dir", "runs/sefar", *DATA, "--views", 2, "--crops", 1,
        "--categories", "gym/categories.txt",
    )  # fmt: skip
    for drawn in Path("runs/sefar/evaluation").rglob("*.png"):
        drawn.unlink()
    logits = {
        role: sefar_core.load_encoder(f"runs/sefar/{role}")(pattern()).tolist()
        for role in ("student", "teacher")
    }
    return {"logits": logits, "metrics": metrics("runs/sefar")}


def pattern() -> list[torch.Tensor]:
    """The elements of two clips, by arithmetic that is the same everywhere."""
    shapes = [(2, 3, frames, 16, 16) for frames in (2, 2, 4)]
    places = [torch.arange(math.prod(shape)).view(shape) for shape in shapes]
    return [2 * torch.sin((place**2 % 1009) / 50) for place in places]


def metrics(run_dir: str) -> list[dict]:
    lines = Path(run_dir, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def make_public() -> dict[str, float]:
    """A checkpoint for the public code, which has one size; every tensor holds one number."""
    config = ModelConfig(mean=(0.4, 0.5, 0.6))
    with torch.device("meta"):
        model = build_model(config, num_classes=NUM_CLASSES)
    model = model.to_empty(device="cpu")
    numbers = {}
    with torch.no_grad():
        for number, (name, parameter) in enumerate(model.named_parameters(), start=1):
            numbers[name] = number / 128
            parameter.fill_(number / 128)
    save_encoder(model, config, Path("large/student"))
    script("convert_checkpoint", "to-public", "large", "public.pyth")
    shutil.rmtree("large")
    return numbers


def make_tokens() -> None:
    script(
        "extract_features", *DATA, "--encoder", "sefar", "--encoder-dir", "runs/sefar",
        "--out", "tokens/sefar",
    )  # fmt: skip


def make_probe() -> list[list[float]]:
    """CLIP in miniature, its tokens, a probe of them, and the tokens that it maps."""
    image_folders.timm_folder(Path("clip"), "clip")
    weights = load_file("clip/model.safetensors")
    save_file({name: t.bfloat16().float() for name, t in weights.items()}, "clip/model.safetensors")
    with image_folders.published_in_miniature():
        script(
            "extract_features", *DATA, "--encoder", "clip", "--encoder-dir", "clip",
            "--out", "tokens/clip",
        )  # fmt: skip
        script(
            "fit_probe", "--features", "tokens/clip", "--manifest", "splits/manifest.csv",
            "--out", "runs/clip_probe", "--tokens-out", "tokens/clip_probe", "--max-steps", 25,
        )  # fmt: skip
    features = torch.sin(torch.arange(2 * 16) / 3).view(2, 16)
    return read_probe(Path("runs/clip_probe")).logits(features).tolist()


def finetune() -> dict:
    """A fine-tuning that was stopped, the same carried through, scored and merged."""
    asked = ("demo", *QUESTIONS, "qa/train.jsonl", *FINETUNE, "--run-dir")
    with stopped(stage.LessonTrainer, "compute_loss", STOP_MICRO):
        script("finetune_mllm", *asked, "runs/mllm-stopped")
    shutil.copytree("runs/mllm-stopped", "runs/mllm")
    script("finetune_mllm", *asked, "runs/mllm")
    shutil.rmtree("runs/mllm/checkpoints")
    script(
        "evaluate_mllm", "--model", "runs/mllm/model", *QUESTIONS, "qa/test.jsonl",
        "--out", "scores", "--train-questions", "qa/train.jsonl",
        "--manifest", "splits/manifest.csv", "--resamples", 100,
    )  # fmt: skip
    for drawn in Path("scores").rglob("*.png"):
        drawn.unlink()
    script("merge_mllm", "runs/mllm/model", "--out", "merged")
    return {"metrics": metrics("runs/mllm")}


def export() -> None:
    for form in ("llava", "card"):
        script(
            "export_questions", "--questions", "qa", "--format", form, "--video-root", "videos",
            "--manifest", "splits/manifest.csv", "--out", f"exported/{form}",
        )  # fmt: skip


def trim() -> None:
    """A clip that was cut out of a full video, and the ledger of it."""
    stages = [(0.2, 0.8)]
    routine = finegym_lists.Routine("full-video_", 2, 0.0, 1.9, [(stages, 0)])
    Path("full").mkdir()
    path = write_video(Path("full/full-video_.mp4"), numbered_frames(60), fps=30)
    os.utime(path, (MADE_AT, MADE_AT))
    Path("full.txt").write_text(finegym_lists.element_list([routine]), encoding="utf-8")
    Path("full.json").write_text(finegym_lists.annotation_json([routine]), encoding="utf-8")
    script(
        "trim_finegym", "--video-root", "full", "--out", "cut", "--lists", "full.txt",
        "--annotations", "full.json", "--workers", 1,
    )  # fmt: skip


def pack(archive: Path, names: list[str]) -> None:
    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        seconds = int(entry.mtime)
        return entry.replace(mtime=seconds, uid=0, gid=0, uname="", gname="", deep=False)

    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for name in names:
            packed.add(name, filter=plain)
    print(archive, archive.stat().st_size)


if __name__ == "__main__":
    main()
