"""Many prompts, one folder: rows -> pictures to make -> so many at once on any backend -> manifest."""

from shared.batch.batch import Batch, BatchOptions, Checked

__all__ = ["Batch", "BatchOptions", "Checked"]
