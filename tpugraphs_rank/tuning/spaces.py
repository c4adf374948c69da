"""The configurations of one program, and what a surrogate sees of them."""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.candidates import layouts
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.costs import layout_assignment
from tpugraphs_rank.costs import layout_features
from tpugraphs_rank.costs import targets
from tpugraphs_rank.data import graphs
from tpugraphs_rank.hlo import graph as hlo_graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import tuning

# Standard deviations at which features are cut.
_FARTHEST = 3.0
_WIDTH = tuning.DIMS_LENGTH
# Configurations whose features are kept: those of a few steps of a tuner.
_MOST_KEPT = 1024


class Space(Protocol):
  """What a tuner needs to know about configurations. They are hashable, and JSON can store them."""

  @property
  def default(self) -> Any:
    """The configuration that is measured first."""

  def check(self, configuration: Any) -> None:
    """Raises ConfigError if the space does not have the configuration."""

  def draw(self, count: int, rng: np.random.Generator) -> list[Any]:
    """Random configurations; at most `count`."""

  def neighbours(self, configuration: Any, count: int, rng: np.random.Generator) -> list[Any]:
    """Random small changes of a configuration; at most `count`."""

  def features(self, configurations: Sequence[Any]) -> list[np.ndarray]:
    """Blocks of features, (c, d) each; all blocks together count equally."""


def scaled(blocks: Sequence[np.ndarray]) -> np.ndarray:
  """Blocks of features as one array, in which every block has the same weight.

  Columns are standardised over the rows and cut at 3 standard deviations; constant ones are
  dropped.

  Args:
    blocks: (c, d) each.

  Returns:
    (c, d) with a mean square of about 1.
  """
  kept = []
  for block in blocks:
    centred = block.astype(np.float64) - block.mean(axis=0)
    deviation = centred.std(axis=0)
    used = deviation > 1e-9
    if used.any():
      columns = np.clip(centred[:, used] / deviation[used], -_FARTHEST, _FARTHEST)
      kept.append(columns / np.sqrt(columns.shape[1]))
  if not kept:
    return np.zeros([len(blocks[0]), 1])
  joined = np.concatenate(kept, axis=1)
  return joined * np.sqrt(joined.shape[1] / len(kept))


def _numbers(block: Any, place: int) -> np.ndarray:
  """A block of features as floats."""
  try:
    array = np.asarray(block, np.float64)
  except (TypeError, ValueError) as error:
    raise errors.ConfigError(f"features {place} are no array of numbers ({error}); expected "
                             "(c, d), a row for each configuration") from None
  if array.ndim != 2:
    raise errors.ConfigError(f"features {place} have the shape {array.shape}; expected (c, d), a "
                             "row for each configuration")
  bad = np.argwhere(~np.isfinite(array))
  if len(bad):
    row, column = bad[0].tolist()
    raise errors.ConfigError(f"features {place} hold {array[row, column]} in row {row}, column "
                             f"{column}; expected finite numbers")
  return array


class PoolSpace:
  """A fixed list of configurations, named by their positions; the first is the default.

  For tiles, for configurations that are measured already, and for any that have features.
  """

  def __init__(self, *blocks: np.ndarray, default: int = 0) -> None:
    """Keeps the features.

    Args:
      *blocks: features, (c, d) each; all blocks together count equally.
      default: position of the configuration that is measured first.

    Raises:
      ConfigError: the arrays differ in length, are empty, or hold values that are no finite
        numbers.
    """
    arrays = [_numbers(block, place) for place, block in enumerate(blocks)]
    lengths = {len(block) for block in arrays}
    if len(lengths) != 1 or 0 in lengths:
      raise errors.ConfigError(
          f"features of shapes {[block.shape for block in arrays]}; expected (c, d), of the same "
          "configurations")
    self._blocks = [scaled([block]) for block in arrays]
    self._count = lengths.pop()
    self._default = default
    self.check(default)

  @property
  def default(self) -> int:
    """The position that is measured first."""
    return self._default

  def check(self, configuration: Hashable) -> None:
    """Raises ConfigError if there is no such position."""
    if not isinstance(configuration, (int, np.integer)) or not 0 <= configuration < self._count:
      raise errors.ConfigError(
          f"configuration {configuration!r}; expected a number from 0 to {self._count - 1}")

  def draw(self, count: int, rng: np.random.Generator) -> list[int]:
    """All positions; `count` random ones if there are more than a few thousand."""
    if self._count <= max(count, 4096):
      return rng.permutation(self._count).tolist()
    return rng.choice(self._count, count, replace=False).tolist()

  def neighbours(self, configuration: int, count: int, rng: np.random.Generator) -> list[int]:
    """The nearest positions by their features."""
    del rng
    points = np.concatenate(self._blocks, axis=1)
    distance = ((points - points[configuration]) ** 2).sum(axis=1)
    return np.argsort(distance, kind="stable")[1:count + 1].tolist()

  def features(self, configurations: Sequence[int]) -> list[np.ndarray]:
    """The blocks of features."""
    return [block[list(configurations)] for block in self._blocks]


