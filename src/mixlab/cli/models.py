"""`mixlab models`."""

import click

from mixlab.cli import common
from mixlab.errors import UsageError


@click.group()
def models() -> None:
    """List the known models, or show one layer by layer."""


@models.command("list")
@click.option("--image-size", default=0, type=int, help="Side of the input for the operations; else the usual one.")
@common.as_json
def list_models(image_size: int, as_json: bool) -> None:
    """List the published sizes that take such an image, with parameters and multiply-accumulates for 10 classes."""
    import torch

    from mixlab.models.catalogue import PUBLISHED, create_model, usual_image_size
    from mixlab.models.inspection import macs, parameters

    rows = []
    for name in PUBLISHED:
        size = image_size or usual_image_size(name)
        try:
            with torch.device("meta"):  # shapes without numbers
                model = create_model(name, num_classes=10, image_size=size)
        except UsageError:  # its patches are larger than the image
            continue
        rows.append({"model": name, "parameters": parameters(model), "image_size": size, "macs": macs(model, 3, size)})
    if as_json:
        return common.print_json({"models": rows})
    table = [[row["model"], f"{row['parameters']:,}", row["image_size"], f"{row['macs'] / 1e6:,.1f}"] for row in rows]
    return common.print_table(["model", "parameters", "pixels", "M MACs"], table, right=[1, 2, 3])


@models.command()
@click.argument("name")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--image-size", default=0, type=int, help="Side of the input, pixels.")
@click.option("--classes", default=10, show_default=True, type=click.IntRange(1))
@click.option("--channels", default=3, show_default=True, type=click.Choice([1, 3]))
@common.as_json
def show(name: str, overrides: tuple[str, ...], image_size: int, classes: int, channels: int, as_json: bool) -> None:
    """Show a model's layers, output shapes, parameters and multiply-accumulates, for one image."""
    from dataclasses import asdict

    from mixlab.models.catalogue import create_model, usual_image_size
    from mixlab.models.inspection import layers

    fields = common.model_fields(overrides)
    size = image_size or usual_image_size(name)
    found = layers(
        create_model(name, num_classes=classes, channels=channels, image_size=size, **fields), channels, size
    )
    total, operations = sum(layer.parameters for layer in found), sum(layer.macs for layer in found)
    if as_json:
        return common.print_json(
            {"parameters": total, "macs": operations, "layers": [asdict(layer) for layer in found]}
        )
    rows = [
        [layer.name, layer.kind, " x ".join(map(str, layer.shape[1:])), f"{layer.parameters:,}", f"{layer.macs:,}"]
        for layer in found
    ]
    rows.append(["total", "", "", f"{total:,}", f"{operations:,}"])
    return common.print_table(["layer", "kind", "output", "parameters", "MACs"], rows, right=[3, 4])
