"""The element types of a graph's arrays, and those that a run's training never saw.

The 140 public features have one column for each of the older element types. All newer types (8-bit
floats, 4-bit integers) have none, so a model cannot distinguish them from one another.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import tile_features
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import shapes

OTHER = "others (no feature column)"
_FIRST = tile_features.TYPES.start
_PREFIX = "shape_element_type_is_"
_NAMES = tuple(name.removeprefix(_PREFIX) for name in features.NODE_FEATURE_NAMES
               if name.startswith(_PREFIX))
# These are no types of arrays.
_NO_ARRAYS = ("invalid_type", "tuple", "opaque_type", "token")


def of(graph: graphs.Graph) -> tuple[str, ...]:
  """The element types of a graph's arrays, such as `("f32", "s32")`, and maybe `OTHER`."""
  columns = graph.node_feat[:, tile_features.TYPES] != 0
  present = [name for name, used in zip(_NAMES, columns.any(axis=0)) if used]
  other = [OTHER] if not columns.any(axis=1).all() else []
  return tuple(name for name in present if name not in _NO_ARRAYS) + tuple(other)


def without_column(module: hlo_pb2.HloModuleProto) -> tuple[str, ...]:
  """The element types of a program's arrays that have no feature column, such as `f8e4m3fn`."""
  numbers = {array.element_type for computation in module.computations
             for instruction in computation.instructions
             for array in shapes.arrays(instruction.shape)}
  names = {shapes.element_type(number) for number in numbers - {
      hlo_pb2.PRIMITIVE_TYPE_INVALID, hlo_pb2.OPAQUE_TYPE}}
  return tuple(sorted(names.difference(_NAMES)))


def of_all(graphs_: Iterable[graphs.Graph]) -> list[str]:
  """The element types of several graphs, sorted."""
  return sorted({name for graph in graphs_ for name in of(graph)})


def seen(about: Mapping[str, Any], normalizer: normalize.Normalizer) -> frozenset[str] | None:
  """The element types that occur in a run's training graphs; None if the run does not say.

  Args:
    about: what the run stores about itself; its `element_types` are from `of_all`.
    normalizer: feature scaling of the run. It has a column for each type that some instructions
      have and others do not, which tells the types of runs that older versions trained.
  """
  stored = about.get("element_types")
  columns = normalizer.nodes.columns - _FIRST
  known = frozenset(stored if isinstance(stored, list) else (
      _NAMES[column] for column in columns if 0 <= column < len(_NAMES)))
  # Graphs of other sources may have no types at all.
  return known if known - {OTHER} else None


def unseen(about: Mapping[str, Any], normalizer: normalize.Normalizer, graph: graphs.Graph
           ) -> tuple[str, ...]:
  """The element types of a graph that do not occur in a run's training graphs; see `seen`."""
  known = seen(about, normalizer)
  return () if known is None else tuple(name for name in of(graph) if name not in known)
