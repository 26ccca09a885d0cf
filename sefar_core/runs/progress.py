"""How a run goes: a bar to look at, metrics.jsonl to compare, timing.jsonl to find what is slow.

metrics.jsonl is the same, bit for bit, whenever a run is repeated; what a clock says stands apart.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from sefar_core.runs.folder import append_metrics

ON_THE_BAR = ("loss", "accuracy", "trust", "utilization")


class Tick(NamedTuple):
    """What a clock said of one step."""

    seconds: float
    """From the end of the step before."""
    waited_s: float
    """Of them, spent waiting for the loader."""
    num_clips: int
    """Labeled and unlabeled clips that all processes learned from."""

    @property
    def stall(self) -> float:
        return self.waited_s / self.seconds


class Clocked(Iterator):
    """Batches, and how long they were waited for.

    Attributes:
        waited_s: seconds since the last `lap`.
    """

    def __init__(self, batches: Iterator):
        self._batches = batches
        self.waited_s = 0.0
        self._began_s = time.perf_counter()

    def __next__(self) -> Any:
        asked_s = time.perf_counter()
        batch = next(self._batches)
        self.waited_s += time.perf_counter() - asked_s
        return batch

    def lap(self, num_clips: int) -> Tick:
        """The time since the last lap."""
        ended_s = time.perf_counter()
        tick = Tick(ended_s - self._began_s, self.waited_s, num_clips)
        self._began_s, self.waited_s = ended_s, 0.0
        return tick


class Progress:
    """Tells of each step, on the main process.

    Args:
        run_dir: gets metrics.jsonl and timing.jsonl, and the folder tensorboard if asked.
        total: steps of the run.
        initial: steps done before.
        log: where curves are drawn, besides.

    Raises:
        ValueError: tensorboard is asked for and not installed.
    """

    def __init__(
        self, run_dir: Path, *, total: int, initial: int, log: Literal["none", "tensorboard"]
    ):
        self.run_dir = run_dir
        self.curves = None if log == "none" else open_tensorboard(run_dir / "tensorboard", initial)
        self.bar = tqdm(total=total, initial=initial, desc="train", unit="step")

    def tell(self, step: int, metrics: dict[str, float], tick: Tick) -> None:
        """Report the `step`-th step."""
        append_metrics(self.run_dir, {"step": step, **metrics})
        rate = {"clips_per_s": tick.num_clips / tick.seconds, "stall": tick.stall}
        line = {"step": step, "seconds": tick.seconds, **rate}
        append_metrics(self.run_dir, line, name="timing.jsonl")
        if self.curves is not None:
            for name, value in {**metrics, **rate}.items():
                self.curves.add_scalar(name, value, step)
        shown = {name: f"{metrics[name]:.3f}" for name in ON_THE_BAR if name in metrics}
        shown |= {"clips/s": f"{rate['clips_per_s']:.1f}", "stall": f"{tick.stall:.0%}"}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def close(self) -> None:
        self.bar.close()
        if self.curves is not None:
            self.curves.close()


def open_tensorboard(folder: Path, step: int) -> Any:
    """A writer of curves; what a run that was cut off drew beyond `step` is hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as cause:
        raise ValueError(
            "log = tensorboard needs the package tensorboard; pip install 'sefar[log]', or set "
            "log = none"
        ) from cause
    return SummaryWriter(str(folder), purge_step=step + 1)
