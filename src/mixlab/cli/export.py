"""`mixlab export`."""

from typing import Any

import click

from mixlab.cli import common


@click.command(short_help="Write a file that other runtimes run, and check it.")
@click.argument("run")
@click.option("--to", "kind", default="onnx", show_default=True, metavar="KIND", help="Kind of file, as below.")
@click.option("--out", default="", metavar="FOLDER", help="Where to.  [default: export/KIND in the run's folder]")
@click.option(
    "--data", default="", metavar="NAME|FOLDER", help="Pictures to check it on; else the validation pictures."
)
@common.ignore_unknown_classes
@click.option("--images", default="512", show_default=True, metavar="N|all", help="How many of them.")
@common.reject_below
@click.option(
    "--runtime", default="", metavar="PLACE", help="For web: folder or archive of the npm package onnxruntime-web."
)
@click.option("--download", is_flag=True, help="For web: have npm fetch it, once.")
@common.as_json
@common.quiet_warnings
def export(
    run: str, kind: str, as_json: bool, images: str, data: str, ignore_unknown_classes: bool, **options: Any
) -> None:
    """Write the network of RUN, a finished run or a bundle folder, as one file that runs without mixlab.

    The file takes decoded pictures of any size, resizes them as in training, and gives calibrated probabilities and
    logits; classes and temperature are in its metadata. It is compared with the network on real pictures first: where
    it does not answer the same the exit code is 3 and no file is left.

    \b
    onnx      for ONNX Runtime              torch  a program of torch.export, for PyTorch
    openvino  for OpenVINO (.xml and .bin)  int8   ONNX with 8-bit products, at most 0.5 points less accurate
    web       a page, for any static host: the network answers inside the browser
    """
    from mixlab import api

    if kind != "web" and (options["runtime"] or options["download"]):
        raise click.UsageError("--runtime and --download are for --to web.")
    if ignore_unknown_classes and not data:
        raise click.UsageError("--ignore-unknown-classes goes with --data; a run knows the classes of its own data.")
    other = common.data_fields(data, ignore_unknown_classes) if data else ""
    found = api.export(run, kind, images=_count(images), data=other, say=_say, **options)
    if as_json:
        return common.print_json({"path": str(found.path), **found.parity.as_json()})
    _print(found)
    if kind == "web":
        place = found.path.parent
        common.echo(f"page     {place} goes to any static host; to look: python -m http.server --directory {place}")
    return None


def _say(line: str) -> None:
    common.echo(line, err=True)


def _count(text: str) -> int:
    if text == "all":
        return 0
    if not text.isdecimal() or int(text) == 0:
        raise click.UsageError(f"--images {text}: expected a number of pictures above 0, or all.")
    return int(text)


def _print(found: Any) -> None:
    from mixlab.exporting.export import REPORT

    parity, difference = found.parity, found.parity.difference
    for name, reason in parity.unreadable.items():
        common.echo(f"skipped  {name}: {reason}", err=True)
    height, width = parity.timed
    headers = ["", "top-1", "bytes", *(f"ms, {count} of {width} x {height}" for count in parity.ways[0].milliseconds)]
    rows = [
        [way.name, f"{way.top1:.2%}", f"{way.bytes:,}", *(f"{each:.2f}" for each in way.milliseconds.values())]
        for way in parity.ways
    ]
    common.print_table(headers, rows, right=range(1, len(headers)))
    common.echo(
        f"parity   {parity.pictures:,} {parity.what} pictures: the same class for {difference.agreement:.2%}, logits "
        f"within {difference.logits:.1e}, probabilities within {difference.probabilities:.1e}"
    )
    common.echo(f"written  {found.path} ({REPORT} beside it)")
