"""Train, valid and test splits by family and shape; some groups of families are only in test."""

from collections.abc import Mapping, Sequence
import hashlib

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.collect.tile import geometry

VALID_SHARE = 0.13  # Share of the kernels of the groups that are trained on.
TEST_SHARE = 0.18


def units(hashes: Mapping[str, str]) -> list[tuple[str, ...]]:
  """Sets of kernels that must be in the same split: those of one family and shape, or one graph.

  Args:
    hashes: stem -> hash of its graph.

  Returns:
    The sets, each sorted, in the order of their first stems.
  """
  parent: dict[str, str] = {}

  def find(key: str) -> str:
    parent.setdefault(key, key)
    while parent[key] != key:
      key = parent[key]
    return key

  for stem in sorted(hashes):
    kernel = geometry.parse_stem(stem)
    for key in (f"shape {kernel.family} {kernel.shape}", f"graph {hashes[stem]}"):
      parent[find(key)] = find(f"stem {stem}")
  together: dict[str, list[str]] = {}
  for stem in sorted(hashes):
    together.setdefault(find(f"stem {stem}"), []).append(stem)
  return sorted(tuple(stems) for stems in together.values())


def split(hashes: Mapping[str, str], unseen_groups: Sequence[str], seed: int,
          fixed: Mapping[str, str] | None = None) -> dict[str, str]:
  """Assigns every kernel to a split.

  In each other group, first test and then valid draw units (see `units`) from the families in turn
  until they have their share of the group. Each family keeps at least one unit for training. All
  kernels of the unseen groups go to test.

  Args:
    hashes: stem -> hash of its graph.
    unseen_groups: groups that are only used for testing.
    seed: seed of the draw.
    fixed: stem -> its split, of kernels that have one. A unit with such a kernel has its split, and
      counts for the shares.

  Returns:
    stem -> `train`, `valid` or `test`.

  Raises:
    DataError: a graph is both in an unseen group and in another group, or belongs to two fixed
      splits.
  """
  groups: dict[str, dict[str, list[tuple[str, ...]]]] = {}
  held: dict[tuple[str, str], int] = {}
  trained: set[str] = set()
  result: dict[str, str] = {}
  for unit in units(hashes):
    definitions = [geometry.parse_stem(stem).definition for stem in unit]
    unseen = {definition.group in unseen_groups for definition in definitions}
    if len(unseen) > 1:
      raise errors.DataError(
          f"{', '.join(unit)} are the same graph, but one of their groups is trained on and the "
          "other is not; change a shape in the catalogue")
    known = {fixed[stem] for stem in unit if stem in fixed} if fixed else set()
    if len(known) > 1:
      raise errors.DataError(
          f"{', '.join(unit)} have the same shape or graph, but are in the splits "
          f"{', '.join(sorted(known))}; change a shape in the catalogue")
    if known or unseen == {True}:
      name = known.pop() if known else "test"
      result.update(dict.fromkeys(unit, name))
      key = definitions[0].group, name
      held[key] = held.get(key, 0) + len(unit)
      if name == "train":
        trained.add(definitions[0].name)
    else:
      groups.setdefault(definitions[0].group, {}).setdefault(
          definitions[0].name, []).append(unit)
  for group, families in sorted(groups.items()):
    digest = hashlib.sha256(f"{seed}/split/{group}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    queues = {}
    for name in sorted(families):
      order = rng.permutation(len(families[name]))
      queues[name] = [families[name][index] for index in order]
    total = sum(len(unit) for queue in queues.values() for unit in queue) + sum(
        count for (known_group, _), count in held.items() if known_group == group)
    turns = [sorted(queues)[index] for index in rng.permutation(len(queues))]
    position = 0
    for name, share in (("test", TEST_SHARE), ("valid", VALID_SHARE)):
      taken = held.get((group, name), 0)
      while taken < round(share * total):
        able = [family for family in turns if len(queues[family]) > (family not in trained)]
        if not able:
          break
        while turns[position % len(turns)] not in able:
          position += 1
        unit = queues[turns[position % len(turns)]].pop()
        position += 1
        taken += len(unit)
        result.update(dict.fromkeys(unit, name))
    for queue in queues.values():
      for unit in queue:
        result.update(dict.fromkeys(unit, "train"))
  return result
