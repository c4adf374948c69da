"""Train, valid and test by family and shape; whole groups of families only in test."""

from collections.abc import Mapping, Sequence
import hashlib

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.collect.tile import geometry

VALID_SHARE = 0.13  # of the kernels of the seen groups
TEST_SHARE = 0.18


def units(hashes: Mapping[str, str]) -> list[tuple[str, ...]]:
  """Kernels that must stay together: one family and shape, or one and the same graph.

  Args:
    hashes: stem -> a hash of its graph.

  Returns:
    The sets, each sorted, in order of their first stem.
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


def split(hashes: Mapping[str, str], unseen_groups: Sequence[str], seed: int) -> dict[str, str]:
  """Assigns every kernel to a split.

  In each seen group test, then valid, draw one unit (see `units`) after the other from the
  families in turn until they hold their share of the group; a family keeps at least one unit
  for training. The unseen groups go to test as a whole.

  Args:
    hashes: stem -> a hash of its graph.
    unseen_groups: groups that no kernel is trained or validated on.
    seed: of the draw.

  Returns:
    stem -> `train`, `valid` or `test`.

  Raises:
    DataError: one and the same graph stands in a seen and in an unseen group.
  """
  groups: dict[str, dict[str, list[tuple[str, ...]]]] = {}
  result: dict[str, str] = {}
  for unit in units(hashes):
    families = [geometry.parse_stem(stem).definition for stem in unit]
    unseen = {family.group in unseen_groups for family in families}
    if len(unseen) > 1:
      raise errors.DataError(
          f"{', '.join(unit)} are the same graph, in a group that is trained on and in one that "
          "is not; change a shape in the catalogue")
    if unseen == {True}:
      result.update(dict.fromkeys(unit, "test"))
    else:
      groups.setdefault(families[0].group, {}).setdefault(families[0].name, []).append(unit)
  for group, families in sorted(groups.items()):
    digest = hashlib.sha256(f"{seed}/split/{group}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    queues = {}
    for name in sorted(families):
      order = rng.permutation(len(families[name]))
      queues[name] = [families[name][index] for index in order]
    total = sum(len(unit) for queue in queues.values() for unit in queue)
    turns = [sorted(queues)[index] for index in rng.permutation(len(queues))]
    position = 0
    for name, share in (("test", TEST_SHARE), ("valid", VALID_SHARE)):
      held = 0
      while held < round(share * total):
        able = [family for family in turns if len(queues[family]) > 1]
        if not able:
          break
        while len(queues[turns[position % len(turns)]]) <= 1:
          position += 1
        unit = queues[turns[position % len(turns)]].pop()
        position += 1
        held += len(unit)
        result.update(dict.fromkeys(unit, name))
    for queue in queues.values():
      for unit in queue:
        result.update(dict.fromkeys(unit, "train"))
  return result
