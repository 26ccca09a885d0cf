"""Train SeFAR, or its supervised-only baseline, from a manifest of clips.

    scripts/train_ssl.py demo --manifest data/splits/manifest.csv \
        --video-root data/gym/videos --run-dir runs/sefar
    accelerate launch scripts/train_ssl.py paper_s ...       # several GPUs

The first word is a preset; every setting of it can be overridden, for example
`--loss.perturbation unchanged`. The run folder gets config.json, run.json, metrics.jsonl, states
to resume from (run the same command again) and the encoders student/ and teacher/.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sefar_core.config import TrainConfig
from sefar_core.presets import PRESETS


@dataclass(frozen=True, kw_only=True)
class TrainSsl:
    manifest: Path
    """CSV of clips, written by make_splits.py."""
    video_root: Path
    """Folder that the manifest's paths start from."""
    run_dir: Path
    """Folder of this run; one that was interrupted is gone on with."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]


def main(settings: TrainSsl) -> None:
    from sefar_core.checkpoint import CheckpointError
    from sefar_core.data.frame_store import FrameStoreError
    from sefar_core.data.video import VideoReadError
    from sefar_core.fit import fit

    try:
        fit(
            settings.config,
            manifest=settings.manifest,
            video_root=settings.video_root,
            run_dir=settings.run_dir,
        )
    except VideoReadError as cause:  # a loader process sends its traceback before the message
        raise SystemExit(f"error: {str(cause).strip().splitlines()[-1]}") from cause
    except (CheckpointError, FrameStoreError, FloatingPointError, ValueError) as cause:
        raise SystemExit(f"error: {cause}") from cause


def parse() -> TrainSsl:
    """The command line: a preset, then what is changed in it."""
    asked = tyro.MISSING
    presets = {
        name: TrainSsl(manifest=asked, video_root=asked, run_dir=asked, config=config)
        for name, config in PRESETS.items()
    }
    return tyro.cli(tyro.extras.subcommand_type_from_defaults(presets), description=__doc__)


if __name__ == "__main__":
    main(parse())
