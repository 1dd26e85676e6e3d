"""The page: a prompt, a picture, and everything between, over any backend.

mounting   puts the page into an app, at its root, behind its guard
guard      what a call has to show first: the host's name, a key, a body of a sane size
layout     what is where, and what leads to what
form       the fields of a request, and back
draw       the form becomes a request, the events become the stage
stage      what is drawn now, and what was drawn last
history    the visitor's own pictures, found by their words
visitor    whose pictures are whose
restore    settings from a file, a link, a picture on the page
grid       one or two settings varied over a prompt, as a labelled sheet
examples   pictures that are there at once
markup     the HTML of our own parts
theme      how it looks
pacing     events at a pace that a person can follow
workshop   what all of them work with; `pace` is how fast it has been
endpoint   Gradio's own API, `/generate`
"""
