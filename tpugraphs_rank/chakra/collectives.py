"""Time of a collective by the alpha-beta model: a latency for each step, and bytes by bandwidth.

With p ranks, n bytes that each rank passes in (`comm_size`), latency a and bandwidth b:

  ALL_REDUCE                   2 (p - 1) a + 2 (p - 1) / p * n / b   (ring)
  ALL_GATHER                     (p - 1) a +   (p - 1) * n / b       (ring)
  REDUCE_SCATTER                 (p - 1) a +   (p - 1) / p * n / b   (ring)
  ALL_TO_ALL, SCATTER            (p - 1) a +   (p - 1) / p * n / b
  GATHER                         (p - 1) a +   (p - 1) * n / b
  BROADCAST, REDUCE         ceil(log2 p) (a + n / b)                 (tree)
  BARRIER                   ceil(log2 p) a
  a message                            a +   n / b

Rabenseifner's and Thakur's analyses of MPI give these formulas.
"""

from tpugraphs_rank import errors
from tpugraphs_rank.chakra import et_def_pb2
from tpugraphs_rank.chakra import node_kinds

_ALL_REDUCE = et_def_pb2.ALL_REDUCE
_GATHERS = (et_def_pb2.ALL_GATHER, et_def_pb2.GATHER)
_SHARES = (et_def_pb2.REDUCE_SCATTER, et_def_pb2.REDUCE_SCATTER_BLOCK, et_def_pb2.ALL_TO_ALL,
           et_def_pb2.SCATTER)
_TREES = (et_def_pb2.BROADCAST, et_def_pb2.REDUCE)


def micros(kind: int, size: int, ranks: int, latency: float, bandwidth: float) -> float:
  """Duration of a collective in microseconds.

  Args:
    kind: `comm_type`.
    size: bytes that each rank passes in.
    ranks: number of ranks that take part.
    latency: of a step, in microseconds.
    bandwidth: of a link, in bytes a microsecond.

  Raises:
    DataError: the kind is unknown.
  """
  if ranks <= 1:
    return 0.0
  others = ranks - 1
  share = others * size / ranks / bandwidth
  if kind == _ALL_REDUCE:
    return 2 * others * latency + 2 * share
  if kind in _GATHERS:
    return others * latency + others * size / bandwidth
  if kind in _SHARES:
    return others * latency + share
  rounds = others.bit_length()  # ceil(log2(ranks))
  if kind in _TREES:
    return rounds * (latency + size / bandwidth)
  if kind == et_def_pb2.BARRIER:
    return rounds * latency
  raise errors.DataError(
      f"no duration is known for the collective {node_kinds.collective_name(kind)}; expected one "
      f"of: {', '.join(name for name, _ in et_def_pb2.CollectiveCommType.items())}; correct "
      "comm_type in the trace")


def message_micros(size: int, latency: float, bandwidth: float) -> float:
  """Duration of a message of `size` bytes in microseconds."""
  return latency + size / bandwidth
