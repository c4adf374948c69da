"""Joins the attributes of trace nodes that belong together, so that samples stay consistent.

An operator, its node type, its device, its collective and its group occur in few combinations. They
become one attribute, `kind`, which a generator learns together with the number of dependencies.
Durations, operations and bytes stay attributes of their own.
"""

from collections.abc import Sequence
import json

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.synthesis.dags import dags as dags_lib

KIND = "kind"
JOINED = ("operator", "type", "device", "collective", "group")
MESSAGES = ("COMM_SEND_NODE", "COMM_RECV_NODE")


def join(dags: dags_lib.Dags) -> dags_lib.Dags:
  """The same graphs with `kind` as the first attribute, in place of those in JOINED.

  Raises:
    DataError: the graphs lack the attribute `operator` or `type`.
  """
  names = [name for name in JOINED if name in dags.x_names]
  if not {"operator", "type"} <= set(names):
    raise errors.DataError(
        f"the graphs have the attributes {', '.join(dags.x_names)}; expected graphs of traces, "
        "with operator and type; import the traces with these attributes")
  columns = [dags.x_names.index(name) for name in names]
  rows, index = np.unique(dags.x[:, columns], axis=0, return_inverse=True)
  words = np.array([json.dumps({
      name: str(dags.vocabularies[column][value])
      for name, column, value in zip(names, columns, row)}) for row in rows.tolist()])
  rest = [column for column, name in enumerate(dags.x_names) if name not in JOINED]
  return _with_attributes(
      dags, (KIND, *(dags.x_names[column] for column in rest)),
      (words, *(dags.vocabularies[column] for column in rest)),
      np.stack([index.reshape(-1), *(dags.x[:, column] for column in rest)], axis=1))


def separate(dags: dags_lib.Dags, names: Sequence[str]) -> dags_lib.Dags:
  """The reverse of `join`; `names` are the attributes that the result has, in this order."""
  kinds = [files.parse_json(word, KIND) for word in dags.vocabularies[0].tolist()]
  columns, vocabularies = [], []
  for name in names:
    if name in dags.x_names:
      column = dags.x_names.index(name)
      columns.append(dags.x[:, column])
      vocabularies.append(dags.vocabularies[column])
    else:
      words, index = np.unique([kind[name] for kind in kinds], return_inverse=True)
      columns.append(index.reshape(-1)[dags.x[:, 0]])
      vocabularies.append(words)
  return _with_attributes(dags, tuple(names), tuple(vocabularies), np.stack(columns, axis=1))


def _with_attributes(dags: dags_lib.Dags, names: tuple[str, ...],
                     vocabularies: tuple[np.ndarray, ...], x: np.ndarray) -> dags_lib.Dags:
  return dags_lib.canonical(
      [(dags.edges(graph), x[dags.nodes(graph)]) for graph in range(len(dags))], names,
      vocabularies, dags.y, dags.y_names, provenance=dags.provenance)


def without_messages(dags: dags_lib.Dags) -> tuple[dags_lib.Dags, int]:
  """The graphs without sends and receives, and how many there were.

  A generated send would need a receive on another rank, in the same order. What waited for a
  message then waits for what the message waited for.
  """
  if "type" not in dags.x_names:
    return dags, 0
  column = dags.x_names.index("type")
  messages = np.isin(dags.vocabularies[column], MESSAGES)[dags.x[:, column]]
  if not messages.any():
    return dags, 0
  graphs = []
  for graph in range(len(dags)):
    rows = dags.nodes(graph)
    removed = messages[rows].tolist()
    operands: list[set[int]] = [set() for _ in removed]
    for user, operand in dags.edges(graph).tolist():
      operands[user].add(operand)
    # Nodes are stored consumers first, so the operands of later nodes are final.
    for node in range(len(removed) - 1, -1, -1):
      operands[node] = set().union(*(
          operands[operand] if removed[operand] else {operand} for operand in operands[node]))
    kept = np.flatnonzero(~messages[rows])
    if not len(kept):
      continue
    edges = [(node, operand) for node in kept.tolist() for operand in operands[node]]
    graphs.append((np.searchsorted(kept, np.array(edges, np.int64).reshape(-1, 2)),
                   dags.x[rows][kept]))
  if not graphs:
    raise errors.DataError("the traces consist of sends and receives only; expected computation or "
                           "collectives; pass other traces")
  return dags_lib.canonical(graphs, dags.x_names, dags.vocabularies,
                            provenance=dags.provenance), int(messages.sum())


def consistent(dags: dags_lib.Dags, training: dags_lib.Dags, seed: int
               ) -> tuple[dags_lib.Dags, dict[str, int]]:
  """Replaces numbers that do not occur with a node's kind in training.

  Attributes of a node are generated together but independently given the context, so a collective
  may get no bytes. Such a number is drawn again from the training nodes of the same kind. Every
  pair of a kind and a number then occurs in training; the numbers that real nodes of a kind always
  have, such as bytes, are never missing.

  Args:
    dags: generated graphs, as from `join`.
    training: the training graphs, with the same attributes and vocabularies.
    seed: seed of the choices.

  Returns:
    The graphs, and for each attribute the number of nodes that were changed.
  """
  rng = np.random.default_rng([seed, 23])
  order = np.argsort(training.x[:, 0], kind="stable")
  first = np.searchsorted(training.x[order, 0], np.arange(len(training.vocabularies[0]) + 1))
  x = dags.x.copy()
  changed = {}
  for column, name in enumerate(dags.x_names[1:], start=1):
    width = len(training.vocabularies[column])
    pairs = np.unique(training.x[:, 0].astype(np.int64) * width + training.x[:, column])
    wrong = np.flatnonzero(~np.isin(x[:, 0].astype(np.int64) * width + x[:, column], pairs))
    kind = x[wrong, 0]
    place = first[kind] + (rng.random(len(wrong)) * (first[kind + 1] - first[kind])).astype(int)
    x[wrong, column] = training.x[order[place], column]
    changed[name] = len(wrong)
  return _with_attributes(dags, dags.x_names, dags.vocabularies, x), changed
