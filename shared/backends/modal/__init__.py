"""Modal as a place where pictures are made: what its containers share, and its callers."""
