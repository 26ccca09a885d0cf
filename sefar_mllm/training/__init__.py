"""Questions with tokens -> a fine-tuned model."""