class LayoutSpace:
  """Layouts that can be requested in a program.

  A configuration is a text with a word for each configurable instruction: its layouts of output,
  input and kernel as digits, minor to major, separated by `/`; `10//01` requests two layouts.
  """

  def __init__(self, configurable: Sequence[layouts.Site], graph: graphs.LayoutGraph,
               facts: targets.TargetFacts = targets.CPU, tiling: str = tile_spaces.ELEMENTS
               ) -> None:
    """Prepares the program.

    Args:
      configurable: the instructions.
      graph: the program with these instructions as its configurable nodes.
      facts: the hardware.
      tiling: which layouts exist, see `layouts.Site.layouts`.

    Raises:
      DataError: no layout can be requested.
    """
    self.requests = layouts.Requests(configurable, tiling)
    if not self.requests.slots:
      raise errors.DataError("the program has no tensor with more than one layout to request")
    self._sizes = np.array([len(options) for options in self.requests.options])
    self._simulated = layout_assignment.Assignment(graph, facts)
    self._codes_of_text = [
        {"".join(map(str, layout)): code for code, layout in enumerate(options, 1)}
        for options in self.requests.options]
    self._kept: dict[str, tuple[np.ndarray, ...]] = {}

  @property
  def default(self) -> str:
    """The configuration that requests nothing."""
    return self.text(np.zeros(len(self._sizes), np.int16))

  def text(self, codes: np.ndarray) -> str:
    """(slots,) codes as a configuration."""
    words = [[""] * len(site.shapes) for site in self.requests.sites]
    for (site, tensor), options, code in zip(self.requests.slots, self.requests.options, codes):
      if code:
        words[site][tensor] = "".join(map(str, options[code - 1]))
    return " ".join("/".join(word) for word in words)

  def codes(self, configuration: str) -> np.ndarray:
    """The inverse of `text`.

    Raises:
      ConfigError: it is no configuration of this program.
    """
    words = [word.split("/") for word in str(configuration).split(" ")]
    slots = set(self.requests.slots)
    fits = len(words) == len(self.requests.sites) and all(
        len(word) == len(site.shapes) for word, site in zip(words, self.requests.sites))
    if fits and not any(layout and (site, tensor) not in slots
                        for site, word in enumerate(words) for tensor, layout in enumerate(word)):
      asked = [words[site][tensor] for site, tensor in self.requests.slots]
      codes = [0 if not layout else table.get(layout, -1)
               for layout, table in zip(asked, self._codes_of_text)]
      if -1 not in codes:
        return np.array(codes, np.int16)
    raise errors.ConfigError(
        f"{str(configuration)[:60]!r} is no configuration of this program; expected a word for "
        f"each of {len(self.requests.sites)} instructions, such as {self.default.split(' ')[0]!r}")

  def check(self, configuration: Hashable) -> None:
    """Raises ConfigError if this is no configuration of the program."""
    self.codes(str(configuration))

  def node_features(self, configurations: Sequence[str]) -> np.ndarray:
    """(c, nc, 18) int8, as in `node_config_feat`."""
    return self.requests.features(np.stack([self.codes(one) for one in configurations]))

  def draw(self, count: int, rng: np.random.Generator) -> list[str]:
    """Half near the default, half with requests for a random share of the tensors."""
    codes, _ = self.requests.draw(count, rng)
    return [self.text(row) for row in codes]

  def neighbours(self, configuration: str, count: int, rng: np.random.Generator) -> list[str]:
    """One or two requests are withdrawn, added or replaced; sometimes more."""
    start = self.codes(configuration)
    rows = []
    for _ in range(count):
      row = start.copy()
      many = min(len(row), int(rng.geometric(0.6)))
      for slot in rng.choice(len(row), many, replace=False):
        withdrawn = row[slot] and rng.random() < 0.5
        row[slot] = 0 if withdrawn else rng.integers(1, self._sizes[slot] + 1)
      rows.append(self.text(row))
    return list(dict.fromkeys(rows))

  def features(self, configurations: Sequence[str]) -> list[np.ndarray]:
    """Sums of the simulated effects, the effects of each request, and the simulated time."""
    new = [one for one in configurations if one not in self._kept]
    if new:
      blocks = effect_features(self._simulated.effects(self.node_features(new)))
      self._kept.update((one, tuple(block[row] for block in blocks))
                        for row, one in enumerate(new))
    if len(self._kept) > _MOST_KEPT:  # They are large for large programs.
      self._kept = {one: self._kept[one] for one in configurations}
    return [np.stack([self._kept[one][block] for one in configurations])
            for block in range(len(self._kept[configurations[0]]))]


