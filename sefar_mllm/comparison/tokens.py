"""The tokens of every encoder that the comparison can have, each extracted once.

Folder names: tokens/ENCODER, with -seed-S where each seed has an encoder of its own (`weights`),
and -frames_ORDER for frames that are shown in another order in the test. Beside each lies
NAME.json, which says by which code it is made.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qa_data.manifest import Clip
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.plan import SHOWINGS, TRAININGS, training
from sefar_mllm.comparison.records import finish, finished
from sefar_mllm.comparison.weights import available, folder_of, own_for_each_seed, seeds_of
from sefar_mllm.config import ProbeConfig
from sefar_mllm.encoders import ENCODERS, recognizer_moments, shown_at
from sefar_mllm.encoders.probe import read_probe
from sefar_mllm.encoders.probe_fit import fit_probe, map_cache, save_probe
from sefar_mllm.tokens.cache import TokenCache, read_index
from sefar_mllm.tokens.features import FRAME_ORDERS, extract

PROBE_BASES = {"clip_probe": "clip", "eva_probe": "eva"}
UNMATCHED = {row.encoder for row in TRAININGS if not row.matched}  # one token an element


@dataclass(frozen=True, kw_only=True)
class TokenJob:
    """One cache to fill."""

    encoder: str
    order: str = "in_order"
    seed: int
    """The one whose encoder it is, or the first where one encoder serves all."""
    own: bool
    """Whether each seed has an encoder of its own."""

    @property
    def folder(self) -> str:
        return token_folder(self.encoder, seed=self.seed if self.own else None, order=self.order)


def token_folder(encoder: str, *, seed: int | None, order: str = "in_order") -> str:
    """Name of the folder with an encoder's tokens.

    Args:
        encoder: its name.
        seed: the one that has this encoder for its own; None where one serves all.
        order: of the frames.
    """
    own = "" if seed is None else f"-seed-{seed}"
    return f"{encoder}{own}" if order == "in_order" else f"{encoder}{own}-frames_{order}"


def token_jobs(config: CompareConfig) -> list[TokenJob]:
    """All caches of this comparison."""
    names = available(config)
    wanted = [(name, "in_order") for name in dict.fromkeys(row.encoder for row in TRAININGS)]
    wanted += [
        (training(row.of).encoder, str(row.shown)) for row in SHOWINGS if row.shown in FRAME_ORDERS
    ]
    return [
        TokenJob(encoder=name, order=order, seed=seed, own=own_for_each_seed(name, config))
        for name, order in wanted
        if name in names
        for seed in seeds_of(name, config)
    ]


def fill(
    job: TokenJob, config: CompareConfig, clips: Sequence[Clip], *, device: str
) -> dict[str, Any]:
    """Encode what the cache lacks, and return its key.

    Raises:
        StaleError: the cache was begun by other code, or a probe on other tokens or labels.
    """
    folder = config.out / "tokens" / job.folder
    record = folder.with_name(f"{job.folder}.json")
    if not finished(record, asdict(job)):
        folder.parent.mkdir(parents=True, exist_ok=True)
        finish(record, asdict(job))  # before it is whole: what is added later is by the same code
    if job.encoder in PROBE_BASES:
        fill_probed(job, config, clips)
        return read_index(folder)["key"]
    source = folder_of(job.encoder, config, job.seed)
    encoder = ENCODERS[job.encoder](source, seed=job.seed, device=device)
    if encoder.any_moments:
        encoder = shown_at(encoder, recognizer_moments(config.sefar[0]))
    grid = config.grid if job.encoder not in UNMATCHED else 1
    extract(clips, config.video_root, encoder, folder, grid=grid, frame_order=job.order)
    return read_index(folder)["key"]


def authenticity(config: CompareConfig) -> dict[str, str]:
    """What is known of whose weights image models have; it belongs beside their numbers."""
    named = [name for name in available(config) if name in {*PROBE_BASES, *PROBE_BASES.values()}]
    folders = {name: config.out / "tokens" / token_folder(name, seed=None) for name in named}
    return {name: read_index(folder)["origin"]["weights"] for name, folder in folders.items()}


def fill_probed(job: TokenJob, config: CompareConfig, clips: Sequence[Clip]) -> None:
    """C7: fit the map of CLIP's or EVA's tokens on the labels that SeFAR had, and apply it.

    Raises:
        StaleError: it was fitted before on other tokens or labels.
    """
    base = TokenCache(config.out / "tokens" / PROBE_BASES[job.encoder], [c.id for c in clips])
    folder = config.out / "probes" / job.encoder
    labeled = [clip for clip in clips if clip.split == "labeled"]
    defaults = ProbeConfig(features=base.folder, manifest=config.manifest, out=folder)
    inputs = {
        "tokens": base.key,
        "labels": {clip.id: clip.label for clip in labeled},
        "max_steps": defaults.max_steps,
        "lr": defaults.lr,
        "seed": defaults.seed,
    }
    record = folder.with_name(f"{job.encoder}.json")
    if not finished(record, inputs):
        folder.parent.mkdir(parents=True, exist_ok=True)
        probe, told = fit_probe(
            base, labeled, max_steps=defaults.max_steps, lr=defaults.lr, seed=defaults.seed
        )
        save_probe(folder, probe, told)
        finish(record, inputs)
    map_cache(base, read_probe(folder), folder, config.out / "tokens" / job.folder)
