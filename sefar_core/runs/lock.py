"""One process at a time in a run folder.

The lock is the kernel's, not the file's existence: it ends with the process that holds it, however
that ends, so a dead process's lock never has to be recognized. Loader processes don't inherit it.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RunFolderBusy(Exception):
    """Another process trains in the run folder. The message names folder and process."""


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keep other processes from training in a run folder, which is made if it is missing.

    Raises:
        RunFolderBusy: one does.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            file.seek(0)
            raise RunFolderBusy(
                f"{run_dir} is in use by {file.read().strip()}; wait for it, stop it, or give "
                f"another run folder"
            ) from cause
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
