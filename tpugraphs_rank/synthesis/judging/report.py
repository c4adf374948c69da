"""Evaluates synthetic graphs against real ones, as one JSON object and one Markdown page.

Imports TensorFlow, for the surrogates.
"""

from collections.abc import Mapping, Sequence
import functools
import math
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import tables
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.dags import rules
from tpugraphs_rank.synthesis.judging import forest as forest_lib
from tpugraphs_rank.synthesis.judging import measures
from tpugraphs_rank.synthesis.judging import surrogate as surrogate_lib
from tpugraphs_rank.synthesis.judging import synthetic_only
from tpugraphs_rank.synthesis.judging import two_sample

# Number of random splits of the real graphs for the floor of the distances.
_DRAWS = 20
SPLITS = ("train", "valid", "test")
_AGREEMENT_MEASURES = ("pearson", "spearman", "mae")
# Prefix of the figures of random forests.
_FOREST = "forest_"


def evaluate(real: Mapping[str, dags_lib.Dags], samples: Sequence[dags_lib.Dags],
             seeds: Sequence[int], label: str | None = None,
             options: surrogate_lib.Options = surrogate_lib.DEFAULT_OPTIONS) -> dict[str, Any]:
  """Evaluates samples of synthetic graphs; figures of several samples are averaged.

  Distances are taken to all real graphs, to the training graphs and to the test graphs. A split by
  structure keeps all graphs of one structure together, so its parts differ more than two samples of
  one distribution would; the rows of the floor quantify this.

  Args:
    real: "train", "valid" and "test", without graphs in common.
    samples: synthetic graphs whose generator was not trained on "valid" or "test".
    seeds: seeds of the surrogates and forests.
    label: label that surrogates and forests predict; None: the first label of the real graphs.
      Without labels none are trained.
    options: options of the surrogates.

  Returns:
    A value that can be written as JSON. Its top level has these keys, None where undefined:
    `pearson_synthetic`, `_real` and `_shuffled` (mean, sd, n; also for `spearman_` and `mae_`),
    `pearson_ratio` (synthetic / real) and `label_correlation` (of requested labels with those that
    surrogates of real graphs predict), all of them also of forests, with the prefix `forest_`;
    `arity_valid_nodes`, `arity_valid_graphs`, `copies_of_training` and `distinct` (of graphs with
    10 nodes or more), all distances to the training graphs, `two_sample_auc`; from the samples'
    provenance `graphs_per_cpu_second` and, with the CPU time that training their critic took,
    `graphs_per_cpu_second_with_critic`; and, for graphs of the rule-based family, `rule_obeyed`.
    Everything else is under `samples`, `floor`, `surrogates`, `forests` and `real`.

  Raises:
    DataError: attributes differ, a sample or split is empty, or there are too few graphs.
  """
  named = [*real.items(), *((f"sample {n}", sample) for n, sample in enumerate(samples))]
  for name, graphs in named:
    if not len(graphs):
      raise errors.DataError(f"{name} has no graphs; expected at least one")
  label = label or next(iter(real["train"].y_names), None)
  everything = dags_lib.concat([_bare(real[name]) for name in SPLITS])
  measured = [_sample(sample, real, everything, seeds[0]) for sample in samples]
  result = _headline(measured)
  labelled = label is not None and all(label in sample.y_names for sample in samples)
  predictors: dict[str, dict[str, Any]] = {"surrogates": {}, "forests": {}}
  if labelled:
    for name, prefix, learn in (
        ("surrogates", "", functools.partial(surrogate_lib.train, options=options)),
        ("forests", _FOREST, forest_lib.train)):
      agreement = synthetic_only.evaluate(real, samples, seeds, label, learn)
      predictors[name] = agreement._asdict()
      result.update({f"{prefix}{key}": value for key, value in _agreement(agreement).items()})
  twins = np.isin(real["test"].hashes(), real["train"].hashes())
  result.update(
      label=label if labelled else None, samples=measured, floor=_floor(real, everything, seeds[0]),
      **predictors,
      real={**{name: len(real[name]) for name in SPLITS}, "test_with_a_twin_in_training":
            int(twins.sum()), "structures": len(np.unique(everything.hashes()))})
  return _finite(result)


