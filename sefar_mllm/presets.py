"""Named settings for fine-tuning. `PRESETS` is the command line's list."""

from sefar_mllm.config import FinetuneConfig, LoraSettings


def demo() -> FinetuneConfig:
    """The toy language model of the demo, on two CPU cores in a minute."""
    return FinetuneConfig(
        language_model="demo/llm",
        lora=LoraSettings(rank=8, alpha=16.0, dropout=0.0, lr=1e-3),
        projector_lr=2e-3,
        epochs=10,
        batch_size=16,
        micro_batch_size=16,
        warmup=0.1,
    )


def vicuna_7b() -> FinetuneConfig:
    """Vicuna-7B v1.5: the projector alone first, then LoRA with it. Proposed, not tuned."""
    return FinetuneConfig(projector_epochs=2, epochs=5, answer_style="mixed")


PRESETS = {preset.__name__: preset() for preset in (demo, vicuna_7b)}
