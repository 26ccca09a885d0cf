"""What run folders hold."""

import hashlib
import json
from pathlib import Path


def lines(run_dir: Path, name: str = "metrics.jsonl") -> list[dict]:
    """The records of a JSON lines file; none if it is not there."""
    path = run_dir / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def fingerprints(run_dir: Path, *names: str) -> dict[str, str]:
    """Hashes of files of a run, metrics.jsonl among them."""
    return {
        name: hashlib.sha256((run_dir / name).read_bytes()).hexdigest()
        for name in (*names, "metrics.jsonl")
    }
