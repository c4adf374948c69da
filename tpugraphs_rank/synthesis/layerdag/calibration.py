"""Corrects the drift of generated graphs from the frequencies of the training graphs.

Training is teacher-forced: each layer is learned after real layers. Generated graphs grow after
their own layers, so small errors accumulate: some kinds of nodes, or nodes with several users,
become too frequent. Calibration generates graphs of the sizes of the training graphs, counts, and
shifts logits, for each kind of node (`growth.Kinds`):

  kinds  added to the logits of a new node's kind:
         shift += rate (log share in training - log share in the generated graphs), see `log_ratios`
  users  added to the log odds of an edge to an operand of this kind.
         users_first: for each number u of users that the operand has, with h the share of the nodes
         with at least u users that have more: shift += rate (logit h in training - logit h in the
         generated graphs). Rare kinds use the shares of all kinds.
         operands_first: shift += rate (log mean number of users in training - log that in the
         generated graphs)

The rate falls from round to round, and the result is the mean of the shifts after the second half
of the rounds: the graphs of a single round differ by chance, and would be fitted too closely. If
graphs with these shifts are not nearer to the training graphs than those without, there are no
shifts. Only training graphs are used.
"""

import dataclasses
import logging

import numpy as np
import tqdm

from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.layerdag import conditions as conditions_lib
from tpugraphs_rank.synthesis.layerdag import generator as generator_lib
from tpugraphs_rank.synthesis.layerdag import growth
from tpugraphs_rank.synthesis.layerdag import sampler as sampler_lib

_logger = logging.getLogger(__name__)
_RATE = 0.7  # Of the first round.
_SLOWING = 0.3  # The rate of round t is _RATE / (1 + _SLOWING t).
_LARGEST = 3.0  # Largest absolute shift.
# Numbers of users, 1 to this many, that have shifts of their own.
COUNTS = 6
# Nodes that are added to counts, with the shares of all kinds.
_PSEUDO_COUNT = 20.0
# Graphs generated in each round, at most.
_GRAPHS = 128


@dataclasses.dataclass(frozen=True)
class Shifts:
  """What calibration adds to logits.

  Attributes:
    kinds: (K,) for the kinds of new nodes.
    users: (K, COUNTS) for edges to operands, by the operand's kind and number of users. For
      operands_first the number does not matter.
  """

  kinds: np.ndarray
  users: np.ndarray


def users_of_kinds(dags: dags_lib.Dags, kinds: growth.Kinds) -> np.ndarray:
  """(K, COUNTS + 2) the nodes of each kind with 0, 1, ... users; the last column: all others."""
  kind = kinds.index(dags.x[:, 0], dags.num_operands)
  users = np.minimum(dags.num_users, COUNTS + 1)
  known = kind >= 0
  width = COUNTS + 2
  flat = np.bincount(kind[known] * width + users[known], minlength=len(kinds) * width)
  return flat.reshape(len(kinds), width)


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
  """Total variation distance of the kinds, and that of the numbers of users, added.

  Args:
    ours: the result of `users_of_kinds`.
    theirs: the same of other graphs.

  Returns:
    From 0 to 2; 2 without nodes.
  """
  if not ours.any() or not theirs.any():
    return 2.0
  total = 0.0
  for axis in (0, 1):
    shares = [counts.sum(axis=axis) / counts.sum() for counts in (ours, theirs)]
    total += float(np.abs(shares[0] - shares[1]).sum() / 2)
  return total


def log_ratios(wanted: np.ndarray, generated: np.ndarray, operands: np.ndarray) -> np.ndarray:
  """(K,) log of the share of each kind in the training graphs over that in the generated graphs.

  It is the log ratio of the shares of all kinds with as many operands, and of the kind's share
  among these. To the latter, `_PSEUDO_COUNT` nodes of each kind's mean share are added on both
  sides: few nodes say little.

  Args:
    wanted: the result of `users_of_kinds` for training graphs.
    generated: the same for generated graphs.
    operands: (K,) numbers of operands of the kinds.
  """
  result = np.zeros(len(operands))
  nodes = np.stack([wanted.sum(axis=1), generated.sum(axis=1)]).astype(np.float64)
  totals = nodes.sum(axis=1)
  for number in np.unique(operands):
    group = operands == number
    of_group = nodes[:, group].sum(axis=1)
    shares = nodes[:, group] / np.maximum(of_group, 1.0)[:, None]
    mean = _PSEUDO_COUNT * shares.mean(axis=0)
    smooth = (nodes[:, group] + mean + 1e-9) / (of_group + _PSEUDO_COUNT)[:, None]
    whole = (of_group + 0.5) / (totals + 0.5)
    result[group] = np.log(whole[0] / whole[1]) + np.log(smooth[0] / smooth[1])
  return result