def effect_features(effects: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Features of configurations from what their requests cause.

  Args:
    effects: (c, nc, 3, e), see `layout_assignment.Assignment.effects`.

  Returns:
    (c, 2 e) sums over all requests and their signed roots; (c, nc * 3 * e) signed roots of the
    effects of each request; and (c, 1) the sum of all effects in nanoseconds.
  """
  sums = effects.sum(axis=(1, 2), dtype=np.float64)
  weights = np.array([layout_features.NANOSECONDS.get(name, 0.0)
                      for name in layout_assignment.EFFECTS])
  return (np.concatenate([sums, _root(sums)], axis=1),
          _root(effects.reshape(len(effects), -1)).astype(np.float32),
          (sums @ weights)[:, None])


def _root(values: np.ndarray) -> np.ndarray:
  return np.sign(values) * np.sqrt(np.abs(values))


def layout_space(path: files.PathLike, module: str | None = None,
                 facts: targets.TargetFacts = targets.CPU) -> LayoutSpace:
  """The layouts that can be requested in the program of a file.

  Args:
    path: any file that `rank` reads.
    module: the name of the program, if the file has several.
    facts: the hardware.

  Raises:
    TpuGraphsRankError: the file is damaged, or has no program with a choice of layouts.
  """
  program = programs.read(path, module)[0]
  return space_of(program.data.module, list(program.data.config_index_to_node) or None,
                  program.source, facts)


def space_of(module: hlo_pb2.HloModuleProto, nodes: Sequence[int] | None, source: str,
             facts: targets.TargetFacts = targets.CPU) -> LayoutSpace:
  """The layouts that can be requested in a program.

  Args:
    module: the program.
    nodes: the instructions; None: all dots, convolutions and reshapes with a choice.
    source: its name in messages.
    facts: the hardware.

  Raises:
    DataError: the program is damaged, or has no choice of layouts.
  """
  configurable = layouts.sites(module, nodes, source)
  if not configurable:
    raise errors.DataError(f"{source} has no dot, convolution or reshape with a choice of layouts")
  arrays: dict[str, np.ndarray] = {
      **hlo_graph.graph_arrays(module, 0, source),
      "node_config_ids": np.array([site.node for site in configurable], np.int64),
      "node_config_feat": np.full([1, len(configurable), tuning.TENSORS * _WIDTH],
                                  tuning.LAYOUT_PADDING, np.int8),
      "config_runtime": np.zeros(1, np.int64)}
  graph = graphs.graph_from_arrays(module.name or source, arrays)
  assert isinstance(graph, graphs.LayoutGraph)
  return LayoutSpace(configurable, graph, facts)
