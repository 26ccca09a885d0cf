"""A data set's clips with their splits: test first, then labels and validation out of the rest."""

from collections.abc import Sequence

from qa_data.manifest import Clip, by_split
from sefar_core.data.separation import separate_test
from sefar_core.data.sources import SplitError, apart_from
from sefar_core.data.splits import SplitConfig, split_pool


def divide(
    pool: Sequence[Clip], settled: Sequence[Clip], config: SplitConfig
) -> tuple[list[Clip], dict[str, int]]:
    """Pool cut as the settings say, settled clips as they are.

    Clips without a label are training clips: those that share a source video with validation
    clips are left out, and with test clips too unless the official cut is asked for.

    Args:
        pool: training clips with labels; may be empty if all clips are settled.
        settled: clips that have their split.
        config: how the pool is cut.

    Returns:
        The clips, and how many are in no split, by reason.

    Raises:
        SplitError: the pool cannot be cut as asked, or there is none and settings for one.
    """
    if not pool:
        if config != SplitConfig():
            raise SplitError(
                "the lists of this data set say the split of every clip, so that rates and cuts "
                "change nothing; leave these settings out"
            )
        return list(settled), {}
    unlabeled = by_split(settled, "unlabeled")
    others = [clip for clip in settled if clip.split not in ("unlabeled", "test")]
    listed_test = by_split(settled, "test")
    training, test = separate_test(
        pool,
        listed_test,
        how=config.test_cut,
        rate=config.test_rate,
        one_sided=config.one_sided,
        seed=config.seed,
    )
    cut = split_pool(training, config)
    aside = [*by_split([*cut, *others], "val"), *(test if config.test_cut != "official" else ())]
    kept = apart_from(unlabeled, aside)
    left_out = {
        "to keep test apart": len(pool) + len(listed_test) - len(training) - len(test),
        "unlabeled, of validation videos": len(training) - len(cut),
        "never labeled, of validation or test videos": len(unlabeled) - len(kept),
    }
    return [*cut, *others, *kept, *test], {why: count for why, count in left_out.items() if count}
