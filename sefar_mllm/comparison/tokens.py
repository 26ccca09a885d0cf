"""The tokens of every encoder that the comparison can have, each extracted once.

Folder names: tokens/ENCODER, with -seed-S for the encoder that is drawn anew for each seed, and
-ORDER for frames that are shown in another order in the test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qa_data.manifest import Clip
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.plan import FOLDER_OF, SHOWINGS, TRAININGS, training
from sefar_mllm.comparison.records import finish, finished
from sefar_mllm.config import ProbeConfig
from sefar_mllm.encoders import ENCODERS, shown_at
from sefar_mllm.encoders.probe import read_probe
from sefar_mllm.encoders.probe_fit import fit_probe, map_cache, save_probe
from sefar_mllm.tokens.cache import TokenCache, read_index
from sefar_mllm.tokens.features import FRAME_ORDERS, extract

DRAWN = "random"
PROBE_BASES = {"clip_probe": "clip", "eva_probe": "eva"}
UNMATCHED = {row.encoder for row in TRAININGS if not row.matched}  # one token an element


@dataclass(frozen=True, kw_only=True)
class TokenJob:
    """One cache to fill."""

    encoder: str
    order: str = "in_order"
    seed: int = 0

    @property
    def folder(self) -> str:
        return token_folder(self.encoder, seed=self.seed, order=self.order)


def token_folder(encoder: str, *, seed: int, order: str = "in_order") -> str:
    """Name of the folder with an encoder's tokens."""
    drawn = f"-seed-{seed}" if encoder == DRAWN else ""
    return f"{encoder}{drawn}" if order == "in_order" else f"{encoder}{drawn}-frames_{order}"


def available(config: CompareConfig) -> list[str]:
    """Encoders whose folder is given; the others' rows read "not measured"."""
    return [
        name
        for name, needed in FOLDER_OF.items()
        if name in ENCODERS and getattr(config, needed) is not None
    ]


def token_jobs(config: CompareConfig) -> list[TokenJob]:
    """All caches of this comparison."""
    names = available(config)
    jobs = [
        TokenJob(encoder=name, seed=seed)
        for name in dict.fromkeys(row.encoder for row in TRAININGS)
        if name in names
        for seed in (config.seeds if name == DRAWN else (0,))
    ]
    return jobs + [
        TokenJob(encoder=training(row.of).encoder, order=row.shown)
        for row in SHOWINGS
        if row.shown in FRAME_ORDERS and training(row.of).encoder in names
    ]


def fill(
    job: TokenJob, config: CompareConfig, clips: Sequence[Clip], *, device: str
) -> dict[str, Any]:
    """Encode what the cache lacks, and return its key."""
    folder = config.out / "tokens" / job.folder
    if job.encoder in PROBE_BASES:
        fill_probed(job, config, clips)
        return read_index(folder)["key"]
    source = getattr(config, FOLDER_OF[job.encoder])
    encoder = ENCODERS[job.encoder](source, seed=job.seed, device=device)
    if encoder.any_moments:
        encoder = shown_at(encoder, ENCODERS["sefar"](config.sefar).moments)
    grid = config.grid if job.encoder not in UNMATCHED else 1
    extract(clips, config.video_root, encoder, folder, grid=grid, frame_order=job.order)
    return read_index(folder)["key"]


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
