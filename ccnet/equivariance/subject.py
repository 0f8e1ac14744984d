"""The model under test, whatever its kind, seen as one thing: images and scale sequences -> map and logits.

Four kinds are taken:
- an object whose `maps_and_logits(x, sequence)`, or `maps_and_logits(x)`, gives both in one pass;
- a CCNet-like module: `features(x, sequence)` gives the last convolution's map, `model(x, sequence)` the logits;
- a ConvNet-like module: `features(x)` and `model(x)`;
- any callable x -> [N, C, h, w]: a map and no logits.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ccnet.equivariance.protocol import Members, require_whole
from ccnet.errors import CcnetError
from ccnet.models import CCNet, ConvNet
from ccnet.sequences import ScaleSequence, sample_scale_sequences

# The sequences whose maps are averaged into one; most groups hold one sequence, or None for a model that takes none.
Group = tuple[ScaleSequence | None, ...]


class Subject:
    """Adapter around the model under test.

    Args:
        model_or_features: one of the four kinds above.

    Raises:
        CcnetError: it is none of them.
    """

    def __init__(self, model_or_features: Callable[..., Any]) -> None:
        joint = getattr(model_or_features, "maps_and_logits", None)
        self._joint: Callable[..., tuple[Tensor, Tensor]] | None = joint if callable(joint) else None
        if self._joint is None and not callable(model_or_features):
            raise CcnetError(
                "the subject of a shift probe is a model with .features, or a function from images [N, C, H, W] to "
                f"maps [N, C, h, w]; got {type(model_or_features).__name__}"
            )
        features = getattr(model_or_features, "features", None)
        self.has_labels = self._joint is not None or callable(features)
        self._model = model_or_features
        self._features: Callable[..., Tensor] = features if callable(features) else model_or_features
        self.takes_sequences = _takes_sequence(self._joint or self._features)

    def groups(
        self,
        sequences: Sequence[ScaleSequence] | None,
        *,
        ensemble_size: int,
        seed: int,
        members: Members,
        in_size: tuple[int, int],
    ) -> list[Group]:
        """The groups of sequences to measure under: one holding all for "ensemble", else one for each sequence.

        Sequences are drawn with `seed` when None is given.

        Raises:
            CcnetError: sequences for a model that takes none, an empty list, or an `ensemble_size` below 1.
        """
        if not self.takes_sequences:
            if sequences is not None:
                raise CcnetError("this model takes no scale sequence; leave sequences out")
            return [(None,)]
        if sequences is None:
            require_whole("ensemble_size", ensemble_size, least=1)
            sequences = sample_scale_sequences(ensemble_size, seed=seed, in_size=in_size)
        if not sequences:
            raise CcnetError("sequences is empty; give at least one scale sequence, or None to draw some")
        return [tuple(sequences)] if members == "ensemble" else [(sequence,) for sequence in sequences]

    def __call__(self, images: Tensor, group: Group) -> tuple[Tensor, Tensor | None]:
        """Maps [N, C, h, w] and logits [N, classes] or None, float64 on the CPU; means over the group's members.

        Raises:
            CcnetError: the map is not [N, C, h, w], or not finite.
        """
        images = images.to(self._device(images))
        maps, logits = zip(*(self._one(images, sequence) for sequence in group), strict=True)
        mean_map = torch.stack(maps).mean(dim=0)
        if not self.has_labels:
            return mean_map, None
        return mean_map, torch.stack(logits).mean(dim=0)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """No gradients, and evaluation mode for every submodule that is in training mode, given back at the end."""
        modules = self._model.modules() if isinstance(self._model, nn.Module) else ()
        training = [module for module in modules if module.training]
        for module in training:
            module.training = False
        try:
            with torch.no_grad():
                yield
        finally:
            for module in training:
                module.training = True

    def _one(self, images: Tensor, sequence: ScaleSequence | None) -> tuple[Tensor, Tensor | None]:
        """Map and logits under one sequence, float64 on the CPU."""
        features, logits = self._maps_and_logits(images, sequence)
        if features.ndim != 4 or len(features) != len(images):
            raise CcnetError(
                f"the features of {len(images)} images must be maps [{len(images)}, C, h, w]; "
                f"got shape {list(features.shape)}"
            )
        if not bool(torch.isfinite(features).all()):
            raise CcnetError("the features hold NaN or infinity: check the images and the weights")
        return features.to("cpu", torch.float64), None if logits is None else logits.to("cpu", torch.float64)

    def _maps_and_logits(self, images: Tensor, sequence: ScaleSequence | None) -> tuple[Tensor, Tensor | None]:
        """In one pass, where the kind of subject allows."""
        if self._joint is not None:
            return self._joint(images, *_given(sequence))
        features = self._features(images, *_given(sequence))
        if not self.has_labels:
            return features, None
        if isinstance(self._model, (CCNet, ConvNet)):  # their logits follow from the map: no second pass
            return features, self._model.head(features)
        return features, self._model(images, *_given(sequence))

    def _device(self, images: Tensor) -> torch.device:
        """Where the model lives; a bare function gets the images where they are."""
        if isinstance(self._model, nn.Module):
            for parameter in self._model.parameters():
                return parameter.device
        return images.device


def _takes_sequence(features: Callable[..., Any]) -> bool:
    """Whether a call wants `features(x, sequence)`; one that was bound by functools.partial wants it no more."""
    try:
        parameter = inspect.signature(features).parameters.get("sequence")
    except ValueError:  # functions built into torch have no signature
        return False
    return parameter is not None and parameter.kind is not inspect.Parameter.KEYWORD_ONLY


def _given(sequence: ScaleSequence | None) -> tuple[ScaleSequence, ...]:
    return () if sequence is None else (sequence,)
