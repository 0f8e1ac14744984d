"""Which forward passes a batch needs: requests of any sizes and seeds share the members that they have alike."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Member = TypeVar("Member", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Run(Generic[Member]):
    """One ensemble over the images of several requests.

    Attributes:
        members: Of the ensemble, all different.
        requests: The positions of the requests that want exactly these members, among others, in order.
    """

    members: tuple[Member, ...]
    requests: tuple[int, ...]


def shared_runs(wanted: Sequence[Sequence[Member]]) -> list[Run[Member]]:
    """Runs that give every request all of its members, each member over each request's images once.

    Members that the same requests want are one run, so equal requests are one ensemble over all their images.

    Args:
        wanted: The members of each request; one may stand there twice.
    """
    requests_of: dict[Member, list[int]] = {}
    for position, members in enumerate(wanted):
        for member in dict.fromkeys(members):
            requests_of.setdefault(member, []).append(position)
    members_of: dict[tuple[int, ...], list[Member]] = {}
    for member, requests in requests_of.items():
        members_of.setdefault(tuple(requests), []).append(member)
    return [Run(tuple(members), requests) for requests, members in members_of.items()]