def logits_of_more(counts: np.ndarray) -> np.ndarray:
  """(K, COUNTS) the logit of the share of nodes with more than u users among those with at least u.

  The shares of all kinds together, with `_PSEUDO_COUNT` nodes, are added to each kind.
  """
  least = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1].astype(np.float64)
  # Columns u = 1 to COUNTS.
  least, more = least[:, 1:-1], least[:, 2:]
  prior = (more.sum(axis=0) + 0.5) / (least.sum(axis=0) + 1.0)
  share = (more + _PSEUDO_COUNT * prior) / (least + _PSEUDO_COUNT)
  return np.log(share / (1.0 - share))


def log_means(counts: np.ndarray) -> np.ndarray:
  """(K, COUNTS) logarithm of the mean number of users, the same in each column."""
  users = counts @ np.arange(counts.shape[1])
  nodes = counts.sum(axis=1)
  mean = (users.sum() + 0.5) / (nodes.sum() + 1.0)
  of_kind = (users + _PSEUDO_COUNT * mean) / (nodes + _PSEUDO_COUNT)
  return np.repeat(np.log(of_kind)[:, None], COUNTS, axis=1)


def next_shifts(shifts: Shifts, wanted: np.ndarray, generated: np.ndarray, operands: np.ndarray,
                direction: str, number: int = 0) -> Shifts:
  """The shifts after round `number`; see the module's formulas, and `log_ratios` for the others."""
  of_users = logits_of_more if direction == "users_first" else log_means
  moved = lambda shift, change: np.clip(
      shift + _RATE / (1.0 + _SLOWING * number) * change, -_LARGEST, _LARGEST)
  return Shifts(moved(shifts.kinds, log_ratios(wanted, generated, operands)),
                moved(shifts.users, of_users(wanted) - of_users(generated)))


def _requests(generator: generator_lib.Generator, graphs: dags_lib.Dags,
              rng: np.random.Generator) -> np.ndarray:
  """(G, T) conditions as a user requests them: sizes, if the model has that condition.

  The others are then sampled, and fit together less well than those of a real graph.
  """
  conditions = generator.conditions_of(graphs)
  names = generator.facts.conditions.names
  if conditions_lib.SIZE not in names:
    return conditions
  sizes = conditions[:, names.index(conditions_lib.SIZE)]
  return conditions_lib.sample_conditions(
      generator.facts.conditions, len(graphs), {conditions_lib.SIZE: sizes}, rng)


def calibrate_as_configured(generator: generator_lib.Generator, training: dags_lib.Dags) -> None:
  """Calibrates a trained generator, if its configuration has `fit.calibration_rounds`."""
  fit = generator.config.fit
  if fit.calibration_rounds:
    calibrate(generator, training, fit.calibration_rounds, fit.seed)


def calibrate(generator: generator_lib.Generator, training: dags_lib.Dags, rounds: int, seed: int
              ) -> list[float]:
  """Sets the shifts of a trained generator; see the module.

  Args:
    generator: the generator, whose shifts change.
    training: its training graphs.
    rounds: number of rounds. Each generates up to 128 graphs.
    seed: seed of the graphs.

  Returns:
    The `distance` to the training graphs in each round, the first of which has no shifts, and with
    the result.
  """
  rng = np.random.default_rng([seed, 61])
  chosen = training.take(np.sort(rng.permutation(len(training))[:_GRAPHS]))
  facts, direction = generator.facts, generator.config.data.direction
  conditions = _requests(generator, chosen, rng)
  wanted = users_of_kinds(chosen.in_vocabularies(facts.vocabularies), facts.kinds)
  sample = sampler_lib.Sampler(generator)

  def counts_with(shifts: Shifts, number: int) -> np.ndarray:
    generator.shift(shifts.kinds, shifts.users)
    generated, _ = sample(conditions, seed * 1009 + number)
    return users_of_kinds(dags_lib.canonical(
        [(graph.edges, graph.x) for graph in generated], facts.x_names, facts.vocabularies),
                          facts.kinds)

  none = Shifts(np.zeros(len(facts.kinds)), np.zeros([len(facts.kinds), COUNTS]))
  path, reached = [none], []
  for number in tqdm.trange(rounds, desc="calibration", unit="round", disable=None):
    counts = counts_with(path[-1], number)
    reached.append(distance(counts, wanted))
    path.append(next_shifts(
        path[-1], wanted, counts, facts.kinds.operands, direction, number))
  late = path[1 + rounds // 2:]
  result = Shifts(np.mean([shifts.kinds for shifts in late], axis=0),
                  np.mean([shifts.users for shifts in late], axis=0))
  reached.append(distance(counts_with(result, rounds), wanted))
  if reached[-1] >= reached[0]:
    generator.shift(none.kinds, none.users)
  _logger.info("calibration: distance to the training graphs %.4f before, %.4f after",
               reached[0], min(reached[0], reached[-1]))
  return reached
