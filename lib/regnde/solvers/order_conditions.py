"""The order conditions of Runge-Kutta methods, one for each rooted tree: what a tableau checks itself with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations_with_replacement
from typing import TypeAlias

import numpy as np

Tree: TypeAlias = tuple["Tree", ...]


def rooted_trees(order: int) -> Iterator[Tree]:
    """Yield every rooted tree with `order` nodes; a tree is the tuple of its root's subtrees."""
    if order == 1:
        yield ()
        return
    for sizes in _partitions(order - 1, order - 1):
        yield from {tuple(sorted(forest)) for forest in _forests(sizes)}


def _partitions(n: int, largest: int) -> Iterator[tuple[int, ...]]:
    if n == 0:
        yield ()
    for first in range(min(n, largest), 0, -1):
        for rest in _partitions(n - first, first):
            yield (first, *rest)


def _forests(sizes: tuple[int, ...]) -> Iterator[tuple[Tree, ...]]:
    if not sizes:
        yield ()
        return
    n = sizes.count(sizes[0])
    for group in combinations_with_replacement(list(rooted_trees(sizes[0])), n):
        for rest in _forests(sizes[n:]):
            yield (*group, *rest)


def _nodes(tree: Tree) -> int:
    return 1 + sum(_nodes(child) for child in tree)


def _density(tree: Tree) -> int:
    return _nodes(tree) * math.prod(_density(child) for child in tree)


def order_defect(a: np.ndarray, b: np.ndarray, order: int) -> float:
    """Return the largest violation of the order conditions `b . phi(tree) = 1 / density(tree)`.

    Args:
        a: stage matrix, (stages, stages).
        b: weights, (stages,).
        order: conditions of all rooted trees with up to this many nodes are checked.

    Source: Butcher; Hairer, Norsett, Wanner, Solving ODEs I, theorem II.2.13.
    """

    def phi(tree: Tree) -> np.ndarray:
        return np.prod([a @ phi(child) for child in tree], axis=0) if tree else np.ones(len(b))

    trees = [tree for n in range(1, order + 1) for tree in rooted_trees(n)]
    return max(abs(float(b @ phi(tree)) - 1 / _density(tree)) for tree in trees)
