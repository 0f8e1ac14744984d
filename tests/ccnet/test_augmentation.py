"""What training sees: batches, their augmentation, scale sequences, and the seeds that they follow from."""

from typing import Any

import numpy as np
import pytest
import torch

from ccnet import DataError
from ccnet.augmentation import TrainingBatches, TrainingSequences, derived_seed
from ccnet.preprocessing import Preprocessing
from tests.ccnet.toy_training import DATA, toy_config


class TestBatches:
    def batches(self, **changes: Any) -> TrainingBatches:
        plain = Preprocessing(1, (28, 28), (32, 32), (0.0,), (1 / 255,))
        return TrainingBatches(DATA[0], plain, toy_config(**changes), torch.device("cpu"))

    def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(self) -> None:
        batches = self.batches(flip="none", crop_padding=0)
        expected = np.pad(DATA[0].images[..., 0], ((0, 0), (2, 2), (2, 2))).astype(np.float32)
        orders = []
        for epoch in range(2):
            shown = torch.cat([batches.batch(step)[0][:, 0] for step in range(epoch * 5, epoch * 5 + 5)])
            orders.append([int(np.flatnonzero((expected == image.numpy()).all((1, 2)))[0]) for image in shown])
        assert sorted(orders[0]) == sorted(orders[1]) == list(range(20))
        assert orders[0] != orders[1]

    def test_labels_stay_with_their_images(self) -> None:
        images, labels = self.batches(flip="none", crop_padding=0).batch(2)
        assert [(int(image[0].sum(1).argmax()) - 6) // 2 for image in images] == labels.tolist()

    def test_crops_are_shifts_by_at_most_the_padding_with_black_around(self) -> None:
        batches = self.batches(flip="none", crop_padding=2)
        expected = np.pad(DATA[0].images[..., 0], ((0, 0), (4, 4), (4, 4)))
        windows = {
            expected[image, top : top + 32, left : left + 32].astype(np.float32).tobytes(): (top, left)
            for image in range(20) for top in range(5) for left in range(5)
        }  # fmt: skip
        shifts = [windows[image.numpy().tobytes()] for step in range(30) for image in batches.batch(step)[0]]
        assert {top for top, _ in shifts} == {left for _, left in shifts} == {0, 1, 2, 3, 4}
        assert any(top != left for top, left in shifts)

    def test_alternating_flips_show_every_image_both_ways_in_two_epochs(self) -> None:
        flipped = self.batches(flip="alternating", crop_padding=0)
        plain = self.batches(flip="none", crop_padding=0)
        mirrored: list[set[bytes]] = [set(), set()]
        for step in range(10):
            for image, original in zip(flipped.batch(step)[0], plain.batch(step)[0], strict=True):
                if not torch.equal(image, original):
                    torch.testing.assert_close(image, original.flip(-1), rtol=0, atol=0)
                    mirrored[step // 5].add(original.numpy().tobytes())
        assert not mirrored[0] & mirrored[1]
        assert len(mirrored[0]) + len(mirrored[1]) == 20
        assert 0 < len(mirrored[0]) < 20

    def test_random_flips_mirror_about_half(self) -> None:
        flipped, plain = self.batches(flip="random", crop_padding=0), self.batches(flip="none", crop_padding=0)
        count = sum(
            not torch.equal(a, b)
            for step in range(50)
            for a, b in zip(flipped.batch(step)[0], plain.batch(step)[0], strict=True)
        )
        assert 70 <= count <= 130  # of 200, +-4 standard deviations

    def test_images_larger_than_the_input_are_refused(self) -> None:
        small = Preprocessing(1, (16, 16), (16, 16), (0.0,), (1.0,))
        with pytest.raises(DataError, match="larger than the input"):
            TrainingBatches(DATA[0], small, toy_config(), torch.device("cpu"))


class TestSequences:
    def test_every_step_has_a_valid_sequence_of_its_own(self) -> None:
        sequences = TrainingSequences(toy_config(), (32, 32))
        drawn = [sequences.at(step) for step in range(20)]
        for sequence in drawn:
            sequence.require_valid()
        assert len(set(drawn)) == 20
        assert drawn == [TrainingSequences(toy_config(), (32, 32)).at(step) for step in range(20)]

    def test_they_are_drawn_as_the_config_says(self) -> None:
        config = toy_config(sequence_method="conditioned", sequence_max_numerator=7)
        sequences = TrainingSequences(config, (32, 32))
        drawn = [scale for step in range(20) for pair in sequences.at(step).scales for scale in pair]
        assert max(scale.denominator for scale in drawn) <= 10
        assert max(scale.numerator for scale in drawn) == 7

    def test_a_pool_limits_them(self) -> None:
        sequences = TrainingSequences(toy_config(pool_size=3), (32, 32))
        assert len({sequences.at(step) for step in range(50)}) == 3


def test_derived_seeds_are_fixed_for_ever_and_differ() -> None:
    assert derived_seed(0, "order", 0) == 1829853113658518448
    seeds = {derived_seed(seed, purpose, index) for seed in range(3) for purpose in ("a", "b") for index in range(50)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
