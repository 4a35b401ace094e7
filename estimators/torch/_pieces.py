"""Tensors worked on in pieces: how they are cut, and how what is kept of each is read and written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from estimators.torch._tensors import Moved, Tensors

Kept: TypeAlias = "dict[str, Any]"
"""What is kept of one tensor by name: tensors of its shape, and numbers that all its coordinates share."""
SIZE = 2**18
"""Coordinates that are worked on at a time on a CPU: all that a step makes of them lies in its caches."""


class Piece(NamedTuple):
    """Part of a tensor, by the tensor's place in a list; of one that is cut, a range of flat coordinates."""

    place: int
    begin: int | None = None
    end: int | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """View this part of a tensor."""
        return tensor if self.begin is None else tensor.view(-1)[self.begin : self.end]


class Batch(NamedTuple):
    """Pieces that are worked on at once."""

    pieces: Sequence[Piece]
    kept: Sequence[Mapping[str, Any]]
    """By place, from before the step."""
    news: Sequence[Kept]
    """By place, what replaces it once all pieces are done; ``like`` in it tells the shape."""

    def of(self, tensors: Sequence[Tensor]) -> Tensors:
        """The pieces of tensors."""
        return Tensors(piece.of(tensors[piece.place]) for piece in self.pieces)

    def numbers(self, values: Sequence[float]) -> Any:
        """A number for each piece, or one for all."""
        return one_for_all([values[piece.place] for piece in self.pieces])

    def read(self, key: str) -> Any:
        """What is kept: tensors, or a number for each piece."""
        values = [self.kept[piece.place][key] for piece in self.pieces]
        if isinstance(values[0], Tensor):
            return Tensors(piece.of(value) for piece, value in zip(self.pieces, values, strict=True))
        return one_for_all(values)

    def write(self, key: str, value: Any, before: Any = None) -> Any:
        """Keep tensors, in place where there are some, and numbers as news; return what is kept now.

        before: what was read, which may be given up.
        """
        if not isinstance(value, Tensors):
            numbers = [value] * len(self.pieces) if np.ndim(value) == 0 else value.tolist()
            for piece, number in zip(self.pieces, numbers, strict=True):
                self.news[piece.place][key] = float(number)
            return value
        if isinstance(value, Moved) and value.mean is before:
            return value.settle()
        targets = [self._room(key, piece, item) for piece, item in zip(self.pieces, value.items, strict=True)]
        torch._foreach_copy_(targets, value.items)
        return value

    def _room(self, key: str, piece: Piece, item: Tensor) -> Tensor:
        news = self.news[piece.place]
        whole = self.kept[piece.place].get(key)
        if not isinstance(whole, Tensor):
            whole = news.get(key)
        if not isinstance(whole, Tensor):
            whole = news[key] = torch.empty_like(news["like"], dtype=item.dtype)
        return piece.of(whole)


def kind_of(tensor: Tensor, missing: bool, kept: Kept) -> Any:
    """What two tensors must have in common to be in one list."""
    fields = tuple(name for name, value in kept.items() if isinstance(value, Tensor))
    return tensor.device, tensor.dtype, missing, fields


def all_below(tensors: Sequence[Tensor], limit: Callable[[torch.dtype], float]) -> list[bool]:
    """Whether all magnitudes of each tensor are below a limit for its dtype; NaN is not.

    By the norm, which is quick and fetched once for all tensors of a kind, and where that is large by all.
    """
    alike: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        alike.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    norms = {kind: iter(torch.stack(torch._foreach_norm(some)).tolist()) for kind, some in alike.items()}
    found = []
    for tensor in tensors:
        norm, least = next(norms[tensor.device, tensor.dtype]), limit(tensor.dtype)
        found.append(norm < least or bool((tensor.abs() < least).all()))
    return found


def settled(kept: Sequence[Kept], news: Sequence[Kept]) -> None:
    """Replace what was kept by the news."""
    for of_one, new in zip(kept, news, strict=True):
        of_one.update({name: value for name, value in new.items() if name != "like"})


def one_for_all(numbers: list[float]) -> Any:
    """The one number that all are, in which arithmetic is quickest, or an array of them."""
    first = numbers[0]
    alike = numbers.count(first) == len(numbers) or (first != first and all(n != n for n in numbers))
    return first if alike else np.array(numbers)


def cut(tensors: Sequence[Tensor], size: int | None) -> Iterator[list[Piece]]:
    """Lists of pieces of at most ``size`` coordinates, or of one that cannot be cut; None: one list."""
    batch: list[Piece] = []
    room = size or 0
    for place, tensor in enumerate(tensors):
        count = tensor.numel()
        if size is not None and batch and count > room:
            yield batch
            batch, room = [], size
        if size is None or count <= size or not tensor.is_contiguous():
            batch.append(Piece(place))
            room -= count
        else:
            yield from ([Piece(place, at, min(at + size, count))] for at in range(0, count, size))
    if batch:
        yield batch
