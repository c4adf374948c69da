"""A batch divided among the devices that train together, by the work that each list causes.

All devices draw the same lists, so a batch does not depend on their number, and each device
assembles its own lists only. A share is a batch of `data.batches` with these arrays in addition:

  label_weight (B,) float32    weights of the lists in the loss; those of all shares add up to 1
  share ()                     number of the share
  list_places (B,)             positions of the lists in the whole batch, which has `batch_lists` ()
  node_places (N,)             positions of the nodes in the whole batch, which has `batch_nodes` ()
  segment_node_places, segment_batch_nodes   the same for the segments, with segment_mode=backprop

The positions make dropout independent of the division: masks are drawn for the whole batch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import mixing

Share = batches.Batch


def divide(costs: Sequence[float], count: int) -> list[list[int]]:
  """Divides lists so that all shares cost about the same: the largest first, each to the cheapest.

  The most expensive share costs at most 4/3 of the best division's (Graham, 1969), or as much as
  the most expensive list.

  Args:
    costs: of each list.
    count: the number of shares.

  Returns:
    The positions of the lists of each share, in ascending order. Shares may be empty.
  """
  shares: list[list[int]] = [[] for _ in range(count)]
  loads = [0.0] * count
  for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
    cheapest = min(range(count), key=lambda share: (loads[share], share))
    shares[cheapest].append(place)
    loads[cheapest] += costs[place]
  return [sorted(places) for places in shares]


def cost(entry: batches.DrawnList, segment_mode: str) -> int:
  """About how many states of nodes a list takes: nodes times configurations.

  Args:
    entry: the list.
    segment_mode: as in `BatchConfig`. In the mode "backprop" the whole graph counts.
  """
  nodes = _nodes(entry, segment_mode in batches.SEGMENTS_ONLY)
  return (nodes + (_nodes(entry, True) if segment_mode == "backprop" else 0)) * len(entry.picked)


def _nodes(entry: batches.DrawnList, of_segment: bool) -> int:
  return (len(entry.segment) if of_segment and entry.segment is not None
          else entry.prepared.graph.num_nodes)


def of_batch(lists: Sequence[batches.DrawnList], weights: np.ndarray, count: int,
             wanted: Iterable[int], config: run_config.BatchConfig) -> list[Share]:
  """Some of the shares of a batch.

  If there are fewer lists than shares, an empty share gets the cheapest list with weight 0.

  Args:
    lists: those of the whole batch, from `batches.draw`.
    weights: (B,) their weights in the loss.
    count: the number of shares.
    wanted: numbers of the shares to assemble.
    config: settings of the batch.
  """
  costs = [cost(entry, config.segment_mode) for entry in lists]
  divided = divide(costs, count)
  # Prefix, and whether only segments count.
  parts = {"": config.segment_mode in batches.SEGMENTS_ONLY}
  if config.segment_mode == "backprop":
    parts["segment_"] = True
  starts = {prefix: np.concatenate([[0], np.cumsum([_nodes(entry, only) for entry in lists])])
            for prefix, only in parts.items()}
  shares = []
  for number in wanted:
    places = divided[number] or [int(np.argmin(costs))]
    share = batches.assemble([lists[place] for place in places], config)
    relative = weights[places] / weights.sum()
    share[batches.WEIGHT] = (relative if divided[number] else relative * 0).astype(np.float32)
    share.update(share=_int32(number), list_places=_int32(places), batch_lists=_int32(len(lists)))
    for prefix, first in starts.items():
      share[f"{prefix}node_places"] = _int32(np.concatenate(
          [np.arange(first[place], first[place + 1]) for place in places]))
      share[f"{prefix}batch_nodes"] = _int32(first[-1])
    shares.append(share)
  return shares


def _int32(value: object) -> np.ndarray:
  return np.asarray(value, np.int32)


def arranged(share: Share, arrange: Callable[[batches.Batch], batches.Batch]) -> Share:
  """A share as a model arranges it, with the nodes' `order` in the numbering of the whole batch."""
  result = dict(arrange(share))
  for prefix in ("", "segment_"):
    places = share.get(f"{prefix}node_places")
    if places is not None and f"{prefix}order" in result:
      result[f"{prefix}order"] = places[result[f"{prefix}order"]]
      result[f"{prefix}batch_nodes"] = share[f"{prefix}batch_nodes"]
  for key in (batches.WEIGHT, "share", "list_places", "batch_lists"):
    result[key] = share[key]
  return result


def epoch_shares(real: Sequence[batches.PreparedGraph],
                 synthetic: Sequence[batches.PreparedGraph], config: run_config.RunConfig,
                 epoch: int, count: int, wanted: Sequence[int]) -> Iterator[list[Share]]:
  """Some of the shares of each batch of an epoch; the batches are those of `mixing.epoch_batches`.

  Args:
    real, synthetic, config, epoch: as of `mixing.epoch_batches`.
    count, wanted: as of `of_batch`.
  """
  num_synthetic = mixing.synthetic_lists(config) if synthetic else 0
  for lists in mixing.epoch_lists(real, synthetic, config, epoch):
    yield of_batch(lists, mixing.weights(len(lists), config.augment, num_synthetic), count, wanted,
                   config.batch)
