"""A task folder for lmms-eval: a YAML file a set, its questions, and the functions they name.

Source: lmms-eval, docs/task_guide.md (fields, `!function file.name`, data files of one's own by
`dataset_kwargs`) and its --include_path.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from qa_data.export import lmms_eval_functions
from qa_data.gym_qa import NOT_MEASURED
from qa_data.question import Question, QuestionError

YAML = """\
# {count} questions. Run with this folder's path, from anywhere:
#   python -m lmms_eval --include_path FOLDER --tasks {task} --model ...
# Paths of questions and videos are absolute: if either is moved, export again.
task: "{task}"
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
generation_kwargs:
  max_new_tokens: 16
  temperature: 0
  do_sample: false
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: answer
process_results: !function utils.process_results
metric_list:
  - metric: accuracy
    aggregation: mean
    higher_is_better: true
  - metric: mean_class_accuracy
    aggregation: !function utils.mean_of_classes
    higher_is_better: true
  - metric: unreadable
    aggregation: mean
    higher_is_better: false
metadata:
  - version: 1.0
"""


def lmms_eval_files(
    sets: Mapping[str, Sequence[Question]], files: Mapping[str, str], out: Path
) -> dict[str, str]:
    """The files of the task folder by name; training sets are left out.

    Args:
        sets: questions by the name of their set.
        files: absolute path of each video.
        out: where the folder will be: lmms-eval asks for absolute paths of data files.

    Raises:
        QuestionError: all sets are training sets.
    """
    if set(sets) <= set(NOT_MEASURED):
        raise QuestionError(
            f"{' and '.join(sets)} would be left out, as training questions are, and nothing left "
            f"to measure on; give a folder with val or test, or a question file of another name"
        )
    folder = out.resolve()
    contents = {"utils.py": Path(lmms_eval_functions.__file__).read_text(encoding="utf-8")}
    for name, questions in sets.items():
        if name in NOT_MEASURED:
            continue
        data = f"{name}.jsonl"
        contents[data] = "".join(_line(question, files) for question in questions)
        task = re.sub(r"\W+", "_", f"{folder.name}_{name}")
        contents[f"{task}.yaml"] = YAML.format(
            count=len(questions),
            task=task,
            data=json.dumps(str(folder / data), ensure_ascii=False),
        )
    return contents


def _line(question: Question, files: Mapping[str, str]) -> str:
    entry = {
        "question_id": question.question_id,
        "video_path": files[question.video],
        "question": question.stem,
        "options": question.options,
        "answer": question.letter,
        "class": class_name(question),
    }
    return json.dumps(entry, ensure_ascii=False) + "\n"


def class_name(question: Question) -> str:
    """By what the mean over classes groups: the class, or the right option's text."""
    if question.label is None:
        return question.options[question.answer]
    return str(question.label)
