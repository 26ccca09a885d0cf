"""What a run writes down while it learns, and when it stops before its end.

Every step is looked at: a loss or a gradient that is no number ends the run before anything of it
is saved. A signal ends it after the step that runs, with a checkpoint.
"""

import math
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from tqdm import tqdm
from transformers import TrainerCallback

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
        self.order.lessons.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args, state, control, **_):
        """What belongs to the step is written before its checkpoint, so that both are there."""
        self.bar.update(1)
        if self.judge is not None and state.global_step % self.stage.steps_per_epoch == 0:
            self.note(state, self.judge(self.accelerator))
        if highest(self.accelerator, self.wish.number):
            control.should_save = control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **_):
        if not logs or "loss" not in logs:
            return
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                self.stop_at(state, name, logs[name])
        self.note(state, {name: logs[name] for name in ("loss", "grad_norm", "learning_rate")})
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}")

    def on_save(self, args, state, control, **_):
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
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
