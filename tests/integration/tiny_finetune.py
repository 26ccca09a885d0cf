"""A fine-tuning small enough for a test, in processes of its own, with faults to order.

    python tests/integration/tiny_finetune.py '{"world": ..., "run_dir": ..., "changes": {...}}'

What the script finetune_mllm.py does with the same settings, so its messages and exit codes too.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from sefar_core.cli import one_line  # noqa: E402

from sefar_mllm.config import FinetuneConfig, LoraSettings  # noqa: E402
from tests.script_process import LIMIT_S, started  # noqa: E402

NUM_QUESTIONS = 22  # no multiple of a step's 4: the last step of an epoch is filled up
CONFIG = FinetuneConfig(
    lora=LoraSettings(rank=2, alpha=4.0, dropout=0.1, lr=1e-2),
    projector_lr=1e-2,
    projector_epochs=1,
    epochs=2,
    batch_size=4,
    micro_batch_size=2,
    warmup=0.0,
    answer_style="mixed",
    token_noise=0.1,
    dev_rate=0.3,
    save_every_steps=1,
)


def make_world(root: Path) -> Path:
    """A language model, questions and the tokens of their clips."""
    from qa_data.questions import write_questions
    from tests.oracles import toy_llm

    asked = toy_llm.questions(NUM_QUESTIONS)
    write_questions(asked, root / "questions.jsonl")
    toy_llm.language_model(root / "llm")
    toy_llm.cache(root / "tokens", asked)
    return root


def settled(world: Path, changes: dict) -> FinetuneConfig:
    """The settings with what a test changes in them."""
    if "lora" in changes:
        changes = {**changes, "lora": LoraSettings(**changes["lora"])}
    return replace(CONFIG, language_model=str(world / "llm"), **changes)


def start(ranks: int = 1, **wishes) -> AbstractContextManager[subprocess.Popen]:
    """Run this program in as many processes; its output is one text."""
    launch, surroundings = [sys.executable], {"HF_HUB_OFFLINE": "1"}
    if wishes.get("sharded"):
        surroundings |= shipped_fsdp()
    if ranks > 1:
        surroundings["ACCELERATE_USE_CPU"] = "true"
        launch += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
        launch += ["--num_processes", str(ranks), "--mixed_precision", "no"]
        launch += ["--dynamo_backend", "no", "--main_process_port", "0"]
    return started(
        [*launch, __file__, json.dumps(wishes, default=str)],
        env=os.environ | surroundings,  # as many threads as the test has, so the same sums
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(ranks: int = 1, **wishes) -> tuple[int, str]:
    """Exit code and output; processes that wait for one another forever are ended."""
    with start(ranks, **wishes) as process:
        output, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, output


def shipped_fsdp() -> dict[str, str]:
    """What `accelerate launch` tells its processes of scripts/accelerate/fsdp2.yaml."""
    shipped = yaml.safe_load((ROOT / "scripts/accelerate/fsdp2.yaml").read_text())
    names = {"FSDP_TRANSFORMER_LAYER_CLS_TO_WRAP": "FSDP_TRANSFORMER_CLS_TO_WRAP"}
    message = {name.upper(): str(value) for name, value in shipped["fsdp_config"].items()}
    return {names.get(name, name): value for name, value in message.items()} | {
        "ACCELERATE_USE_FSDP": "true"
    }


def shard_on_cpus() -> None:
    """Let accelerate take processes on CPUs for processes on GPUs: on others it never shards."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    start = PartialState.__init__

    def started(state, *parts, **named):
        start(state, *parts, **named)
        if state.distributed_type == DistributedType.MULTI_CPU:
            state.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = started


def disturb(wishes: dict) -> None:
    """Faults to order, by the number of micro-batches before.

    `nan_at` [micro-batch, rank], `signal_at` [micro-batch, rank, name], `pause_s` each, `sgd`,
    `sharded`.
    """
    import torch

    if wishes.get("sharded"):
        shard_on_cpus()

    from sefar_mllm import stages

    rank, seen = int(os.environ.get("RANK", "0")), []
    whole = stages.QuestionTrainer.compute_loss

    def loss(trainer, *parts, **named):
        seen.append(1)
        time.sleep(wishes.get("pause_s", 0))
        if wishes.get("signal_at", [None])[:2] == [len(seen), rank]:
            os.kill(os.getpid(), signal.Signals[wishes["signal_at"][2]])
        found = whole(trainer, *parts, **named)
        return found * torch.nan if wishes.get("nan_at") == [len(seen), rank] else found

    stages.QuestionTrainer.compute_loss = loss
    if wishes.get("sgd"):
        torch.optim.AdamW = lambda groups, weight_decay: torch.optim.SGD(groups)


def run_here(world: Path, run_dir: Path, changes: dict, **settings) -> None:
    """What the script does with these settings, in this process."""
    specification = importlib.util.spec_from_file_location("t", ROOT / "scripts/finetune_mllm.py")
    script = importlib.util.module_from_spec(specification)
    sys.modules["t"] = script
    specification.loader.exec_module(script)
    script.main(
        script.FinetuneMllm(
            encoder_features=world / "tokens",
            questions=(world / "questions.jsonl",),
            run_dir=run_dir,
            config=settled(world, changes),
            **settings,
        )
    )


def main(argument: str) -> None:
    import torch

    wishes = json.loads(argument)
    disturb(wishes)
    with one_line(1):
        run_here(Path(wishes["world"]), Path(wishes["run_dir"]), wishes.get("changes", {}))
    assert not torch.distributed.is_initialized()


if __name__ == "__main__":
    main(sys.argv[1])
