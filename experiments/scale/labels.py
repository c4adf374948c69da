"""Layout collections of the scale study: random configurations, labelled by a TPU-like cost.

Every configuration requests random layouts for the same share of the tensors, so that counting
requests does not rank them. The default, which would be the fastest, is not among them. No program
runs. The time of a program under a configuration c is

    time(c) = noise * (sum over products max(ops * padding(c) / PEAK, bytes / BANDWIDTH)
                       + sum over other instructions max(ops / VECTOR_PEAK, bytes / BANDWIDTH)
                       + ITEM * moved(c) / BANDWIDTH)

    padding(c)   of a dot or convolution, the largest ratio between a tensor of it, padded in its
                 two minor-most axes to the register tile (8, 128), and the tensor itself: the
                 matrix unit computes on whole register tiles
    moved(c)     elements that layouts move, by the simulated layout assignment of
                 `costs.layout_assignment` for a TPU: each effect times its weight in `MOVED`

Operations and bytes are those of `chakra.hlo_costs`. The noise is log-normal. Constants are those
of a TPU v3 core in published descriptions; only their proportions matter here. Effects that depend
on neighbours, such as copies between two requests that disagree, make the task one for a graph
network, and the models of the study never see the simulation.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.candidates import layouts
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.chakra import hlo_costs
from tpugraphs_rank.costs import layout_assignment
from tpugraphs_rank.costs import layout_orders
from tpugraphs_rank.costs import targets
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import operand_roles
from tpugraphs_rank.data import tile_features
from tpugraphs_rank.hlo import graph as hlo_graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import output

PEAK = 60e12  # Operations per second of the matrix unit.
VECTOR_PEAK = 2e12  # The same of the vector unit.
BANDWIDTH = 450e9  # Bytes per second of the memory.
ITEM = 4  # Bytes of an element.
REQUESTED = 0.3  # Share of the tensors for which a configuration requests a random layout.
NOISE = 0.01  # Standard deviation of the logarithm of a runtime.
# Times that an element is read or written for each effect of a request. A copy that changes the
# minor-most axis transposes register tiles, so it counts several times.
MOVED: dict[str, float] = {
    "padding": 2.0, "copy_near": 4.0, "copy_middle": 4.0, "copy_far": 4.0, "copy_outer": 2.0,
    "sum_changed": 1.0, "math_changed": 0.5}
_PRODUCTS = ("dot", "convolution")
_LARGEST = 2.0 ** 40
_BLOCK = 1 << 24  # Effects in memory at a time.


class Split(NamedTuple):
  """The programs of a split, by their families."""

  train: tuple[str, ...]
  valid: tuple[str, ...]
  test: tuple[str, ...]


SPLIT = Split(
    train=("resnet", "mobilenet", "inception", "unet", "transformer", "vit", "lstm", "wavenet",
           "squeeze_resnet"),
    valid=("densenet", "gated_decoder", "gru"), test=("convnext", "mixer"))


def split_of(family: str) -> str:
  """The split of a model family.

  Raises:
    UnknownNameError: no split has the family.
  """
  for split, families in SPLIT._asdict().items():
    if family in families:
      return split
  raise errors.UnknownNameError(
      f"unknown model family {family!r}; expected one of: {', '.join(sum(SPLIT, ()))}")


def arrays_of(module: hlo_pb2.HloModuleProto, configs: int, seed: int, source: str
              ) -> dict[str, np.ndarray]:
  """The arrays of a layout graph with random configurations and their simulated runtimes.

  Args:
    module: the program before optimisation.
    configs: number of configurations.
    seed: of configurations and noise.
    source: the program's name in messages.

  Raises:
    DataError: the program is damaged, or nothing in it can be configured.
  """
  arrays: dict[str, Any] = hlo_graph.graph_arrays(module, 0, source)
  requests = layouts.Requests(layouts.sites(module, None, source), tile_spaces.TPU)
  if not requests.slots:
    raise errors.DataError(f"{source} has no dot, convolution or reshape with several layouts")
  rng = np.random.default_rng([seed, len(arrays["node_feat"])])
  shape = [configs, len(requests.slots)]
  offered = np.array([len(options) for options in requests.options])
  codes = np.where(rng.random(shape) < REQUESTED, rng.integers(1, offered + 1, shape), 0)
  arrays["node_config_ids"] = np.array([site.node for site in requests.sites], np.int64)
  arrays["node_config_feat"] = requests.features(codes).astype(np.float32)
  arrays["config_runtime"] = np.zeros(len(arrays["node_config_feat"]), np.int64)
  graph = graphs.LayoutGraph(name=source, **arrays)
  arrays["config_runtime"] = runtimes(graph, module, seed)
  return arrays


def runtimes(graph: graphs.LayoutGraph, module: hlo_pb2.HloModuleProto, seed: int) -> np.ndarray:
  """(c,) int64 simulated nanoseconds; the formula is in the module's docstring."""
  costs = hlo_costs.CostModel(module, graph.name)
  each = [(instruction.opcode, costs.cost(position, instruction))
          for position, computation in enumerate(module.computations)
          for instruction in computation.instructions]
  free = np.array([opcode in hlo_costs.FREE or opcode in ("call", "while", "conditional")
                   for opcode, _ in each])
  compute = np.array([cost.flops / (PEAK if opcode in _PRODUCTS else VECTOR_PEAK)
                      for opcode, cost in each])
  memory = np.array([cost.size / BANDWIDTH for _, cost in each])
  products = np.array([opcode in _PRODUCTS for opcode, _ in each])
  sites = graph.node_config_ids
  # What reductions call costs nothing of its own.
  fixed = np.maximum(compute, memory)[~free & ~products & ~_called(module)].sum()
  places = np.flatnonzero(products[sites])
  chosen = sites[places]
  others = products.copy()
  others[chosen] = False
  fixed += np.maximum(compute, memory)[others].sum()
  roles = operand_roles.inputs_and_kernels(graph)
  tensors = np.concatenate([sites[:, None], roles], axis=1)[places]
  times = np.empty(graph.num_configs)
  simulated = layout_assignment.Assignment(graph, targets.TPU)
  weights = np.array([MOVED.get(name, 0.0) for name in layout_assignment.EFFECTS])
  size = max(_BLOCK // (3 * max(len(sites), 1) * len(weights)), 1)
  for start in range(0, graph.num_configs, size):
    rows = np.arange(start, min(start + size, graph.num_configs))
    requested = graph.layouts(rows)
    padded = _padding(graph, requested[:, places], tensors)
    moved = simulated.effects(requested).sum(axis=(1, 2), dtype=np.float64) @ weights
    times[rows] = fixed + np.maximum(
        compute[chosen] * padded, memory[chosen]).sum(axis=1) + ITEM * moved / BANDWIDTH
  noise = np.random.default_rng([seed, graph.num_nodes]).normal(0.0, NOISE, len(times))
  return np.rint(np.maximum(times, 0.05 * fixed) * np.exp(noise) * 1e9).astype(np.int64)


def _called(module: hlo_pb2.HloModuleProto) -> np.ndarray:
  """(n,) whether an instruction is in a computation that reductions and the like call."""
  entry = module.entry_computation_id
  return np.array([computation.id != entry for computation in module.computations
                   for _ in computation.instructions])


def _padding(graph: graphs.LayoutGraph, requested: np.ndarray, tensors: np.ndarray) -> np.ndarray:
  """(c, p) the largest ratio of padding among the tensors of each product.

  Args:
    graph: the program.
    requested: (c, p, 18) layouts at the products.
    tensors: (p, 3) the nodes of each product's output, input and kernel.
  """
  largest = np.ones(requested.shape[:2])
  sides = graph.node_feat[:, tile_features.DIMENSIONS]
  for place, nodes in enumerate(tensors.tolist()):
    for number, node in enumerate(nodes):
      lengths = tuple(int(side) for side in sides[node] if 0 < side < _LARGEST)
      layout = requested[:, place, layout_orders.MAX_AXES * number:][:, :layout_orders.MAX_AXES]
      orders = layout_orders.requested(layout, lengths)
      distinct, back = np.unique(orders, return_inverse=True)
      ratios = np.array([padding_ratio(lengths, order) for order in distinct.tolist()])
      largest[:, place] = np.maximum(largest[:, place], ratios[back.reshape(-1)])
  return largest


def padding_ratio(lengths: tuple[int, ...], order: int) -> float:
  """Elements after padding the two minor-most axes to the register tile, per element before.

  Args:
    lengths: of the tensor's axes.
    order: its number in `costs.layout_orders`; `NONE` is row-major.
  """
  long = layout_orders.long_axes(lengths)
  axes = layout_orders.ORDERS[order or layout_orders.row_major(len(long))]
  ratio = 1.0
  for axis, multiple in zip(axes, reversed(targets.TPU.register_tile)):
    length = lengths[long[axis]]
    ratio *= -(-length // multiple) * multiple / length
  return ratio


def write(hlo: pathlib.Path, folder: pathlib.Path, configs: int, least: int, most: int, count: int,
          seed: int) -> pathlib.Path:
  """Writes the collection; programs that exist already are kept.

  Args:
    hlo: folder of `<family>.<rest>.pb`.
    folder: of the collection.
    configs: configurations of each program.
    least, most: limits of a program's nodes.
    count: maximum number of programs; all families have about the same number.
    seed: of configurations and noise.

  Returns:
    The path of its descriptor.

  Raises:
    MissingDataError: no program fits the limits.
  """
  sizes = {}
  for path in sorted(hlo.glob("*.pb")):
    module = hlo_pb2.HloModuleProto.FromString(path.read_bytes())
    nodes = sum(len(computation.instructions) for computation in module.computations)
    if least <= nodes <= most:
      sizes[path] = nodes
  if not sizes:
    raise errors.MissingDataError(f"{hlo} has no program of {least} to {most} nodes")
  chosen = _balanced(list(sizes), count)
  splits: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
  for path in chosen:
    split = split_of(path.name.split(".")[0])
    splits[split].append(path.stem)
    target = folder / "npz" / split / f"{path.stem}.npz"
    if not target.exists():
      module = hlo_pb2.HloModuleProto.FromString(path.read_bytes())
      target.parent.mkdir(parents=True, exist_ok=True)
      output.write_graph(target, arrays_of(module, configs, seed, path.stem))
  descriptor = folder / "collection.json"
  listed = {split: sorted(stems) for split, stems in splits.items() if stems}
  files.write_json(descriptor, {
      "name": "layout:scale:random", "kind": "layout", "target": "tpu_v3", "path": "npz",
      "hlo_stage": "before_optimization", "family_regex": r"^(?P<family>[^.]+)\.",
      "splits": {split: len(stems) for split, stems in listed.items()},
      "files": {split: [f"{split}/{stem}.npz" for stem in stems]
                for split, stems in listed.items()},
      "has_runtimes": dict.fromkeys(listed, True), "padding": 0,
      "description": "Real programs whose layouts have simulated runtimes."})
  return descriptor


def _balanced(paths: list[pathlib.Path], count: int) -> list[pathlib.Path]:
  """At most `count` paths: the first of each family, then the second of each, and so on."""
  seen: dict[str, int] = {}
  ranked = []
  for path in paths:
    family = path.name.split(".")[0]
    seen[family] = seen.get(family, 0) + 1
    ranked.append((seen[family], path.name, path))
  return sorted(path for _, _, path in sorted(ranked)[:count])
