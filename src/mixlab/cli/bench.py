"""`mixlab bench`."""

from pathlib import Path
from typing import Any

import click

from mixlab.cli import common


@click.command(short_help="Measure a model's speed beside PyTorch's own and other runtimes.")
@click.argument("name", default="convmixer_256_8")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--image-size", default=0, type=int, help="Side of the input, pixels; else the usual one.")
@click.option("--channels", default=3, show_default=True, type=click.Choice([1, 3]))
@click.option("--classes", default=10, show_default=True, type=click.IntRange(2))
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1))
@click.option("--only", type=click.Choice(["inference", "training"]), help="One of the two.")
@click.option("--compile", "compiled", is_flag=True, help="Measure torch.compile too; its compilation takes minutes.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Times that each has its turn.")
@common.out
@common.device
@common.as_json
@common.quiet_warnings
def bench(name: str, overrides: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Measure images a second and memory, in inference and in training, of a model and of its public peers.

    All run in one process, in turn, on the same weights and images; outputs are compared first. Speeds are medians of
    the rounds, the limit is what a large matrix product reaches in the same process (in float16 on a CPU: twice what it
    reaches in float32). A quiet machine is needed.
    """
    from mixlab import devices, durable
    from mixlab.benchmarking import bench as benching
    from mixlab.models.catalogue import create_model, usual_image_size

    fields = common.model_fields(overrides)
    size, channels, classes = options["image_size"] or usual_image_size(name), options["channels"], options["classes"]
    changed = [f"{key}={value}" for key, value in fields.items()]
    only = [options["only"]] if options["only"] else ["inference", "training"]
    words = ["bench", name, *changed, f"{size}px", options["batch_size"], *only]
    folder = Path(options["out"]) / "-".join(map(str, words))
    model = create_model(name, num_classes=classes, channels=channels, image_size=size, **fields)
    devices.choose_device(options["device"])
    durable.make_folder(folder)  # before minutes are spent
    found = benching.bench(
        " ".join([name, *changed]),
        model,
        channels,
        size,
        classes,
        options["batch_size"],
        options["device"],
        only,
        options["rounds"],
        options["compiled"],
    )
    benching.write(folder, found)
    if as_json:
        return common.print_json({**found.as_json(), "folder": str(folder)})
    return _show(found, folder)


def _show(found: Any, folder: Path) -> None:
    from mixlab.kernels import library

    work, machine = found.work, found.machine
    common.echo(
        f"{work.model}: {work.parameters:,} parameters, {work.macs / 1e6:,.0f} M MACs, {work.image_size} px, "
        f"batch {work.batch_size}"
    )
    where = f"{work.device} ({machine['gpu']})" if "gpu" in machine else work.device
    common.echo(f"{machine['machine']}, {where}, {machine['threads']} threads, torch {machine['torch']}")
    common.echo(f"kernels  {library.describe(machine['device'].partition(':')[0])}")
    reached = ", ".join(f"{name} {flops / 1e9:,.0f} GFLOP/s" for name, flops in found.ceilings.matmul.items())
    common.echo(f"limits   matrix product {reached}; copy {found.ceilings.copy / 1e9:,.0f} GB/s")
    for kind, results in found.results.items():
        first = results[0].images_per_second if results else 0.0
        rows = [
            [
                each.name,
                _speed(each.images_per_second),
                f"{_speed(each.slowest)} to {_speed(each.fastest)}",
                f"{each.images_per_second / first:.2f} x",
                f"{each.share:.0%}",
                f"{each.difference:.1e}",
                *([f"{each.kept_bytes / 2**20:.2f}"] if kind == "training" else []),
            ]
            for each in results
        ]
        kept = ["MiB kept an image"] if kind == "training" else []
        common.echo()
        common.print_table(
            [kind, "img/s", "rounds", "over the first", "of the limit", "difference", *kept], rows, right=range(1, 7)
        )
        for each in found.failed[kind]:
            common.echo(f"not measured: {each.name}: {each.reason}")
        if found.speedup(kind):
            common.echo(f"mixlab's fastest is {found.speedup(kind):.2f} times as fast as the fastest of the others")
    common.echo("", f"roofline  {folder / 'roofline.png'}")


def _speed(images_per_second: float) -> str:
    return f"{images_per_second:,.0f}" if images_per_second >= 100 else f"{images_per_second:.3g}"
