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

from sefar_core.runs.folder import writing


class RunFolderBusy(Exception):
    """Another process trains in the run folder. The message names folder and process."""


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keep other processes from training in a run folder, which is made if it is missing.

    Raises:
        RunFolderBusy: one does.
        WriteError: the folder cannot be made or written to.
    """
    path = run_dir / "lock"
    told = f"process {os.getpid()} on {socket.gethostname()}\n".encode()
    with writing(path, len(told)):
        run_dir.mkdir(parents=True, exist_ok=True)
        path.touch()
    # Unbuffered: closing it must not write again what a full disk has refused.
    with path.open("a+b", buffering=0) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            file.seek(0)
            holder = file.read().decode().strip()
            raise RunFolderBusy(
                f"{run_dir} is in use by {holder}; wait for it, stop it, or give another run folder"
            ) from cause
        with writing(path, len(told)):
            file.truncate(0)
            file.write(told)
        yield
