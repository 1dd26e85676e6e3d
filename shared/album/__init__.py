"""An output folder to look at: a contact sheet, and a page that works from disk."""
