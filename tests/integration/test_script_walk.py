"""Every script, given what clumsy users give: one line and an exit code, never a traceback."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qa_data.manifest import Clip, write_manifest
from sefar_core.checkpoint import build_model, save_encoder
from sefar_core.config import ModelConfig
from tests.script_process import (
    LIMIT_S,
    ROOT,
    call_script,
    environment,
    read_until,
    run_script,
    script,
    started,
)

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
SCRIPTS += ["../demo/backbone.py", "../demo/llm.py"]

# Arguments with an input {in}, which is wrong, and an output {out}, which nothing reaches.
READING = {
    "build_gym_qa.py": "--manifest {in} --distractors prior --out {out}",
    "chat.py": "--model {in} --question why",
    "check_videos.py": "--manifest {in} --video-root {folder}",
    "compare_encoders.py": "demo --manifest {in} --video-root {folder} --questions {in} "
    "--sefar {in} --out {out}",
    "convert_checkpoint.py": "from-public {in} {out}",
    "evaluate_mllm.py": "--model {in} --encoder-features {in} --questions {in} --out {out}",
    "evaluate_ssl.py": "--run-dir {in} --manifest {in} --video-root {folder}",
    "export_questions.py": "--questions {in} --format llava --out {out}",
    "extract_features.py": "--manifest {in} --video-root {folder} --encoder sefar "
    "--encoder-dir {in} --out {out}",
    "finetune_mllm.py": "demo --encoder-features {in} --questions {in} --run-dir {out}",
    "fit_probe.py": "--features {in} --manifest {in} --out {out}",
    "make_splits.py": "folders --root {in} --video-root {in} --out {out}",
    "merge_mllm.py": "{in} --out {out}",
    "report.py": "--out {in}",
    "train_ssl.py": "demo --manifest {in} --video-root {folder} --run-dir {out}",
    "trim_finegym.py": "--video-root {folder} --out {out} --lists {in} --annotations {in}",
}
MAKING = ("demo.py", "../demo/backbone.py", "../demo/llm.py", "make_synthetic_gym.py")

# Arguments with an output {bad} that cannot be written; inputs are missing where the output is
# looked at first.
WRITING = {
    name: words.replace("{in}", "{none}").replace("{out}", "{bad}")
    for name, words in READING.items()
} | {
    **dict.fromkeys([*MAKING, "report.py"], "--out {bad}"),
    "chat.py": "--model {none} --batch {none} --out {bad}",
    "check_videos.py": "--manifest {manifest} --video-root {folder} --table {bad}",
    "evaluate_ssl.py": "--run-dir {bad} --manifest {manifest} --video-root {folder}",
    "extract_features.py": "--manifest {manifest} --video-root {folder} --encoder random "
    "--encoder-dir {encoder} --out {bad}",
    "make_splits.py": "folders --root {classes} --video-root {classes} --out {bad}",
    "train_ssl.py": "demo --manifest {manifest} --video-root {folder} --run-dir {bad} "
    "--warmup-epochs 24",
}
# Training says it with the code of a failed run: which process may write is known by then.
LATE = {"extract_features.py", "train_ssl.py"}

OUT_OF_RANGE = [
    ("build_gym_qa.py", "--out {out} --manifest {none} --options 1"),
    ("chat.py", "--model {none} --batch-size 0"),
    ("check_videos.py", "--manifest {none} --video-root {folder} --patience-s nan"),
    ("compare_encoders.py", READING["compare_encoders.py"] + " --jobs 0"),
    ("demo.py", "--epochs 0"),
    ("evaluate_mllm.py", READING["evaluate_mllm.py"] + " --batch-size 0"),
    ("evaluate_ssl.py", READING["evaluate_ssl.py"] + " --views 0"),
    ("evaluate_ssl.py", READING["evaluate_ssl.py"] + " --crops 2"),
    ("evaluate_ssl.py", READING["evaluate_ssl.py"] + " --workers -1"),
    ("extract_features.py", READING["extract_features.py"] + " --grid 0"),
    ("finetune_mllm.py", READING["finetune_mllm.py"] + " --micro-batch-size 0"),
    ("fit_probe.py", READING["fit_probe.py"] + " --max-steps 7"),
    ("../demo/backbone.py", "--out {out} --workers 0"),
    ("../demo/llm.py", "--out {out} --lr 0"),
    ("make_splits.py", "folders --root {classes} --video-root {classes} --out {out} --rate 2"),
    ("make_synthetic_gym.py", "--out {out} --workers -1"),
    ("report.py", "--out {none} --samples 0"),
    ("train_ssl.py", READING["train_ssl.py"] + " --batch-size 3 --micro-batch-size 2"),
    ("train_ssl.py", READING["train_ssl.py"] + " --seed 1e20"),
    ("trim_finegym.py", READING["trim_finegym.py"] + " --workers -1"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("walk")
    clips = [Clip(id="a", path="a.mp4", label=0, split="labeled")]
    write_manifest(clips, folder / "manifest.csv")
    for name in ("empty", "classes/jump"):
        (folder / name).mkdir(parents=True)
    (folder / "classes/jump/1.mp4").write_bytes(b"not opened")
    (folder / "garbage").write_text("hello\n")
    config = ModelConfig(image_size=32, dim=16, depth=1, num_heads=2, fusion_dim=8)
    save_encoder(build_model(config, 2), config, folder / "encoder")
    return {
        "none": folder / "nothing",
        "folder": folder / "empty",
        "garbage": folder / "garbage",
        "manifest": folder / "manifest.csv",
        "encoder": folder / "encoder",
        "classes": folder / "classes",
        "out": folder / "out",
    }


@pytest.fixture
def run(places):
    """A function: script, arguments and what else they name -> exit code and stderr."""

    def run(name: str, arguments: str, **named: object) -> tuple[int, str]:
        # Paths may hold blanks, so that arguments are split first.
        words = [word.format(**places, **named) for word in arguments.split()]
        done = call_script(name, *words, columns=1000)
        return done.returncode, done.stderr

    return run


def lines(told: str) -> list[str]:
    """Lines of stderr, of tyro's message the one in its frame."""
    framed = [line.strip("│ ") for line in told.splitlines() if "Error parsing" in line]
    return framed or told.splitlines()


