"""Batches as `tf.data` and TF-GNN. This is the one module of `data` that imports TensorFlow.

A data set yields the NumPy arrays of a batch as tensors. Inside the traced step, `to_step` turns
them into what models and losses use. (A `GraphTensor` cannot be an element of a data set while the
number of configurations varies, because TF-GNN requires static inner dimensions there.) A step has

  graph     a scalar `GraphTensor` whose components are the B graphs of the batch, with node set
            "op" (`nodes`, `opcode`) and edge set "feed" (operand to user); for layouts also node
            set "config" and edge set "at" (configurable node to its op); and the configurations
  segment   another one with a segment of each graph, where gradients flow through segments only
  relevance, order, target   labels [B, C], with their mask
  weight    [B], the weight of each list in the loss, if they differ

For a batch that `data.partition` has arranged, `graph` and `segment` are its arrays instead.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_gnn as tfgnn

from tpugraphs_rank.data import batches


def graph_tensor(arrays: Mapping[str, tf.Tensor], prefix: str = "") -> tfgnn.GraphTensor:
  """Builds the `GraphTensor` of a batch, or (prefix "segment_") of its segments."""
  get = lambda key: tf.convert_to_tensor(arrays[prefix + key])
  nodes = {"op": tfgnn.NodeSet.from_fields(
      sizes=get("num_nodes"), features={"nodes": get("nodes"), "opcode": get("opcode")})}
  edges = {"feed": tfgnn.EdgeSet.from_fields(
      sizes=get("num_edges"), adjacency=tfgnn.Adjacency.from_indices(
          ("op", get("source")), ("op", get("target"))), features={})}
  # Segments are scored on the same lists, so the masks have no prefix.
  context = {"config_mask": tf.convert_to_tensor(arrays["config_mask"]),
             "reference_mask": tf.convert_to_tensor(arrays["reference_mask"])}
  if "config_costs" in arrays:
    context["config_costs"] = tf.convert_to_tensor(arrays["config_costs"])
  if prefix + "config_nodes" in arrays:
    sizes = get("num_config_nodes")
    nodes["config"] = tfgnn.NodeSet.from_fields(
        sizes=sizes, features={"configs": get("configs"), "config_sizes": get("config_sizes")})
    edges["at"] = tfgnn.EdgeSet.from_fields(
        sizes=sizes, features={}, adjacency=tfgnn.Adjacency.from_indices(
            ("config", tf.range(tf.reduce_sum(sizes))), ("op", get("config_nodes"))))
  else:
    context["configs"] = get("configs")
  return tfgnn.GraphTensor.from_pieces(
      context=tfgnn.Context.from_fields(
          features=context, sizes=tf.ones_like(get("num_nodes"))),
      node_sets=nodes, edge_sets=edges)


# Arrays of lists of configurations, which whole graphs and their segments share.
_OF_LISTS = ("config_mask", "reference_mask", "config_costs")
# Node numbers, and messages for `models.state_index`: arrays that steps do not need.
_NOT_FOR_STEPS = ("node_ids", "edges", "kernel", "segment_edges", "segment_kernel")


def _without_prefix(arrays: Mapping[str, tf.Tensor], prefix: str) -> dict[str, tf.Tensor]:
  """The tensors of an arranged batch, or of its segments."""
  tensors = {key[len(prefix):]: tf.convert_to_tensor(value) for key, value in arrays.items()
             if key.startswith(prefix)
             and not key[len(prefix):].startswith(("label_", "segment_"))
             and key != "segment_node_ids"}
  # Segments are scored on the same lists, so the masks have no prefix.
  return {**tensors, **{key: tf.convert_to_tensor(arrays[key])
                        for key in _OF_LISTS if key in arrays}}


def labels(arrays: Mapping[str, tf.Tensor]) -> dict[str, Any]:
  """The labels, mask and weights of a batch, as losses take them."""
  step = {"mask": arrays["config_mask"]}
  for key in batches.LABELS:
    if "label_" + key in arrays:
      step[key] = arrays["label_" + key]
  if batches.WEIGHT in arrays:
    step["weight"] = arrays[batches.WEIGHT]
  return step


def to_step(arrays: Mapping[str, tf.Tensor]) -> dict[str, Any]:
  """The graphs, labels, mask and weights of a batch, for the built-in models and losses."""
  make = _without_prefix if "rows" in arrays else graph_tensor
  step = {"graph": make(arrays, ""), **labels(arrays)}
  if "segment_nodes" in arrays:
    step["segment"] = make(arrays, "segment_")
    step["segment_node_ids"] = tf.convert_to_tensor(arrays["segment_node_ids"])
  return step


def dataset(make_batches: Callable[[], Iterator[batches.Batch]]) -> tf.data.Dataset:
  """A data set of array dictionaries from an iterator over NumPy batches.

  All elements have one specification in which only the feature widths are fixed. A `tf.function`
  with `element_spec` as its signature is therefore traced once.

  Args:
    make_batches: called again for each pass, and once more to learn the widths from its first
      batch.
  """
  signature = _signature(next(iter(make_batches())))
  elements = lambda: ({key: batch[key] for key in signature} for batch in make_batches())
  return _prefetched(elements, signature)


def dataset_of_shares(make_shares: Callable[[], Iterator[Sequence[batches.Batch]]]
                      ) -> tf.data.Dataset:
  """A data set of tuples of array dictionaries; see `dataset`.

  Args:
    make_shares: as of `dataset`; yields the same number of batches each time (see `data.shares`).
  """
  first = next(iter(make_shares()))
  signature = tuple(_signature(share) for share in first)
  elements = lambda: (tuple({key: share[key] for key in signature[0]} for share in shares)
                      for shares in make_shares())
  return _prefetched(elements, signature)


def _prefetched(elements: Callable[[], Iterator[Any]], signature: Any) -> tf.data.Dataset:
  options = tf.data.Options()
  # Nothing here has a size to tune, and the end of an iterator may wait seconds for the thread that
  # tunes.
  options.autotune.enabled = False
  return tf.data.Dataset.from_generator(
      elements, output_signature=signature).prefetch(4).with_options(options)


def _signature(batch: batches.Batch) -> dict[str, tf.TensorSpec]:
  signature = {}
  for key, array in batch.items():
    if key in _NOT_FOR_STEPS:
      continue
    shape: list[int | None] = [None] * array.ndim
    if key.endswith(("nodes", "configs", "config_costs")) and array.ndim > 1:
      shape[-1] = array.shape[-1]
    signature[key] = tf.TensorSpec(shape, tf.as_dtype(array.dtype), name=key)
  return signature
