"""The forms of requests and answers, for openapi.json."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from mixlab.config import Config

ERRORS: dict[int, str] = {
    400: "A form or request that cannot be read.",
    403: "A page of another origin asks.",
    408: "The body came too slowly.",
    413: "The body is too long, or has too many pictures or pixels.",
    415: "The body is neither a form nor a picture.",
    421: "The host is not served here.",
    422: "No picture of the request can be read, or a parameter is wrong.",
    500: "The network failed on every picture.",
    503: "Too much is being answered already; try again after Retry-After seconds.",
}


MOST = 100_000  # classes that can be asked for


class Query(Config):
    """What is in the address of /predict."""

    top: Annotated[int, Field(ge=1, le=MOST)] = 5
    heat_map: bool = False


EXPECTED = {"top": f"expected a whole number from 1 to {MOST:,}", "heat_map": "expected true or false"}


class Error(BaseModel):
    error: str


class Model(BaseModel):
    name: str
    digest: str


class ClassProbability(BaseModel):
    class_: Annotated[str, Field(alias="class")]
    probability: Annotated[float, Field(ge=0, le=1)]


class HeatMap(BaseModel):
    """Where the best class was found."""

    rows: int
    columns: int
    values: list[Annotated[float, Field(ge=0, le=1)]]  # row by row


class Answered(BaseModel):
    file: str
    label: str | None  # None where it is unknown
    unknown: bool
    confidence: Annotated[float, Field(ge=0, le=1)]
    top: list[ClassProbability]
    heat_map: HeatMap | None
    view: str | None = None  # a data URL of the picture as the network sees it, only with heat_map


class NotAnswered(BaseModel):
    file: str
    error: str


class Prediction(BaseModel):
    model: Model
    answers: list[Answered | NotAnswered]


class NoPrediction(Error):
    """What is said where no picture has an answer: the first error, and all of them."""

    model: Model | None = None
    answers: list[NotAnswered] | None = None


BINARY = {"type": "string", "format": "binary"}
BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": {"type": "object", "minProperties": 1, "additionalProperties": BINARY}},
        "image/*": {"schema": BINARY},
        "application/octet-stream": {"schema": BINARY},
    },
}


def errors(*statuses: int, body: type[BaseModel] = Error) -> dict[int | str, dict[str, Any]]:
    """Return the description of these errors of one address."""
    return {status: {"model": body, "description": ERRORS[status]} for status in statuses}
