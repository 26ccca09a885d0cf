"""The folder of a trained model: written, checked, merged, read."""
