"""The Hugging Face Space: a page over any backend. `app` is the door, `page` what it shows."""
