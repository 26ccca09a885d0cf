"""Fit a linear map of CLIP's or EVA-CLIP's tokens on the labels that SeFAR had.

    scripts/fit_probe.py --features data/tokens/clip --manifest data/gym99-5/manifest.csv \\
        --out runs/clip_probe --tokens-out data/tokens/clip_probe

The map is trained through a classifier on the labeled clips. Together with the image model it is
the encoder `clip_probe` (or `eva_probe`): give --out to scripts/extract_features.py as
--encoder-dir. --tokens-out makes that step unnecessary: pooling is a mean, so the mapped tokens
follow from the cached ones, and no video is opened.
"""

from functools import partial

from sefar_core.cli import refuse_unwritable, start

import tyro

from sefar_mllm.config import ProbeConfig


def main(settings: ProbeConfig) -> None:
    """Fit the probe, report its accuracy, and map the tokens for --tokens-out."""
    from qa_data.manifest import read_manifest
    from sefar_mllm.feature_cache import TokenCache, read_index, read_places
    from sefar_mllm.linear_probe import fit_probe, map_cache, save_probe

    refuse_unwritable(folders=[settings.out, settings.tokens_out])
    clips = read_manifest(settings.manifest)
    places = read_places(settings.features, read_index(settings.features)["key"])
    cache = TokenCache(settings.features, list(places))
    probe, metrics = fit_probe(
        cache, clips, max_steps=settings.max_steps, lr=settings.lr, seed=settings.seed
    )
    save_probe(settings.out, probe, metrics)
    print(f"{settings.out}: {probe.name}, accuracy {metrics['accuracy']}")
    if settings.tokens_out is not None:
        map_cache(cache, probe, settings.out, settings.tokens_out)
        print(f"{settings.tokens_out}: {len(places)} clips")


if __name__ == "__main__":
    start(main, partial(tyro.cli, ProbeConfig, description=__doc__))
