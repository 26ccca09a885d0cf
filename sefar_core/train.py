"""The training loop: micro-batches to a step, the teacher's updates, and when to stop.

Every random draw is a function of (seed, step, rank) here and of (seed, epoch, clip, view) in the
loader, so a resumed run equals an uninterrupted one. docs/paper_map.md, row 9.
"""

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from sefar_core.data.draws import seeded
from sefar_core.loop import Loop
from sefar_core.recipe import Draws, micro_step
from sefar_core.runs.interruption import Interrupted
from sefar_core.runs.progress import Clocked, Tick
from sefar_core.runs.ranks import highest, joined, means, on_main, stop_all
from sefar_core.runs.resume import complete_states
from sefar_core.runs.watch import Watch

NAMED = 64  # clips that an error message lists


def run_steps(loop: Loop, batches: Clocked, watch: Watch) -> None:
    """Train from the loop's step to the end of its schedule.

    Args:
        loop: networks and optimizer, fresh or resumed; its run folder gets the states.
        batches: micro-batches in order, from the loop's step on. During the warm-up the
            unlabeled part is empty.
        watch: who looks on.

    Raises:
        FloatingPointError: a loss or a gradient is no longer a finite number.
        Interrupted: the run was asked to end; its state is saved.
    """
    schedule, accelerator = loop.schedule, loop.accelerator
    while loop.step < schedule.num_steps:
        if loop.step >= schedule.warmup_steps and loop.teacher is None:
            loop.teacher = loop.make_teacher()
        metrics = optimizer_step(loop, batches, watch.name_clips)
        loop.step += 1
        tick = batches.lap(loop.clips_per_step)

        asked = highest(accelerator, watch.wish.number)
        over = loop.step == schedule.num_steps
        due = over or loop.step % schedule.steps_in(loop.config.save_every_epochs) == 0
        on_main(accelerator, partial(tell, watch, loop, metrics, tick, due=due))
        if due or asked:
            on_main(accelerator, loop.save)
        if asked and not over:
            raise Interrupted(asked, f"stopped after step {loop.step}; saved in {loop.states}")


def tell(watch: Watch, loop: Loop, metrics: dict[str, float], tick: Tick, *, due: bool) -> None:
    """Report a step; when a save is due, with the accuracies on validation clips."""
    scores = loop.judge(watch.judge) if due and watch.judge else {}
    if watch.progress is not None:
        watch.progress.tell(loop.step, metrics | scores, tick)


def optimizer_step(loop: Loop, batches: Iterator, name_clips: Callable) -> dict[str, float]:
    """Accumulate the micro-batches of one step, move the student, then the teacher.

    Returns:
        What metrics.jsonl says of the step: means over its micro-batches and all processes, and
            `grad_norm` before any clipping.

    Raises:
        FloatingPointError: a loss or a gradient is not finite. Nothing was updated by it; a
            teacher that moves with each micro-batch has seen those before.
    """
    config, accelerator, teacher = loop.config, loop.accelerator, loop.teacher
    here = (config.seed, loop.step, accelerator.process_index)
    draws = Draws(seeded("views", *here), random.Random(seeded("shares", *here).initial_seed()))
    torch.manual_seed(seeded("dropout", *here).initial_seed())
    rate, ramp = loop.set_rate(), loop.ramp()
    loop.student.train()
    reports = []
    for micro in range(loop.num_micro):
        last = micro == loop.num_micro - 1
        # Processes add their gradients up once a step.
        with contextlib.nullcontext() if last else accelerator.no_sync(loop.student):
            with accelerator.autocast():
                losses, report = micro_step(
                    loop.student, teacher, next(batches), config.loss, draws
                )
            loss = losses.total(
                ramp=ramp, gamma_un=config.loss.gamma_un, gamma_mix=config.loss.gamma_mix
            )
            accelerator.backward(loss / loop.num_micro)
        reports.append({"loss": loss.item(), **report})
        if teacher and config.teacher.ema_every == "micro_batch" and not last:
            teacher.update(loop.network)
    norm = grad_norm(loop.network)
    metrics = means(accelerator, average(reports)) | {"grad_norm": norm.item()}
    refuse_infinite(loop, metrics, reports, name_clips)
    if config.optim.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(loop.network.parameters(), config.optim.clip_norm, norm)
    loop.optimizer.step()
    loop.optimizer.zero_grad()
    if teacher:
        teacher.update(loop.network)
    return {"lr": rate, "ramp": ramp, **metrics}


def average(reports: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each number."""
    return {name: sum(r[name] for r in reports) / len(reports) for name in reports[0]}


def grad_norm(network: nn.Module) -> Tensor:
    """L2 norm of the gradient of all parameters together; not finite if any of it is not."""
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    return nn.utils.get_total_norm(grads)


def refuse_infinite(
    loop: Loop,
    metrics: dict[str, float],
    reports: Sequence[dict[str, float]],
    name_clips: Callable,
) -> None:
    """Stop all processes if a loss or the gradient is not finite on any of them.

    Args:
        loop: to stop.
        metrics: of the step, the same on all processes.
        reports: of this process's micro-batches; those without a finite loss are named, or all.
        name_clips: step -> the clips of each of these.

    Raises:
        FloatingPointError: on the main process, naming the clips.
    """
    broken = [name for name in ("loss", "grad_norm") if not math.isfinite(metrics[name])]
    if not broken:
        return
    named = list(zip(reports, name_clips(loop.step), strict=True))
    guilty = [clip for r, clips in named if not math.isfinite(r["loss"]) for clip in clips]
    clips = joined(loop.accelerator, guilty) or joined(
        loop.accelerator, [clip for _, clips in named for clip in clips]
    )
    more = f" and {len(clips) - NAMED} more" if len(clips) > NAMED else ""
    what = " and ".join(f"{name} became {metrics[name]}" for name in broken)
    saved = complete_states(loop.states)
    kept = f"the last good state is in {loop.states}" if saved else "no state was saved before it"
    error = FloatingPointError(
        f"{what} in step {loop.step + 1}; nothing was updated by it, and {kept}. Lower optim.lr, "
        f"or look at the clips: {', '.join(clips[:NAMED])}{more}"
    )
    stop_all(loop.accelerator, error)