def test_no_script_is_left_out():
    assert READING.keys() | MAKING == set(SCRIPTS)
    without_numbers = {"convert_checkpoint.py", "export_questions.py", "merge_mllm.py"}
    assert {name for name, _ in OUT_OF_RANGE} | without_numbers == set(SCRIPTS)


@pytest.mark.parametrize("kind", ["none", "folder", "garbage"])
@pytest.mark.parametrize("name", READING)
def test_inputs_that_are_missing_a_folder_or_nonsense_are_named_in_a_line(run, places, name, kind):
    code, told = run(name, READING[name], **{"in": places[kind]})
    assert code == (2 if name in {"check_videos.py"} or is_output(name, kind) else 1)
    assert len(lines(told)) == 1 and told.startswith("error: ")
    assert str(places[kind].parent) in told or "ffmpeg" in told
    assert not places["out"].exists()


def is_output(name: str, kind: str) -> bool:
    """Of report.py the folder of the demo is both input and output."""
    return name == "report.py" and kind == "garbage"


@pytest.mark.parametrize("bad", ["/proc/x", "/dev/full"])
@pytest.mark.parametrize("name", WRITING)
def test_outputs_that_cannot_be_written_are_refused_before_the_work(run, name, bad):
    code, told = run(name, WRITING[name], bad=bad)
    existing = name == "convert_checkpoint.py" and bad == "/dev/full"
    assert code == (1 if name in LATE or existing else 2)
    assert len(lines(told)) == 1 and told.startswith("error: ")
    assert bad.split("/")[2] in told
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(("name", "arguments"), OUT_OF_RANGE)
def test_settings_out_of_range_are_refused_by_name_before_the_work(run, places, name, arguments):
    code, told = run(name, arguments, **{"in": places["none"]})
    assert code == (1 if name in {"build_gym_qa.py", "make_splits.py"} else 2)
    (line,) = lines(told)
    setting = re.findall(r"--([\w.-]+) [\w.-]+$", arguments)[0].split(".")[-1].rstrip("s")
    assert setting in line or setting.replace("-", "_") in line, line
    assert not places["out"].exists()


SLOW_IMPORTS = [
    ("evaluate_mllm.py", "torch.autograd"),
    ("train_ssl.py", "numpy._core.multiarray"),
    ("extract_features.py", "torch"),
]


# Runs a script that waits where it imports the named module; of sefar_core.cli, right behind it.
WAITING = """
import runpy, sys, time

class Wait:
    def find_spec(self, name, *_):
        cli = sys.modules.get("sefar_core.cli")
        behind_cli = cli is not None and not cli.__spec__._initializing
        if behind_cli if module == "sefar_core.cli" else name == module:
            sys.meta_path.remove(self)
            print("waits", file=sys.stderr, flush=True)
            time.sleep(600)

module, *sys.argv = sys.argv[1:]
sys.meta_path.insert(0, Wait())
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "module"), [*((name, "sefar_core.cli") for name in SCRIPTS), *SLOW_IMPORTS]
)
def test_ctrl_c_while_a_script_starts_is_one_line(name, module):
    arguments = READING.get(name, "").format(**dict.fromkeys(("in", "folder", "out"), "/none"))
    command = [sys.executable, "-c", WAITING, module, *script(name, arguments.split())[1:]]
    with started(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE) as process:
        read_until(process.stderr, "waits\n")
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, told) == (130, b"interrupted\n")


@pytest.mark.slow
def test_a_reader_that_ends_early_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        done = run_script("make_splits.py", "--help", stdout=pipe)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_a_full_disk_for_the_output_is_one_line():
    with open("/dev/full", "wb") as full:
        done = run_script("make_splits.py", "--help", stdout=full)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr and len(lines(done.stderr)) == 1
