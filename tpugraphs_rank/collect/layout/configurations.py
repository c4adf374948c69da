"""The layouts that a program is measured under: sites, configurations, and their sampling.

A configuration has the layouts of all tensors (output, input, kernel) of each site, minor to major.
An empty layout leaves the choice to the compiler. This module needs no JAX.
"""

from collections.abc import Callable, Sequence
import dataclasses
import hashlib
import math
import re

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping

Layouts = tuple[tuple[int, ...], ...]
Configuration = tuple[Layouts, ...]

_TEXT = re.compile("[0-9/ ]*")
MAX_RANK = 6  # Limit of the features of a configuration.
# The sampling methods and their shares of a program's configurations. `near` changes a few tensors
# of the default. `random` requests a layout for each tensor with a fixed probability. `climb` and
# `descent` are hill climbers that start from the default and from a random configuration.
SHARES = {"near": 0.3, "random": 0.3, "climb": 0.2, "descent": 0.2}
# Range of the share of the tensors that a random configuration constrains.
RANDOM_SHARE = (0.05, 0.6)


@dataclasses.dataclass(frozen=True)
class Site:
  """An instruction whose layouts can be requested.

  Attributes:
    node: its position in the HLO, computations then instructions.
    opcode: `dot`, `convolution` or `reshape`.
    shapes: shapes of its output, its input and (except for a reshape) its kernel.
  """

  node: int
  opcode: str
  shapes: tuple[tuple[int, ...], ...]

  @property
  def slots(self) -> tuple[int, ...]:
    """The tensors with more than one layout: at least two of their axes are longer than 1."""
    return tuple(
        tensor for tensor, shape in enumerate(self.shapes)
        if len(shape) <= MAX_RANK and sum(side > 1 for side in shape) > 1)


def slots(sites: Sequence[Site]) -> list[tuple[int, int]]:
  """All pairs (site, tensor) for which a layout can be requested."""
  return [(index, tensor) for index, site in enumerate(sites) for tensor in site.slots]


def default(sites: Sequence[Site]) -> Configuration:
  """The configuration that requests nothing."""
  return tuple(tuple(() for _ in site.shapes) for site in sites)


def constraints(configuration: Configuration) -> int:
  """The number of tensors for which a layout is requested."""
  return sum(bool(layout) for layouts in configuration for layout in layouts)


def program_rng(stem: str, seed: int, purpose: str) -> np.random.Generator:
  """A random generator for one purpose and one program; the same on every machine."""
  digest = hashlib.sha256(f"{seed}/{purpose}/{stem}".encode()).digest()
  return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def replace(configuration: Configuration, changes: Sequence[tuple[tuple[int, int], tuple[int, ...]]]
            ) -> Configuration:
  """The configuration with new layouts in some slots."""
  lists = [list(layouts) for layouts in configuration]
  for (site, tensor), layout in changes:
    lists[site][tensor] = layout
  return tuple(map(tuple, lists))


def _permutation(site: Site, tensor: int, rng: np.random.Generator) -> tuple[int, ...]:
  return tuple(int(axis) for axis in rng.permutation(len(site.shapes[tensor])))


def mutate(configuration: Configuration, sites: Sequence[Site], rng: np.random.Generator
           ) -> Configuration:
  """A neighbour: new requests in a few slots, mostly one or two, at most an eighth of all (or 4).

  A slot with a request loses it with probability 1/2; otherwise a slot gets a random permutation.
  """
  places = slots(sites)
  most = max(4, len(places) // 8)
  count = min(len(places), int(math.exp(rng.uniform(0, math.log(most + 1)))))
  changes = []
  for index in rng.choice(len(places), count, replace=False):
    site, tensor = places[index]
    cleared = configuration[site][tensor] and rng.random() < 0.5
    changes.append((places[index], () if cleared else _permutation(sites[site], tensor, rng)))
  return replace(configuration, changes)


def random(sites: Sequence[Site], rng: np.random.Generator) -> Configuration:
  """Random permutations in a random share of the slots, drawn from `RANDOM_SHARE`."""
  share = rng.uniform(*RANDOM_SHARE)
  return replace(default(sites), [
      (place, _permutation(sites[place[0]], place[1], rng))
      for place in slots(sites) if rng.random() < share])


class Search:
  """Samples a program's configurations; quick timings guide some of the methods.

  Args:
    sites: the sites of the program.
    count: number of usable configurations to find, including the default.
    rng: the random generator.
    evaluate: compiles a configuration and returns whether it is usable, with a quick timing in
      nanoseconds; it is called once for each distinct configuration.

  Attributes:
    kinds: the sampling methods of the usable configurations, in the order of the attempts.
  """

  def __init__(self, sites: Sequence[Site], count: int, rng: np.random.Generator,
               evaluate: Callable[[Configuration], tuple[bool, float]]) -> None:
    self._sites, self._count, self._rng, self._evaluate = sites, count, rng, evaluate
    self._tried: set[Configuration] = set()
    self._attempts = 0
    self.kinds: list[str] = []

  def _try(self, configuration: Configuration, kind: str) -> tuple[bool, float]:
    self._attempts += 1
    if configuration in self._tried:
      return False, math.inf
    self._tried.add(configuration)
    usable, quick = self._evaluate(configuration)
    if usable:
      self.kinds.append(kind)
    return usable, quick

  def run(self) -> None:
    """Tries configurations until enough are usable, or three times as many were tried.

    If one method finds too few, because many of its samples compile to the same program, the next
    method finds more.
    """
    usable, quick = self._try(default(self._sites), "default")
    if not usable:
      return
    ends = np.rint(np.cumsum(list(SHARES.values())) * (self._count - 1)).astype(int)
    for kind, end in zip(SHARES, ends):
      # The position of a hill climber and its time; a descent first needs a starting point.
      current: Configuration | None
      current, best = (None, math.inf) if kind == "descent" else (default(self._sites), quick)
      while len(self.kinds) <= end and self._attempts <= 3 * end:
        if kind == "near":
          sample = mutate(default(self._sites), self._sites, self._rng)
        elif kind == "random" or current is None:
          sample = random(self._sites, self._rng)
        else:
          sample = mutate(current, self._sites, self._rng)
        usable, time = self._try(sample, kind)
        if usable and time < best:
          current, best = sample, time


def to_text(configuration: Configuration) -> str:
  """One word for each site: its layouts as digits, minor to major, separated by `/`.

  `3210//10` requests layouts for the output and the kernel, and none for the input.
  """
  return " ".join("/".join("".join(map(str, layout)) for layout in layouts)
                  for layouts in configuration)


def from_text(text: str) -> Configuration:
  """The inverse of `to_text`.

  Raises:
    DataError: the text is something else.
  """
  if not _TEXT.fullmatch(text):
    raise errors.DataError(
        f"{escaping.quoted(text)} is no configuration; expected the axes of layouts, such as "
        "'10//01 /'")
  return tuple(tuple(tuple(map(int, layout)) for layout in word.split("/"))
               for word in text.split())
