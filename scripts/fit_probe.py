"""Give CLIP or EVA-CLIP the labels that SeFAR had: fit a linear map of their tokens.

    scripts/fit_probe.py --features data/tokens/clip --manifest data/gym99-5/manifest.csv \\
        --out runs/clip_probe --tokens-out data/tokens/clip_probe

The map learns through a classifier on the labeled clips. It is the encoder `clip_probe` (or
`eva_probe`): give --out to scripts/extract_features.py as --encoder-dir. --tokens-out saves that
step: pooling is a mean, so the mapped tokens follow from the cached ones, and no video is opened.
"""

from functools import partial

from sefar_core.cli import refuse_unwritable, start

import tyro

from sefar_mllm.config import ProbeConfig


def main(settings: ProbeConfig) -> None:
    """Fit, say how well it knows the classes, and map the tokens if asked to."""
    from qa_data.manifest import read_manifest
    from sefar_mllm.feature_cache import TokenCache, read_index, read_places
    from sefar_mllm.linear_probe import fit_probe, map_cache, save_probe

    refuse_unwritable(folders=[settings.out, settings.tokens_out])
    clips = read_manifest(settings.manifest)
    places = read_places(settings.features, read_index(settings.features)["key"])
    cache = TokenCache(settings.features, list(places))
    probe, told = fit_probe(
        cache, clips, max_steps=settings.max_steps, lr=settings.lr, seed=settings.seed
    )
    save_probe(settings.out, probe, told)
    print(f"{settings.out}: {probe.name}, accuracy {told['accuracy']}")
    if settings.tokens_out is not None:
        map_cache(cache, probe, settings.out, settings.tokens_out)
        print(f"{settings.tokens_out}: {len(places)} clips")


if __name__ == "__main__":
    start(main, partial(tyro.cli, ProbeConfig, description=__doc__))
