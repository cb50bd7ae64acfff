"""`mixlab serve`."""

from typing import Any

import click

from mixlab.cli import common
from mixlab.errors import UsageError


@click.command(short_help="Answer pictures over HTTP, with a page.")
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0: of all networks.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@common.device
@common.reject_below
@common.answer_precision
@click.option("--max-batch", default=16, show_default=True, type=click.IntRange(1), help="Pictures answered together.")
@click.option(
    "--max-wait", default=2.0, show_default=True, type=click.FloatRange(0, 1000), help="Wait for others, milliseconds."
)
@click.option("--max-upload", default="32MB", show_default=True, metavar="SIZE", help="Of one request.")
@click.option(
    "--max-pixels", default=50_000_000, show_default=True, type=click.IntRange(1), help="Of one request's pictures."
)
@click.option("--queue", default=64, show_default=True, type=click.IntRange(1), help="Requests answered at a time.")
@click.option("--host-name", multiple=True, metavar="NAME", help="A name of this server beside localhost; repeatable.")
@click.option("--allow-origin", multiple=True, metavar="URL", help="A site whose pages may ask; repeatable.")
@click.option("--reload", "watch", is_flag=True, help="Read the model again when its files change.")
@common.quiet_warnings
def serve(
    model: str, host: str, port: int, device: str, reject_below: str, precision: str, watch: bool, **options: Any
) -> None:
    """Answer pictures with MODEL: a run, a bundle folder or an exported .onnx file.

    \b
    mixlab serve RUN
    curl -F file=@photo.jpg http://127.0.0.1:8000/predict

    SIGHUP reads the model again; SIGTERM and Ctrl-C end the server once all that came is answered.
    """
    _check_installed()
    from mixlab.serving.app import create_app
    from mixlab.serving.limits import Limits
    from mixlab.serving.server import bind, ignore_hangups, serve, url_of

    limits = Limits(
        max_batch=options["max_batch"],
        max_wait=options["max_wait"] / 1000,
        max_upload=common.size_bytes("--max-upload", options["max_upload"]),
        max_pixels=options["max_pixels"],
        queue=options["queue"],
    )
    ignore_hangups()
    with bind(host, port) as bound:
        app = create_app(
            model,
            device=device,
            limits=limits,
            reject_below=reject_below,
            precision=precision,
            host_names=[*options["host_name"], host],
            allow_origins=options["allow_origin"],
            say=_say,
        )
        about = app.service.model
        name = about.name if precision == "float32" else f"{about.name} in {precision}"
        serve(app, bound, watch, lambda: _say(f"serving  {name}, {about.spec.num_classes} classes: {url_of(bound)}"))


def _say(line: str) -> None:
    common.echo(line, err=True)


def _check_installed() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client") if not find_spec(name)]
    if missing:
        raise UsageError(f"mixlab serve needs {', '.join(missing)}: pip install 'mixlab[serve]'")
