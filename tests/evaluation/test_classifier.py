"""Pictures wait for their turn in little memory, however large they are; arrays are pictures too."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixlab.data.decode import decode
from mixlab.errors import UnreadableImage, UsageError
from mixlab.evaluation import networks
from mixlab.evaluation.classifier import Answer, Classifier, pixels_of
from mixlab.evaluation.networks import OnnxNetwork, TorchNetwork, in_batches, of_one_size
from mixlab.models.catalogue import parse_model
from mixlab.run.bundle import Bundle, BundleDescription
from mixlab.spec import DataSpec


@pytest.fixture
def description() -> BundleDescription:
    model = parse_model({"name": "convmixer", "dim": 4, "depth": 1, "kernel_size": 3})
    spec = DataSpec(image_size=8, classes=("a", "b"), mean=(0.5,) * 3, std=(0.2,) * 3)
    return BundleDescription(mixlab="", model=model, spec=spec)


class Session:
    """What is asked of ONNX Runtime: remembers how many pictures came at once."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def run(self, _: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
        pictures = given["pictures"]
        self.seen.append(len(pictures))
        return [pictures.reshape(len(pictures), -1)[:, :2].astype(np.float32)]


def test_batches_are_cut_by_bytes_and_never_empty(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(networks, "MOST_BYTES", 10)
    assert list(in_batches([3, 3, 3, 3, 99, 1, 1, 1], int, 2)) == [[3, 3], [3, 3], [99], [1, 1], [1]]
    assert list(in_batches([4, 4, 4], int, 9)) == [[4, 4], [4]]
    pictures = [np.zeros(shape, np.uint8) for shape in ((1, 2, 3), (1, 1, 3), (1, 1, 3), (1, 2, 3), (1, 1, 3))]
    assert list(of_one_size(pictures)) == [[0], [3], [1, 2, 4]]


def test_large_pictures_go_through_an_exported_file_a_few_at_once(
    description: BundleDescription, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in range(5):
        Image.new("RGB", (20, 10), (name, 100 - name, 0)).save(tmp_path / f"{name}.png")
    files = [*(tmp_path / f"{name}.png" for name in range(5)), tmp_path / "none.png"]
    monkeypatch.setattr(networks, "MOST_BYTES", 2 * 20 * 10 * 3)
    session = Session()
    found = list(Classifier(description, OnnxNetwork(session, "")).stream(files))
    assert session.seen == [2, 2, 1]
    assert [picture for picture, _ in found] == files
    assert isinstance(found[-1][1], UnreadableImage)


def test_of_a_large_picture_only_what_the_network_sees_waits(description: BundleDescription, tmp_path: Path):
    Image.effect_noise((90, 50), 80).convert("RGB").save(tmp_path / "a.png")
    network = TorchNetwork(Bundle(description, description.model.build(description.spec).state_dict()), "cpu")
    pixels = decode(tmp_path / "a.png")
    assert network.prepare(pixels).nbytes == 4 * 3 * 8 * 8
    [(_, answer)] = Classifier(description, network).stream([tmp_path / "a.png"])
    assert not isinstance(answer, UnreadableImage)
    np.testing.assert_array_equal(answer.probabilities, Classifier(description, network)(pixels).probabilities)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_array_of_one_channel_is_the_grey_picture(channels: int):
    grey = np.random.default_rng(0).integers(0, 256, (3, 5), np.uint8)
    found = pixels_of(grey[:, :, None], channels)
    np.testing.assert_array_equal(found, pixels_of(grey, channels))
    np.testing.assert_array_equal(found, np.repeat(grey[:, :, None], channels, axis=2))
    assert [pixels_of(np.zeros((3, 5, each), np.uint8), channels).shape for each in (2, 3, 4)] == [(3, 5, channels)] * 3


@pytest.mark.parametrize("shape", [(3,), (3, 5, 0), (3, 5, 5), (1, 3, 5, 3), (0, 5)])
def test_an_array_that_is_no_picture_is_refused_with_its_shape(shape: tuple[int, ...]):
    with pytest.raises(UsageError, match=r"expected uint8 .* got uint8 \("):
        pixels_of(np.zeros(shape, np.uint8), 3)
    with pytest.raises(UsageError, match="got float32"):
        pixels_of(np.zeros((3, 5, 3), np.float32), 3)


@pytest.mark.parametrize("given", [None, [], ["a.png"], 3.5], ids=str)
def test_what_is_no_picture_is_the_callers_mistake(description: BundleDescription, given):
    with pytest.raises(UsageError, match="expected one picture: a path, bytes, uint8 pixels or a Pillow image, not"):
        Classifier(description, OnnxNetwork(Session(), ""))(given)


@pytest.mark.parametrize("given", ["a.png", Path("a.png"), b"", np.zeros((2, 2, 3), np.uint8)], ids=str)
def test_features_are_of_a_list_of_pictures(description: BundleDescription, given):
    classifier = Classifier(
        description, TorchNetwork(Bundle(description, description.model.build(description.spec).state_dict()), "cpu")
    )
    with pytest.raises(UsageError, match="put the one into brackets"):
        classifier.features(given)


def test_no_class_is_no_answer():
    answer = Answer(("a", "b"), np.array([0.3, 0.7]))
    assert [name for name, _ in answer.top(9)] == ["b", "a"]
    for count in (0, -1):
        with pytest.raises(UsageError, match=f"top[(]{count}[)]: expected how many classes"):
            answer.top(count)
