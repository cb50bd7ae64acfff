import numpy as np
import torch

from mixlab import randomness

PERMUTATION = [3, 4, 1, 0, 2]
FIRST = 0.3536550998687744


def test_the_same_names_give_the_same_numbers_and_others_give_others():
    first = randomness.generator(0, "step", 3, "flip").random(8)
    assert np.array_equal(first, randomness.generator(0, "step", 3, "flip").random(8))
    for other in ((1, "step", 3, "flip"), (0, "step", 4, "flip"), (0, "step", 3, "mix")):
        assert not np.array_equal(first, randomness.generator(*other).random(8))


def test_streams_do_not_change_between_versions():
    """Written down once: a run must resume after an upgrade of mixlab."""
    assert randomness.permutation(5, 0, "order", 0).tolist() == PERMUTATION
    randomness.seed_torch(torch.device("cpu"), 0, "weights")
    assert torch.rand(1).item() == FIRST


def test_numpys_global_generator_is_left_alone():
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    randomness.permutation(100, 0, "order", 1)
    assert np.random.rand() == expected


def test_an_index_has_its_number_wherever_it_stands():
    numbers = randomness.uniform_of(np.arange(100_000), 0, "flip")
    assert np.array_equal(randomness.uniform_of(np.array([70, 3]), 0, "flip"), numbers[[70, 3]])
    assert abs(numbers.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02
    assert not np.array_equal(numbers, randomness.uniform_of(np.arange(100_000), 1, "flip"))
