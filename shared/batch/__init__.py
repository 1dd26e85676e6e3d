"""Many prompts, one folder: rows -> pictures to make -> so many at once on any backend -> manifest."""

from shared.batch.batch import LISTED, Batch, BatchOptions, Checked

__all__ = ["LISTED", "Batch", "BatchOptions", "Checked"]
