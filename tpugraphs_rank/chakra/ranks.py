"""Communication of several ranks: who talks to whom, in the same order on every rank."""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import json
import re

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.chakra import decoding
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.data import segments

# The metadata that lists the ranks of process groups as JSON, and the end of such a file's name.
GROUPS = "comm_groups"
_LARGEST_NAME = 2 ** 31 - 1
_PEER = re.compile(r"(?:^|;)peer=([+-]\d{1,9})(?:;|$)")
_POOL = re.compile(r"(?:^|;)pg=([^;]*)")


@dataclasses.dataclass(frozen=True)
class Endpoint:
  """The ends of a message: ranks, and a tag that pairs a send with its receive."""

  source: int
  target: int
  tag: int


def involved(group: str) -> list[bool] | None:
  """The network dimensions that a group states; None if it states none."""
  match = re.search(r"(?:^|;)dims=([01]+)", group)
  return [digit == "1" for digit in match[1]] if match else None


def pool(group: str) -> str:
  """The process group that a group states; "" if it states none."""
  match = _POOL.search(group)
  return match[1] if match else ""


def peer(group: str) -> int | None:
  """The difference of the receiving and the sending rank that a group states; None if none."""
  match = _PEER.search(group)
  return int(match[1]) if match else None


def groups_text(groups: Mapping[str, Sequence[int]]) -> str:
  """The ranks of process groups as ASTRA-sim's JSON: `{"1": [0, 1], "2": [2, 3]}`."""
  return json.dumps({name: list(members) for name, members in groups.items()})


def process_groups(ranks: Sequence[decoding.Nodes], repeated: bool
                   ) -> dict[str, tuple[str, tuple[int, ...]]]:
  """The process groups of collectives that are not all ranks, with names that simulators take.

  ASTRA-sim takes whole numbers, and 0 for all ranks.

  Args:
    ranks: the nodes of each rank.
    repeated: whether all ranks run the same graph, so that all take part in each group.

  Returns:
    For the name of a group in the graphs its new name and its ranks.
  """
  members: dict[str, list[int]] = {}
  for rank, nodes in enumerate(ranks[:1] if repeated else ranks):
    chosen = decoding.on_network(nodes) & (nodes.types == node_kinds.COMM_COLL)
    for name in {pool(nodes.group[index]) for index in np.flatnonzero(chosen).tolist()}:
      members.setdefault(name, []).append(rank)
  named = {name: tuple(own) for name, own in sorted(members.items())
           if name and len(own) < len(ranks) and not repeated}
  numbers = {name for name in named if name.isascii() and name.isdecimal()
             and name == str(int(name)) and 1 <= int(name) <= _LARGEST_NAME}
  free = (str(number) for number in itertools.count(1) if str(number) not in numbers)
  return {name: (name if name in numbers else next(free), own) for name, own in named.items()}


def check_collectives(ranks: Sequence[decoding.Nodes], source: str) -> None:
  """Checks that all ranks run the same collectives in the same order, each process group apart.

  Raises:
    DataError: two ranks differ; the message names the first difference.
  """
  first: dict[str, tuple[int, list[tuple[str, int]]]] = {}
  for rank, nodes in enumerate(ranks):
    own: dict[str, list[tuple[str, int]]] = {"": []}
    chosen = decoding.on_network(nodes) & (nodes.types == node_kinds.COMM_COLL)
    for index in np.flatnonzero(chosen).tolist():
      own.setdefault(pool(nodes.group[index]), []).append(
          (node_kinds.collective_name(int(nodes.collective[index])), int(nodes.size[index])))
    for name, sequence in own.items():
      other, expected = first.setdefault(name, (rank, sequence))
      if sequence == expected:
        continue
      place = next((at for at, pair in enumerate(zip(expected, sequence)) if pair[0] != pair[1]),
                   min(len(expected), len(sequence)))
      shown = [f"{part[place][0]} of {part[place][1]:,} bytes" if place < len(part) else "nothing"
               for part in (expected, sequence)]
      raise errors.DataError(
          f"{source}: collective {place} of "
          f"{f'process group {escaping.shown(name)}' if name else 'all ranks'} is "
          f"{shown[0]} on rank {other} and {shown[1]} on rank {rank}; simulators hang on that; "
          "expected the same collectives in the same order; export one graph for all ranks "
          "(--ranks), or import traces of one run")


