"""Several processes that act as one: what they agree on, and what one of them does for all.

Each function is called by every process at the same place of its program. With one process none
of them communicates.
"""

import os
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from sefar_core.signals import StoppedByAnother

Value = TypeVar("Value")


def refuse_separate_runs(num_found: int) -> None:
    """Refuse processes that were launched together but do not know of one another.

    Each would act as the main process and overwrite the others' files. ValueError if the launcher
    started more or fewer processes than the `num_found` by `accelerate`.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != num_found:
        raise ValueError(
            f"the launcher started {launched} processes, but each of them runs as one of "
            f"{num_found}; on CPUs, set ACCELERATE_USE_CPU=true and launch with "
            f"accelerate launch --multi_gpu --num_processes {launched} --num_machines 1"
        )


def highest(accelerator: Accelerator, value: int) -> int:
    """The largest of the processes' values."""
    if accelerator.num_processes == 1:
        return value
    values = accelerator.gather(torch.tensor([int(value)], device=accelerator.device))
    return int(values.max())


def means(accelerator: Accelerator, numbers: dict[str, float]) -> dict[str, float]:
    """The mean of each number over the processes; not finite if one process's is not."""
    if accelerator.num_processes == 1:
        return numbers
    mine = torch.tensor(list(numbers.values()), dtype=torch.float64, device=accelerator.device)
    summed: Tensor = accelerator.reduce(mine, "mean")
    return dict(zip(numbers, summed.tolist(), strict=True))


def gather_lists(accelerator: Accelerator, mine: list[Value]) -> list[Value]:
    """The lists of all processes, joined."""
    return mine if accelerator.num_processes == 1 else gather_object(mine)


def run_on_main(accelerator: Accelerator, action: Callable[[], object]) -> None:
    """Let the main process do something while the others wait; then all continue, or all stop: the
    main process with what the action raised, the others with StoppedByAnother.
    """
    failure = None
    if accelerator.is_main_process:
        try:
            action()
        except Exception as cause:
            failure = cause
    failed = highest(accelerator, failure is not None)
    if failure is not None:
        raise failure
    if failed:
        raise StoppedByAnother("the main process failed; it reports why")


def broadcast(accelerator: Accelerator, ask: Callable[[], Value]) -> Value:
    """What the main process finds out, on every process. All stop as in `run_on_main`."""
    answers: list[Any] = []
    run_on_main(accelerator, lambda: answers.append(ask()))
    if accelerator.num_processes > 1:
        answers = broadcast_object_list(answers or [None])
    return answers[0]


def stop_all(accelerator: Accelerator, error: Exception) -> NoReturn:
    """Raise an error that all processes have found on the main process, so that one message is
    printed; StoppedByAnother on the others.
    """
    if accelerator.is_main_process:
        raise error
    raise StoppedByAnother("all processes stop; the main process reports why")
