"""Which folder of weights serves which encoder, and for which seed.

A recognizer may be given once, or once for each seed: training i is then fine-tuned on recognizer
i, so that what is said of several seeds holds for the training of both.
"""

from pathlib import Path

from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.plan import BLIND, FOLDER_OF
from sefar_mllm.encoders import ENCODERS

DRAWN = "random"
RECOGNIZERS = ("sefar", "supervised")


def folders_of(encoder: str, config: CompareConfig) -> tuple[Path, ...]:
    """The folders that an encoder is made from; none if it is not there."""
    given = getattr(config, FOLDER_OF[encoder])
    if given is None:
        return ()
    return given if isinstance(given, tuple) else (given,)


def available(config: CompareConfig) -> list[str]:
    """Encoders whose folder is given; the others' rows read "not measured"."""
    return [name for name in FOLDER_OF if name in ENCODERS and folders_of(name, config)]


def own_for_each_seed(encoder: str, config: CompareConfig) -> bool:
    """Whether every seed has another encoder: weights drawn anew, or a recognizer of its own.

    What the blind one gives depends on the size of the tokens alone.
    """
    return encoder == DRAWN or (encoder != BLIND and len(folders_of(encoder, config)) > 1)


def seeds_of(encoder: str, config: CompareConfig) -> tuple[int, ...]:
    """The seeds that have an encoder of their own; the first one where one serves all."""
    return config.seeds if own_for_each_seed(encoder, config) else config.seeds[:1]


def folder_of(encoder: str, config: CompareConfig, seed: int) -> Path:
    """The folder that the encoder of a seed is made from."""
    folders = folders_of(encoder, config)
    return folders[config.seeds.index(seed) if len(folders) > 1 else 0]


def num_recognizers(config: CompareConfig) -> dict[str, int]:
    """How often each recognizer was trained, by the name of its row."""
    return {name: len(found) for name in RECOGNIZERS if (found := folders_of(name, config))}
