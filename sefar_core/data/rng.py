"""Random draws as a function of what they are for, not of when or where they are made."""

import hashlib
import random

import torch


def seeded(*parts: object) -> torch.Generator:
    """A generator whose state is a hash of `parts`, the same in every process and on every run."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def seeded_random(*names: object) -> random.Random:
    """A generator of Python that depends on these names alone."""
    text = "\n".join(map(str, names)).encode()
    return random.Random(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big"))
