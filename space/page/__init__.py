"""The page: a prompt, a picture, and everything between, over any backend.

mounting   puts the page into an app, at its root
layout     what is where
endpoint   Gradio's own API, `/generate`
"""

from space.page.mounting import mount_page

__all__ = ["mount_page"]
