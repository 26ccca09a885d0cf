"""The stages of a fine-tuning, and the checkpoints that each leaves.

Stage A teaches the projector alone, stage B LoRA with it. The Trainer numbers the steps and epochs
of a stage by themselves; the run counts them through. A stage always leaves a checkpoint at its
end, so that what is done is never done again.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sefar_mllm.config import FinetuneConfig

CHECKPOINTS = "checkpoints"
COMPLETE = "complete"  # a checkpoint without this file was not written to its end


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Passes in which one set of parameters learns."""

    name: str
    epochs: int
    run_dir: Path
    first_step: int
    """Optimizer steps of the stages before; the run counts all its steps in one row."""
    first_epoch: int
    """Epochs of the stages before, so that no draw of an epoch comes in two stages."""
    steps_per_epoch: int

    @property
    def num_steps(self) -> int:
        """Optimizer steps of this stage."""
        return self.epochs * self.steps_per_epoch

    @property
    def folder(self) -> Path:
        """Of its checkpoints."""
        return self.run_dir / CHECKPOINTS / self.name


def forget_checkpoints(run_dir: Path) -> None:
    """Delete those of a run that is over and will not be asked for again."""
    shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)


def stages(config: FinetuneConfig, num_questions: int, run_dir: Path) -> list[Stage]:
    """The stages that have any epochs, with the steps counted through."""
    per_epoch = -(-num_questions // config.batch_size)
    before = config.projector_epochs
    both = (("projector", before, 0), ("joint", config.epochs, before))
    return [
        Stage(
            name=name,
            epochs=epochs,
            run_dir=run_dir,
            first_step=first_epoch * per_epoch,
            first_epoch=first_epoch,
            steps_per_epoch=per_epoch,
        )
        for name, epochs, first_epoch in both
        if epochs
    ]


def steps_done(stages: Sequence[Stage]) -> int:
    """Steps of the run up to its last whole checkpoint."""
    return max(
        (
            stage.first_step + step_of(start)
            for stage in stages
            if (start := last_whole(stage.folder, clean=False))
        ),
        default=0,
    )


def last_whole(folder: Path, *, clean: bool) -> Path | None:
    """The newest checkpoint that was written to its end.

    Args:
        folder: of the stage's checkpoints.
        clean: remove those that were not.
    """
    found = sorted(folder.glob("checkpoint-*"), key=step_of)
    whole = [path for path in found if (path / COMPLETE).exists()]
    if clean:
        for path in set(found) - set(whole):
            shutil.rmtree(path)
    return whole[-1] if whole else None


def refuse_damaged(checkpoint: Path) -> None:
    """Look at what the Trainer reads first of a checkpoint; its own words name no file.

    Raises:
        ValueError: it is damaged.
    """
    path = checkpoint / "trainer_state.json"
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError) as cause:
        raise ValueError(
            f"{path} is damaged ({cause}); delete {checkpoint}: the same command resumes from the "
            f"checkpoint before it, or begins anew"
        ) from cause


def step_of(checkpoint: Path) -> int:
    """The step of its stage that a checkpoint was saved after."""
    return int(checkpoint.name.split("-")[1])
