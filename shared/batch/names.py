"""How the files of a batch are named: a template of plain text and `{fields}`, checked before use.

Whatever the rows hold, a name stays inside the folder and no two pictures get the same one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from shared.contract import GenerationRequest
from shared.errors import InvalidRequest
from shared.formats import SUFFIXES
from shared.outputs import slug

DEFAULT = "{number}-{prompt}-{seed}"
MAX_TEMPLATE = 200
MAX_PART = 200
"""Bytes of a file's or folder's name before its suffix; most file systems take 255."""

_FIELDS = {"number", "line", *GenerationRequest.model_fields} - {"num_images", "output_format"}
_FIELD = re.compile(r"\{(\w+)\}")
_PLAIN = re.compile(r"[\w+,=@()-][\w .+,=@()-]*(?<![. ])")


@dataclass(frozen=True)
class Names:
    """The names that a template gives. Raises `InvalidRequest` if it is not safe."""

    template: str = DEFAULT

    def __post_init__(self) -> None:
        unknown = [name for name in _FIELD.findall(self.template) if name not in _FIELDS]
        parts = _FIELD.sub("0", self.template).split("/")
        if unknown:
            fault, advice = (
                f"{{{unknown[0][:60]}}} is no field",
                f"Use {', '.join(sorted(_FIELDS))}.",
            )
        elif len(self.template) > MAX_TEMPLATE:
            fault, advice = "it is too long", f"Keep to {MAX_TEMPLATE} characters."
        elif not all(_PLAIN.fullmatch(part) for part in parts):
            fault = "it would lead out of the folder, or is no name everywhere"
            advice = "Use letters, digits, {fields} and, for folders, single slashes."
        elif "{number}" not in self.template.split("/")[-1]:
            fault, advice = "two pictures could get one name", "Put {number} into the file's name."
        else:
            return
        raise InvalidRequest(f"--name {self.template[:100]!r} cannot be used: {fault}.", advice)

    def name(self, number: int, line: int, request: GenerationRequest) -> str:
        """The picture's path within the folder, with slashes. Raises `InvalidRequest` if too long."""

        def value(found: re.Match[str]) -> str:
            match found[1]:
                case "number":
                    return f"{number:06d}"
                case "line":
                    return str(line)
                case field:
                    given = getattr(request, field)
                    return slug(given) if isinstance(given, str) else str(given).removesuffix(".0")

        filled = _FIELD.sub(value, self.template)
        if max(len(part.encode()) for part in filled.split("/")) > MAX_PART:
            raise InvalidRequest(f"its name would be {filled[:100]}....", "Give a shorter --name.")
        return filled + SUFFIXES[request.output_format]
