"""What would end or spoil a run hours after its start, found before its first step."""

from pathlib import Path

from qa_data.manifest import Clip
from sefar_core.config import TrainConfig
from sefar_core.data.feeds import TrainClips
from sefar_core.data.on_disk import on_disk
from sefar_core.data.validation import HeldOut
from sefar_core.data.video import VideoReadError

NAMED = 8  # classes or files that a message lists


def classes_without_labels(clips: TrainClips) -> list[str]:
    """Names of the classes of a manifest of which no clip is labeled."""
    labeled = {clip.label for clip in clips.labeled}
    names = enumerate(clips.class_names)
    return [name or f"class {label}" for label, name in names if label not in labeled]


def warn_of_bare_classes(bare: list[str], num_classes: int) -> None:
    """Say which classes cannot be learned."""
    if bare:
        more = f" and {len(bare) - NAMED} more" if len(bare) > NAMED else ""
        print(
            f"warning: {len(bare)} of {num_classes} classes have no labeled clip and will not be "
            f"learned: {', '.join(bare[:NAMED])}{more}"
        )


def files_needed(clips: TrainClips, held_out: HeldOut | None, config: TrainConfig) -> list[Clip]:
    """The clips whose files a run opens at some time; a store of frames stands for the others'."""
    validation = held_out.clips if held_out else []
    if config.data.store != "none":
        return validation
    unlabeled = clips.unlabeled if config.warmup_epochs < config.epochs else []
    return [*clips.labeled, *unlabeled, *validation]


def refuse_missing(clips: list[Clip], video_root: Path) -> None:
    """Raise VideoReadError if clips have no file: at once, not when they are needed first."""
    gone = [clip for clip in clips if not on_disk(video_root / clip.path).exists()]
    if gone:
        first = ", ".join(str(video_root / clip.path) for clip in gone[:NAMED])
        more = f" and {len(gone) - NAMED} more" if len(gone) > NAMED else ""
        raise VideoReadError(
            f"{len(gone)} of {len(clips)} clips have no file: {first}{more}; check the video "
            f"folder, or leave them out with check_videos.py --write-clean"
        )
