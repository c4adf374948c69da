"""Which layouts a program is measured under: sites, configurations, and how they are drawn.

A configuration holds for each site the layouts of its tensors (output, input, kernel), minor to
major; an empty layout leaves the tensor to the compiler. No JAX here.
"""

from collections.abc import Callable, Sequence
import dataclasses
import hashlib
import math

import numpy as np

Layouts = tuple[tuple[int, ...], ...]
Configuration = tuple[Layouts, ...]

MAX_RANK = 6  # what a configuration's features hold
# How configurations are drawn, and which share of a program's each kind has. `near` changes a few
# tensors of the default, `random` requests layouts of each tensor with one probability, `climb`
# and `descent` are hill climbers that start from the default and from a random configuration.
SHARES = {"near": 0.3, "random": 0.3, "climb": 0.2, "descent": 0.2}
RANDOM_SHARE = (0.05, 0.6)  # of the tensors that a random configuration constrains


@dataclasses.dataclass(frozen=True)
class Site:
  """An instruction whose layouts can be requested.

  Attributes:
    node: its position in the HLO, computations then instructions.
    opcode: `dot`, `convolution` or `reshape`.
    shapes: of its output, input and (but for a reshape) kernel.
  """

  node: int
  opcode: str
  shapes: tuple[tuple[int, ...], ...]

  @property
  def slots(self) -> tuple[int, ...]:
    """The tensors that have more than one layout: two axes or more are longer than 1."""
    return tuple(
        tensor for tensor, shape in enumerate(self.shapes)
        if len(shape) <= MAX_RANK and sum(side > 1 for side in shape) > 1)


def slots(sites: Sequence[Site]) -> list[tuple[int, int]]:
  """All (site, tensor) of which a layout can be requested."""
  return [(index, tensor) for index, site in enumerate(sites) for tensor in site.slots]


def default(sites: Sequence[Site]) -> Configuration:
  """The configuration that requests nothing."""
  return tuple(tuple(() for _ in site.shapes) for site in sites)


def constraints(configuration: Configuration) -> int:
  """Of how many tensors a layout is requested."""
  return sum(bool(layout) for layouts in configuration for layout in layouts)


def program_rng(stem: str, seed: int, purpose: str) -> np.random.Generator:
  """A generator for one purpose of one program; the same on every machine."""
  digest = hashlib.sha256(f"{seed}/{purpose}/{stem}".encode()).digest()
  return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def replace(configuration: Configuration, changes: Sequence[tuple[tuple[int, int], tuple[int, ...]]]
            ) -> Configuration:
  """The configuration with other layouts in some slots."""
  lists = [list(layouts) for layouts in configuration]
  for (site, tensor), layout in changes:
    lists[site][tensor] = layout
  return tuple(map(tuple, lists))


def _permutation(site: Site, tensor: int, rng: np.random.Generator) -> tuple[int, ...]:
  return tuple(int(axis) for axis in rng.permutation(len(site.shapes[tensor])))


def mutate(configuration: Configuration, sites: Sequence[Site], rng: np.random.Generator
           ) -> Configuration:
  """A neighbour: other requests in a few slots, mostly one or two and at most an eighth of them.

  A slot that has a request loses it half of the time; otherwise it gets a random permutation.
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
  """Random permutations of a share of the slots that is itself drawn from `RANDOM_SHARE`."""
  share = rng.uniform(*RANDOM_SHARE)
  return replace(default(sites), [
      (place, _permutation(sites[place[0]], place[1], rng))
      for place in slots(sites) if rng.random() < share])


class Search:
  """Draws a program's configurations, some of them guided by quick timings.

  Args:
    sites: of the program.
    count: configurations wanted, the default among them.
    rng: draws.
    evaluate: compiles a configuration and returns whether it counts, with a quick timing of it in
      nanoseconds; called once for each distinct configuration that is tried.
  """

  def __init__(self, sites: Sequence[Site], count: int, rng: np.random.Generator,
               evaluate: Callable[[Configuration], tuple[bool, float]]) -> None:
    self._sites, self._count, self._rng, self._evaluate = sites, count, rng, evaluate
    self._tried: set[Configuration] = set()
    self._attempts = 0
    self.kinds: list[str] = []  # of those that count, in the order they were tried

  def _try(self, configuration: Configuration, kind: str) -> tuple[bool, float]:
    self._attempts += 1
    if configuration in self._tried:
      return False, math.inf
    self._tried.add(configuration)
    counts, quick = self._evaluate(configuration)
    if counts:
      self.kinds.append(kind)
    return counts, quick

  def run(self) -> None:
    """Tries configurations until enough count, or until three times as many were tried.

    What one kind falls short of, since too many of its draws are one program, the next make up
    for.
    """
    counts, quick = self._try(default(self._sites), "default")
    if not counts:
      return
    wanted = self._count - 1
    ends = np.rint(np.cumsum(list(SHARES.values())) * wanted).astype(int)
    for kind, end in zip(SHARES, ends):
      # Where a hill climber stands, and how fast that is; a descent has yet to find its start.
      current, best = (None, math.inf) if kind == "descent" else (default(self._sites), quick)
      while len(self.kinds) <= end and self._attempts <= 3 * end:
        if kind == "near":
          drawn = mutate(default(self._sites), self._sites, self._rng)
        elif kind == "random" or current is None:
          drawn = random(self._sites, self._rng)
        else:
          drawn = mutate(current, self._sites, self._rng)
        counts, time = self._try(drawn, kind)
        if counts and time < best:
          current, best = drawn, time


def to_text(configuration: Configuration) -> str:
  """One word a site: its layouts as digits, minor to major, with `/` between them.

  `3210//10` requests layouts of output and kernel and leaves the input alone.
  """
  return " ".join("/".join("".join(map(str, layout)) for layout in layouts)
                  for layouts in configuration)


def from_text(text: str) -> Configuration:
  """The inverse of `to_text`."""
  return tuple(tuple(tuple(map(int, layout)) for layout in word.split("/"))
               for word in text.split())
