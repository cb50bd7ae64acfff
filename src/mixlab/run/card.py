"""The README.md of a bundle: a model card as the Hugging Face Hub takes it, of facts only."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mixlab.models import catalogue
from mixlab.run.bundle import BundleDescription
from mixlab.run.table import one_line

SHOWN = 200  # classes that a card names; bundle.json has all
RESIZES = {
    "crop": "its middle is cut out as a square and resized",
    "pad": "it is put into the middle of a square of the mean colour and resized",
    "squash": "it is resized to a square, whatever its sides",
}


def model_card(description: BundleDescription, parameters: int, command: str) -> str:
    """Return the README.md of a bundle.

    Args:
        parameters: numbers that were learned.
        command: that made it; "": not known.
    """
    title = catalogue.published_name(description.model) + (f" on {_text(description.data)}" if description.data else "")
    sections = {
        "Use": _use(description),
        "Training": _training(description, command),
        "Measured": _measured(description),
        "Input and output": _input_and_output(description),
        "Limits": _limits(description),
    }
    body = "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items())
    return f"{_front_matter(description, title)}\n# {title}\n\n{_summary(description, parameters)}\n\n{body}\n"


def _front_matter(description: BundleDescription, title: str) -> str:
    """Return what the Hub reads; JSON is YAML, and cannot be left by any name."""
    facts: dict[str, Any] = {
        "library_name": "mixlab",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "mixlab", description.model.name],
    }
    top1 = description.validation.get("top1")
    if top1 is not None:
        task = {"type": "image-classification", "name": "Image classification"}
        data = {"type": description.data, "name": description.data, "split": "validation"}
        metric = {"type": "accuracy", "value": round(top1, 6), "name": "top-1 accuracy"}
        facts["model-index"] = [{"name": title, "results": [{"task": task, "dataset": data, "metrics": [metric]}]}]
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in facts.items()), "---"])


def _summary(description: BundleDescription, parameters: int) -> str:
    classes = description.spec.classes
    named = ", ".join(map(_text, classes[:SHOWN])) + (", ..." if len(classes) > SHOWN else "")
    return (
        f"An image classifier of {len(classes):,} classes: a {description.model.name} of {parameters:,} parameters, "
        f"made with mixlab {description.mixlab}.\n\nClasses: {named}."
    )


def _use(description: BundleDescription) -> str:
    return f"""    import mixlab                           # version {description.mixlab}
    classifier = mixlab.load("FOLDER")      # this folder; hf://OWNER/NAME where it lies on the Hub
    answer = classifier("picture.jpg")      # path, bytes, array or Pillow image
    answer.label, answer.confidence, answer.top(3)

On the command line: `mixlab predict FOLDER PICTURES`. Fine-tuning: `mixlab train --data PICTURES --weights FOLDER`. The
weights are safetensors, and nothing in this folder is code."""


def _training(description: BundleDescription, command: str) -> str:
    facts = {
        **({"imported from": description.origin} if description.origin else {}),
        **({"data": description.data} if description.data else {}),
        **({"fingerprint of the data (SHA-256)": description.data_fingerprint} if description.data_fingerprint else {}),
        **description.training,
        **({"experiment": description.experiment} if description.experiment else {}),
    }
    return "\n\n".join([_table("what", facts), *([f"    {one_line(command)}"] if command else [])])


def _measured(description: BundleDescription) -> str:
    found = description.validation
    if not found:
        return "Nothing was measured on validation images."
    measured = {
        "images": f"{found.get('images', 0):,.0f}",
        "top-1 accuracy": f"{found.get('top1', 0):.2%}",
        "loss (nats), before the temperature": f"{found.get('loss', 0):.4f}",
    }
    parts = [_table("on validation images", measured), _confidence(description)]
    return "\n\n".join(part for part in parts if part)


def _confidence(description: BundleDescription) -> str:
    if not description.accepted:
        return ""
    rows = [
        f"| {point.threshold:.4f} | {point.accepted:,} | {point.right:,} | {point.right / point.accepted:.1%} |"
        for point in description.accepted[3::4]
    ]
    head = "| least confidence | accepted | right | share right |\n|---|---|---|---|\n"
    return (
        "Confidence is calibrated by one temperature, fitted on these images. What it is worth on them:\n\n"
        + head
        + "\n".join(rows)
        + "\n\nThe rows count the images that fixed them; `--reject-below precision=0.95` takes the threshold of which "
        "the same images vouch for that precision with 95 %."
    )


def _input_and_output(description: BundleDescription) -> str:
    spec = description.spec
    channels = "RGB" if spec.channels == 3 else "grey"
    unknown = (
        f"Below a confidence of {description.reject_below:.4f} the answer is unknown."
        if description.reject_below
        else "No answer is rejected unless asked for (`--reject-below 0.7`, or `--reject-below precision=0.95`)."
    )
    return (
        f"* A picture is turned as its EXIF data say and made {channels}; {RESIZES[spec.resize_mode]}, to "
        f"{spec.image_size} x {spec.image_size} px in [0, 1].\n"
        f"* The network subtracts the mean {_numbers(spec.mean)} and divides by {_numbers(spec.std)} itself.\n"
        f"* Logits are divided by {description.temperature:.4f}, then softmax.\n"
        f"* {unknown}"
    )


def _limits(description: BundleDescription) -> str:
    return "\n".join(f"* {line}" for line in _limits_of(description))


def _limits_of(description: BundleDescription) -> Iterator[str]:
    yield (
        f"Intended for pictures of its {description.spec.num_classes:,} classes. A picture of anything else gets one "
        "of them too; a low confidence may show it, and may not."
    )
    if description.origin:
        yield "The weights were imported. How they were trained is not known here, and nothing was measured."
    elif description.validation:
        yield (
            "The validation images are of the same data set as the training images. Pictures of other cameras, places "
            "or times were not measured."
        )
        yield (
            "The temperature, and the epoch where one was chosen, were fitted on the validation images, so what was "
            "measured on them is slightly optimistic."
        )
    else:
        yield "There were no validation images: neither accuracy nor confidence was measured."


def _table(name: str, facts: Mapping[str, str]) -> str:
    rows = "\n".join(f"| {_text(key)} | {_text(value)} |" for key, value in facts.items())
    return f"| {name} | |\n|---|---|\n{rows}"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _text(name: str) -> str:
    """Return a name as text in Markdown: on one line, and with nothing that is a mark there."""
    return re.sub(r"([\\`*_\[\]<>|#$&~])", r"\\\1", one_line(name))
