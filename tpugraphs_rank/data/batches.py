"""Lists of configurations as flat NumPy arrays: what one training or scoring step sees.

A batch holds B graphs, the concatenation of their N nodes and M edges, and one list of at most C
configurations per graph. Node features are stored once, whatever C is.
"""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from tpugraphs_rank import run_config
from tpugraphs_rank.costs import layout_features
from tpugraphs_rank.data import config_lists
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import labels
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import segments
from tpugraphs_rank.data import splits

Batch = dict[str, np.ndarray]

# Key of the (B,) float32 weights of the lists in the loss; present only if they differ.
WEIGHT = "label_weight"
# The segment modes in which a step sees segments and nothing else of their graphs.
SEGMENTS_ONLY = ("drop", "edges")
LABELS = tuple(field.name for field in dataclasses.fields(labels.Labels))


@dataclasses.dataclass(frozen=True)
class PreparedGraph:
  """A graph with scaled features, ready for batching.

  Attributes:
    graph: the graph as read.
    nodes: (n, F) float32 scaled features.
    source, target: (m,) int32; data flows from source (operand) to target (user).
    tiles: (c, K) float32 scaled; None for layouts, which are read on demand.
    config_nodes: (nc,) int32; empty for tiles.
    config_sizes: (nc, 27) float32, `normalize.tensor_sizes` of the configurable nodes, then
      `normalize.axis_lengths`.
    runtimes: (c,) float64, the runtimes to rank by; zeros if not measured.
    choice: (c',) int64, the configurations that may be used (all, or one side of a split).
    plain: whether `choice` is all configurations and `runtimes` are the graph's own.
    segments: the node ids of each segment; empty without segment dropout.
    costs: the simulated effects of layouts; None for tiles, and if the run does not use them.
  """

  graph: graphs.ConfiguredGraph
  nodes: np.ndarray
  source: np.ndarray
  target: np.ndarray
  tiles: np.ndarray | None
  config_nodes: np.ndarray
  config_sizes: np.ndarray
  runtimes: np.ndarray
  choice: np.ndarray
  plain: bool = False
  segments: tuple[np.ndarray, ...] = ()
  costs: layout_features.LayoutFeatures | None = None

  @property
  def name(self) -> str:
    return self.graph.name

  def layouts(self, rows: np.ndarray) -> np.ndarray:
    """(r, nc, w) int8 layouts of the configurations `rows` (r,) of a layout graph.

    w = 18, or 18 + 3 E if the run uses costs: the E effects of the requests for the output, the
    input and the kernel follow (see `costs.layout_features`).
    """
    assert isinstance(self.graph, graphs.LayoutGraph)
    layouts = self.graph.layouts(rows)
    if self.costs is None:
      return layouts
    requests = self.costs(rows)[1]
    wide = requests.shape[2] * requests.shape[3]
    return np.concatenate([layouts, requests.reshape(*layouts.shape[:2], wide)], axis=2)

  def configs(self, rows: np.ndarray) -> np.ndarray:
    """The features that a model receives for the configurations `rows` (r,).

    Returns:
      Tile: (r, K) float32 scaled; layout: (r, nc, w) int8, as `layouts`.
    """
    return self.layouts(rows) if self.tiles is None else self.tiles[rows]

  def order(self) -> np.ndarray:
    """(c',) positions in `choice`, fastest first; ties keep their order."""
    if self.plain:
      return self.graph.runtime_order()
    return np.argsort(self.runtimes[self.choice], kind="stable")


