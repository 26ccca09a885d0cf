"""Score a fine-tuned language model on one or several question files.

    scripts/evaluate_mllm.py --model runs/mllm-sefar/model --encoder-features data/tokens/sefar \\
        --questions data/qa-public/test.jsonl data/qa-hard/test.jsonl --out runs/scores

Primary number: letter likelihoods averaged over all rotations of the options. Intervals resample
source videos. --shuffle-videos shows every question another clip's video: what is still right then
was not seen. Writes predictions-NAME.jsonl for each file, and metrics.json for all.
"""

import tyro

from sefar_mllm.config import EvaluateConfig


def main(settings: EvaluateConfig) -> None:
    import torch
    from rich.console import Console

    from sefar_core.runs.folder import surroundings, write_json
    from sefar_mllm.checkpoint import FolderError, load_trained
    from sefar_mllm.data import LessonError, load_questions, name_sets
    from sefar_mllm.evaluate import as_json, score_file, table
    from sefar_mllm.predict import PredictionError
    from sefar_mllm.token_cache import CacheError

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        names = name_sets(settings.questions)
        sets = {
            name: load_questions(path, settings.manifest)
            for name, path in zip(names, settings.questions, strict=True)
        }
        model, tokenizer = load_trained(settings.model, device=device)
        summaries = {
            name: score_file(settings, model, tokenizer, questions, name=name)
            for name, questions in sets.items()
        }
    except (ValueError, LessonError, CacheError, FolderError, PredictionError, OSError) as cause:
        raise SystemExit(f"error: {cause}") from cause
    numbers = {name: as_json(summary) for name, summary in summaries.items()}
    write_json(
        settings.out / "metrics.json",
        {"shuffled_videos": settings.shuffle_videos, "sets": numbers, "run": surroundings()},
    )
    Console().print(table(summaries, shuffled=settings.shuffle_videos))


if __name__ == "__main__":
    main(tyro.cli(EvaluateConfig, description=__doc__))
