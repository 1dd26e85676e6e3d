"""Captions: what a picture may be asked for by, and the words no caption ever uses.

A caption names a subject and, often, a style and a background colour. Knows nothing of
tensors or of the text encoder.
"""

import random
from dataclasses import dataclass

from training.data import COLOURS, STYLES, Subject

# Words that never occur in a caption, and the subject each should still bring up through the
# text encoder alone. `evaluate` prompts with them.
UNSEEN_WORDS: dict[str, str] = {
    "puppy": "dog-face",
    "kitten": "cat-face",
    "bunny": "rabbit-face",
    "automobile": "automobile",
    "pony": "horse",
    "bull": "cow-face",
    "piglet": "pig-face",
    "serpent": "snake",
    "grizzly": "bear",
    "toad": "frog",
    "alligator": "crocodile",
    "tortoise": "turtle",
    "bumblebee": "honeybee",
    "airliner": "airplane",
    "spaceship": "rocket",
    "yacht": "sailboat",
    "lorry": "delivery-truck",
    "motorbike": "motorcycle",
    "cheeseburger": "hamburger",
    "espresso": "hot-beverage",
    "lager": "beer-mug",
    "maize": "ear-of-corn",
    "aubergine": "eggplant",
    "clementine": "tangerine",
    "home": "house",
    "fortress": "castle",
    "blaze": "fire",
    "thunderbolt": "high-voltage",
    "present": "wrapped-gift",
    "notebook computer": "laptop",
    "smartphone": "mobile-phone",
    "tiara": "crown",
    "sword": "crossed-swords",
    "spectacles": "glasses",
    "phantom": "ghost",
    "android": "robot",
    "hatchet": "axe",
    "lamp": "light-bulb",
    "fiddle": "violin",
}

TEMPLATES: tuple[str, ...] = (
    "{a}, {style}, on a {colour} background",
    "{name}, {style}, {colour} background",
    "{a} on a {colour} background, {style}",
    "{style} of {a} on a {colour} background",
    "a {style} of {a}, {colour} background",
    "{colour} background, {style}, {name}",
    "{name} {style} on {colour}",
    "{a}, {style}",
    "{name}, {style}",
    "{style} of {a}",
    "{a} on a {colour} background",
    "{name}, {colour} background",
    "{a}",
    "{name}",
    "a picture of {a}",
)

# Names that take no article.
_BARE = """
beer, bread, broccoli, cheese, cherries, coffee, corn, crossed swords, dice, earth, eyes, fire,
french fries, glasses, grapes, headphones, jeans, pancakes, planet earth, popcorn, santa claus,
saturn, scissors, sunglasses, sushi, thumbs up
"""
_BARE_NAMES = {name.strip() for name in _BARE.split(",")}


@dataclass(frozen=True)
class Caption:
    """A text and what it fixes: indices of subject, style and colour, -1 where left open."""

    text: str
    subject: int
    style: int
    colour: int


def with_article(name: str) -> str:
    """Return "a fox", "an owl", or the bare name where English takes no article."""
    if name in _BARE_NAMES:
        return name
    return f"{'an' if name[0] in 'aeio' or name in ('hourglass', 'umbrella') else 'a'} {name}"


def write(template: str, name: str, style: str, colour: str) -> str:
    """Fill one template."""
    return template.format(a=with_article(name), name=name, style=style, colour=colour)


def sample_captions(subjects: list[Subject], per_pair: int, seed: int) -> list[Caption]:
    """Draw `per_pair` captions for every subject in every style, with all alternatives mixed."""
    draw = random.Random(seed)
    colours = list(COLOURS)
    captions = []
    for row, subject in enumerate(subjects):
        for column, (_, phrases) in enumerate(STYLES.values()):
            for _ in range(per_pair):
                # The first seven templates say everything; they are what people are shown.
                told = TEMPLATES[:7] if draw.random() < 0.6 else TEMPLATES[7:]
                template, colour = draw.choice(told), draw.randrange(len(colours))
                style = phrases[0] if draw.random() < 0.6 else draw.choice(phrases)
                text = write(template, draw.choice(subject.names), style, colours[colour])
                says_style, says_colour = "{style}" in template, "{colour}" in template
                captions.append(
                    Caption(text, row, column if says_style else -1, colour if says_colour else -1)
                )
    return captions
