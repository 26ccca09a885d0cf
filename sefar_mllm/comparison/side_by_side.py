"""The same work on many items, some at a time in processes of their own.

Asked to end (SIGTERM or Ctrl-C), it asks its processes to end; a training among them saves first.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import torch

from qa_data.children import without_interrupts
from sefar_core.runs.interruption import Interrupted

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_all(
    work: Callable[[Item], Result], items: Sequence[Item], *, jobs: int, label: Callable
) -> list[Result]:
    """What the work gives for each item, in their order; stops at the first error.

    Args:
        work: a function of a module, so that other processes find it.
        items: what it is done on.
        jobs: processes; 1 works in this one.
        label: what to say of an item that is done.
    """
    began = time.perf_counter()

    def say(done: int, item: Item) -> None:
        left = (time.perf_counter() - began) / done * (len(items) - done) / 60
        print(f"[{done}/{len(items)}] {label(item)}; about {left:.0f} min left", flush=True)

    results: list[Result] = []
    if jobs == 1:
        for item in items:
            results.append(work(item))
            say(len(results), item)
        return results
    with _ending_together(), _pool(jobs) as pool:
        with without_interrupts():
            waiting = {pool.submit(_apart, work, item): item for item in items}
        try:
            for done, future in enumerate(as_completed(waiting), 1):
                future.result()
                say(done, waiting[future])
        finally:
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in waiting]


def _pool(jobs: int) -> ProcessPoolExecutor:
    """Processes that share the cores; spawned, for torch does not outlive a fork."""
    return ProcessPoolExecutor(
        max_workers=jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(max(1, (os.cpu_count() or 1) // jobs),),
    )


def _apart(work: Callable[[Item], Result], item: Item) -> Result:
    """The work in a process of its own; an interruption comes home as the end of the program."""
    try:
        return work(item)
    except Interrupted as wish:
        raise SystemExit(wish.exit_code) from None


@contextmanager
def _ending_together() -> Iterator[None]:
    """While entered, SIGTERM and SIGINT are passed on to the processes that work."""

    def end(number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.terminate()
        raise Interrupted(number, "interrupted; the same command goes on where it stopped")

    wishes = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in wishes}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
