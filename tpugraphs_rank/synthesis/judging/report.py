"""All measures of made graphs beside real ones, as one JSON object and one Markdown page.

Imports TensorFlow, for the surrogates.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.dags import rules
from tpugraphs_rank.synthesis.judging import measures
from tpugraphs_rank.synthesis.judging import surrogate as surrogate_lib
from tpugraphs_rank.synthesis.judging import synthetic_only
from tpugraphs_rank.synthesis.judging import two_sample

# What real graphs are like one another in so many random divisions.
_DRAWS = 20
SPLITS = ("train", "valid", "test")


def evaluate(real: Mapping[str, dags_lib.Dags], samples: Sequence[dags_lib.Dags],
             seeds: Sequence[int], label: str | None = None,
             options: surrogate_lib.Options = surrogate_lib.Options()) -> dict[str, Any]:
  """Measures samples of made graphs; numbers of several samples are averaged.

  Distances are taken to all real graphs, to those of training and to those of the test split. Since
  a split by structure moves all graphs of one structure to one side, two of its parts differ more
  than two samples of one distribution: the rows of the floor say by how much.

  Args:
    real: "train", "valid" and "test", no graph in two of them.
    samples: made graphs, which have never seen "valid" and "test".
    seeds: of the surrogates.
    label: by which surrogates are judged; None: the first of the real graphs. Where real graphs or
      samples have none, there are no surrogates.
    options: of the surrogates.

  Returns:
    What JSON can hold. At the top, None where there is no number: `pearson_synthetic`, `_real` and
    `_shuffled` (mean, sd, n; `spearman_` and `mae_` likewise), `pearson_ratio`,
    `label_correlation`, `arity_valid_nodes`, `arity_valid_graphs`, `copies_of_training` and
    `distinct` (of 10 nodes or more), all distances to the training graphs, `two_sample_auc`,
    `graphs_per_cpu_second` (as the samples' provenance has it) and, for graphs of the rule-based
    family, `rule_obeyed`. All else stands under `samples`, `floor`, `surrogates` and `real`.

  Raises:
    DataError: attributes differ, a sample or split is empty, or there are too few graphs.
  """
  for name, part in [*real.items(), *((f"sample {n}", made) for n, made in enumerate(samples))]:
    if not len(part):
      raise errors.DataError(f"{name} has no graphs; expected some to compare")
  label = label or next(iter(real["train"].y_names), None)
  everything = dags_lib.concat([_bare(real[name]) for name in SPLITS])
  found = [_sample(made, real, everything, seeds[0]) for made in samples]
  result = _headline(found)
  labelled = label is not None and all(label in made.y_names for made in samples)
  surrogates: dict[str, Any] = {}
  if labelled:
    worth = synthetic_only.worth(real, samples, seeds, label, options)
    surrogates = worth._asdict()
    for measure in ("pearson", "spearman", "mae"):
      for name in ("synthetic", "real", "shuffled"):
        result[f"{measure}_{name}"] = synthetic_only.summary(surrogates[name], measure)
    result["label_correlation"] = synthetic_only.summary(worth.asked, "pearson")["mean"]
    ours, theirs = (result[f"pearson_{name}"]["mean"] for name in ("synthetic", "real"))
    result["pearson_ratio"] = ours / theirs if samples and theirs > 0 else None
  twins = np.isin(real["test"].hashes(), real["train"].hashes())
  result.update(
      label=label if labelled else None, samples=found, floor=_floor(real, everything, seeds[0]),
      surrogates=surrogates,
      real={**{name: len(real[name]) for name in SPLITS}, "test_with_a_twin_in_training":
            int(twins.sum()), "structures": len(np.unique(everything.hashes()))})
  return _finite(result)


def _sample(made: dags_lib.Dags, real: Mapping[str, dags_lib.Dags], everything: dags_lib.Dags,
            seed: int) -> dict[str, Any]:
  """All measures of one sample that need no surrogate."""
  valid = measures.arity_valid(made, real["train"])
  cost = made.provenance.get("graphs_per_cpu_second")
  return {
      "graphs": len(made), "arity_valid_nodes": float(valid.nodes.mean()),
      "arity_valid_graphs": float(valid.graphs.mean()),
      "to_all": measures.distances(made, everything),
      "to_training": measures.distances(made, real["train"]),
      "to_test": measures.distances(made, real["test"]),
      "two_sample": two_sample.two_sample(made, real["test"], seed),
      **measures.copies(made, real["train"]),
      **({"rule": rules.obeys(made).summary()} if rules.ATTRIBUTE in made.x_names else {}),
      "graphs_per_cpu_second": cost if isinstance(cost, (int, float)) else None,
      "provenance": made.provenance}


def _floor(real: Mapping[str, dags_lib.Dags], everything: dags_lib.Dags, seed: int
           ) -> dict[str, Any]:
  """The same of real graphs: the test split, and random parts of the same size."""
  test, train = real["test"], real["train"]
  valid = measures.arity_valid(test, train)
  rng = np.random.default_rng([seed, 3])
  drawn: list[dict[str, float]] = []
  for _ in range(_DRAWS):
    order = rng.permutation(len(everything))
    drawn.append(measures.distances(everything.take(order[:len(test)]),
                                    everything.take(order[len(test):])))
  return {
      "arity_valid_nodes": float(valid.nodes.mean()),
      "arity_valid_graphs": float(valid.graphs.mean()),
      "test_to_training": measures.distances(test, train),
      "random_part_to_rest": {name: float(np.mean([one[name] for one in drawn]))
                              for name in drawn[0]},
      "two_sample": two_sample.two_sample(train, test, seed),
      **measures.copies(test, train),
      "random_split": measures.copies_by_chance(everything, len(train), seed)}


def _headline(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The keys at the top, but for those of surrogates: means over the samples."""
  result: dict[str, Any] = dict.fromkeys(
      ("pearson_synthetic", "pearson_real", "pearson_shuffled", "label_correlation"))
  if not found:
    return result
  mean = lambda values: float(np.mean(list(values)))
  for name in ("arity_valid_nodes", "arity_valid_graphs", "copies_of_training", "distinct"):
    result[name] = mean(one[name] for one in found)
  # A generator can only come as near to other graphs as those that it was shown are.
  for name in found[0]["to_training"]:
    result[name] = mean(one["to_training"][name] for one in found)
  result["two_sample_auc"] = mean(one["two_sample"]["auc"] for one in found)
  rates = [one["graphs_per_cpu_second"] for one in found]
  result["graphs_per_cpu_second"] = None if None in rates else mean(rates)
  if "rule" in found[0]:
    result["rule_obeyed"] = {name: mean(one["rule"][name] for one in found)
                             for name in found[0]["rule"]}
  return result


def markdown(result: Mapping[str, Any]) -> str:
  """The page of `evaluate`'s result."""
  samples, floor, real = result["samples"], result["floor"], result["real"]
  lines = [
      "# Made graphs beside real ones", "",
      f"{', '.join(str(one['graphs']) for one in samples) or 'No'} made graphs; "
      f"{real['train']} real ones for training, {real['valid']} for validation, {real['test']} for "
      f"the test, {real['structures']} structures; {real['test_with_a_twin_in_training']} test "
      "graphs have a twin in training.", ""]
  if result["surrogates"]:
    lines += [
        f"## Surrogates of `{result['label']}`, on real test graphs", "",
        "| trained and validated on | Pearson | Spearman | mean absolute error |",
        "| --- | --- | --- | --- |"]
    lines += [f"| {title} | {' | '.join(_spread(result[f'{name}_{part}']) for name in _WORTH)} |"
              for part, title in (("real", "real graphs"), ("synthetic", "made graphs"),
                                  ("shuffled", "made graphs, labels shuffled"))
              if result[f"pearson_{part}"]["n"]]
    lines += ["", "Mean ± standard deviation over seeds"
              + (" and samples." if len(samples) > 1 else "."), ""]
    if samples:
      lines += [
          f"Made-trained over real-trained: {_number(result['pearson_ratio'])}. Asked label and "
          "the label that surrogates of real graphs predict: correlation "
          f"{_number(result['label_correlation'])}.", ""]
  mean = lambda *keys: _number(_mean_at(samples, keys))
  lines += [
      "## Validity, copies, diversity", "",
      "| | made | real test graphs |", "| --- | --- | --- |",
      f"| nodes with a number of operands seen in training | {mean('arity_valid_nodes')} | "
      f"{_number(floor['arity_valid_nodes'])} |",
      f"| graphs with such nodes only | {mean('arity_valid_graphs')} | "
      f"{_number(floor['arity_valid_graphs'])} |"]
  for suffix, which in (("", f" of {measures.COPY_NODES} nodes or more"), ("_all", "")):
    chance = _number(floor["random_split"]["copies_of_training" + suffix])
    lines += [
        f"| copies of training graphs{which} | {mean('copies_of_training' + suffix)} | "
        f"{_number(floor['copies_of_training' + suffix])} (in a random split: {chance}) |",
        f"| different graphs{which} / graphs | {mean('distinct' + suffix)} | "
        f"{_number(floor['distinct' + suffix])} |"]
  lines += [
      f"| classifier, made or real: AUC | {mean('two_sample', 'auc')} | "
      f"{_number(floor['two_sample']['auc'])} (training or test) |",
      f"| classifier, made or real: accuracy | {mean('two_sample', 'accuracy')} | "
      f"{_number(floor['two_sample']['accuracy'])} (training or test) |"]
  if samples and "rule" in samples[0]:
    lines += [f"| {name.replace('_', ' ')} that obey the rule | {mean('rule', name)} | |"
              for name in samples[0]["rule"]]
  lines += ["", "## Distances", "",
            "| | made to all real | made to training | made to test | real: test to training | "
            "real: random part to the rest |", "| --- | --- | --- | --- | --- | --- |"]
  for name in floor["test_to_training"]:
    cells = [mean(part, name) for part in ("to_all", "to_training", "to_test")]
    cells += [_number(floor[part][name]) for part in ("test_to_training", "random_part_to_rest")]
    lines.append(f"| {_distance_name(name)} | {' | '.join(cells)} |")
  lines += ["", "Wasserstein distances are in the unit of the quantity; total variations are "
            "shares, from 0 to 1.", ""]
  return "\n".join(lines)


_WORTH = ("pearson", "spearman", "mae")


def _distance_name(key: str) -> str:
  kind, _, rest = key.partition("_")
  return (f"Wasserstein, {rest.replace('_', ' ')}" if kind == "wasserstein" else
          f"total variation, {rest.replace('_pairs', ' of consumer and operand')}")


def _mean_at(samples: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> float | None:
  values = []
  for one in samples:
    value: Any = one
    for key in keys:
      value = value[key]
    values.append(value)
  return None if not values or None in values else float(np.mean(values))


def _number(value: float | None) -> str:
  return "-" if value is None else f"{value:.3f}"


def _spread(value: Mapping[str, float]) -> str:
  return f"{value['mean']:.3f} ± {value['sd']:.3f} (n = {value['n']})"


def _bare(graphs: dags_lib.Dags) -> dags_lib.Dags:
  return graphs.with_labels(np.zeros([len(graphs), 0]), ())


def _finite(value: Any) -> Any:
  """JSON has no NaN: what is not defined is None."""
  if isinstance(value, dict):
    return {key: _finite(entry) for key, entry in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(entry) for entry in value]
  if isinstance(value, np.generic):
    value = value.item()
  return None if isinstance(value, float) and not math.isfinite(value) else value