def endpoints(ranks: Sequence[decoding.Nodes], repeated: bool, source: str
              ) -> list[dict[int, Endpoint]]:
  """For each rank the ends of its sends and receives, by position of the node.

  The k-th send of a rank to another is paired with the k-th receive there, and k is the tag.

  Args:
    ranks: the nodes of each rank.
    repeated: whether all ranks run the same graph; then ranks count round, the last before the
      first.
    source: name of the workload in error messages.

  Raises:
    DataError: a node does not state its peer, a send and a receive have no partner or different
      bytes, or they wait for each other.
  """
  result: list[dict[int, Endpoint]] = []
  paired: dict[tuple[int, int], list[list[tuple[int, int]]]] = {}
  for rank, nodes in enumerate(ranks):
    own: dict[int, Endpoint] = {}
    chosen = decoding.on_network(nodes) & (nodes.types != node_kinds.COMM_COLL)
    for index in np.flatnonzero(chosen).tolist():
      sends = nodes.types[index] == node_kinds.COMM_SEND
      ends = _ends(nodes, index, rank, len(ranks), sends, repeated, source)
      side = paired.setdefault(ends, [[], []])[0 if sends else 1]
      own[index] = Endpoint(*ends, len(side))
      side.append((rank, index))
    result.append(own)
  waits = []
  for (start, end), (sends, receives) in sorted(paired.items()):
    if len(sends) != len(receives):
      raise errors.DataError(
          f"{source}: rank {start} sends {len(sends)} messages to rank {end}, which receives "
          f"{len(receives)}; simulators hang on that; expected pairs; export the graphs of all "
          "ranks of one run, or write the graph as it is (--zero_cost keep)")
    for tag, ((rank, send), (other, receive)) in enumerate(zip(sends, receives)):
      sizes = int(ranks[rank].size[send]), int(ranks[other].size[receive])
      if sizes[0] != sizes[1]:
        raise errors.DataError(
            f"{source}: message {tag} from rank {start} to rank {end} has {sizes[0]:,} bytes where "
            f"it is sent and {sizes[1]:,} where it is received; expected equal numbers; give "
            "comm_size in a file (--costs), or correct the traces and import them again")
      waits.append((other, receive, rank, send))
  if waits:
    _check_progress(ranks, waits, repeated, source)
  return result


def _ends(nodes: decoding.Nodes, index: int, rank: int, count: int, sends: bool, repeated: bool,
          source: str) -> tuple[int, int]:
  offset = peer(nodes.group[index])
  where = f"{source}: node {index} ({escaping.shown(nodes.names[index])})"
  if offset is None:
    raise errors.DataError(
        f"{where} sends or receives, but does not state its peer; expected an attribute 'group' "
        "such as 'peer=+1'; import traces that have comm_src and comm_dst, with the attribute "
        "group, or write the graph as it is (--zero_cost keep)")
  ends = (rank, rank + offset) if sends else (rank - offset, rank)
  if repeated:
    ends = ends[0] % count, ends[1] % count
  if ends[0] == ends[1] or not (0 <= min(ends) and max(ends) < count):
    raise errors.DataError(
        f"{where} of rank {rank} talks to rank "
        f"{ends[1 if sends else 0]}, but there are {count} ranks; expected another one of them; "
        "export more ranks (--ranks)")
  return ends


def _check_progress(ranks: Sequence[decoding.Nodes], waits: Sequence[tuple[int, int, int, int]],
                    repeated: bool, source: str) -> None:
  """Raises DataError if a receive waits for itself, over all ranks."""
  # All ranks of a repeated graph are alike: one is enough, and round trips close the circle.
  shown = ranks[:1] if repeated else ranks
  start = np.cumsum([0, *map(len, shown)])
  at = lambda rank, index: int(start[0 if repeated else rank]) + index
  edges = [(at(rank, node), at(rank, producer)) for rank, nodes in enumerate(shown)
           for node, producers in enumerate(nodes.producers) for producer in producers]
  edges += [(at(other, receive), at(rank, send)) for other, receive, rank, send in waits]
  flat = np.array(edges, np.int64).reshape(-1, 2)
  levels = segments.levels(flat, int(start[-1]))
  if (levels[flat[:, 0]] <= levels[flat[:, 1]]).any():
    raise errors.DataError(
        f"{source}: sends and receives wait for each other, so that simulators would hang; "
        "expected that some rank sends first; correct the traces and import them again, or write "
        "the graphs as they are (--zero_cost keep)")
