"""Work in processes that may die or hang, none of which loses the work of the others.

A damaged file can end a decoder's whole process, or keep it busy forever. Each process has one
task at a time, so that the parent knows which task it was. `run_isolated` does many tasks in
several processes; `Worker.ask` does one task at a time in one.

`read_by_decord` is such work, here since its process imports numpy and decord alone: no torch, and
no second FFmpeg beside the one that decord brings.
"""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager, suppress
from multiprocessing import current_process, get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from qa_data.terminal import without_interrupts

Task = TypeVar("Task")
Answer = TypeVar("Answer")
Heartbeat = Callable[[], None]
"""To be called whenever the work has come a step further."""

GLANCE_S = 0.2
"""How often silent processes are checked for heartbeats, seconds."""


class WorkerFailure(NamedTuple):
    """Replaces an answer that never came."""

    kind: str
    """`crashed` or `hung`."""
    words: str
    """What happened."""
    ended_by: signal.Signals | None = None
    """The signal that ended a process that crashed, if one did."""


def run_isolated(
    work: Callable[[Task, Heartbeat], Answer],
    tasks: Sequence[Task],
    *,
    workers: int,
    patience_s: float,
    preload: str,
) -> Iterator[tuple[Task, Answer | WorkerFailure]]:
    """Every task with its answer, in the order in which they are done, by 1 worker or more.

    Work, tasks and answers can be pickled. An exception in the work is a crash, whose traceback
    goes to stderr; `patience_s` without a heartbeat is a hang, and the process is killed. `preload`
    is the module that the work needs, imported once for all processes where that can be.
    RuntimeError if a process dies before it is given a task.
    """
    left = deque(tasks)
    crew: list[Worker[Task]] = []
    try:
        crew += [Worker(work, preload) for _ in range(min(workers, len(left)))]
        while crew:
            for worker in _heard(crew, patience_s):
                task, answer = worker.task, worker.answer(patience_s)
                if left and not isinstance(answer, WorkerFailure):
                    worker.give(left.popleft())
                else:
                    crew.remove(worker)
                    worker.stop()
                if isinstance(answer, WorkerFailure) and task is None:
                    raise RuntimeError(f"a worker process does not start: {answer.words}")
                if isinstance(answer, WorkerFailure) and left:
                    crew.append(Worker(work, preload))
                if task is not None:
                    yield task, answer
    finally:
        for worker in crew:
            worker.stop()


def _heard(crew: Sequence["Worker[Task]"], patience_s: float) -> list["Worker[Task]"]:
    """Those that have sent something, and those that hang."""
    ready = wait([worker.pipe for worker in crew], timeout=GLANCE_S)
    return [worker for worker in crew if worker.pipe in ready or worker.hangs(patience_s)]


class Worker(Generic[Task]):
    """A process with a pipe to it and the count of its heartbeats. Its first message says that it
    is ready.

    Attributes:
        task: what it works on, or worked on last; None until it is ready.
        process: runs until the parent ends or calls `stop`.
    """

    def __init__(self, work: Callable[[Task, Heartbeat], Any], preload: str | None = None):
        # Not forked from this process, whose threads could leave a lock held in the copy. A fork
        # server serves the process that started it, which a loader process did not. It pays only
        # where it preloads, and a preload that hangs keeps `start` waiting.
        forks = preload and "forkserver" in get_all_start_methods() and not current_process().daemon
        context: Any = get_context("forkserver" if forks else "spawn")
        if forks:
            context.set_forkserver_preload([preload])
        self.task: Task | None = None
        self.pipe, far_end = context.Pipe()
        self._heartbeats = context.RawValue("Q", 0)
        self._seen = (0, time.monotonic())
        arguments = (work, far_end, self._heartbeats)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        # The process that forks the others starts with the first, and would print a traceback.
        with without_interrupts(), _children_allowed():
            self.process.start()
        far_end.close()

    def give(self, task: Task) -> None:
        """Send it a task."""
        self.task, self._seen = task, (self._heartbeats.value, time.monotonic())
        with suppress(BrokenPipeError):  # it died idle: the pipe will say so
            self.pipe.send(task)

    def hangs(self, patience_s: float) -> bool:
        """Whether its task has given no heartbeat for so long."""
        heartbeats, at_s = self._heartbeats.value, time.monotonic()
        if self.task is None or heartbeats != self._seen[0]:
            self._seen = (heartbeats, at_s)
        return at_s - self._seen[1] > patience_s

    def answer(self, patience_s: float) -> Any:
        """What it sent; a WorkerFailure if it died or, where it sent nothing, hangs."""
        if not self.pipe.poll():
            words = f"the decoding process made no progress for {patience_s:g} s"
            return WorkerFailure("hung", words)
        return self._receive()

    def ask(self, task: Task, timeout_s: float) -> Any:
        """Send it a task and wait for the answer. After a WorkerFailure it has to be stopped.

        `timeout_s` is for its start, the task and the whole answer together, however often its
        heart beats; a process that takes longer is killed.
        """
        deadline_s = time.monotonic() + timeout_s
        with futures.ThreadPoolExecutor(1) as thread:
            exchange = thread.submit(self._exchange, task)
            try:
                while not exchange.done() and time.monotonic() < deadline_s:
                    futures.wait([exchange], GLANCE_S)
            finally:
                if late := not exchange.done():
                    self.process.kill()  # this end of the pipe then reads its end
        if late:
            words = f"the decoding process did not answer within {timeout_s:g} s"
            return WorkerFailure("hung", words)
        return exchange.result()

    def _exchange(self, task: Task) -> Any:
        if self.task is None and isinstance(failure := self._receive(), WorkerFailure):
            return failure
        self.give(task)
        return self._receive()

    def _receive(self) -> Any:
        """Its next message, however long it takes; a WorkerFailure if it dies before the end."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            ended_by = signal.Signals(-code) if code < 0 else None
            cause = ended_by.name if ended_by else f"exit code {code}"
            return WorkerFailure("crashed", f"the decoding process died ({cause})", ended_by)

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


@contextmanager
def _children_allowed() -> Iterator[None]:
    """Let a daemon, as each loader process of torch is, start a process.

    multiprocessing forbids it because a daemon that is killed leaves its children running. Ours
    end by themselves when their pipe does.
    """
    config = current_process()._config  # type: ignore[attr-defined]
    daemon = config.pop("daemon", None)
    try:
        yield
    finally:
        if daemon is not None:
            config["daemon"] = daemon


def _serve(work: Callable[[Task, Heartbeat], Any], pipe: Connection, heartbeats: Any) -> None:
    """What a process does until the other end of the pipe is closed."""
    # Ctrl-C reaches every process of a terminal; the parent answers it for all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def heartbeat() -> None:
        heartbeats.value += 1

    pipe.send(None)
    with suppress(EOFError):
        while True:
            pipe.send(work(pipe.recv(), heartbeat))


class DecordRequest(NamedTuple):
    """Frames by number, of a file that is known to show `num_frames` frames."""

    path: str
    numbers: list[int]
    num_frames: int


def read_by_decord(request: DecordRequest, heartbeat: Heartbeat) -> np.ndarray | str:
    """The frames (frame, height, width, color), or why decord refuses them."""
    import decord

    try:
        video = decord.VideoReader(request.path, num_threads=1)
        if len(video) != request.num_frames:
            return f"decord counts {len(video)} frames, its packets {request.num_frames}"
        return video.get_batch(request.numbers).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError, OSError, ValueError) as cause:
        return (str(cause).strip() or repr(cause)).splitlines()[0]