def _agreement(agreement: synthetic_only.Agreement) -> dict[str, Any]:
  """The top-level figures of surrogates, or of forests."""
  result: dict[str, Any] = {
      f"{measure}_{name}": synthetic_only.summary(getattr(agreement, name), measure)
      for measure in _AGREEMENT_MEASURES for name in ("synthetic", "real", "shuffled")}
  result["label_correlation"] = synthetic_only.summary(agreement.requested, "pearson")["mean"]
  ours, theirs = (result[f"pearson_{name}"]["mean"] for name in ("synthetic", "real"))
  result["pearson_ratio"] = ours / theirs if ours is not None and theirs > 0 else None
  return result


def _sample(sample: dags_lib.Dags, real: Mapping[str, dags_lib.Dags], everything: dags_lib.Dags,
            seed: int) -> dict[str, Any]:
  """All measures of one sample that need no surrogate."""
  valid = measures.arity_valid(sample, real["train"])
  rate, critic = (_number_in(sample.provenance, name)
                  for name in ("graphs_per_cpu_second", "critic_cpu_seconds"))
  return {
      "graphs": len(sample), "arity_valid_nodes": float(valid.nodes.mean()),
      "arity_valid_graphs": float(valid.graphs.mean()),
      "to_all": measures.distances(sample, everything),
      "to_training": measures.distances(sample, real["train"]),
      "to_test": measures.distances(sample, real["test"]),
      "two_sample": two_sample.two_sample(sample, real["test"], seed),
      **measures.copies(sample, real["train"]),
      **({"rule": rules.obeys(sample).summary()} if rules.ATTRIBUTE in sample.x_names else {}),
      "graphs_per_cpu_second": rate,
      "graphs_per_cpu_second_with_critic":
          None if rate is None else rate / (1 + rate * (critic or 0) / len(sample)),
      "provenance": sample.provenance}


def _number_in(provenance: Mapping[str, Any], name: str) -> float | None:
  """A number of the provenance that is not negative; anybody may have written the provenance."""
  value = provenance.get(name)
  return value if isinstance(value, (int, float)) and value >= 0 else None


def _floor(real: Mapping[str, dags_lib.Dags], everything: dags_lib.Dags, seed: int
           ) -> dict[str, Any]:
  """The same measures for real graphs: the test split, and random subsets of the same size."""
  test, train = real["test"], real["train"]
  valid = measures.arity_valid(test, train)
  rng = np.random.default_rng([seed, 3])
  splits: list[dict[str, float]] = []
  for _ in range(_DRAWS):
    order = rng.permutation(len(everything))
    splits.append(measures.distances(everything.take(order[:len(test)]),
                                     everything.take(order[len(test):])))
  return {
      "arity_valid_nodes": float(valid.nodes.mean()),
      "arity_valid_graphs": float(valid.graphs.mean()),
      "test_to_training": measures.distances(test, train),
      "random_part_to_rest": {name: float(np.mean([one[name] for one in splits]))
                              for name in splits[0]},
      "two_sample": two_sample.two_sample(train, test, seed),
      **measures.copies(test, train),
      "random_split": measures.copies_by_chance(everything, len(train), seed)}


