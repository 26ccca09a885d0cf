"""README.md of a model folder: what it is, what it stands on, how it is used."""

from pathlib import Path

from sefar_core.runs.folder import write_text
from sefar_mllm.model_config import SefarVlmConfig

CARD = """\
---
library_name: {library}
pipeline_tag: video-text-to-text
---

# {title}

{content} It reads {frames} frames of a video as {count} tokens
({rows} x {columns} a frame, {dim} wide) and answers in words.

| part | |
|---|---|
| language model | `{language_model}` ({held}) |
| encoder | `{encoder}` (not in this folder: only its key, in config.json) |

Its answers are about the gymnastics moves that it was tuned on. The licenses of the language model
and of the encoder hold for what is derived from them.

```python
import sefar_mllm

assistant = sefar_mllm.from_pretrained("THIS_FOLDER")
print(assistant.watch("clip.mp4").answer("Which move is this?"))
```
"""


def write_card(config: SefarVlmConfig, draft: Path, *, merged: bool = False) -> None:
    """Describe the model of a folder that is being written.

    Args:
        config: of the composite model.
        draft: the folder.
        merged: whether it holds the language model's weights.
    """
    frames, rows, columns = config.token_shape
    kind = "Projector and language model" if merged else "LoRA and projector for a language model"
    text = CARD.format(
        library="transformers" if merged else "peft",
        title="A video assistant for fine-grained gymnastics",
        content=f"{kind}, fine-tuned on questions about gymnastics moves.",
        frames=frames,
        rows=rows,
        columns=columns,
        count=config.num_video_tokens,
        dim=config.token_dim,
        language_model=config.language_model,
        held="merged into this folder" if merged else "not in this folder: loaded by its name",
        encoder=config.encoder.get("key", {}).get("encoder", "unknown"),
    )
    write_text(draft / "README.md", text)
