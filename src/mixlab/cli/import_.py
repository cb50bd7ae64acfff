"""`mixlab import`."""

import shlex
from pathlib import Path
from typing import Any

import click

from mixlab.cli import common


class Numbers(click.ParamType):
    name = "NUMBER,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            return self.fail(f"{value!r}: expected a number for each channel, such as 0.485,0.456,0.406.", param, ctx)


@click.command("import", short_help="Make a bundle of a ConvMixer of timm or of the paper's authors.")
@click.argument("file")
@click.option("--out", required=True, metavar="FOLDER", help="Folder of the bundle.")
@click.option("--classes", default="", metavar="FILE", help="Names, one a line, or JSON.  [default: 0, 1, 2, ...]")
@click.option("--image-size", default=224, show_default=True, type=click.IntRange(1, 4096), help="Pixels.")
@click.option("--mean", type=Numbers(), help="Of each channel, pixels in [0, 1].  [default: ImageNet's]")
@click.option("--std", type=Numbers(), help="Likewise.")
@click.option("--resize-mode", default="crop", show_default=True, type=click.Choice(["crop", "pad", "squash"]))
@click.option("--activation", default="gelu", show_default=True, type=click.Choice(["gelu", "relu"]))
@common.as_json
def import_(file: str, out: str, classes: str, activation: str, as_json: bool, **preprocessing: Any) -> None:
    """Make a bundle of FILE: a checkpoint (.pt, .pth, .safetensors) of a ConvMixer of timm or of the paper's authors.

    Dim, depth, kernel and patch are read off the tensors. Class names, preprocessing and activation are not in such a
    file; the card of the bundle says what was given. Tensors are read and nothing else: no code in the file runs.
    """
    import sys

    from mixlab.places import expand_user
    from mixlab.run.importing import import_weights, read_classes

    names = read_classes(expand_user(classes)) if classes else ()
    given = {key: value for key, value in preprocessing.items() if value is not None}
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    bundle = import_weights(file, out, names, activation, command, **given)  # pyright: ignore[reportArgumentType]
    if as_json:
        return common.print_json({"bundle": out, **bundle.description.model_dump(mode="json")})
    return _print(bundle.description, str(expand_user(out)))


def _print(description: Any, out: str) -> None:
    from mixlab.models.catalogue import published_name
    from mixlab.run.importing import other_activation

    model, spec = description.model, description.spec
    common.echo(
        f"{published_name(model)}: dim {model.dim}, depth {model.depth}, kernel {model.kernel_size}, "
        f"patch {model.patch_size}, {model.activation}; {spec.num_classes:,} classes, {spec.image_size} px"
    )
    other = other_activation(model)
    if other:
        common.echo(f"note     the published {other} has these sizes and another activation (--activation)", err=True)
    quoted = shlex.quote(out)
    common.echo(f"bundle   {out}", f"next     mixlab predict {quoted} PICTURES")
    common.echo(f"         mixlab train --data FOLDER --weights {quoted}")
