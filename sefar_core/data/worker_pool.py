"""Work handed to processes that may die or hang, none of which loses the work of the others.

A damaged file can take a decoder's whole process with it, or keep it busy for ever. Each process
has one task at a time, so that the parent knows which task it was.
"""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NamedTuple, TypeVar

from qa_data.terminal import without_interrupts

Task = TypeVar("Task")
Answer = TypeVar("Answer")
Heartbeat = Callable[[], None]
"""To be called whenever the work has come a step further."""

GLANCE_S = 0.2
"""How often processes are looked at that have nothing to say."""


class WorkerFailure(NamedTuple):
    """Takes the place of an answer that never came.

    Attributes:
        kind: `crashed` or `hung`.
        words: what happened.
        ended_by: the signal that ended a process that crashed, if one did.
    """

    kind: str
    words: str
    ended_by: signal.Signals | None = None


def run_isolated(
    work: Callable[[Task, Heartbeat], Answer],
    tasks: Sequence[Task],
    *,
    workers: int,
    patience_s: float,
    preload: str,
) -> Iterator[tuple[Task, Answer | WorkerFailure]]:
    """Every task with its answer, in the order in which they are done.

    Args:
        work: what to do with a task; it can be pickled. An exception in it is a crash, whose
            traceback goes to stderr.
        tasks: can be pickled, as can the answers.
        workers: processes, at least 1.
        patience_s: seconds without a heartbeat after which a process counts as hung and is killed.
        preload: module that the work needs, imported once for all processes where that can be.

    Raises:
        RuntimeError: a process dies before it is given a task.
    """
    left = deque(tasks)
    crew: list[_Worker[Task]] = []
    try:
        crew += [_Worker(work, preload) for _ in range(min(workers, len(left)))]
        while crew:
            for worker in _heard(crew, patience_s):
                task, answer = worker.task, worker.answer(patience_s)
                if left and not isinstance(answer, WorkerFailure):
                    worker.give(left.popleft())
                else:
                    crew.remove(worker)
                    worker.stop()
                if isinstance(answer, WorkerFailure) and task is None:
                    raise RuntimeError(f"a process to check in does not start: {answer.words}")
                if isinstance(answer, WorkerFailure) and left:
                    crew.append(_Worker(work, preload))
                if task is not None:
                    yield task, answer
    finally:
        for worker in crew:
            worker.stop()


class _Worker(Generic[Task]):
    """A process with a pipe to it and the count of its heartbeats. Its first message says that it
    is ready.

    Attributes:
        task: what it works on; None until it is ready.
    """

    def __init__(self, work: Callable[[Task, Heartbeat], Any], preload: str):
        # Not forked from this process, whose threads could leave a lock held in the copy.
        forkserver = "forkserver" in get_all_start_methods()
        context: Any = get_context("forkserver" if forkserver else "spawn")
        context.set_forkserver_preload([preload])
        self.task: Task | None = None
        self.pipe, far_end = context.Pipe()
        self._heartbeats = context.RawValue("Q", 0)
        self._seen = (0, time.monotonic())
        arguments = (work, far_end, self._heartbeats)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        # The process that forks the others starts with the first, and would print a traceback.
        with without_interrupts():
            self._process.start()
        far_end.close()

    def give(self, task: Task) -> None:
        self.task, self._seen = task, (self._heartbeats.value, time.monotonic())
        with suppress(BrokenPipeError):  # it died idle: so its pipe will say
            self.pipe.send(task)

    def hangs(self, patience_s: float) -> bool:
        """Whether its task has given no heartbeat for so long."""
        heartbeats, moment = self._heartbeats.value, time.monotonic()
        if self.task is None or heartbeats != self._seen[0]:
            self._seen = (heartbeats, moment)
        return moment - self._seen[1] > patience_s

    def answer(self, patience_s: float) -> Any:
        """What it says; that it died; or, if it says nothing, that it hangs."""
        if not self.pipe.poll():
            return WorkerFailure(
                "hung", f"the process that checked it came no further in {patience_s:g} s"
            )
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode or 0
            ended_by = signal.Signals(-code) if code < 0 else None
            cause = ended_by.name if ended_by else f"exit code {code}"
            return WorkerFailure("crashed", f"the process that checked it died ({cause})", ended_by)

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _heard(crew: Sequence[_Worker[Task]], patience_s: float) -> list[_Worker[Task]]:
    """Those that have something to say, and those that hang."""
    ready = wait([worker.pipe for worker in crew], timeout=GLANCE_S)
    return [worker for worker in crew if worker.pipe in ready or worker.hangs(patience_s)]


def _serve(work: Callable[[Task, Heartbeat], Any], questions: Connection, heartbeats: Any) -> None:
    """The life of a process: until the other end of the pipe is closed."""
    # Ctrl-C reaches every process of a terminal; the parent answers it for all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def heartbeat() -> None:
        heartbeats.value += 1

    questions.send(None)
    with suppress(EOFError):
        while True:
            questions.send(work(questions.recv(), heartbeat))
