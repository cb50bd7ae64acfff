"""The application: POST /predict, /live, /ready, /metrics, /model.json, /openapi.json and the page."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi import Query as InQuery
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from mixlab import page
from mixlab.errors import UnreadableImage, did_you_mean, shown
from mixlab.run.bundle import for_page
from mixlab.run.folder import Run
from mixlab.run.trained import find_model
from mixlab.serving.batching import Caller, Found, NetworkFailed
from mixlab.serving.body import CLIENT_GONE, ClientGone
from mixlab.serving.gate import PREDICT, Gate, origin_of
from mixlab.serving.limits import Limits
from mixlab.serving.metrics import CONTENT_TYPE
from mixlab.serving.model import ServedModel
from mixlab.serving.multipart import Picture, pictures_in
from mixlab.serving.refusal import Refusal, error_body
from mixlab.serving.schema import BODY, ERRORS, EXPECTED, NoPrediction, Prediction, Query, errors
from mixlab.serving.service import Service

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".txt": "text/plain; charset=utf-8",
}
DIGITS = 4  # of a heat map's values


def create_app(
    place: str | Path | Run,
    *,
    device: str = "auto",
    limits: Limits | None = None,
    reject_below: str = "",
    precision: str = "float32",
    host_names: Collection[str] = (),
    allow_origins: Collection[str] = (),
    say: Callable[[str], None] = print,
) -> Gate:
    """Return an ASGI application that answers with a model, which is read and warmed now.

    `await app.service.reload()` reads it again. One process answers on one network thread; several workers would be
    several copies of the model.

    Args:
        place: a run, a bundle folder, an .onnx file, or hf://OWNER/NAME.
        reject_below: a confidence such as "0.7", or "precision=0.95", below which the answer is unknown.
        precision: "float32", or "bfloat16", which rounds and may be faster; an .onnx file has its own.
        host_names: names of this server beside localhost and addresses.
        allow_origins: such as "https://example.com", whose pages may ask.
        say: is given a line when the model was read again, or could not be.

    Raises:
        RunError: where there is no model, or it is damaged.
        UsageError: where no origin of `allow_origins` could be a page's, or for an unknown precision.
    """
    origins = {origin_of(url) for url in allow_origins}
    service = Service(find_model(place), device, limits or Limits(), say, reject_below, precision)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(title="mixlab", version=service.model.digest, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False
    _add_errors(app)
    _add_states(app, service)
    _add_page(app, service)
    _add_predict(app, service)
    return Gate(app, service, host_names, origins)


def _add_predict(app: FastAPI, service: Service) -> None:
    responses = errors(*(status for status in ERRORS if status not in (422, 500)))
    responses |= errors(422, 500, body=NoPrediction)
    responses[200] = {"model": Prediction, "description": "An answer, or an error, for each picture in their order."}

    @app.post(PREDICT, responses=responses, openapi_extra={"requestBody": BODY}, summary="Classify pictures.")
    async def predict(request: Request, query: Annotated[Query, InQuery()]) -> Response:
        body, caller = request.scope["mixlab"]
        caller.wants_heat = query.heat_map
        model = service.model  # one for all pictures, whatever is reloaded meanwhile
        content_type = request.headers.get("content-type", "")
        pictures = await service.on_thread(pictures_in, body, content_type, service.limits)
        waiting = (_answer(service, model, caller, query, picture) for picture in pictures)
        return _prediction(model, await asyncio.gather(*waiting))


async def _answer(
    service: Service, model: ServedModel, caller: Caller, query: Query, picture: Picture
) -> dict[str, Any]:
    name = picture.name
    try:
        found, prepared = await service.answer(picture, model, caller)
    except UnreadableImage as error:
        return {"file": name, "error": str(error)}
    except NetworkFailed as error:
        service.log_failure(error)
        return {"file": name, "error": "the network failed on this picture", "failed": True}
    return {"file": name, **_as_json(found, query.top), **({"view": prepared.view} if query.heat_map else {})}


def _as_json(found: Found, top: int) -> dict[str, Any]:
    answer = found.answer
    best = answer.top(top)
    return {
        "label": None if answer.is_unknown else best[0][0],
        "unknown": answer.is_unknown,
        "confidence": best[0][1],
        "top": [{"class": name, "probability": share} for name, share in best],
        "heat_map": None if found.heat is None else _heat_as_json(found.heat),
    }


def _heat_as_json(heat: Any) -> dict[str, Any]:
    rows, columns = heat.shape
    return {"rows": rows, "columns": columns, "values": [round(float(value), DIGITS) for value in heat.flat]}


def _prediction(model: ServedModel, answers: list[dict[str, Any]]) -> Response:
    """Return the answers; 422, or 500 where the network failed, if there is none among them."""
    failed = [answer.pop("failed", False) for answer in answers]
    content: dict[str, Any] = {"model": {"name": model.name, "digest": model.digest}, "answers": answers}
    status = 200
    if all("error" in answer for answer in answers):
        status = 500 if any(failed) else 422
        content["error"] = answers[0]["error"]
    return _json(content, status)


def _add_states(app: FastAPI, service: Service) -> None:
    @app.get("/live", summary="Whether the process answers.")
    async def live() -> Response:
        return _json({"status": "live"})

    @app.get("/ready", responses=errors(503), summary="Whether new requests should be sent here.")
    async def ready() -> Response:
        if service.is_leaving:
            raise Refusal(503, "this server is being shut down")
        return _json({"status": "ready"})

    @app.get("/metrics", summary="Counters and times for Prometheus.", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/model.json", summary="The model that answers.")
    async def described() -> Response:
        model = service.model
        return _json(for_page(model.classifier.description, "server", model.has_heat))


def _add_page(app: FastAPI, service: Service) -> None:
    for name, content in page.files().items():
        kind = TYPES.get(Path(name).suffix, "application/octet-stream")
        response = _fixed(content, kind)
        app.add_api_route(f"/{name}", response, methods=["GET"], include_in_schema=False)
        if name == "index.html":
            app.add_api_route("/", response, methods=["GET"], include_in_schema=False)


def _fixed(content: bytes, kind: str) -> Callable[[], Response]:
    return lambda: Response(content, headers={"content-type": kind})


def _add_errors(app: FastAPI) -> None:
    """Make every error JSON of one line."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return _error(error.status, str(error), error.headers)

    @app.exception_handler(HTTPException)
    async def misdirected(request: Request, error: HTTPException) -> Response:
        return _error(error.status_code, _why(request, error), error.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        return _error(422, "; ".join(_wrong_value(each) for each in error.errors()[:3]))

    @app.exception_handler(ClientGone)
    async def gone(request: Request, error: ClientGone) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _error(500, "the server failed; its log says more")


def _why(request: Request, error: HTTPException) -> str:
    path = request.url.path
    if error.status_code == 405:
        return f"{request.method} is not for {path}; it takes {(error.headers or {}).get('Allow', 'other methods')}"
    if error.status_code == 404:
        return f"there is no {path}{did_you_mean(path, ('/predict', '/live', '/ready', '/metrics', '/model.json'))}"
    return str(error.detail)


def _wrong_value(error: Any) -> str:
    name = str(error["loc"][-1])
    if error["type"] == "extra_forbidden":
        return f"unknown parameter {name}{did_you_mean(name, Query.model_fields)}"
    return f"{name}={shown(error.get('input'))}: {EXPECTED.get(name, error['msg'])}"


def _error(status: int, message: str, headers: Any = None) -> Response:
    return Response(error_body(message), status, media_type="application/json", headers=headers)


def _json(value: Any, status: int = 200) -> Response:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return Response(text.encode("utf-8", "replace"), status, media_type="application/json")
