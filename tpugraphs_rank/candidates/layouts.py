"""Layout candidates of a program: requests at its dots, convolutions and reshapes."""

from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import itertools
import math

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.candidates import tiles
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import limits
from tpugraphs_rank.hlo import shapes
from tpugraphs_rank.hlo import tuning
from tpugraphs_rank.hlo import tuning_pb2

OPCODES = ("convolution", "dot", "reshape")
Layout = tuple[int, ...]  # Axes, minor to major; empty: the compiler chooses.
_NEAR_SHARE = 0.5
_ATTEMPTS = 8  # Draws per wanted candidate before the space counts as exhausted.
_BATCH = 256  # Configurations drawn at a time, with at most _BATCH_SLOTS requests.
_BATCH_SLOTS = 1 << 22
_MANY = 1 << 62


@dataclasses.dataclass(frozen=True)
class Site:
  """An instruction whose layouts can be requested.

  Attributes:
    node: its position in the program, computations then instructions.
    opcode: of the instruction.
    shapes: of its output, input and kernel, those that it has.
    pairs: for a convolution, the batch and feature axes of each tensor; otherwise empty.
  """

  node: int
  opcode: str
  shapes: tuple[tuple[int, ...], ...]
  pairs: tuple[tuple[int, int], ...] = ()

  def layouts(self, tensor: int, tiling: str) -> tuple[Layout, ...]:
    """The layouts that can be requested for one tensor; empty if it has only one.

    These are all permutations of its axes. On a TPU, the two minor axes of a convolution's tensors
    are batch and feature (input and output feature), and raw data name only these two.
    """
    shape = self.shapes[tensor]
    if len(shape) > tuning.DIMS_LENGTH or sum(extent > 1 for extent in shape) < 2:
      return ()
    if self.pairs and tiling == tile_spaces.TPU:
      return _permutations(self.pairs[tensor])
    return _permutations(tuple(range(len(shape))))


@functools.lru_cache(maxsize=1024)
def _permutations(axes: tuple[int, ...]) -> tuple[Layout, ...]:
  """All orders of some axes. There are up to 720, which all tensors of a rank share."""
  return tuple(itertools.permutations(axes))


def instructions(module: hlo_pb2.HloModuleProto) -> list[tuple[
    hlo_pb2.HloInstructionProto, list[hlo_pb2.HloInstructionProto]]]:
  """The instructions of a program in the order of its nodes, each with its operands."""
  listed = []
  for computation in module.computations:
    named = {instruction.id: instruction for instruction in computation.instructions}
    listed += [(instruction, [named[key] for key in instruction.operand_ids if key in named])
               for instruction in computation.instructions]
  return listed


def sites(module: hlo_pb2.HloModuleProto, nodes: Sequence[int] | None = None,
          source: str = "the module") -> list[Site]:
  """The instructions of a program whose layouts can be requested.

  Args:
    module: the program.
    nodes: exactly these instructions, in this order. None: the dots, convolutions and reshapes
      that have a tensor with more than one layout.
    source: the program's name in error messages.

  Raises:
    DataError: there is no instruction with one of the numbers, or a convolution names axes that
      its tensors lack.
  """
  listed = instructions(module)
  for node in nodes or ():
    if not 0 <= node < len(listed):
      raise errors.DataError(
          f"{source}: instruction {node} is configured, but the program has instructions 0 to "
          f"{len(listed) - 1}; supply configurations of this program")
  candidates = [_site(node, *listed[node], source) for node in (
      range(len(listed)) if nodes is None else nodes)
          if nodes is not None or listed[node][0].opcode in OPCODES]
  return candidates if nodes is not None else [
      site for site in candidates
      if any(site.layouts(tensor, tile_spaces.ELEMENTS) for tensor in range(len(site.shapes)))]


