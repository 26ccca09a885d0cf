"""C8: one grid of learning rates for every row, each taking its best on training questions.

The choice is made with the first seed, on a development part that is cut from the training
questions by source video and not learned meanwhile; the test questions are not looked at. The
controls that learn something wrong take the choice of the row that they are a control of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sefar_core.runs.folder import read_metrics
from sefar_mllm.comparison.cells import Cell, printed_to, training_inputs
from sefar_mllm.comparison.records import finish, finished
from sefar_mllm.comparison.side_by_side import run_all
from sefar_mllm.config import FinetuneConfig
from sefar_mllm.training.plan import forget_checkpoints
from sefar_mllm.training.train import finetune

TUNED = "tuned.json"
Rates = Mapping[tuple[str, str], float]
"""(question set, row) -> factor on both learning rates."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A training with one factor, scored on the development part."""

    cell: Cell
    factor: float

    @property
    def folder(self) -> Path:
        return self.cell.folder.parent / "tuning" / f"factor-{self.factor:g}"


def scaled(config: FinetuneConfig, factor: float) -> FinetuneConfig:
    """The settings with both learning rates times a factor."""
    lora = replace(config.lora, lr=config.lora.lr * factor)
    return replace(config, lora=lora, projector_lr=config.projector_lr * factor)


def choose_rates(
    cells: Sequence[Cell], grid: Sequence[float], *, dev_rate: float, jobs: int
) -> Rates:
    """The best factor of each row on each question set.

    Args:
        cells: one for each row and set, with the settings that the factors are applied to.
        grid: factors; a single one is taken without a trial.
        dev_rate: share of the training questions to choose on.
        jobs: trials that run side by side.

    Raises:
        StaleError: an earlier trial was made from other inputs.
        LessonError: no development part can be cut.
    """
    tuned = [cell for cell in cells if cell.row.lessons == "as_written"]
    trials = [
        Trial(
            cell=replace(cell, finetune=replace(scaled(cell.finetune, factor), dev_rate=dev_rate)),
            factor=factor,
        )
        for cell in tuned
        for factor in grid
        if len(grid) > 1
    ]
    scores = run_all(try_factor, trials, jobs=jobs, label=name_of)
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for trial, score in zip(trials, scores, strict=True):
        place = (trial.cell.questions.name, trial.cell.row.name)
        if place not in best or score > best[place][0]:
            best[place] = (score, trial.factor)
    chosen = {place: factor for place, (_, factor) in best.items()}
    return {
        (cell.questions.name, cell.row.name): chosen.get(
            (cell.questions.name, cell.row.encoder), grid[0]
        )
        if cell.row.lessons != "as_written"
        else chosen.get((cell.questions.name, cell.row.name), grid[0])
        for cell in cells
    }


def try_factor(trial: Trial) -> float:
    """Accuracy on the development part after the last epoch: class mean, or micro without classes.

    The last epoch's, not the best one's: the test is answered by the model of the last epoch.
    """
    cell, folder = trial.cell, trial.folder
    inputs = training_inputs(cell)
    if not finished(folder / TUNED, inputs):
        folder.mkdir(parents=True, exist_ok=True)
        with printed_to(folder / "log.txt"):
            finetune(cell.finetune, cell.questions.train, cell.tokens(), folder)
        finish(folder / TUNED, inputs)
        forget_checkpoints(folder)
    lines = read_metrics(folder / "metrics.jsonl")
    last = [line for line in lines if "dev_micro" in line][-1]
    return float(last.get("dev_macro", last["dev_micro"]))


def name_of(trial: Trial) -> str:
    cell = trial.cell
    return f"{cell.questions.name} {cell.row.name}, learning rates times {trial.factor:g}"
