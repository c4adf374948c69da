"""The three modules together, and what training graphs say that they need."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
from typing import Any

import numpy as np
import tensorflow as tf

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.layerdag import conditions as conditions_lib
from tpugraphs_rank.synthesis.layerdag import growth
from tpugraphs_rank.synthesis.layerdag import networks
from tpugraphs_rank.synthesis.layerdag import settings

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Facts:
  """What training graphs say.

  Attributes:
    x_names, vocabularies: of the attributes, as in `dags.Dags`.
    kinds: the pairs of a first attribute and a number of operands that occur.
    conditions: what can be asked for.
    marginals: how often each kind, and each value of each other attribute, occurs.
    most_nodes, most_layers, widest: the largest graph, the deepest, the widest layer.
    degree: the mean number of edges that join a new node, first layers apart.
  """

  x_names: tuple[str, ...]
  vocabularies: tuple[np.ndarray, ...]
  kinds: growth.Kinds
  conditions: conditions_lib.Conditions
  marginals: tuple[np.ndarray, ...]
  most_nodes: int
  most_layers: int
  widest: int
  degree: float

  @classmethod
  def of(cls, dags: dags_lib.Dags, config: settings.LayerDagConfig) -> "Facts":
    """The facts of training graphs.

    Raises:
      ConfigError: a condition that the graphs do not have.
      DataError: there are no graphs.
    """
    if not len(dags):
      raise errors.DataError("there are no training graphs; expected one at least")
    kinds = growth.Kinds.of(dags)
    grown = growth.grow(dags, kinds, config.data.direction)
    rows = np.concatenate([graph.x for graph in grown])
    counts = [np.bincount(rows[:, place], minlength=size) for place, size in enumerate(
        [len(kinds), *map(len, dags.vocabularies[1:])])]
    layers = [np.bincount(graph.layer) for graph in grown]
    joined = sum(len(graph.x) - sizes[0] for graph, sizes in zip(grown, layers))
    return cls(
        dags.x_names, dags.vocabularies, kinds,
        conditions_lib.Conditions.of(dags, config.data.conditions),
        tuple(count / count.sum() for count in counts), int(dags.sizes.max()),
        max(map(len, layers)), max(int(sizes.max()) for sizes in layers),
        max(len(dags.src) / max(joined, 1), 0.1))

  def arrays(self) -> Arrays:
    """Everything, for a file."""
    found: Arrays = {
        "kind_attribute": self.kinds.attribute, "kind_operands": self.kinds.operands,
        "conditions": self.conditions.table, "numbers": np.array(json.dumps({
            "x_names": self.x_names, "conditions": self.conditions.names,
            "most_nodes": self.most_nodes, "most_layers": self.most_layers,
            "widest": self.widest, "degree": self.degree}))}
    for place, (words, marginal) in enumerate(zip(self.vocabularies, self.marginals)):
      found[f"vocabulary_{place}"], found[f"marginal_{place}"] = words, marginal
    return found

  @classmethod
  def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Facts":
    """The inverse of `arrays`; KeyError where one is missing."""
    numbers = json.loads(str(arrays["numbers"]))
    count = len(numbers["x_names"])
    words = tuple(arrays[f"vocabulary_{place}"] for place in range(count))
    return cls(
        tuple(numbers["x_names"]), words,
        growth.Kinds(arrays["kind_attribute"], arrays["kind_operands"]),
        conditions_lib.Conditions(
            tuple(numbers["conditions"]), arrays["conditions"], len(words[0])),
        tuple(arrays[f"marginal_{place}"] for place in range(count)),
        *(numbers[name] for name in ("most_nodes", "most_layers", "widest", "degree")))


class Generator:
  """Sizes, Nodes and Edges, built for training graphs.

  Attributes:
    config: the configuration.
    facts: of the training graphs.
    modules: by name, in the order in which a layer is made.
  """

  def __init__(self, config: settings.LayerDagConfig, facts: Facts):
    """Makes the networks and their variables."""
    self.config = config
    self.facts = facts
    sizes = [len(marginal) for marginal in facts.marginals]
    network = config.network
    self.modules: dict[str, networks.Module] = {
        "sizes": networks.Sizes(network, sizes, facts.widest),
        "nodes": networks.Nodes(network, sizes, facts.widest, list(facts.marginals),
                               facts.kinds.operands > 0),
        "edges": networks.Edges(network, sizes, facts.degree, facts.kinds.attribute,
                               config.data.direction)}
    # Two layers of one node each, joined: everything that has variables is used once.
    one = growth.Grown(np.zeros([2, len(sizes)], np.int32), np.array([1, 0]),
                       np.array([0, 1], np.int32), np.array([0], np.int32),
                       np.array([1], np.int32), np.arange(2))
    open_ = np.full([1, len(facts.conditions.names)], np.nan)
    arrays = self.batch([self.unroll(one)], open_)
    for module in self.modules.values():
      module.losses({key: tf.constant(value) for key, value in arrays.items()},
                    networks.Noise(tf.zeros([2], tf.int32)), False)

  @property
  def variables(self) -> dict[str, list[tf.Variable]]:
    """Trainable variables of each module."""
    return {name: module.trainable_variables for name, module in self.modules.items()}

  def unroll(self, graph: growth.Grown) -> Arrays:
    """The steps of a graph as this model's networks take them."""
    return growth.unroll(graph, self.config.data.direction,
                         self.config.network.encoder == "bidirectional",
                         self.config.network.operand_counts)

  def grown(self, dags: dags_lib.Dags) -> list[growth.Grown]:
    """Graphs in this model's order of growth.

    Raises:
      DataError: their attributes or vocabularies are others than those of the training graphs.
    """
    return growth.grow(self._translated(dags), self.facts.kinds, self.config.data.direction)

  def conditions_of(self, dags: dags_lib.Dags) -> np.ndarray:
    """(G, T) float64: what graphs would have been asked for, as `Facts.conditions` has it.

    Raises:
      ConfigError: the graphs lack a label.
      DataError: as `grown`.
    """
    return conditions_lib.values(self._translated(dags), self.facts.conditions.names)

  def _translated(self, dags: dags_lib.Dags) -> dags_lib.Dags:
    """The same graphs in the vocabularies of the training graphs."""
    if dags.x_names != self.facts.x_names:
      raise errors.DataError(
          f"x_names are {', '.join(dags.x_names)}; this model was trained on "
          f"{', '.join(self.facts.x_names)}: give graphs with the same attributes")
    return dags.in_vocabularies(self.facts.vocabularies)

  def batch(self, unrolled: Sequence[Arrays], asked: np.ndarray) -> Arrays:
    """Graphs as one batch, with what is asked for (B, T) at each of their steps."""
    arrays = growth.batch(unrolled)
    encoded = self.facts.conditions.encoded(asked)
    arrays.update({key: value[arrays["graph"]] for key, value in encoded.items()})
    return arrays


def signature(arrays: Mapping[str, Any]) -> dict[str, tf.TensorSpec]:
  """Any number of rows, so that one trace serves all batches."""
  return {key: tf.TensorSpec([None, *value.shape[1:]], tf.as_dtype(value.dtype))
          for key, value in arrays.items()}
