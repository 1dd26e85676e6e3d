"""Pictures as files: the request that made a picture is written inside it, and read back.

recipe     what is said of a picture, and what another program's settings are called here
read       the recipe in a file; from `texts`, every text of a file that may hold one,
           in the forms of a1111, settings and comfyui
container  the parts of a PNG, WebP or JPEG file, its pixels left packed; exif, the few texts of an EXIF block
pixels     a picture unpacked, to be shown small
encode     a picture's file, its request inside
limits     what a file that is read may cost

Files that are read are hostile until proven good: their bytes, pixels and texts are limited, and what is
wrong with them is one `UnreadableImage`.
"""

from shared.images.a1111 import a1111_text, parse_a1111
from shared.images.container import Facts, facts
from shared.images.encode import encode_image, preview_jpeg
from shared.images.limits import MAX_DECODED, MAX_FILE_BYTES, MAX_JSON, MAX_PIXELS, MAX_TEXT
from shared.images.pixels import recompress, small_image, thumbnail
from shared.images.read import read_recipe
from shared.images.recipe import Recipe

__all__ = [
    "MAX_DECODED",
    "MAX_FILE_BYTES",
    "MAX_JSON",
    "MAX_PIXELS",
    "MAX_TEXT",
    "Facts",
    "Recipe",
    "a1111_text",
    "encode_image",
    "facts",
    "parse_a1111",
    "preview_jpeg",
    "read_recipe",
    "recompress",
    "small_image",
    "thumbnail",
]
