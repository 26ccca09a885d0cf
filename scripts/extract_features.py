"""Encode the clips of a manifest into a token cache, once for each encoder.

    scripts/extract_features.py --manifest data/gym99-5/manifest.csv --video-root data/videos \\
        --encoder sefar --encoder-dir runs/sefar --out data/tokens/sefar
    accelerate launch scripts/extract_features.py ...              # several GPUs share the clips

Training and scoring read the cache and never open a video. The same command resumes a run that
stopped, on any number of processes, and adds missing clips. A folder with the tokens of another
encoder, sampling or frame order is refused, and so is one whose videos have changed their size.
runs.jsonl in the folder records every run.

The controls `random` and `constant` have the architecture of the recognizer in --encoder-dir.
`--frame-order reversed`, `shuffled` or `middle` shows the frames in another order: the accuracy
that an encoder loses by it came from their order. Give each its own --out.
"""

from functools import partial

from sefar_core.cli import start

import tyro

from sefar_mllm.config import ExtractConfig


def main(settings: ExtractConfig) -> None:
    """Encode, and report how many clips were new."""
    from accelerate import Accelerator

    from qa_data.manifest import by_split, read_manifest
    from sefar_mllm.encoders import ENCODERS, recognizer_moments, with_frame_times
    from sefar_mllm.features import extract

    accelerator = Accelerator()
    try:
        manifest = read_manifest(settings.manifest)
        clips = [clip for split in settings.splits for clip in by_split(manifest, split)]
        build = ENCODERS[settings.encoder]
        encoder = build(settings.encoder_dir, seed=settings.seed, device=str(accelerator.device))
        if settings.moments_of is not None:
            encoder = with_frame_times(encoder, recognizer_moments(settings.moments_of))
        fresh = extract(
            clips,
            settings.video_root,
            encoder,
            settings.out,
            grid=settings.grid,
            frame_order=settings.frame_order,
        )
    finally:
        accelerator.end_training()  # or a process may abort while Python ends
    if accelerator.is_main_process:
        kept = f", {len(clips) - fresh} were there already" if fresh < len(clips) else ""
        print(f"{settings.out}: encoded {fresh} clips{kept}")
        if "weights" in encoder.origin:
            print(f"{encoder.name}: {encoder.origin['weights']}")


if __name__ == "__main__":
    start(main, partial(tyro.cli, ExtractConfig, description=__doc__))
