"""Files to tensors: videos, clips, batches, splits, and the list formats of the data sets."""
