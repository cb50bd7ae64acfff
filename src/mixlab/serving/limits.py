"""What a server takes on, and how long it waits."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from mixlab.config import Config


class Limits(Config):
    """Limits of one server; beyond them a request is refused, not queued."""

    max_batch: PositiveInt = 16  # pictures that are classified together
    max_wait: Annotated[float, Field(ge=0, le=1)] = 0.002  # seconds that a picture waits for others
    max_upload: PositiveInt = 32_000_000  # bytes of one request
    max_pictures: PositiveInt = 64  # of one request
    max_pixels: PositiveInt = 50_000_000  # of all pictures of one request: four photographs of a telephone
    queue: PositiveInt = 64  # requests that are being answered, waiting ones included
    patience: PositiveFloat = 10.0  # seconds for a header, for a body without progress, and between two requests
    slowest: PositiveFloat = 32_000  # bytes a second; a body that comes slower uses up the patience

    @property
    def body_bytes(self) -> int:
        """Bytes of all bodies together that are held in memory."""
        return 4 * self.max_upload
