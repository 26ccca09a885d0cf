"""Which questions make a step: about as long ones together, so that little padding is computed.

An epoch's order follows from (seed, epoch) and the lengths alone. The devices share the questions
of a step and change nothing about which these are.
"""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from sefar_mllm.training.lessons import FILLER, Lessons, draw_source

SORTED_BATCHES = 10  # so many batches' questions, drawn at random, are sorted by length


class BatchError(ValueError):
    """A batch that devices cannot share. The message says which sizes they can."""


def share(batch_size: int, micro_batch_size: int, processes: int) -> tuple[int, int]:
    """Questions that a device takes at a time, and how many times, for one step.

    Args:
        batch_size: questions of a step, over all devices.
        micro_batch_size: the most that a device takes at a time.
        processes: how many devices there are.

    Raises:
        BatchError: the devices cannot have equal parts.
    """
    part, rest = divmod(batch_size, processes)
    if rest or not part:
        raise BatchError(
            f"batch_size {batch_size} cannot be shared by {processes} processes; choose a multiple "
            f"of {processes}"
        )
    at_a_time = next(size for size in range(min(micro_batch_size, part), 0, -1) if part % size == 0)
    return at_a_time, part // at_a_time


def bucketed(lengths: Sequence[int], *, batch_size: int, rng: random.Random) -> list[int]:
    """Every place once, in an order whose consecutive batches are of about one length.

    The places are shuffled, each run of some batches is sorted by length and cut into batches,
    and the batches are shuffled. What fills no batch is drawn at random like all else, and comes
    last.

    Args:
        lengths: of each item, any unit.
        batch_size: items of a batch.
        rng: decides the order.
    """
    places = list(range(len(lengths)))
    rng.shuffle(places)
    whole = len(places) - len(places) % batch_size
    batches = []
    for start in range(0, whole, SORTED_BATCHES * batch_size):
        run = places[start : min(start + SORTED_BATCHES * batch_size, whole)]
        run.sort(key=lengths.__getitem__)
        batches += [run[i : i + batch_size] for i in range(0, len(run), batch_size)]
    rng.shuffle(batches)
    last = sorted(places[whole:], key=lengths.__getitem__)
    return [*(place for batch in batches for place in batch), *last]


class Order(Sampler[int]):
    """Places of an epoch's lessons, for a loader that cuts batches from them in turn.

    With several devices the last step is filled up with lessons that teach nothing, so that each
    device takes part in every step and no question is taught twice.

    Args:
        lessons: know their seed, their epoch, and how long each is in it.
        batch_size: questions of a step, over all devices.
        multiple: the number of places is brought to a multiple of this: what all devices take at
            a time, or 1 if there is one device.
    """

    def __init__(self, lessons: Lessons, *, batch_size: int, multiple: int):
        self.lessons = lessons
        self.batch_size = batch_size
        self.multiple = multiple

    def __len__(self) -> int:
        return len(self.lessons) + self.fillers

    @property
    def fillers(self) -> int:
        return -len(self.lessons) % self.multiple

    def __iter__(self) -> Iterator[int]:
        rng = draw_source(self.lessons.seed, "order", self.lessons.epoch)
        yield from bucketed(self.lessons.lengths, batch_size=self.batch_size, rng=rng)
        yield from [FILLER] * self.fillers


def padding_share(lengths: Sequence[int], *, batch_size: int) -> float:
    """Share of the positions computed that are padding, if batches are cut from this order."""
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    return 1 - sum(lengths) / sum(max(batch) * len(batch) for batch in batches)
