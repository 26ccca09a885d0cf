"""Score a fine-tuned language model on one or several question files.

    scripts/evaluate_mllm.py --model runs/mllm-sefar/model --encoder-features data/tokens/sefar \\
        --questions data/qa-public/test.jsonl data/qa-hard/test.jsonl --out runs/scores \\
        --train-questions data/qa-hard/train.jsonl --manifest data/manifest.csv

The primary metric is accuracy by letter likelihoods averaged over all rotations of the options.
Intervals resample source videos. --train-questions and --manifest add the subsets on which
guessing by frequency fails, and whose videos no training clip comes from.

Controls: --shuffle-videos shows every question a clip of another class and source (answers that
are still right do not come from the video), --frame-order reversed reads a cache of reversed
frames, --letters 1234 marks the options by other letters. --diagnostics also generates answers,
scores the texts of the options, and reports whether these agree.

Each file gets predictions-NAME.jsonl and plots, with diagnostics also spoken-NAME.jsonl (the
generated answers) and option-text-NAME.jsonl; metrics.json is for all files.
"""

from functools import partial

from sefar_core.cli import refuse_unwritable, start

import tyro

from sefar_mllm.config import EvaluateConfig


def main(settings: EvaluateConfig) -> None:
    refuse_unwritable(folders=[settings.out])  # before the slow imports

    import torch

    from qa_data.manifest import read_manifest
    from qa_data.terminal import console
    from sefar_mllm.checkpoint import load_trained
    from sefar_mllm.dataset import load_questions, name_sets
    from sefar_mllm.evaluation.evaluate import control, diagnose_file, score_file, write_metrics
    from sefar_mllm.evaluation.metrics import known_subsets
    from sefar_mllm.evaluation.report import diagnosis_table, plot_set, score_table, subset_table

    device = "cuda" if torch.cuda.is_available() else "cpu"
    manifest, trained_on = settings.manifest, settings.train_questions
    summaries, diagnoses = {}, {}
    names = name_sets(settings.questions)
    sets = {
        name: load_questions(path, manifest)
        for name, path in zip(names, settings.questions, strict=True)
    }
    train = None if trained_on is None else load_questions(trained_on, manifest)
    clips = None if manifest is None else read_manifest(manifest)
    model, tokenizer = load_trained(
        settings.model, language_model=settings.language_model, device=device
    )
    for name, questions in sets.items():
        subsets = known_subsets(questions, train=train, clips=clips)
        one = score_file(settings, model, tokenizer, questions, name=name, subsets=subsets)
        summaries[name] = one
        if settings.diagnostics:
            diagnoses[name] = diagnose_file(settings, model, tokenizer, questions, name=name)
    write_metrics(settings, summaries, diagnoses)
    terminal, shown = console(), control(settings)
    terminal.print(score_table(summaries, control=shown))
    terminal.print(subset_table(summaries, control=shown))
    if diagnoses:
        terminal.print(diagnosis_table(diagnoses, control=shown))
    for name, questions in sets.items():  # last: a plot that fails loses no score
        plot_set(summaries[name], questions, settings.out, name=name, train=train)


if __name__ == "__main__":
    start(main, partial(tyro.cli, EvaluateConfig, description=__doc__))
