"""Jobs, their events and their images on disk: what was accepted survives the process."""

from shared.store.records import Job, Status, StoredEvent, StoredImage
from shared.store.store import Store

__all__ = ["Job", "Status", "Store", "StoredEvent", "StoredImage"]