def prepare(program: splits.ProgramView, normalizer: normalize.Normalizer,
            max_nodes: int | None = None) -> PreparedGraph:
  """Scales a program's features.

  Args:
    program: a `TileGraph` or `LayoutGraph`, and which of its configurations may be used.
    normalizer: fitted on the training split.
    max_nodes: maximum nodes per segment; None: no segment dropout.
  """
  graph = program.graph
  tiles: np.ndarray | None
  costs: layout_features.LayoutFeatures | None = None
  if isinstance(graph, graphs.TileGraph):
    tiles = normalizer.tiles(graph)
    config_nodes, config_sizes = np.zeros([0], np.int32), np.zeros([0, 27])
  else:
    assert isinstance(graph, graphs.LayoutGraph)
    tiles = None
    if normalizer.facts is not None:
      costs = layout_features.LayoutFeatures(graph, normalizer.facts)
    config_nodes = graph.node_config_ids.astype(np.int32)
    config_sizes = np.concatenate(
        [normalize.tensor_sizes(graph), normalize.axis_lengths(graph)], axis=1)
  cut = () if max_nodes is None else tuple(
      segments.cut_segments(graph.edge_index, graph.num_nodes, max_nodes))
  edges = graph.edge_index
  return PreparedGraph(
      graph=graph, nodes=normalizer.nodes(normalize.node_rows(graph)),
      source=edges[:, 1].astype(np.int32), target=edges[:, 0].astype(np.int32),
      tiles=tiles, config_nodes=config_nodes,
      config_sizes=config_sizes.astype(np.float32),
      runtimes=program.runtimes,
      choice=program.indices, plain=program.choice is None and program.merged is None,
      segments=cut, costs=costs)


@dataclasses.dataclass
class DrawnList:
  """One graph's part of a batch, before the parts are concatenated.

  Attributes:
    prepared: the graph, with n nodes, m edges and F features.
    picked: (c,) the configurations.
    reference: (r,) the configurations of the reference list; empty in training.
    segment: the node ids of the sampled segment; None: the whole graph.
    keep: (m,) bool, the edges to keep; None: all.
    noise: (n, F) float32, or for the nodes of a segment alone, what to add to the features.
    ranks: the labels of the configurations, in training.
  """

  prepared: PreparedGraph
  picked: np.ndarray
  reference: np.ndarray
  segment: np.ndarray | None = None
  keep: np.ndarray | None = None
  noise: np.ndarray | None = None
  ranks: labels.Labels | None = None


def _join(lists: Sequence[DrawnList], prefix: str = "", only_segments: bool = False) -> Batch:
  """Concatenates the nodes, edges and configurations of several lists.

  With `only_segments` each graph is reduced to its sampled segment. Configurations are padded to
  the longest list; masks mark the real ones.
  """
  reference = max((len(entry.reference) for entry in lists), default=0)
  width = max(len(entry.picked) for entry in lists)
  batch: dict[str, list] = {key: [] for key in (
      "nodes", "opcode", "source", "target", "num_nodes", "num_edges", "configs", "config_nodes",
      "config_sizes", "config_costs", "num_config_nodes", "config_mask", "reference_mask",
      "segment")}
  offset = 0
  for entry in lists:
    prepared = entry.prepared
    count = prepared.graph.num_nodes
    source, target = prepared.source, prepared.target
    if entry.keep is not None:
      source, target = source[entry.keep], target[entry.keep]
    node_ids = np.arange(count)
    if only_segments and entry.segment is not None:
      node_ids = entry.segment
      source, target = segments.induced_edges(source, target, node_ids, count)
    batch["segment"].append(node_ids)
    batch["nodes"].append(prepared.nodes[node_ids])
    batch["opcode"].append(prepared.graph.node_opcode[node_ids])
    batch["source"].append(source + offset)
    batch["target"].append(target + offset)
    batch["num_nodes"].append(len(node_ids))
    batch["num_edges"].append(len(source))
    rows = np.concatenate([_padded(entry.reference, reference), _padded(entry.picked, width)])
    configs = prepared.configs(rows)
    if prepared.graph.kind == "layout":
      position = np.full(count, -1, np.int64)
      position[node_ids] = np.arange(len(node_ids))
      config_nodes = position[prepared.config_nodes]
      inside = config_nodes >= 0
      batch["config_nodes"].append(config_nodes[inside] + offset)
      batch["config_sizes"].append(prepared.config_sizes[inside])
      batch["num_config_nodes"].append(int(inside.sum()))
      if prepared.costs is not None:
        batch["config_costs"].append(prepared.costs(rows)[0])
      configs = np.swapaxes(configs, 0, 1)[inside]
    batch["configs"].append(configs)
    batch["reference_mask"].append(np.arange(reference) < len(entry.reference))
    batch["config_mask"].append(np.arange(width) < len(entry.picked))
    offset += len(node_ids)
  layout = lists[0].prepared.graph.kind == "layout"
  joined = {
      "nodes": np.concatenate(batch["nodes"]),
      "opcode": np.concatenate(batch["opcode"]).astype(np.int32),
      "source": np.concatenate(batch["source"]).astype(np.int32),
      "target": np.concatenate(batch["target"]).astype(np.int32),
      "num_nodes": np.array(batch["num_nodes"], np.int32),
      "num_edges": np.array(batch["num_edges"], np.int32),
      # Layout: (NC, R + C, w), one row per configurable node. Tile: (B, R + C, K).
      "configs": np.concatenate(batch["configs"]) if layout else np.stack(batch["configs"]),
      "config_mask": np.stack(batch["config_mask"]),
      "reference_mask": np.stack(batch["reference_mask"]),
  }
  if layout:
    joined["config_nodes"] = np.concatenate(batch["config_nodes"]).astype(np.int32)
    joined["config_sizes"] = np.concatenate(batch["config_sizes"])
    if batch["config_costs"]:
      joined["config_costs"] = np.stack(batch["config_costs"])  # (B, R + C, K)
    joined["num_config_nodes"] = np.array(batch["num_config_nodes"], np.int32)
  if only_segments:
    starts = np.concatenate([[0], np.cumsum([e.prepared.graph.num_nodes for e in lists])[:-1]])
    joined["node_ids"] = np.concatenate(
        [ids + start for ids, start in zip(batch["segment"], starts)]).astype(np.int32)
  return {prefix + key: value for key, value in joined.items()}