def _site(node: int, instruction: hlo_pb2.HloInstructionProto,
          operands: Sequence[hlo_pb2.HloInstructionProto], source: str) -> Site:
  tensors = tuple(tuple(value.shape.dimensions)
                  for value in (instruction, *operands[:tuning.TENSORS - 1]))
  pairs: tuple[tuple[int, int], ...] = ()
  if instruction.opcode == "convolution" and len(tensors) == tuning.TENSORS:
    c = instruction.convolution_dimension_numbers
    pairs = ((c.output_batch_dimension, c.output_feature_dimension),
             (c.input_batch_dimension, c.input_feature_dimension),
             (c.kernel_input_feature_dimension, c.kernel_output_feature_dimension))
    for tensor, pair, shape in zip(("output", "input", "kernel"), pairs, tensors):
      if len(set(pair)) < len(pair) or not all(0 <= axis < len(shape) for axis in pair):
        raise errors.DataError(
            f"{source}: the convolution "
            f"{escaping.quoted(instruction.name or str(instruction.id))} has the batch and feature "
            f"axes {list(pair)} of its {tensor}, which has {len(shape)} axes; the file is damaged: "
            "dump the program again")
  return Site(node, instruction.opcode, tensors, pairs)


class Requests:
  """The layouts that can be requested for the tensors of some sites.

  A slot is a tensor with more than one layout. A configuration is a row of codes, one per slot:
  0 requests nothing, and k requests the k-th layout of the slot.

  Attributes:
    sites: the sites.
    slots: (site, tensor) of each slot.
    options: the layouts of each slot.
  """

  def __init__(self, configurable: Sequence[Site], tiling: str) -> None:
    self.sites = list(configurable)
    offered = {(index, tensor): site.layouts(tensor, tiling)
               for index, site in enumerate(self.sites) for tensor in range(len(site.shapes))}
    self.slots = [slot for slot, layouts in offered.items() if layouts]
    self.options = [offered[slot] for slot in self.slots]

  @property
  def combinations(self) -> int:
    """The number of configurations, including the default; 2^62 if there are more."""
    count = 1
    for options in self.options:
      count *= len(options) + 1
      if count >= _MANY:  # The whole product of a large program has millions of digits.
        return _MANY
    return count

  def features(self, codes: np.ndarray) -> np.ndarray:
    """(c, slots) codes to `node_config_feat`, (c, nc, 18) int8."""
    width = tuning.DIMS_LENGTH
    features = np.full([len(codes), len(self.sites), tuning.TENSORS * width],
                       tuning.LAYOUT_PADDING, np.int8)
    # Most slots have the same list of layouts as others.
    tables: dict[int, np.ndarray] = {}  # By identity: equal lists are the same object.
    for (site, tensor), options, column in zip(self.slots, self.options, codes.T):
      key = id(options)
      if key not in tables:
        table = np.full([len(options) + 1, width], tuning.LAYOUT_PADDING, np.int8)
        for row, layout in enumerate(options, 1):
          table[row, :len(layout)] = layout
        tables[key] = table
      features[:, site, width * tensor:width * (tensor + 1)] = tables[key][column]
    return features

  def draw(self, limit: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, object]]:
    """(c, slots) distinct codes, the default first; and counts of how they were drawn.

    If there are at most `limit` configurations, all are returned. Otherwise half of the draws
    change a few slots of the default. The other half request layouts for a share of the slots; the
    share is drawn uniformly. Repeated draws are dropped.
    """
    if self.combinations <= limit:
      lengths = [len(options) + 1 for options in self.options]
      codes = np.stack(np.unravel_index(np.arange(self.combinations), lengths), axis=1)
      return codes.astype(np.int16), {"legal": self.combinations}
    sizes = np.array([len(options) for options in self.options])
    default = np.zeros(len(sizes), np.int16)
    chosen, seen = [default], {_key(default)}
    ends = {"near": 1 + round((limit - 1) * _NEAR_SHARE), "uniform": limit}
    counts: dict[str, object] = {"default": 1}
    repeats = 0
    for kind, end in ends.items():
      before, attempts = len(chosen), 0
      while len(chosen) < end and attempts < _ATTEMPTS * limit:
        rows = _draws(kind, sizes, rng)
        attempts += len(rows)
        repeats += _take(rows, chosen, seen, end)
      counts[kind] = len(chosen) - before
    return np.stack(chosen), {**counts, "equal_draws": repeats}


