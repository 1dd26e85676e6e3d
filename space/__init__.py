"""The Hugging Face Space: a page over any backend. `app` is the door, `page` what it shows."""

from shared import proxies

with proxies.hidden():  # as it is imported, it makes a client, for what no page of ours does
    import gradio

__all__ = ["gradio"]
