"""The pictures in the body of a request, each with the name of its file."""

import logging
from dataclasses import dataclass, field
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from mixlab.data.decode import inspect
from mixlab.errors import ImageTooLong, UnreadableImage
from mixlab.serving.limits import Limits
from mixlab.serving.refusal import Refusal

RAW = ("", "application/octet-stream")  # content types of a body that is one picture; and image/...
HOW = "send files as multipart/form-data (curl -F file=@photo.jpg), or one picture as image/..."
SILENT = logging.Logger("forms", logging.CRITICAL + 1)  # the parser's own says of each damaged form what it is
LONGEST_HEADER = 4096  # of a part, in bytes
LONGEST_NAME = 255  # characters of a file's name that are kept


@dataclass
class Part:
    """A part of a form: a file where it has a file name."""

    headers: dict[str, str] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)

    @property
    def disposition(self) -> dict[bytes, bytes]:
        return parse_options_header(self.headers.get("content-disposition", ""))[1]


class Picture(NamedTuple):
    name: str  # of its file; "": it has none
    data: bytes
    pixels: int  # 0: its header cannot be read


def pictures_in(body: bytes, content_type: str, limits: Limits) -> list[Picture]:
    """Return the pictures of a request, none of them decoded.

    Raises:
        Refusal: where the body cannot be read, is no picture by its type, has none or too many, or too large ones.
    """
    found = [Picture(name, data, _pixels(data)) for name, data in _files(body, content_type, limits.max_pictures)]
    if sum(picture.pixels for picture in found) > limits.max_pixels:
        raise Refusal(413, f"the pictures have more than {limits.max_pixels:,} pixels (mixlab serve --max-pixels)")
    return found


def _pixels(data: bytes) -> int:
    try:
        width, height = inspect(data)
    except ImageTooLong as error:
        raise Refusal(413, f"a picture is {error}") from None
    except UnreadableImage:  # as decoding it will say once more
        return 0
    return width * height


def _files(body: bytes, content_type: str, most: int) -> list[tuple[str, bytes]]:
    """Return (name, bytes) of each file of a body."""
    kind, options = _parse_type(content_type)
    if kind == "multipart/form-data":
        return _files_of(_parts(body, options.get(b"boundary", b""), most), most)
    if kind not in RAW and not kind.startswith("image/"):
        raise Refusal(415, f"the content type is {kind}: {HOW}")
    if not body:
        raise Refusal(422, f"the request has no body: {HOW}")
    return [("", body)]


def _parse_type(content_type: str) -> tuple[str, dict[bytes, bytes]]:
    kind, options = parse_options_header(content_type)
    return kind.decode("latin-1"), options


def _files_of(parts: list[Part], most: int) -> list[tuple[str, bytes]]:
    found = []
    for part in parts:
        named = part.disposition
        if b"filename" not in named:
            name = _text(named.get(b"name", b""))
            raise Refusal(422, f"the field {name!r} is no file; top and heat_map go into the address: /predict?top=3")
        found.append((_text(named[b"filename"]), bytes(part.content)))
    if not found:
        raise Refusal(422, f"the form has no file: {HOW}")
    return found


def _parts(body: bytes, boundary: bytes, most: int) -> list[Part]:
    """Split a form into its parts."""
    if not boundary:
        raise Refusal(400, "the content type multipart/form-data names no boundary")
    parts: list[Part] = []
    name, value = bytearray(), bytearray()
    is_whole = False

    def begin() -> None:
        if len(parts) == most:
            raise Refusal(413, f"more than {most} pictures in one request")
        parts.append(Part())

    def end_header() -> None:
        parts[-1].headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        name.clear()
        value.clear()

    def end() -> None:
        nonlocal is_whole
        is_whole = True

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_field": lambda data, start, stop: name.extend(data[start:stop]),
                "on_header_value": lambda data, start, stop: value.extend(data[start:stop]),
                "on_header_end": end_header,
                "on_part_data": lambda data, start, stop: parts[-1].content.extend(memoryview(data)[start:stop]),
                "on_end": end,
            },
            max_header_size=LONGEST_HEADER,  # whose parsing takes its square of time
        )
        parser.logger = SILENT
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, f"the form cannot be read: {error}") from None
    if not is_whole:
        raise Refusal(400, "the form is cut off: its last boundary is missing")
    return parts


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")[:LONGEST_NAME]
