"""How the demo's toy language model is made: moves in words, tokenizer, exercises, pretraining."""