def _padded(ids: np.ndarray, size: int) -> np.ndarray:
  """(size,) int64: repeats the first id as padding, so that padding goes through the same math."""
  first = ids[0] if len(ids) else 0
  return np.concatenate([ids, np.full(size - len(ids), first)]).astype(np.int64)


def training_batches(prepared: Sequence[PreparedGraph], config: run_config.BatchConfig,
                     seed: int, epoch: int) -> Iterator[Batch]:
  """One epoch: each graph `lists_per_graph` times, in random order, `batch_size` lists per step.

  The content of an epoch depends on `seed` and `epoch` only, so a resumed run sees the same
  batches as an uninterrupted one.
  """
  return (assemble(lists, config) for lists in training_lists(prepared, config, seed, epoch))


def training_lists(prepared: Sequence[PreparedGraph], config: run_config.BatchConfig, seed: int,
                   epoch: int) -> Iterator[list[DrawnList]]:
  """The lists of each batch of `training_batches`."""
  rng = np.random.default_rng([seed, epoch])
  order = np.concatenate([rng.permutation(len(prepared)) for _ in range(config.lists_per_graph)])
  for start in range(0, len(order), config.batch_size):
    yield draw([prepared[i] for i in order[start:start + config.batch_size]], config, rng)


def training_batch(members: Sequence[PreparedGraph], config: run_config.BatchConfig,
                   rng: np.random.Generator) -> Batch:
  """Samples for each graph a list of configurations, a segment and the edges to keep."""
  return assemble(draw(members, config, rng), config)