def _draws(kind: str, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """(batch, slots) codes of one kind, "near" the default or "uniform"."""
  batch = max(1, min(_BATCH, _BATCH_SLOTS // len(sizes)))
  order = rng.random([batch, len(sizes)])
  if kind == "near":
    most = max(4, len(sizes) // 8)
    count = np.exp(rng.uniform(0, math.log(most + 1), [batch, 1])).astype(int)
    # Each slot has a place in a random order, and the first few slots change.
    last = np.sort(order, axis=1)[np.arange(batch), np.minimum(count[:, 0], len(sizes)) - 1]
    changed = order <= last[:, None]
  else:
    changed = order < rng.random([batch, 1])
  return np.where(changed, rng.integers(1, sizes + 1, [batch, len(sizes)]), 0).astype(np.int16)


def _key(row: np.ndarray) -> bytes:
  """Equal for equal rows, and shorter than a row of a large program."""
  return hashlib.sha256(row.tobytes()).digest()


def _take(rows: np.ndarray, chosen: list[np.ndarray], seen: set[bytes], end: int) -> int:
  """Appends new rows until there are `end`; returns the number of repeated rows."""
  repeats = 0
  for row in rows:
    if len(chosen) == end:
      break
    key = _key(row)
    if key in seen:
      repeats += 1
      continue
    seen.add(key)
    chosen.append(row)
  return repeats


def draw_layouts(data: tuning_pb2.ModuleTuningData, tiling: str, limit: int, seed: int,
                 source: str = "the module") -> candidate_set.Candidates:
  """Layout configurations of a program, the compiler's default first.

  Args:
    data: the program. If it names nodes, these are configured, otherwise all possible nodes.
    tiling: of the target, see `Site.layouts`.
    limit: maximum number of configurations.
    seed: of the draws.
    source: the program's name in error messages.

  Raises:
    DataError: no instruction has a choice of layouts, a dimension has no known size, or as `sites`.
    LimitError: the candidates would need too much memory; see `hlo.limits`.
    ConfigError: `limit` is not positive.
  """
  if limit < 1:
    raise errors.ConfigError(f"the maximum number of candidates is {limit}; expected 1 or more")
  shapes.check(data.module, source)
  configurable = sites(data.module, list(data.config_index_to_node) or None, source)
  requests = Requests(configurable, tiling)
  if not requests.slots:
    raise errors.DataError(
        f"{source} has no dot, convolution or reshape with more than one layout, so there is "
        "nothing to choose; use the HLO of a whole program")
  count = min(limit, requests.combinations)
  limits.check(
      count * len(configurable) * tuning.TENSORS * tuning.DIMS_LENGTH, limits.LAYOUT_BYTES,
      f"{source}: the size in bytes of {count:,} candidates for its {len(configurable):,} "
      "configurable instructions", "lower --max_candidates")
  codes, counts = requests.draw(limit, tiles.rng_of(data.module.name, seed))
  ids = np.array([site.node for site in configurable], np.int64)
  features = requests.features(codes)
  about = {"source": "auto", "tiling": tiling, **counts, "seed": seed}
  return candidate_set.Candidates(
      "layout", {"node_config_ids": ids, "node_config_feat": features},
      lambda position: profile_of(features[position], configurable), about, default=0)


def profile_of(features: np.ndarray, configurable: Sequence[Site]) -> candidate_set.Profile:
  """(nc, 18) layouts as raw data, with as many tensors per node as its instruction has."""
  profile = candidate_set.Profile()
  profile.module_config.layout_config.SetInParent()
  for row, site in zip(features.astype(int), configurable):
    node = profile.module_config.layout_config.nodes.add()
    for tensor in row.reshape(tuning.TENSORS, -1)[:len(site.shapes)]:
      node.tensors.add(dims=[axis for axis in tensor.tolist() if axis >= 0])
  return profile
