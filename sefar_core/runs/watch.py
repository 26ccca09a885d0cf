"""What looks at a run, and does not change where it goes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from typing import NamedTuple

from torch import nn

from sefar_core.data.feeds import TrainClips
from sefar_core.data.loader import ClipStream, Share
from sefar_core.data.validation import HeldOut, validation_views
from sefar_core.evaluate import predict
from sefar_core.loop import Judge, Loop
from sefar_core.runs.folder import forget_metrics_after
from sefar_core.runs.interruption import Interrupted, Interruption
from sefar_core.runs.progress import Progress

IDLE = 0.5  # of the warm-up model left in a teacher that hardly learns
IDLE_MEND = "Lower teacher.ema_decay, or train longer."


class LoaderDied(Exception):
    """A loader process was killed or gave nothing. The message says what to lower."""


class Watch(NamedTuple):
    """What looks at a run, and does not change where it goes."""

    wish: Interruption
    """Whether the run shall end early."""
    progress: Progress | None
    """Is told of each step; none on all but the main process."""
    judge: Judge | None
    """Looks at the networks that are saved; none without validation clips."""
    name_clips: Callable[[int], list[list[str]]]
    """Step -> the clips of each micro-batch of this process, for error messages."""


@contextmanager
def open_progress(loop: Loop) -> Iterator[Progress]:
    """The bar and the files of lines, without those of steps that are done again.

    Says so at once if the teacher will hardly learn.
    """
    for name in ("metrics.jsonl", "timing.jsonl"):
        forget_metrics_after(loop.run_dir, loop.step, name=name)
    if loop.warmup_left > IDLE:
        print(
            f"warning: at the end, {loop.warmup_left:.0%} of the teacher will still be the warm-up "
            f"model. {IDLE_MEND}"
        )
    total = loop.schedule.num_steps
    with closing(
        Progress(loop.run_dir, total=total, initial=loop.step, log=loop.config.log)
    ) as progress:
        yield progress


@contextmanager
def loader_deaths_explained(wish: Interruption) -> Iterator[None]:
    """Say in one line why a loader process may have gone.

    Raises:
        Interrupted: a signal to end the run reached the loader processes as well, which left no
            batch to finish the step with.
        LoaderDied: one was killed, or gave nothing for too long.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as cause:
        # The last two: it died while it handed a batch over.
        if isinstance(cause, RuntimeError) and not str(cause).startswith("DataLoader "):
            raise
        if wish.number:
            raise Interrupted(
                wish.number,
                "stopped; the steps after the last saved state, if there is one, are lost with the "
                "loader processes, which the signal reached as well",
            ) from cause
        raise LoaderDied(
            f"a loader process is gone ({str(cause).strip()}). Killed, it is most often one too "
            f"many for the memory: lower data.workers, and run the same command again: it goes on "
            f"from the last saved state, if there is one"
        ) from cause


def top1(loop: Loop, held_out: HeldOut, network: nn.Module) -> float:
    """Accuracy on the validation clips, one view of each, in [0, 1]."""
    views = validation_views(loop.network, held_out, workers=loop.config.data.workers)
    with loop.accelerator.autocast():
        probs, labels = predict(network, views, loop.accelerator.device)
    return (probs.argmax(dim=-1) == labels).float().mean().item()


def clips_of_step(loop: Loop, clips: TrainClips, step: int) -> list[list[str]]:
    """Names of the clips of each micro-batch of this process: a function of seed and step."""
    config, schedule = loop.config, loop.schedule
    share = Share(loop.accelerator.process_index, loop.accelerator.num_processes)

    def names(
        listed: Sequence, stream: str, first: int, per_micro: int, per_pass: int
    ) -> list[list[str]]:
        taken = ClipStream(
            len(listed), seed=config.seed, name=stream, start=first, share=share, per_pass=per_pass
        )
        ids = (listed[position].id for _, position in taken)
        return [list(islice(ids, per_micro)) for _ in range(loop.num_micro)]

    micro = config.micro_batch_size
    first = step * config.batch_size
    labeled = names(clips.labeled, "LabeledClips", first, micro, schedule.per_pass)
    if step < schedule.warmup_steps:
        return labeled
    ratio = config.unlabeled_per_labeled
    first = (step - schedule.warmup_steps) * config.batch_size * ratio
    every = len(clips.unlabeled)
    unlabeled = names(clips.unlabeled, "UnlabeledClips", first, micro * ratio, every)
    return [a + b for a, b in zip(labeled, unlabeled, strict=True)]
