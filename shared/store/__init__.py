"""Jobs, their events and their images on disk: what was accepted survives the process."""

from shared.store.records import PLAIN, Delivery, Job, Status, StoredEvent, StoredImage, Terms
from shared.store.store import Store

__all__ = ["PLAIN", "Delivery", "Job", "Status", "Store", "StoredEvent", "StoredImage", "Terms"]
