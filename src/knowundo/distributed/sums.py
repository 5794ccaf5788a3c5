"""Sums over the processes of a run, of gradients and of loss parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import torch

from knowundo.distributed.group import gathered, group

# Elements that are sent at a time: all at once would be a second copy of the gradients.
_BUCKET = 25_000_000
# Of each parameter; `None` where no gradient reaches it.
Gradients = list[torch.Tensor | None]


def own_share() -> slice:
    """Which values of a list this process works on: every `size`-th, from its rank on."""
    return slice(group().rank, None, group().size)


@torch.no_grad()
def summed(gradients: Gradients, parameters: Sequence[torch.Tensor]) -> Gradients:
    """Gradients added up over the processes, the same bits in each of them.

    Args:
        gradients: This process's own, by parameter; changed in place.
        parameters: Their shapes, types and devices.

    Returns:
        The sums. `None` where no process has a gradient.
    """
    if group().size == 1:
        return gradients
    there = [[one is not None for one in gradients]]
    anywhere = [any(each) for each in zip(*gathered(there[0]), strict=True)]
    found: Gradients = []
    for gradient, parameter, reached in zip(gradients, parameters, anywhere, strict=True):
        missing = reached and gradient is None
        found.append(torch.zeros_like(parameter) if missing else gradient)
    for bucket in _buckets([one for one in found if one is not None]):
        _sum_in_place(bucket)
    return found


def sum_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Add up `.grad` of parameters over the processes."""
    if group().size == 1:
        return
    found = summed([parameter.grad for parameter in parameters], parameters)
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.grad = gradient


def all_of_each(lists: Sequence[Gradients], parameters: Sequence[torch.Tensor]) -> list[Gradients]:
    """The lists of gradients of all processes, in every process.

    They come in the order in which one process would have made them, if each process took every
    `size`-th of them (`own_share`).
    """
    own = group()
    if own.size == 1:
        return list(lists)
    from torch import distributed

    told = gathered([[one is not None for one in each] for each in lists])
    by_rank = list[list[Gradients]]()
    for rank, there in enumerate(told):
        held = list[Gradients]()
        for number, reached in enumerate(there):
            mine = lists[number] if rank == own.rank else [None] * len(reached)
            pairs = zip(mine, parameters, reached, strict=True)
            each = [
                (torch.empty_like(p) if one is None else one.contiguous()) if is_there else None
                for one, p, is_there in pairs
            ]
            for one in each:
                if one is not None:
                    distributed.broadcast(one, src=rank)
            held.append(each)
        by_rank.append(held)
    return [one for each in zip_longest(*by_rank) for one in each if one is not None]


def sum_parts(parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Loss parts added up over the processes; one that took no rows has none."""
    if group().size == 1:
        return parts
    total: dict[str, torch.Tensor] = {}
    for each in gathered({name: float(part) for name, part in parts.items()}):
        for name, value in each.items():
            total[name] = total.get(name, torch.zeros((), dtype=torch.float64)) + value
    return total


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Neighbouring tensors of one type, at most so many elements together."""
    bucket, held = list[torch.Tensor](), 0
    for one in tensors:
        full = held + one.numel() > _BUCKET
        if bucket and (full or one.dtype != bucket[0].dtype or one.device != bucket[0].device):
            yield bucket
            bucket, held = [], 0
        bucket.append(one)
        held += one.numel()
    if bucket:
        yield bucket


def _sum_in_place(bucket: Sequence[torch.Tensor]) -> None:
    from torch import distributed

    flat = torch.cat([one.reshape(-1) for one in bucket])
    distributed.all_reduce(flat)
    for one, part in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
        one.copy_(part.view_as(one))
