"""What a run writes down while it learns, and when it stops before its end.

Every step is looked at: a loss or a gradient that is no number ends the run before anything of it
is saved or scored. A signal ends it after the step that runs, with a checkpoint.
"""

import math
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from tqdm import tqdm
from transformers import TrainerCallback

from qa_data.atomic import by_umask
from sefar_core.runs.folder import append_metrics
from sefar_core.runs.interruption import Interruption
from sefar_core.runs.ranks import highest, stop_all
from sefar_mllm.training.batching import Order
from sefar_mllm.training.plan import COMPLETE, Stage, last_whole

Judge = Callable[[Accelerator], dict[str, float]]


class Diary(TrainerCallback):
    """Writes the numbers down, marks whole checkpoints, and ends a run that must end.

    Args:
        accelerator: of the processes that train together.
        order: of the questions.
        stage: which one it is; its run folder gets the numbers.
        wish: a signal that asks the run to end.
        judge: scores of the dev part, at the end of each epoch.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        order: Order,
        stage: Stage,
        *,
        wish: Interruption,
        judge: Judge | None,
    ):
        self.accelerator = accelerator
        self.order = order
        self.stage = stage
        self.wish = wish
        self.judge = judge

    def on_train_begin(self, args, state, control, **_):
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.stage.name,
            unit="step",
            disable=not state.is_world_process_zero,
        )

    def on_epoch_begin(self, args, state, control, **_):
        self.order.lessons.begin_epoch(self.stage.first_epoch + int(state.epoch or 0))

    def on_optimizer_step(self, args, state, control, optimizer=None, **_):
        self.rates = {f"{group['name']}_lr": group["lr"] for group in optimizer.param_groups}

    def on_step_end(self, args, state, control, **_):
        self.bar.update(1)
        if highest(self.accelerator, self.wish.number):
            control.should_save = control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **_):
        """What belongs to the step is written before its checkpoint, so that both are there."""
        if not logs or "loss" not in logs:
            return
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                self.stop_at(state, name, logs[name])
        found = {name: logs[name] for name in ("loss", "grad_norm")}
        self.note(state, found | self.rates)
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}")
        if self.judge is not None and state.global_step % self.stage.steps_per_epoch == 0:
            self.note(state, self.judge(self.accelerator))

    def on_save(self, args, state, control, **_):
        self.accelerator.wait_for_everyone()  # each process has written its random state
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            by_umask(folder)
            (folder / COMPLETE).write_text("")

    def on_train_end(self, args, state, control, **_):
        self.bar.close()

    def note(self, state, numbers: dict[str, float]) -> None:
        if state.is_world_process_zero:
            place = {
                "stage": self.stage.name,
                "step": self.stage.first_step + state.global_step,
                "epoch": state.global_step / self.stage.steps_per_epoch,
            }
            append_metrics(self.stage.run_dir, place | numbers)

    def stop_at(self, state, name: str, value: float) -> None:
        """End the run on every process; the weights of this step are saved nowhere."""
        size = self.order.batch_size
        start = (state.global_step - 1) % self.stage.steps_per_epoch * size
        places = list(self.order)[start : start + size]
        clips = [self.order.lessons.questions[place].video for place in places]
        kept = last_whole(self.stage.folder, clean=False)
        stop_all(
            self.accelerator,
            FloatingPointError(
                f"{name} became {value} in step {self.stage.first_step + state.global_step} "
                f"({self.stage.name}, step {state.global_step}); look at the clips: "
                f"{', '.join(clips)}; or lower lora.lr and projector_lr. The last whole checkpoint "
                f"is {kept or 'none: save_every_steps makes them'}"
            ),
        )
