"""The application in this process: what it answers, and what it refuses."""

import asyncio
import base64
import contextlib
import functools
import io
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from mixlab.data.decode import decode
from mixlab.data.images import fit
from mixlab.errors import RunError, UsageError
from mixlab.evaluation.classifier import read_classifier
from mixlab.evaluation.explanation import heat_maps
from mixlab.serving.app import create_app
from mixlab.serving.batching import Caller
from mixlab.serving.gate import Gate, origin_of
from mixlab.serving.limits import Limits
from mixlab.serving.model import Prepared, ServedModel, read_model
from mixlab.serving.multipart import Picture
from mixlab.serving.server import bind, ignore_hangups
from mixlab.serving.turns import Turns
from torture.malformed import table
from torture.pictures import photograph, saved
from torture.served import write_model

PHOTOS = [saved(photograph(seed), "JPEG") for seed in range(4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "bundle")


def app_of(model: Path, **limits: Any) -> Gate:
    return create_app(model, device="cpu", limits=Limits(**limits), say=lambda line: None)


@contextlib.asynccontextmanager
async def clients_of(app: Gate) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with app.service.running(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def asked(app: Gate, ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> httpx.Response:
    async def once() -> httpx.Response:
        async with clients_of(app) as client:
            return await ask(client)

    return asyncio.run(once())


def predicted(app: Gate, *pictures: bytes, query: str = "", **options: Any) -> httpx.Response:
    files = [("file", (f"{place}.jpg", picture)) for place, picture in enumerate(pictures)]
    return asked(app, lambda client: client.post(f"/predict{query}", files=files, **options))


def test_pictures_of_a_form_are_answered_in_order_as_the_classifier_answers_them(model: Path):
    classifier = read_classifier(model, "cpu")
    reply = predicted(app_of(model), PHOTOS[0], b"text", PHOTOS[1], query="?top=2")
    first, unreadable, second = reply.json()["answers"]
    assert reply.status_code == 200
    assert unreadable["file"] == "1.jpg"
    assert "not an image" in unreadable["error"]
    for found, photo in ((first, PHOTOS[0]), (second, PHOTOS[1])):
        answer = classifier(photo)
        assert found["label"] == answer.label
        assert not found["unknown"]
        assert found["heat_map"] is None
        assert [each["class"] for each in found["top"]] == [name for name, _ in answer.top(2)]
        assert [each["probability"] for each in found["top"]] == pytest.approx([share for _, share in answer.top(2)])
        assert found["confidence"] == pytest.approx(answer.confidence)


def test_a_raw_body_is_one_picture_without_a_name(model: Path):
    reply = asked(app_of(model), lambda client: client.post("/predict", content=PHOTOS[2]))
    [answer] = reply.json()["answers"]
    assert answer["file"] == ""
    assert answer["label"] == read_classifier(model, "cpu")(PHOTOS[2]).label


def test_where_no_picture_can_be_read_the_status_says_so(model: Path):
    reply = predicted(app_of(model), b"text", b"")
    assert reply.status_code == 422
    assert [answer["error"] for answer in reply.json()["answers"]][1] == "0 bytes"
    assert reply.json()["error"] == reply.json()["answers"][0]["error"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("top=abc", "top='abc': expected a whole number from 1 to 100,000"),
        ("top=0", "top='0': expected a whole number from 1 to 100,000"),
        ("heat_map=perhaps", "heat_map='perhaps': expected true or false"),
        ("tops=1", "unknown parameter tops; did you mean top?"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_was_expected(model: Path, query: str, expected: str):
    reply = predicted(app_of(model), PHOTOS[0], query=f"?{query}")
    assert (reply.status_code, reply.json()["error"]) == (422, expected)


def test_an_answer_of_too_little_confidence_has_no_label(model: Path):
    app = app_of(model)
    app.service.model.classifier.reject_below = 1.0
    [answer] = predicted(app, PHOTOS[0]).json()["answers"]
    assert answer["unknown"]
    assert answer["label"] is None
    assert answer["top"][0]["class"]
    assert 'mixlab_pictures_total{result="unknown"} 1.0' in app.service.metrics.text().decode()


def test_heat_map_and_view_are_those_of_the_network(model: Path):
    classifier: Any = read_classifier(model, "cpu")
    [answer] = predicted(app_of(model), PHOTOS[0], query="?heat_map=true").json()["answers"]
    image = fit(decode(PHOTOS[0]), classifier.spec)
    best = classifier.spec.classes.index(answer["label"])
    [expected] = heat_maps(classifier.network.model, image[None], [best])
    found = answer["heat_map"]
    assert np.allclose(np.reshape(found["values"], (found["rows"], found["columns"])), expected, atol=1e-3)
    view = Image.open(io.BytesIO(base64.b64decode(answer["view"].removeprefix("data:image/png;base64,"))))
    assert np.array_equal(np.asarray(view), (image * 255).round().byte().permute(1, 2, 0).numpy())


def test_every_malformed_request_gets_its_status_and_one_line_of_json(model: Path):
    app, wrong, sent = app_of(model), [], 0

    async def ask_all() -> None:
        nonlocal sent
        async with clients_of(app) as client:
            for name, raw, status in table():
                if request := readable(raw):
                    sent += 1
                    reply = await client.request(**request)
                    text = reply.json().get("error", "")
                    policy = "default-src 'none'" in reply.headers.get("content-security-policy", "")
                    if reply.status_code != status or not text or "\n" in text or not policy:
                        wrong.append((name, reply.status_code, status, reply.text))

    asyncio.run(ask_all())
    assert not wrong
    assert (sent, len(table())) == (57, 82)  # this client cannot send the others; V1 sends all


def readable(raw: bytes) -> dict[str, Any] | None:
    """Return the parts of a request that is HTTP, for a client that knows nothing else."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    words, headers = first.split(b" "), [tuple(line.split(b": ", 1)) for line in lines]
    names = [header[0].lower() for header in headers]
    lengths = [header[1] for header in headers if header[0] == b"Content-Length"]
    is_http = (
        words[-1] == b"HTTP/1.1" and b"\x00" not in head and head.isascii() and all(len(each) == 2 for each in headers)
    )
    is_clear = (
        names.count(b"host") == 1 and b"transfer-encoding" not in names and all(each.isdigit() for each in lengths)
    )
    if not is_http or not is_clear or len(lengths) > 1 or not words[1].startswith(b"/") or len(raw) > 60_000:
        return None
    return {
        "method": words[0].decode(),
        "url": f"http://localhost{words[1].decode()}",
        "headers": headers,
        "content": body,
    }


def test_what_is_too_long_or_too_much_is_refused_unread(model: Path):
    async def never() -> Any:
        raise AssertionError("the body was read")

    app = app_of(model, max_upload=1000, queue=1)
    length = [(b"host", b"localhost"), (b"content-length", b"1001")]
    assert raw_answer(app, length, never)[0]["status"] == 413
    with app.service.answering():
        [begin, end] = raw_answer(app, [(b"content-length", b"1")], never)
    assert begin["status"] == 503
    assert (b"retry-after", b"1") in begin["headers"]
    assert "requests are being answered" in json.loads(end["body"])["error"]


def raw_answer(app: Gate, headers: list[tuple[bytes, bytes]], receive: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Return what is sent until the answer is whole."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive_later() -> Any:
        return {"type": "http.disconnect"} if sent else await receive()

    async def once() -> None:
        scope = {"type": "http", "method": "POST", "path": "/predict", "http_version": "1.1", "query_string": b""}
        async with app.service.running():
            await app({**scope, "headers": headers, "state": {}}, receive_later, send)

    asyncio.run(once())
    return [message for message in sent if message["type"] != "http.response.body" or message["body"]]


def test_chunks_are_cut_at_the_limit_and_slow_bodies_ended(model: Path):
    app, chunks = app_of(model, max_upload=1000, patience=0.01, slowest=1e9), iter([400, 400, 400, 400])

    async def flood() -> Any:
        return {"type": "http.request", "body": bytes(next(chunks)), "more_body": True}

    async def stall() -> Any:
        await asyncio.sleep(60)

    assert raw_answer(app, [], flood)[0]["status"] == 413
    assert next(chunks) == 400  # one is left
    [begin, _] = raw_answer(app, [], stall)
    assert begin["status"] == 408
    assert (b"connection", b"close") in begin["headers"]
    assert app.service.bodies.held == 0


def test_a_fast_beginning_buys_no_time_to_stall(model: Path):
    app, chunks = app_of(model, max_upload=1000, patience=0.01, slowest=100), iter([bytes(900)])  # worth 9 seconds

    async def haste_then_stall() -> Any:
        for chunk in chunks:
            return {"type": "http.request", "body": chunk, "more_body": True}
        await asyncio.sleep(5)
        return {"type": "http.disconnect"}

    assert raw_answer(app, [], haste_then_stall)[0]["status"] == 408


def test_pictures_of_too_many_pixels_are_refused_before_any_is_decoded(model: Path):
    app = app_of(model, max_pixels=2 * 60 * 90)  # of two photographs
    assert predicted(app, *PHOTOS[:2]).status_code == 200
    assert predicted(app, *PHOTOS[:3]).status_code == 413
    assert "--max-pixels" in predicted(app, *PHOTOS[:3]).json()["error"]
    long = predicted(app, saved(Image.new("1", (65_536, 1)), "PNG"))
    assert (long.status_code, long.json()["error"]) == (
        413,
        "a picture is 65536 pixels long, more than the limit of 65535",
    )


def test_requests_take_turns_and_none_goes_past_one_that_waits_for_room():
    first, second, order = Caller(), Caller(), []

    async def take(turns: Turns, caller: Caller, pixels: int) -> None:
        await turns.take(caller, pixels)
        order.append(pixels)

    async def take_all() -> None:
        turns = Turns(1, 10)
        asked = [(first, 5), (first, 4), (first, 1), (second, 2)]
        tasks = [asyncio.create_task(take(turns, caller, pixels)) for caller, pixels in asked]
        await asyncio.sleep(0)
        for step, expected in (
            (turns.leave, [5, 4]),
            (turns.leave, [5, 4]),  # 2 more are too many, and 1 does not go first
            (lambda: turns.give(5), [5, 4, 2]),
            (turns.leave, [5, 4, 2, 1]),
        ):
            step()
            await asyncio.sleep(0)
            assert order == expected
        turns.leave()
        turns.give(7)
        await asyncio.gather(*tasks)
        given_up = [asyncio.create_task(take(turns, first, 9)) for _ in range(3)]
        await asyncio.sleep(0)
        for task in given_up:
            task.cancel()  # one whose turn has come, and two that wait
        await asyncio.gather(*given_up, return_exceptions=True)
        turns.leave()
        turns.give(9)
        await asyncio.wait_for(turns.take(second, 10), 1)

    asyncio.run(take_all())


def test_a_request_whose_client_has_gone_is_not_computed(model: Path, monkeypatch: pytest.MonkeyPatch):
    app, prepared = app_of(model), []
    messages = iter([{"type": "http.request", "body": PHOTOS[0]}, {"type": "http.disconnect"}])
    real = ServedModel.prepare
    monkeypatch.setattr(ServedModel, "prepare", lambda self, *given: prepared.append(1) or real(self, *given))

    async def receive() -> Any:
        return next(messages)

    async def on_thread_later(work: Any, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return work(*arguments)

    app.service.on_thread = on_thread_later
    assert raw_answer(app, [], receive)[0]["status"] == 499
    assert not prepared
    text = app.service.metrics.text().decode()
    assert 'mixlab_requests_total{status="499"} 1.0' in text
    assert 'result="answered"' not in text


def test_a_cancelled_request_gives_its_pixels_back(model: Path, monkeypatch: pytest.MonkeyPatch):
    app, go_on = app_of(model), threading.Event()
    service = app.service

    def prepare(self: ServedModel, *given: Any) -> Prepared:
        go_on.wait(10)
        return Prepared(None, 1000, "")  # as an exported file, it keeps the picture

    monkeypatch.setattr(ServedModel, "prepare", prepare)

    async def ask_and_leave() -> None:
        async with service.running():
            asking = asyncio.create_task(service.answer(Picture("", b"", 1000), service.model, Caller()))
            await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.sleep(0)
            assert service._small.taken == 1000  # its thread still decodes
            go_on.set()
            while service._small.taken:
                await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(ask_and_leave(), 10))


def test_a_network_that_fails_on_one_picture_answers_the_others(model: Path, monkeypatch: pytest.MonkeyPatch):
    app, sizes = app_of(model, max_wait=1), []
    black = saved(Image.new("RGB", (50, 50)), "PNG")
    real = app.service.model._network.logits

    def logits(values: Any) -> np.ndarray:
        sizes.append(len(values))
        found = real(values)
        found[[float(value.max()) < 0.01 for value in values]] = np.nan
        return found

    monkeypatch.setattr(app.service.model._network, "logits", logits)
    reply = predicted(app, PHOTOS[0], black, PHOTOS[1])
    assert ["error" in answer for answer in reply.json()["answers"]] == [False, True, False]
    assert max(sizes) > 1
    assert sizes.count(1) >= len(sizes) - 1
    assert reply.status_code == 200
    assert '"failed"' not in reply.text
    reply = predicted(app, black)
    assert reply.status_code == 500
    assert reply.json()["error"] == "the network failed on this picture"


def test_requests_that_come_together_are_answered_together(model: Path, monkeypatch: pytest.MonkeyPatch):
    app, sizes = app_of(model, max_wait=1, max_batch=3), []
    monkeypatch.setattr(app.service, "_note_batch", lambda pictures, seconds: sizes.append(pictures))

    async def ask_all() -> list[httpx.Response]:
        async with clients_of(app) as client:
            return await asyncio.gather(*(client.post("/predict", content=photo) for photo in PHOTOS * 3))

    assert all(reply.status_code == 200 for reply in asyncio.run(ask_all()))
    assert sum(sizes) == 12
    assert max(sizes) == 3


def test_a_reload_changes_the_model_and_a_damaged_one_changes_nothing(model: Path, tmp_path: Path):
    place, lines = write_model(tmp_path / "model"), []
    app = create_app(place, device="cpu", say=lines.append)
    before = app.service.model
    (place / "model.safetensors").write_bytes(b"damaged")
    assert not asyncio.run(app.service.reload())
    assert app.service.model is before
    write_model(place, seed=1)
    assert asyncio.run(app.service.reload())
    assert app.service.model.digest != before.digest
    assert lines[0].startswith("kept")
    assert lines[1].startswith("reloaded")
    text = app.service.metrics.text().decode()
    assert all(f'mixlab_reloads_total{{result="{result}"}} 1.0' in text for result in ("ok", "failed"))
    assert f'digest="{before.digest}"' not in text


def test_a_server_answers_in_the_precision_it_was_given(model: Path):
    probabilities = []
    for precision in ("float32", "bfloat16"):
        app = create_app(model, device="cpu", precision=precision, say=lambda line: None)
        probabilities.append(predicted(app, PHOTOS[0]).json()["answers"][0]["top"][0]["probability"])
        assert probabilities[-1] == read_classifier(model, "cpu", precision=precision)(PHOTOS[0]).confidence
    assert probabilities[0] != probabilities[1] == pytest.approx(probabilities[0], abs=0.02)


def test_a_watched_model_is_read_again_when_its_files_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mixlab.serving.service.LOOK_EVERY", 0.001)
    place = write_model(tmp_path / "model")
    app = create_app(place, device="cpu", say=lambda line: None)
    before = [app.service.model.digest]

    async def wait_for_change() -> None:
        write_model(place, seed=1)  # before the first look
        watching = asyncio.create_task(app.service.watch())
        for seed in (2, 3):
            while app.service.model.digest == before[-1]:
                await asyncio.sleep(0.001)
            before.append(app.service.model.digest)
            write_model(place, seed=seed)
        watching.cancel()

    asyncio.run(asyncio.wait_for(wait_for_change(), 30))


def test_only_pages_that_are_allowed_may_ask_and_read(model: Path):
    app = create_app(model, device="cpu", host_names=["birds.example"], allow_origins=["https://a.example"])

    async def ask_all() -> None:
        async with clients_of(app) as client:
            allowed = {"host": "birds.example", "origin": "https://a.example"}
            asking = await client.options("/predict", headers=allowed)
            answer = await client.post("/predict", content=PHOTOS[0], headers=allowed)
            other = await client.post("/predict", content=PHOTOS[0], headers={**allowed, "origin": "https://b.example"})
            for reply in (asking, answer):
                assert reply.headers["access-control-allow-origin"] == "https://a.example"
            assert (asking.status_code, answer.status_code, other.status_code) == (204, 200, 403)
            assert "access-control-allow-origin" not in other.headers
            assert (await client.get("/", headers={"host": "elsewhere.example"})).status_code == 421

    asyncio.run(ask_all())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Example.com:443/", "https://example.com"),
        ("http://example.com:443", "http://example.com:443"),
        ("http://[::1]:80", "http://[::1]"),
        *((url, None) for url in ("http://[", "https://a.b#x", "https://a.b:x", "https://a.b/c", "a.b", "ftp://a.b")),
    ],
)
def test_an_allowed_origin_is_written_as_browsers_do(url: str, expected: str | None):
    if expected:
        assert origin_of(url) == expected
    else:
        with pytest.raises(UsageError, match="--allow-origin"):
            origin_of(url)


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "no such host"])
def test_a_host_that_cannot_be_is_named(host: str):
    with pytest.raises(UsageError, match="there is no such host"):
        bind(host, 0)


def test_a_hangup_while_the_model_is_read_ends_nothing(tmp_path: Path):
    before = signal.getsignal(signal.SIGHUP)
    try:
        ignore_hangups()
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_host_name_may_have_a_port_and_the_advice_has_none(model: Path):
    app = create_app(model, device="cpu", host_names=["mybox:8000"])
    ready = functools.partial(asked, app)
    assert ready(lambda client: client.get("/ready", headers={"host": "MYBOX:9"})).status_code == 200
    refused = ready(lambda client: client.get("/ready", headers={"host": "other:8000"}))
    assert refused.json()["error"].endswith("--host-name other)")


def test_the_page_and_the_states_are_there(model: Path):
    app = app_of(model)

    async def ask_all() -> None:
        async with clients_of(app) as client:
            described = (await client.get("/model.json")).json()
            assert described["engine"] == "server"
            assert described["classes"] == list(app.service.model.spec.classes)
            assert described["mean"] == list(app.service.model.spec.mean)
            assert described["has_heat"] is True
            assert "text/html" in (await client.get("/")).headers["content-type"]
            assert (await client.get("/openapi.json")).json()["paths"].keys() >= {"/predict", "/ready"}
            assert (await client.head("/live")).status_code == 200
            app.service.is_leaving = True
            leaving = await client.get("/ready")
            assert leaving.status_code == 503
            assert leaving.headers["connection"] == "close"
            assert (await client.get("/live")).status_code == 200

    asyncio.run(ask_all())


def test_an_exported_file_is_served_with_its_heat(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    from mixlab.run.bundle import METADATA, as_text

    bundle = read_classifier(write_model(tmp_path / "bundle"), "cpu").description
    graph = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 18]>
        tiny (uint8[n, h, w, 3] pictures) => (float[n, 3] logits, float[n, 3, 1, 1] heat) {
          values = Cast <to = 1> (pictures)
          axes = Constant <value = int64[2] {1, 2}> ()
          logits = ReduceMean <keepdims = 0> (values, axes)
          last = Constant <value = int64[2] {2, 3}> ()
          heat = Unsqueeze (logits, last)
        }
        """
    )
    onnx.helper.set_model_props(graph, {METADATA: as_text(bundle)})
    onnx.save(graph, tmp_path / "model.onnx")
    green = saved(Image.new("RGB", (20, 30), (1, 90, 2)), "PNG")
    other = saved(Image.new("RGB", (7, 5), (200, 0, 0)), "PNG")
    reply = predicted(app_of(tmp_path / "model.onnx"), green, other, query="?heat_map=true").json()
    assert [answer["label"] for answer in reply["answers"]] == ["b", "a"]
    assert reply["answers"][0]["heat_map"] == {"rows": 1, "columns": 1, "values": [1.0]}
    onnx.helper.set_model_props(graph, {METADATA: as_text(bundle), "more": "of another file"})
    onnx.save(graph, tmp_path / "other.onnx")
    assert read_model(tmp_path / "other.onnx").digest != reply["model"]["digest"]


def test_a_place_without_a_model_is_named(tmp_path: Path):
    with pytest.raises(RunError, match="nowhere"):
        create_app(tmp_path / "nowhere")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
