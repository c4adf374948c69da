"""The three networks as one generator, and the facts about training graphs that they depend on."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
from typing import Any

import numpy as np
import tensorflow as tf

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.layerdag import conditions as conditions_lib
from tpugraphs_rank.synthesis.layerdag import growth
from tpugraphs_rank.synthesis.layerdag import networks
from tpugraphs_rank.synthesis.layerdag import settings

Arrays = dict[str, np.ndarray]

# Limits of what is read from the file of a model.
_MOST_ATTRIBUTES = 64
_LARGEST = 10**6


@dataclasses.dataclass(frozen=True)
class Facts:
  """Facts about the training graphs.

  Attributes:
    x_names: names of the attributes, as in `dags.Dags`.
    vocabularies: vocabularies of the attributes, as in `dags.Dags`.
    kinds: the pairs of first attribute and number of operands that occur.
    conditions: the conditions of the model.
    marginals: relative frequency of each kind, and of each value of the other attributes.
    max_nodes: nodes of the largest graph.
    max_layers: layers of the deepest graph.
    max_width: nodes of the widest layer.
    degree: mean number of edges that connect a new node, without first layers.
    collection: the collection of the training graphs, whose opcodes are those of `hlo.opcodes`; ""
      if they come from elsewhere.
    features: version of the features that the networks see, `growth.FEATURES`.
    window: see `growth.candidates`.
    single_root: whether each graph has only one node without users.
  """

  x_names: tuple[str, ...]
  vocabularies: tuple[np.ndarray, ...]
  kinds: growth.Kinds
  conditions: conditions_lib.Conditions
  marginals: tuple[np.ndarray, ...]
  max_nodes: int
  max_layers: int
  max_width: int
  degree: float
  collection: str = ""
  features: int = 1
  window: int = 0
  single_root: bool = True

  @classmethod
  def of(cls, dags: dags_lib.Dags, config: settings.LayerDagConfig) -> "Facts":
    """Collects the facts from training graphs.

    Raises:
      ConfigError: the graphs do not have a condition.
      DataError: there are no graphs.
    """
    if not len(dags):
      raise errors.DataError("there are no training graphs; expected at least one")
    kinds = growth.Kinds.of(dags)
    ordered = growth.order_graphs(dags, kinds, config.data.direction)
    rows = np.concatenate([graph.x for graph in ordered])
    counts = [np.bincount(rows[:, place], minlength=size) for place, size in enumerate(
        [len(kinds), *map(len, dags.vocabularies[1:])])]
    layers = [np.bincount(graph.layer) for graph in ordered]
    joined = sum(len(graph.x) - sizes[0] for graph, sizes in zip(ordered, layers))
    return cls(
        dags.x_names, dags.vocabularies, kinds,
        conditions_lib.Conditions.of(dags, config.data.conditions),
        tuple(count / count.sum() for count in counts), int(dags.sizes.max()),
        max(map(len, layers)), max(int(sizes.max()) for sizes in layers),
        max(len(dags.src) / max(joined, 1), 0.1), str(dags.provenance.get("collection", "")),
        growth.FEATURES,
        growth.window_of(ordered) if config.data.direction == "operands_first" else 0,
        int((dags.num_users == 0).sum()) == len(dags))

  def arrays(self) -> Arrays:
    """All facts as arrays for a file; the names within "numbers" are part of the file format."""
    arrays: Arrays = {
        "kind_attribute": self.kinds.attribute, "kind_operands": self.kinds.operands,
        "conditions": self.conditions.table, "numbers": np.array(json.dumps({
            "x_names": self.x_names, "conditions": self.conditions.names,
            "most_nodes": self.max_nodes, "most_layers": self.max_layers,
            "widest": self.max_width, "degree": self.degree,
            **({"collection": self.collection} if self.collection else {}),
            **({"features": self.features, "window": self.window,
                "single_root": self.single_root} if self.features > 1 else {})}))}
    if (self.kinds.most_users < growth.MANY).any():
      # Not for models of earlier versions, whose hash stays the same.
      arrays["kind_users"] = self.kinds.most_users
    for place, (words, marginal) in enumerate(zip(self.vocabularies, self.marginals)):
      arrays[f"vocabulary_{place}"], arrays[f"marginal_{place}"] = words, marginal
    return arrays

  @classmethod
  def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Facts":
    """Reads what `arrays` returned.

    Raises:
      KeyError: an array is missing.
      DataError: an array or a number is of another kind.
    """
    numbers = files.parse_json(str(arrays["numbers"]), "numbers")
    _check_numbers(numbers)
    count = len(numbers["x_names"])
    _check_arrays(arrays, count, len(numbers["conditions"]))
    words = tuple(arrays[f"vocabulary_{place}"] for place in range(count))
    return cls(
        tuple(numbers["x_names"]), words,
        growth.Kinds(arrays["kind_attribute"], arrays["kind_operands"], arrays.get(
            "kind_users", np.full(len(arrays["kind_attribute"]), growth.MANY, np.int32))),
        conditions_lib.Conditions(
            tuple(numbers["conditions"]), arrays["conditions"], len(words[0])),
        tuple(arrays[f"marginal_{place}"] for place in range(count)),
        numbers["most_nodes"], numbers["most_layers"], numbers["widest"], numbers["degree"],
        numbers.get("collection", ""), numbers.get("features", 1), numbers.get("window", 0),
        numbers.get("single_root", True))


def _check_numbers(numbers: Any) -> None:
  """Raises DataError unless `numbers` are those of a model."""
  if not isinstance(numbers, dict):
    raise errors.DataError("numbers is no JSON object")
  for name in ("x_names", "conditions"):
    if not isinstance(numbers.get(name), list) or not all(
        isinstance(entry, str) for entry in numbers[name]):
      raise errors.DataError(f"numbers: {name} is no list of strings")
  if not 0 < len(numbers["x_names"]) <= _MOST_ATTRIBUTES:
    raise errors.DataError(f"numbers: x_names has {len(numbers['x_names'])} names; expected 1 to "
                           f"{_MOST_ATTRIBUTES}")
  for name, default in (("most_nodes", -1), ("most_layers", -1), ("widest", -1),
                        ("features", 1), ("window", 0)):
    value = numbers.get(name, default)
    if type(value) is not int or not 0 <= value <= _LARGEST:
      raise errors.DataError(f"numbers: {name} is no whole number from 0 to {_LARGEST}")
  degree = numbers.get("degree", -1)
  if type(degree) not in (int, float) or not 0 < degree <= _LARGEST:
    raise errors.DataError(f"numbers: degree is no number above 0 and up to {_LARGEST}")
  if (not isinstance(numbers.get("collection", ""), str)
      or not isinstance(numbers.get("single_root", True), bool)):
    raise errors.DataError("numbers: collection is no string, or single_root not true or false")


def _check_arrays(arrays: Mapping[str, np.ndarray], attributes: int, conditions: int) -> None:
  """Raises DataError unless the arrays of a model fit each other."""
  vocabularies = [arrays[f"vocabulary_{place}"] for place in range(attributes)]
  kinds, operands, table = (
      arrays[key] for key in ("kind_attribute", "kind_operands", "conditions"))
  for place, words in enumerate(vocabularies):
    if words.ndim != 1 or not words.size or words.dtype.kind not in "iufU":
      raise errors.DataError(f"vocabulary_{place} is no list of words or numbers")
    marginal = arrays[f"marginal_{place}"]
    expected = kinds.size if place == 0 else words.size
    if (marginal.shape != (expected,) or marginal.dtype.kind != "f"
        or not np.isfinite(marginal).all() or (marginal < 0).any() or not marginal.sum() > 0):
      raise errors.DataError(f"marginal_{place} is no list of {expected} frequencies")
  if (kinds.ndim != 1 or kinds.shape != operands.shape or not kinds.size
      or kinds.dtype.kind not in "iu" or operands.dtype.kind not in "iu"
      or kinds.min() < 0 or kinds.max() >= vocabularies[0].size
      or operands.min() < 0 or operands.max() > _LARGEST):
    raise errors.DataError("kind_attribute and kind_operands are no lists of values and numbers")
  users = arrays.get("kind_users", kinds)
  if users.shape != kinds.shape or users.dtype.kind not in "iu" or users.min() < 0:
    raise errors.DataError("kind_users is no list of numbers, one for each kind")
  if (table.ndim != 2 or table.shape[1] != conditions or table.dtype.kind != "f"
      or not len(table) or not np.isfinite(table).all()):
    raise errors.DataError(f"conditions is no table of {conditions} columns of numbers")


class Generator:
  """The networks Sizes, Nodes and Edges, built for a set of training graphs.

  Attributes:
    config: the configuration.
    facts: facts about the training graphs.
    modules: networks by name, in the order in which they generate a layer.
    kind_shift: (K,) added to the logits of each kind of node; see `calibration`.
    user_shift: (K, U) added to the log odds of an edge to an operand of each kind.
  """

  def __init__(self, config: settings.LayerDagConfig, facts: Facts):
    """Creates the networks and their variables."""
    self.config = config
    self.facts = facts
    sizes = [len(marginal) for marginal in facts.marginals]
    network = config.network
    self.modules: dict[str, networks.Module] = {
        "sizes": networks.Sizes(network, sizes, facts.features, facts.max_width),
        "nodes": networks.Nodes(network, sizes, facts.features, facts.max_width,
                                list(facts.marginals), facts.kinds.operands > 0),
        "edges": networks.Edges(network, sizes, facts.features, facts.degree,
                                facts.kinds.attribute, config.data.direction)}
    # A variable, so that functions that are already traced use new values.
    self.kind_shift = tf.Variable(
        tf.zeros([len(facts.kinds)]), trainable=False, name="kind_shift")
    self.user_shift = np.zeros([len(facts.kinds), 1])
    # A tiny graph of two connected nodes uses every layer once, which creates all variables.
    one = growth.OrderedGraph(np.zeros([2, len(sizes)], np.int32), np.array([1, 0]),
                              np.array([0, 1], np.int32), np.array([0], np.int32),
                              np.array([1], np.int32), np.arange(2))
    unspecified = np.full([1, len(facts.conditions.names)], np.nan)
    arrays = self.batch([self.unroll(one)], unspecified)
    for module in self.modules.values():
      module.losses({key: tf.constant(value) for key, value in arrays.items()},
                    networks.Noise(tf.zeros([2], tf.int32)), False)

  def shift(self, kinds: np.ndarray, users: np.ndarray) -> None:
    """Sets `kind_shift` (K,) and `user_shift` (K, U)."""
    self.kind_shift.assign(kinds.astype(np.float32))
    self.user_shift = np.asarray(users, np.float64)

  @property
  def variables(self) -> dict[str, list[tf.Variable]]:
    """Trainable variables of each network."""
    return {name: module.trainable_variables for name, module in self.modules.items()}

  def unroll(self, graph: growth.OrderedGraph) -> Arrays:
    """The generation steps of a graph as arrays for this model's networks."""
    return growth.unroll(graph, self.config.data.direction,
                         self.config.network.encoder == "bidirectional",
                         self.config.network.operand_counts, self.facts.window)

  def ordered(self, dags: dags_lib.Dags) -> list[growth.OrderedGraph]:
    """Graphs in the order in which this model generates nodes.

    Raises:
      DataError: their attributes or vocabularies differ from those of the training graphs.
    """
    return growth.order_graphs(self._translated(dags), self.facts.kinds, self.config.data.direction)

  def conditions_of(self, dags: dags_lib.Dags) -> np.ndarray:
    """(G, T) float64 conditions of graphs, in the order of `Facts.conditions`.

    Raises:
      ConfigError: the graphs do not have a label.
      DataError: see `ordered`.
    """
    return conditions_lib.values(self._translated(dags), self.facts.conditions.names)

  def _translated(self, dags: dags_lib.Dags) -> dags_lib.Dags:
    """The same graphs in the vocabularies of the training graphs."""
    if dags.x_names != self.facts.x_names:
      raise errors.DataError(
          f"x_names are {', '.join(dags.x_names)}; this model was trained on "
          f"{', '.join(self.facts.x_names)}: pass graphs with the same attributes")
    return dags.in_vocabularies(self.facts.vocabularies)

  def batch(self, unrolled: Sequence[Arrays], requested: np.ndarray) -> Arrays:
    """Graphs as one batch, with the requested conditions (B, T) at each of their steps."""
    arrays = growth.batch(unrolled)
    encoded = self.facts.conditions.encode(requested)
    arrays.update({key: value[arrays["graph"]] for key, value in encoded.items()})
    return arrays


def signature(arrays: Mapping[str, Any]) -> dict[str, tf.TensorSpec]:
  """Specifications with any number of rows, so that one trace serves all batches."""
  return {key: tf.TensorSpec([None, *value.shape[1:]], tf.as_dtype(value.dtype))
          for key, value in arrays.items()}
