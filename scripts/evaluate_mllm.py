"""Score a fine-tuned language model on one or several question files.

    scripts/evaluate_mllm.py --model runs/mllm-sefar/model --encoder-features data/tokens/sefar \\
        --questions data/qa-public/test.jsonl data/qa-hard/test.jsonl --out runs/scores \\
        --train-questions data/qa-hard/train.jsonl --manifest data/manifest.csv

Primary number: letter likelihoods averaged over all rotations of the options. Intervals resample
source videos. --train-questions and --manifest add the parts of the set on which guessing by
frequency fails, and whose videos were never seen. Controls: --shuffle-videos shows every question
a clip of another class and source (what is still right then was not seen), --frame-order reversed
takes a cache of reversed frames, --letters 1234 marks the options by other letters. --diagnostics
lets the model speak as well, and tells whether that agrees.

Writes for each file predictions-NAME.jsonl and pictures, with diagnostics spoken-NAME.jsonl and
option-text-NAME.jsonl, and metrics.json for all.
"""

import tyro

from sefar_mllm.config import EvaluateConfig


def main(settings: EvaluateConfig) -> None:
    import torch
    from rich.console import Console

    from qa_data.manifest import read_manifest
    from sefar_mllm.data import LessonError, load_questions, name_sets
    from sefar_mllm.evaluation.evaluate import control, diagnose_file, score_file, write_metrics
    from sefar_mllm.evaluation.parts import named_parts
    from sefar_mllm.evaluation.plots import plot_set
    from sefar_mllm.evaluation.tables import diagnosis_table, part_table, score_table
    from sefar_mllm.folders.checkpoint import FolderError, load_trained
    from sefar_mllm.scoring.predict import PredictionError
    from sefar_mllm.tokens.cache import CacheError

    device = "cuda" if torch.cuda.is_available() else "cpu"
    manifest, learned = settings.manifest, settings.train_questions
    summaries, diagnoses = {}, {}
    try:
        names = name_sets(settings.questions)
        sets = {
            name: load_questions(path, manifest)
            for name, path in zip(names, settings.questions, strict=True)
        }
        train = None if learned is None else load_questions(learned, manifest)
        clips = None if manifest is None else read_manifest(manifest)
        model, tokenizer = load_trained(
            settings.model, language_model=settings.language_model, device=device
        )
        for name, questions in sets.items():
            parts = named_parts(questions, train=train, clips=clips)
            one = score_file(settings, model, tokenizer, questions, name=name, parts=parts)
            plot_set(one, questions, settings.out, name=name, train=train)
            summaries[name] = one
            if settings.diagnostics:
                diagnoses[name] = diagnose_file(settings, model, tokenizer, questions, name=name)
    except (
        CacheError,
        FloatingPointError,
        FolderError,
        LessonError,
        OSError,
        PredictionError,
        ValueError,
    ) as cause:
        raise SystemExit(f"error: {cause}") from cause
    write_metrics(settings, summaries, diagnoses)
    console, shown = Console(), control(settings)
    console.print(score_table(summaries, control=shown))
    console.print(part_table(summaries, control=shown))
    if diagnoses:
        console.print(diagnosis_table(diagnoses, control=shown))


if __name__ == "__main__":
    main(tyro.cli(EvaluateConfig, description=__doc__))
