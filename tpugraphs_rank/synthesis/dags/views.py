"""Views of generated graphs, for `tpugraphs_rank.drawing`."""

import numpy as np

from tpugraphs_rank.drawing import views
from tpugraphs_rank.hlo import opcodes
from tpugraphs_rank.synthesis.dags import dags as dags_lib


def view(dags: dags_lib.Dags, graph: int, title: str) -> views.View:
  """A view of one of the graphs."""
  words = [attribute_names(dags, column) for column in range(len(dags.x_names))]
  rows = dags.x[dags.nodes(graph)]
  nodes = tuple(
      views.Node(number, str(words[0][row[0]]), ", ".join(
          f"{name} {words[column][row[column]]}"
          for column, name in enumerate(dags.x_names) if column))
      for number, row in enumerate(rows))
  labels = ", ".join(f"{name} {value:.3g}" for name, value in zip(dags.y_names, dags.y[graph]))
  edges = dags.edges(graph).astype(np.int64)[:, ::-1]
  return views.View(title, nodes, edges, len(nodes), labels)


def attribute_names(dags: dags_lib.Dags, column: int) -> np.ndarray:
  """The names of an attribute's values."""
  words = dags.vocabularies[column]
  # Files from other projects number opcodes in their own way.
  if dags.x_names[column] == "opcode" and "collection" in dags.provenance:
    return np.array([opcodes.opcode_name(number) for number in words])
  return words.astype(str)
