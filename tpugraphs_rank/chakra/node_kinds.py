"""Names of node types and collectives, and classes of operators."""

import re

from tpugraphs_rank.chakra import et_def_pb2

INVALID = et_def_pb2.INVALID_NODE
METADATA = et_def_pb2.METADATA_NODE
MEM_LOAD = et_def_pb2.MEM_LOAD_NODE
MEM_STORE = et_def_pb2.MEM_STORE_NODE
COMP = et_def_pb2.COMP_NODE
COMM_SEND = et_def_pb2.COMM_SEND_NODE
COMM_RECV = et_def_pb2.COMM_RECV_NODE
COMM_COLL = et_def_pb2.COMM_COLL_NODE
COMMUNICATION = frozenset({COMM_SEND, COMM_RECV, COMM_COLL})
MEMORY = frozenset({MEM_LOAD, MEM_STORE})

_TYPES = {number: name for name, number in et_def_pb2.NodeType.items()}
_COLLECTIVES = {number: name for name, number in et_def_pb2.CollectiveCommType.items()}
TYPES = frozenset(_TYPES)
COLLECTIVES = frozenset(_COLLECTIVES)


def type_name(number: int) -> str:
  """Name of a node type: `COMP_NODE`; `NODE_TYPE_12` for one that this schema lacks."""
  return _TYPES.get(number, f"NODE_TYPE_{number}")


def type_number(name: str) -> int | None:
  """The reverse of `type_name`; None for another name."""
  return _number(name, et_def_pb2.NodeType.items(), "NODE_TYPE_")


def collective_name(number: int) -> str:
  """Name of a collective: `ALL_REDUCE`; `COLLECTIVE_12` for one that this schema lacks."""
  return _COLLECTIVES.get(number, f"COLLECTIVE_{number}")


def collective_number(name: str) -> int | None:
  """The reverse of `collective_name`; None for another name."""
  return _number(name, et_def_pb2.CollectiveCommType.items(), "COLLECTIVE_")


def _number(name: str, known: list[tuple[str, int]], start: str) -> int | None:
  number = dict(known).get(name)
  # Numbers of an enumeration may be negative.
  digits = re.fullmatch(f"{start}(-?[0-9]{{1,20}})", name)
  return int(digits[1]) if number is None and digits else number
