"""Sample graphs from a trained LayerDAG.

  tpugraphs-rank layerdag sample --run_dir runs/layerdag --count 1000 --output samples.npz
  tpugraphs-rank layerdag sample --run_dir runs/layerdag --count 50 --output slow.npz \\
    --labels runtime=8.5,size=60 --guidance 1.5 --seed 3

Conditions without a value are sampled from the training graphs. The output file stores the
requested conditions as labels of its graphs. Its provenance records how they were sampled and how
long that took.
"""

import logging
import pathlib
import time
from typing import Any, TYPE_CHECKING

from absl import flags
import numpy as np

from tpugraphs_rank import errors

if TYPE_CHECKING:
  from tpugraphs_rank.synthesis.layerdag import critic as critic_lib
  from tpugraphs_rank.synthesis.layerdag import model as model_lib

_log = logging.getLogger("tpugraphs_rank.layerdag")


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run_dir", None, "Run directory of `layerdag train`, or the file of a model.",
                      required=True)
  flags.DEFINE_integer("count", 100, "Number of graphs.", lower_bound=1)
  flags.DEFINE_string("output", None, "The .npz file to write.", required=True)
  flags.DEFINE_list("labels", [], "Conditions of all graphs: NAME=NUMBER,...")
  flags.DEFINE_string("labels_from", None, "A file of graphs. The samples use the labels of its "
                      "graphs as conditions, in order, and start over at the end.")
  flags.DEFINE_integer("seed", 0, "Seed of the samples. A critic does not depend on it.",
                       lower_bound=0)
  flags.DEFINE_boolean("constrained", True, "Allow only operand counts that the training graphs "
                       "have for an operation.")
  flags.DEFINE_float("temperature", 1.0, "Below 1, graphs are more probable and less diverse.",
                     lower_bound=0.01)
  flags.DEFINE_float("guidance", 1.0, "Above 1, the effect of the conditions is amplified.",
                     lower_bound=0.0)
  flags.DEFINE_integer("node_spans", None, "Diffusion steps for nodes. By default as in training.",
                       lower_bound=1)
  flags.DEFINE_integer("edge_spans", None, "Diffusion steps for edges. By default as in training.",
                       lower_bound=1)
  flags.DEFINE_integer("tries", 1, "Graphs sampled per kept graph. The kept graph is the one whose "
                       "label, as a critic predicts it, is closest to the condition.",
                       lower_bound=1)
  flags.DEFINE_string("critic_graphs", None, "Training graphs of the critic; required by --tries "
                      "above 1.")
  flags.DEFINE_string("critic_label", None, "Label that the critic predicts. By default the first "
                      "label of --critic_graphs.")
  flags.DEFINE_integer("critics", 4, "Number of surrogates in the critic.", lower_bound=1)
  flags.DEFINE_integer("max_nodes", None, "Maximum nodes of a graph; larger ones are sampled "
                       "again. By default the maximum in training, or half more than the "
                       "requested size if that is larger.", lower_bound=1)
  flags.DEFINE_integer("max_layers", None, "Maximum layers of a graph; deeper ones are sampled "
                       "again. By default half more than the maximum in training.", lower_bound=1)
  flags.DEFINE_integer("batch", 256, "Graphs sampled at the same time. Memory grows with it.",
                       lower_bound=1)
  flags.DEFINE_integer("threads", 1, "Threads of TensorFlow within an operation.", lower_bound=1)


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  labels: dict[str, Any] = {**_labels(values.labels)}
  if (values.tries > 1) != bool(values.critic_graphs):
    raise errors.ConfigError("--tries above 1 and --critic_graphs, the training graphs of the "
                             "critic, go together; expected both or neither")
  from tpugraphs_rank.synthesis.dags import dags
  from tpugraphs_rank.synthesis.layerdag import conditions
  from tpugraphs_rank.synthesis.layerdag import model as model_lib
  from tpugraphs_rank.synthesis.layerdag import sampler
  from tpugraphs_rank.training import runtime
  runtime.configure(values.seed, values.threads)
  path = pathlib.Path(values.run_dir)
  model = model_lib.LayerDAG.load(path / "model.npz" if path.is_dir() else path)
  if values.labels_from:
    names = model.generator.facts.conditions.names
    table = model.generator.conditions_of(dags.load(values.labels_from))
    if not len(table):
      raise errors.ConfigError(
          f"--labels_from={values.labels_from} contains no graphs; expected at least one")
    labels = {**dict(zip(names, table[np.arange(values.count) % len(table)].T)), **labels}
  for sentence in conditions.unfamiliar(model.generator.facts.conditions, labels):
    _log.warning("%s", sentence)
  options = sampler.Options(
      constrained=values.constrained, temperature=values.temperature, guidance=values.guidance,
      node_spans=values.node_spans, edge_spans=values.edge_spans, max_nodes=values.max_nodes,
      max_layers=values.max_layers, batch=values.batch)
  critic, about = _critic(values, model) if values.critic_graphs else (None, {})
  started = time.process_time()
  samples = model.sample(values.count, labels, values.seed, options, critic)
  seconds = time.process_time() - started
  samples = samples.with_provenance({
      **samples.provenance, **about, "cpu_seconds": round(seconds, 2),
      "graphs_per_cpu_second": round(len(samples) / seconds, 2)})
  dags.save(values.output, samples)
  print(f"{len(samples)} graphs, {len(samples.x)} nodes, in {seconds:.1f} CPU s including tracing; "
        f"{samples.provenance['given_up']} were too large and sampled again: {values.output}")


def _critic(values: flags.FlagValues, model: "model_lib.LayerDAG"
            ) -> tuple["critic_lib.Critic", dict[str, Any]]:
  """The trained critic, and what the provenance of the samples says about it."""
  from tpugraphs_rank.synthesis.dags import dags
  from tpugraphs_rank.synthesis.layerdag import critic as critic_lib
  graphs = dags.load(values.critic_graphs)
  label = values.critic_label or next(iter(graphs.y_names), "")
  names = model.generator.facts.conditions.names
  if label not in names:  # Checked before minutes go into training the critic.
    raise errors.ConfigError(
        f"--critic_label={label}: not a condition of this model; expected one of: "
        f"{', '.join(names) or 'none'}")
  started = time.process_time()
  critic = critic_lib.Critic.fit(graphs, label, values.critics, values.tries)
  # Training is not part of sampling: it takes as long for one graph as for many.
  return critic, {"critics": values.critics, "critic_label": label,
                  "critic_cpu_seconds": round(time.process_time() - started, 2)}


def _labels(entries: list[str]) -> dict[str, float]:
  """The conditions in --labels."""
  labels = {}
  for entry in entries:
    name, _, value = entry.partition("=")
    try:
      labels[name.strip()] = float(value)
    except ValueError:
      raise errors.ConfigError(
          f"--labels has {entry!r}; expected NAME=NUMBER, such as size=40") from None
  return labels
