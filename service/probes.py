"""Shift probes as work for the inference thread: what is measured, what it costs, and what comes out.

The measuring itself is `ccnet.equivariance`; here a model and its images are handed to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ccnet.data import ImageDataset, load_dataset
from ccnet.equivariance import ShiftSimilarity, SimilarityMap, noise_images, similarity_map, table1
from ccnet.sequences import ScaleSequence
from service.errors import OptionOutOfRange
from service.running import Progress
from service.served import ServedModel

Border = Literal["zero", "circular", "reflect"]
Members = Literal["split", "each"]


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """One model under the shifts of a request.

    Attributes:
        model: What is measured.
        max_shifts: The rows, px.
        border: What enters a shifted image.
        fill: The value that enters under border "zero", one number or one a channel, as the model's input has it.
        ensemble_size: Scale sequences, for a model that takes any.
        members: Whether the sequences are dealt out among the images ("split") or used on all of them ("each").
        seed: Of shifts, sequences and bootstrap.
    """

    model: ServedModel
    max_shifts: Sequence[int]
    border: Border
    fill: float | tuple[float, ...]
    ensemble_size: int
    members: Members
    seed: int

    def table(self, images: Tensor, progress: Progress) -> list[ShiftSimilarity]:
        """A row of Table 1 for each max shift; images are float [N, C, H, W], prepared."""
        return table1(self.model.subject, images, self.max_shifts, on_progress=progress, **self._common())

    def map(self, images: Tensor, progress: Progress) -> SimilarityMap:
        """The cosine at every shift up to the largest one."""
        return similarity_map(self.model.subject, images, max(self.max_shifts), on_progress=progress, **self._common())

    def table_passes(self, images: int) -> int:
        """Cost of `table`: for every row each image and its shifted copy, once or under each sequence."""
        return 2 * images * len(self.max_shifts) * self._rounds

    def map_passes(self, images: int) -> int:
        """Cost of `map`: each image once and at every shift, once or under each sequence."""
        side = 2 * max(self.max_shifts) + 1
        return images * (side * side + 1) * self._rounds

    @property
    def _rounds(self) -> int:
        """How often an image is measured."""
        return self.ensemble_size if self.model.takes_sequences and self.members == "each" else 1

    def _common(self) -> dict[str, Any]:
        sequences: tuple[ScaleSequence, ...] | None = None
        if self.model.takes_sequences:  # drawn as for classification, by the model's own distribution
            sequences = self.model.sample(self.ensemble_size, self.seed)
        return {
            "sequences": sequences,
            "members": self.members,
            "seed": self.seed,
            "border": self.border,
            "fill": self.fill,
        }


def noise(model: ServedModel, samples: int, seed: int) -> Tensor:
    """Gaussian noise of the model's input size, float32 [samples, C, H, W]."""
    return noise_images(samples, (model.channels, *model.in_size), seed)


def dataset_images(model: ServedModel, samples: int, data_dir: Path | None) -> Tensor:
    """The first images of the test split that the model's card names, prepared: float32 [samples, C, H, W].

    Raises:
        OptionOutOfRange: The card names no data set, or its test split has fewer images.
        DataError: The data set is not installed, or damaged; the message says how to get it.
    """
    name = ((model.facts["config"] or {}).get("data") or {}).get("dataset")
    if not isinstance(name, str):
        raise OptionOutOfRange(f"input: 'dataset' was given; the card of {model.name} names none; allowed is noise")
    images = test_split(name, data_dir).images
    if samples > len(images):
        raise OptionOutOfRange(f"samples: {samples} was given; the test split of {name} has {len(images)} images")
    return model.prepare(list(images[:samples]))


@lru_cache(maxsize=2)
def test_split(name: str, data_dir: Path | None) -> ImageDataset:
    """The test images of a data set, as `ccnet.data.load_dataset` reads them; the last ones are remembered."""
    return load_dataset(name, "test", data_dir)
