"""Scripts in processes of their own, with faults to order.

The processes are forked from one that has imported everything, so that they start at once; several
are the ranks of one run, as `accelerate launch` starts them. Messages and exit codes are the
script's own. A fault comes at a moment of its process: the number of steps (train_ssl.py),
micro-batches (finetune_mllm.py) or videos (extract_features.py).
"""

import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
LIMIT_S = 600.0  # only a hang takes so long


@dataclass(frozen=True)
class Started:
    """The processes of a script, and the file with all that they print."""

    server: "Server"
    pids: list[int]
    printed: Path

    def wait(self) -> tuple[list[int], str]:
        """Exit codes by rank, minus the signal for one that was killed; and the output."""
        codes = [self.server.ask({"wait": pid}) for pid in self.pids]
        return codes, self.printed.read_text()

    def send(self, number: int) -> None:
        os.kill(self.pids[0], number)

    def wait_for(self, path: Path) -> None:
        """Until a file is there."""
        until = time.monotonic() + LIMIT_S
        while not path.exists():
            assert time.monotonic() < until, self.printed.read_text()
            time.sleep(0.01)


class Server:
    """The process that others are forked from."""

    def __init__(self, folder: Path):
        self.folder, self.number = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        )

    def ask(self, message: dict) -> int:
        print(json.dumps(message, default=str), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def start(self, script: str, *arguments: object, ranks: int = 1, **faults: object) -> Started:
        """Start a script, in one process or as the ranks of one run on CPUs."""
        self.number += 1
        printed = self.folder / f"{self.number}.txt"
        printed.touch()
        order = {"command": [script, *map(str, arguments)], "printed": printed, **faults}
        port = free_port()
        pids = [
            self.ask({**order, "environment": rank_environment(rank, ranks, port)})
            for rank in range(ranks)
        ]
        return Started(self, pids, printed)

    def run(self, script: str, *arguments: object, **how: Any) -> tuple[list[int], str]:
        """Start a script and wait for its end."""
        return self.start(script, *arguments, **how).wait()


@contextmanager
def server() -> Iterator[Server]:
    """A server; none of its children stays behind."""
    import psutil

    with TemporaryDirectory() as folder:
        here = Server(Path(folder))
        try:
            yield here
        finally:
            family = psutil.Process(here.process.pid).children(recursive=True)
            for process in [*family, here.process]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            here.process.communicate()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def rank_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What `accelerate launch` gives a process; nothing where there is only one."""
    if ranks == 1:
        return {}
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    return {name: str(number) for name, number in numbers.items()} | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "ACCELERATE_MIXED_PRECISION": "no",
    }


def options(config: Any, default: Any, prefix: str = "--") -> list[str]:
    """The options of a command line that turn the settings `default` into `config`."""
    words = []
    for field in fields(config):
        value, before = getattr(config, field.name), getattr(default, field.name)
        name = prefix + field.name.replace("_", "-")
        if is_dataclass(value):
            words += options(value, before, f"{name}.")
        elif value != before:
            assert value is not False, f"{name}: switching off is not needed yet"
            values: Sequence = () if value is True else value if type(value) is tuple else [value]
            words += [name, *map(str, values)]
    return words


def serve() -> None:
    """Fork a process for each order on stdin and print its id, or wait for one."""
    # ruff: noqa: F401 - imported once for all that are forked
    import peft
    import transformers.models.llama.modeling_llama

    import sefar_core.train
    import sefar_mllm.encoders
    import sefar_mllm.train

    sys.stdout.flush()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
        elif child := os.fork():
            print(child, flush=True)
        else:
            carry_out(order)


def carry_out(order: dict) -> None:
    """Run the script of an order as if it were started by itself."""
    null = os.open(os.devnull, os.O_RDONLY)
    printed = os.open(order["printed"], os.O_WRONLY | os.O_APPEND)  # ranks write into one file
    for number, place in enumerate((null, printed, printed)):
        os.dup2(place, number)
    os.environ |= order["environment"]
    script, *arguments = order["command"]
    {
        "train_ssl.py": disturb_training,
        "finetune_mllm.py": disturb_finetuning,
        "extract_features.py": disturb_extraction,
    }[script](order)
    sys.argv = [str(ROOT / "scripts" / script), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")
    import torch

    assert not torch.distributed.is_initialized() or script != "finetune_mllm.py"
    sys.exit()


def signal_at(order: dict, moment: int) -> None:
    """Send this process the signal of the order [moment, rank, name]."""
    rank = int(os.environ.get("RANK", "0"))
    if order.get("signal_at", [None])[:2] == [moment, rank]:
        os.kill(os.getpid(), signal.Signals[order["signal_at"][2]])


def is_nan_at(order: dict, moment: int) -> bool:
    """Whether the loss is to be no number: the order is [moment, rank]."""
    return order.get("nan_at") == [moment, int(os.environ.get("RANK", "0"))]


def disturb_training(order: dict) -> None:
    """`nan_at`, `signal_at`, `kill_loader_at` a step, `pause_s` in each.

    `backend`, no fault, makes torch.compile take less time and print its arguments.
    """
    import torch

    from sefar_core import train

    if "backend" in order:
        torch.compile = partial(reported_compile, torch.compile, order["backend"])
    whole_step, whole_micro, steps = train.optimizer_step, train.micro_step, []

    def step(loop, batches):
        steps.append(loop.step)
        time.sleep(order.get("pause_s", 0))
        signal_at(order, loop.step)
        if order.get("kill_loader_at") == loop.step:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        return whole_step(loop, batches)

    def micro(*parts):
        losses, report = whole_micro(*parts)
        if is_nan_at(order, steps[-1]):
            losses = losses._replace(supervised=losses.supervised * torch.nan)
        return losses, report

    train.optimizer_step, train.micro_step = step, micro


def reported_compile(compile, backend: str, call, **how):
    print(f"compiles with {how}")
    return compile(call, backend=backend, fullgraph=True, **how)


def disturb_finetuning(order: dict) -> None:
    """`nan_at`, `signal_at` a micro-batch, `pause_s` in each; `sgd` for AdamW; `sharded`."""
    import torch

    from sefar_mllm import stages

    if order.get("sharded"):
        shard_on_cpus()
    whole, seen = stages.QuestionTrainer.compute_loss, []

    def loss(trainer, *parts, **named):
        seen.append(1)
        time.sleep(order.get("pause_s", 0))
        signal_at(order, len(seen))
        found = whole(trainer, *parts, **named)
        return found * torch.nan if is_nan_at(order, len(seen)) else found

    stages.QuestionTrainer.compute_loss = loss
    if order.get("sgd"):
        torch.optim.AdamW = lambda groups, weight_decay: torch.optim.SGD(groups)


def shipped_fsdp() -> dict[str, str]:
    """What `accelerate launch` tells its processes of scripts/accelerate/fsdp2.yaml."""
    import yaml

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

    os.environ |= shipped_fsdp()
    start = PartialState.__init__

    def started(state, *parts, **named):
        start(state, *parts, **named)
        if state.distributed_type == DistributedType.MULTI_CPU:
            state.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = started


def disturb_extraction(order: dict) -> None:
    """Two clips a batch and two batches a shard; `pause_s` for each video.

    `mark` is a file that is made once the first video is opened, `release` one that reading then
    waits for.
    """
    from sefar_mllm import features

    features.BATCH_CLIPS, features.SHARD_BATCHES = 2, 2
    read = features.read_fractions

    def slow(*args, **kwargs):
        if "mark" in order:
            Path(order["mark"]).touch()
        time.sleep(order.get("pause_s", 0))
        until = time.monotonic() + LIMIT_S
        while "release" in order and not Path(order["release"]).exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        return read(*args, **kwargs)

    features.read_fractions = slow


if __name__ == "__main__":
    serve()