def _headline(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The top-level keys that need no surrogate: means over the samples."""
  result: dict[str, Any] = dict.fromkeys(
      f"{prefix}{name}" for prefix in ("", _FOREST)
      for name in ("pearson_synthetic", "pearson_real", "pearson_shuffled", "label_correlation"))
  if not measured:
    return result
  mean = lambda values: float(np.mean(list(values)))
  for name in ("arity_valid_nodes", "arity_valid_graphs", "copies_of_training", "distinct"):
    result[name] = mean(one[name] for one in measured)
  # A generator cannot be closer to other graphs than its training graphs are.
  for name in measured[0]["to_training"]:
    result[name] = mean(one["to_training"][name] for one in measured)
  result["two_sample_auc"] = mean(one["two_sample"]["auc"] for one in measured)
  for name in ("graphs_per_cpu_second", "graphs_per_cpu_second_with_critic"):
    rates = [one[name] for one in measured]
    result[name] = None if None in rates else mean(rates)
  if "rule" in measured[0]:
    result["rule_obeyed"] = {name: mean(one["rule"][name] for one in measured)
                             for name in measured[0]["rule"]}
  return result


def markdown(result: Mapping[str, Any]) -> str:
  """The Markdown page of an `evaluate` result."""
  samples, floor, real = result["samples"], result["floor"], result["real"]
  lines = [
      "# Synthetic graphs compared with real graphs", "",
      f"{', '.join(str(one['graphs']) for one in samples) or 'No'} synthetic graphs. Real graphs: "
      f"{real['train']} for training, {real['valid']} for validation, {real['test']} for testing, "
      f"with {real['structures']} distinct structures; {real['test_with_a_twin_in_training']} test "
      "graphs have a structural twin in training.", ""]
  if result["surrogates"]:
    lines += [f"## Predictors of `{result['label']}`, tested on real graphs", "", tables.markdown(
        ["predictor", "trained on", "Pearson", "Spearman", "mean absolute error"],
        [[kind, title, *(_spread(result[f"{prefix}{name}_{source}"])
                         for name in _AGREEMENT_MEASURES)]
         for kind, prefix in (("surrogate", ""), ("random forest", _FOREST))
         for source, title in (("real", "real graphs"), ("synthetic", "synthetic graphs"),
                               ("shuffled", "synthetic graphs, labels shuffled"))
         if result[f"pearson_{source}"]["n"]]),
        "", "Mean ± standard deviation over seeds" + (" and samples." if len(samples) > 1 else "."),
        "A surrogate averages networks, like those of the critic that chooses among generated "
        "graphs, with a random forest. The random forest alone is a judge that is unrelated to the "
        "critic: it sees how often each attribute value and each pair of values of a node and its "
        "operand occurs. It does not use validation graphs.", ""]
    if samples:
      lines += [
          "Pearson of predictors trained on synthetic graphs / on real graphs: "
          f"{_number(result['pearson_ratio'])} for surrogates, "
          f"{_number(result[f'{_FOREST}pearson_ratio'])} for forests. Correlation of requested "
          "labels with the labels that predictors of real graphs give: "
          f"{_number(result['label_correlation'])} for surrogates, "
          f"{_number(result[f'{_FOREST}label_correlation'])} for forests.", ""]
  mean = lambda *keys: _number(_mean_at(samples, keys))
  rows = [
      ["nodes with a number of operands that occurs in training", mean("arity_valid_nodes"),
       _number(floor["arity_valid_nodes"])],
      ["graphs with only such nodes", mean("arity_valid_graphs"),
       _number(floor["arity_valid_graphs"])]]
  for suffix, which in (("", f" with {measures.COPY_NODES} nodes or more"), ("_all", "")):
    chance = _number(floor["random_split"]["copies_of_training" + suffix])
    rows += [
        [f"copies of training graphs{which}", mean("copies_of_training" + suffix),
         f"{_number(floor['copies_of_training' + suffix])} (in a random split: {chance})"],
        [f"distinct graphs{which} / graphs", mean("distinct" + suffix),
         _number(floor["distinct" + suffix])]]
  for measure, title in (("auc", "AUC"), ("accuracy", "accuracy")):
    rows.append([f"classifier, synthetic or real: {title}", mean("two_sample", measure),
                 f"{_number(floor['two_sample'][measure])} (training or test)"])
  if samples and "rule" in samples[0]:
    rows += [[f"{name.replace('_', ' ')} that obey the rule", mean("rule", name), ""]
             for name in samples[0]["rule"]]
  lines += ["## Validity, copies, diversity", "",
            tables.markdown(["", "synthetic", "real test graphs"], rows),
            "## Distances", "",
            tables.markdown(
                ["", "synthetic to all real", "synthetic to training", "synthetic to test",
                 "real: test to training", "real: random subset to the rest"],
                [[_distance_name(name),
                  *(mean(part, name) for part in ("to_all", "to_training", "to_test")),
                  *(_number(floor[part][name])
                    for part in ("test_to_training", "random_part_to_rest"))]
                 for name in floor["test_to_training"]]),
            "Wasserstein distances are in the unit of the quantity; total variation distances are "
            "between 0 and 1.", ""]
  return "\n".join(lines)


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
  """Replaces NaN and infinity, which JSON does not have, by None."""
  if isinstance(value, dict):
    return {key: _finite(entry) for key, entry in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(entry) for entry in value]
  if isinstance(value, np.generic):
    value = value.item()
  return None if isinstance(value, float) and not math.isfinite(value) else value
