"""Encode the clips of a manifest into a token cache, once for each encoder.

    scripts/extract_features.py --manifest data/gym99-5/manifest.csv --video-root data/videos \\
        --encoder sefar --encoder-dir runs/sefar --out data/tokens/sefar

Training and scoring read the cache and never open a video. Started again, it adds what is missing;
a folder with the tokens of another encoder is refused. The controls `random` and `constant` take
the architecture of the recognizer in --encoder-dir.
"""

import tyro

from sefar_mllm.config import ExtractConfig


def main(settings: ExtractConfig) -> None:
    """Encode, and say how many clips were new."""
    import torch

    from qa_data.manifest import ManifestError, by_split, read_manifest
    from sefar_core.checkpoint import CheckpointError
    from sefar_core.data.video import VideoReadError
    from sefar_mllm.encoders import ENCODERS
    from sefar_mllm.features import extract
    from sefar_mllm.token_cache import CacheError

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        manifest = read_manifest(settings.manifest)
        clips = [clip for split in settings.splits for clip in by_split(manifest, split)]
        build = ENCODERS[settings.encoder]
        encoder = build(settings.encoder_dir, seed=settings.seed, device=device)
        fresh = extract(clips, settings.video_root, encoder, settings.out, grid=settings.grid)
    except (ManifestError, CheckpointError, VideoReadError, CacheError) as cause:
        raise SystemExit(f"error: {cause}") from cause
    kept = f", {len(clips) - fresh} were there already" if fresh < len(clips) else ""
    print(f"{settings.out}: encoded {fresh} clips{kept}")


if __name__ == "__main__":
    main(tyro.cli(ExtractConfig, description=__doc__))