def draw(members: Sequence[PreparedGraph], config: run_config.BatchConfig,
         rng: np.random.Generator) -> list[DrawnList]:
  """Everything random of a batch; `assemble` makes the arrays, of all of its lists or of some."""
  segmented = config.segment_mode in ("drop", "backprop")
  lists = []
  for member in members:
    drawn = config_lists.sample_configs(
        member.runtimes[member.choice], config.max_configs, rng, config.config_skew,
        member.order() if config.config_skew else None)
    segment = member.segments[rng.integers(len(member.segments))] if segmented else None
    if config.segment_mode == "edges":
      segment = segments.sample_by_edges(
          member.source, member.target, member.graph.num_nodes, config.max_nodes, rng)
    lists.append(DrawnList(member, member.choice[drawn], np.zeros([0], np.int64), segment))
  if config.edge_drop_rate > 0:
    for entry in lists:
      entry.keep = rng.random(len(entry.prepared.source)) >= config.edge_drop_rate
  if config.feature_noise > 0:
    for entry in lists:
      nodes = entry.prepared.nodes
      rows = len(nodes) if config.segment_mode not in SEGMENTS_ONLY or entry.segment is None else (
          len(entry.segment))
      entry.noise = config.feature_noise * rng.standard_normal((rows, nodes.shape[1]), np.float32)
  for entry in lists:
    entry.ranks = labels.make_labels(entry.prepared.runtimes[entry.picked], rng)
  return lists


def assemble(lists: Sequence[DrawnList], config: run_config.BatchConfig) -> Batch:
  """The batch of lists that `draw` has drawn, or of some of them."""
  batch = _join(lists, only_segments=config.segment_mode in SEGMENTS_ONLY)
  if config.segment_mode == "backprop":
    # Configurations and masks are those of the whole graph; only nodes and edges differ.
    part = _join(lists, prefix="segment_", only_segments=True)
    shared = ("segment_config_mask", "segment_reference_mask", "segment_config_costs")
    batch.update({key: value for key, value in part.items() if key not in shared})
  noise = [entry.noise for entry in lists if entry.noise is not None]
  if noise:
    batch["nodes"] = batch["nodes"] + np.concatenate(noise)
    if "segment_nodes" in batch:  # The same node gets the same noise in both copies.
      batch["segment_nodes"] = batch["nodes"][batch["segment_node_ids"]]
  mask = batch["config_mask"]
  for key in LABELS:
    batch["label_" + key] = np.zeros(mask.shape, np.float32)
    for row, entry in enumerate(lists):
      batch["label_" + key][row, :len(entry.picked)] = getattr(entry.ranks, key)
  return batch


def reference_list(prepared: PreparedGraph, size: int) -> np.ndarray:
  """The configurations that a list-aware model compares with when it scores this graph.

  They are chosen by content from all configurations of the graph (see
  `config_lists.reference_configs`). They depend on features only, never on runtimes, on which
  configurations are scored, or on how those are divided into lists.
  """
  return config_lists.reference_configs(prepared.graph.config_digests(), size)


def scoring_batches(prepared: Sequence[PreparedGraph], max_configs: int, reference_size: int,
                    max_lists: int = 8, max_states: int = 1_000_000
                    ) -> Iterator[tuple[Batch, list[tuple[int, np.ndarray]]]]:
  """Divides the usable configurations of every graph into lists, and batches the lists.

  Args:
    prepared: the graphs.
    max_configs: maximum configurations per list.
    reference_size: size of the reference list in front of each list; 0: none.
    max_lists: maximum lists per batch.
    max_states: maximum product of nodes and configurations per batch, including references and
      padding. It bounds the memory for large programs; a batch has at least one configuration.

  Yields:
    A batch, and for each of its rows the index of the graph and its configurations (c',).
  """
  pending: list[DrawnList] = []
  owners: list[tuple[int, np.ndarray]] = []

  def states(lists: Sequence[DrawnList]) -> int:
    width = (max(len(entry.picked) for entry in lists)
             + max(len(entry.reference) for entry in lists))
    return width * sum(entry.prepared.graph.num_nodes for entry in lists)

  for index, member in enumerate(prepared):
    reference = (reference_list(member, reference_size) if reference_size
                 else np.zeros([0], np.int64))
    size = max(min(max_configs, max_states // member.graph.num_nodes - len(reference)), 1)
    for start in range(0, len(member.choice), size):
      entry = DrawnList(member, member.choice[start:start + size], reference)
      if pending and (len(pending) == max_lists or states([*pending, entry]) > max_states):
        yield _join(pending), owners
        pending, owners = [], []
      pending.append(entry)
      owners.append((index, entry.picked))
  if pending:
    yield _join(pending), owners
