"""Whether a module's parameters are still those that something was made from: `Stamp`.

They are only while they are the same tensors, unchanged: an optimiser's step (of any optimiser in the process: fused
ones change parameters without counting it), `load_state_dict`, `.to()`, changes in place and a replaced parameter all
end a stamp. Changes that go around torch give no sign: through `.data` (`p.data.mul_(2)`), a shared NumPy array, or
optimiser steps replayed from a CUDA graph. Call `PlanCache.clear` (`ccnet.plan_cache`) after those.
"""

import operator
import weakref
from collections.abc import Sequence
from itertools import starmap
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook


class Stamp:
    """The state of a module's parameters and buffers: equal stamps mean the same tensors with the same values.

    Holds on to the tensors, so that no other can take their place in memory while the stamp is compared. Tensors made
    under `torch.inference_mode` keep no count of their changes; a stamp of one equals no other and never holds. Modules
    that count in `moves` how often `_apply` was called (for `.to()` and its like, which may put other values into the
    same place) are asked for that too.
    """

    __slots__ = ("_dictionaries", "_hash", "_members", "_module", "_moves", "_owners", "_sizes", "_state", "_tensors")

    def __init__(self, module: nn.Module) -> None:
        self._module = weakref.ref(module)
        self._owners: list[tuple[dict[str, Any], str]] = []  # a module's dictionary, and a name in it
        self._members: list[object] = []  # what stands there
        self._dictionaries: list[dict[str, Any]] = []  # all of them, the empty ones too
        self._moves: list[tuple[dict[str, Any], int]] = []
        self._collect(module)
        self._sizes = tuple(map(len, self._dictionaries))
        self._tensors = [member for member in self._members if isinstance(member, Tensor)]
        counted = not any(tensor.is_inference() for tensor in self._tensors)
        moves = tuple(count for _, count in self._moves)
        identities = tuple(map(id, self._tensors))
        self._state = (_optimizer_steps, moves, identities, _contents(self._tensors)) if counted else None
        self._hash = hash(self._state)

    @property
    def module(self) -> nn.Module | None:
        """The module, while it lives."""
        return self._module()

    def holds(self) -> bool:
        """Whether the module is still in the state that the stamp was taken of; faster than taking another."""
        return (
            self._state is not None
            and self._state[0] == _optimizer_steps
            and tuple(map(len, self._dictionaries)) == self._sizes
            and all(map(operator.is_, starmap(dict.get, self._owners), self._members))
            and all(attributes.get("moves", 0) == count for attributes, count in self._moves)
            and self._state[3] == _contents(self._tensors)
        )

    def holds_for(self, module: nn.Module) -> bool:
        """Whether it is this module's stamp, and holds. (Another module may have come to lie where a dead one was.)"""
        return self._module() is module and self.holds()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Stamp) and self._state is not None and self._state == other._state)

    def _collect(self, module: nn.Module) -> None:
        attributes = module.__dict__
        if hasattr(type(module), "moves"):
            self._moves.append((attributes, attributes.get("moves", 0)))
        for kind in ("_parameters", "_buffers"):
            tensors = attributes[kind]
            self._dictionaries.append(tensors)
            self._owners.extend((tensors, name) for name in tensors)
            self._members.extend(tensors.values())
        children = attributes["_modules"]
        self._dictionaries.append(children)
        for name, child in children.items():
            self._owners.append((children, name))
            self._members.append(child)
            if child is not None:
                self._collect(child)


_version = operator.attrgetter("_version")


def _contents(tensors: Sequence[Tensor]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How often each tensor was changed in place, and where its values lie."""
    return tuple(map(_version, tensors)), tuple(map(Tensor.data_ptr, tensors))


_optimizer_steps = 0


def _count_optimizer_step(*_: object) -> None:
    global _optimizer_steps
    _optimizer_steps += 1


register_optimizer_step_post_hook(_count_optimizer_step)
