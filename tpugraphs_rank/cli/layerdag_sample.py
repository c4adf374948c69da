"""Draws graphs from a trained LayerDAG into one file.

  python -m tpugraphs_rank.cli.layerdag_sample --run_dir runs/layerdag --count 1000 --output samples.npz
  python -m tpugraphs_rank.cli.layerdag_sample --run_dir runs/layerdag --count 50 --output slow.npz \\
    --labels runtime=8.5,size=60 --guidance 1.5 --seed 3

Conditions that are not given are drawn from the training graphs. The file holds what was asked for
as the labels of its graphs, and in its provenance how it was made and how long that took.
"""

import pathlib
import time

from absl import flags

from tpugraphs_rank import errors


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run_dir", None, "Run directory of tpugraphs_rank.cli.layerdag_train, or "
                      "the file of a model.", required=True)
  flags.DEFINE_integer("count", 100, "How many graphs.", lower_bound=1)
  flags.DEFINE_string("output", None, "The file of graphs that is written.", required=True)
  flags.DEFINE_list("labels", [], "Conditions of all graphs: NAME=NUMBER,...")
  flags.DEFINE_string(
      "labels_from", None, "A file of graphs whose conditions are asked for, one after the other and "
      "again from the first.")
  flags.DEFINE_integer("seed", 0, "Seed of what is drawn. A critic is the same for all "
                       "samples.", lower_bound=0)
  flags.DEFINE_boolean(
      "constrained", True, "Only numbers of operands that training showed for an operation.")
  flags.DEFINE_float(
      "temperature", 1.0, "Below 1: likelier and less various graphs.", lower_bound=0.01)
  flags.DEFINE_float(
      "guidance", 1.0, "Above 1: what the conditions change is exaggerated.", lower_bound=0.0)
  flags.DEFINE_integer(
      "node_spans", None, "Steps of the diffusion of nodes; otherwise as in training.", lower_bound=1)
  flags.DEFINE_integer(
      "edge_spans", None, "Steps of the diffusion of edges; otherwise as in training.", lower_bound=1)
  flags.DEFINE_integer(
      "tries", 1, "Graphs drawn for each that is kept: that whose label, as a critic predicts it, is "
      "nearest to the one asked for.", lower_bound=1)
  flags.DEFINE_string(
      "critic_graphs", None, "The training graphs, which the critic learns from; with --tries.")
  flags.DEFINE_string(
      "critic_label", None, "The label that it predicts; otherwise the first of those graphs.")
  flags.DEFINE_integer("critics", 4, "Surrogates that make up the critic.", lower_bound=1)
  flags.DEFINE_integer(
      "most_nodes", None, "Larger graphs are given up; otherwise the most in training.",
      lower_bound=1)
  flags.DEFINE_integer(
      "most_layers", None, "Deeper graphs are given up; otherwise the most in training.",
      lower_bound=1)
  flags.DEFINE_integer("batch", 256, "Graphs at a time; memory grows with it.",
                       lower_bound=1)
  flags.DEFINE_integer("threads", 1, "Threads within an operation.", lower_bound=1)


def main(argv: list[str]) -> None:
  """Runs the command."""
  labels = _given()
  if (flags.FLAGS.tries > 1) != bool(flags.FLAGS.critic_graphs):
    raise errors.ConfigError("--tries above 1 and --critic_graphs, the file that the critic learns "
                             "from, go together; expected both or neither")
  from tpugraphs_rank.synthesis.dags import dags
  from tpugraphs_rank.synthesis.layerdag import critic as critic_lib
  from tpugraphs_rank.synthesis.layerdag import model as model_lib
  from tpugraphs_rank.synthesis.layerdag import sampler
  from tpugraphs_rank.training import runtime
  runtime.configure(flags.FLAGS.seed, flags.FLAGS.threads)
  path = pathlib.Path(flags.FLAGS.run_dir)
  model = model_lib.LayerDAG.load(path / "model.npz" if path.is_dir() else path)
  if flags.FLAGS.labels_from:
    names = model.generator.facts.conditions.names
    table = model.generator.conditions_of(dags.load(flags.FLAGS.labels_from))
    if not len(table):
      raise errors.ConfigError(f"--labels_from={flags.FLAGS.labels_from} holds no graphs; expected one "
                               "at least")
    rows = [place % len(table) for place in range(flags.FLAGS.count)]
    labels = {**dict(zip(names, table[rows].T)), **labels}
  options = sampler.Options(
      constrained=flags.FLAGS.constrained, temperature=flags.FLAGS.temperature, guidance=flags.FLAGS.guidance,
      node_spans=flags.FLAGS.node_spans, edge_spans=flags.FLAGS.edge_spans, most_nodes=flags.FLAGS.most_nodes,
      most_layers=flags.FLAGS.most_layers, batch=flags.FLAGS.batch)
  started = time.process_time()
  critic, about = None, {}
  if flags.FLAGS.critic_graphs:
    known = dags.load(flags.FLAGS.critic_graphs)
    label = flags.FLAGS.critic_label or next(iter(known.y_names), "")
    names = model.generator.facts.conditions.names
    if label not in names:  # Before minutes are spent on the critics.
      raise errors.ConfigError(
          f"--critic_label={label}: the model is not asked for it; expected one of its conditions: "
          f"{', '.join(names) or 'none'}")
    critic = critic_lib.Critic.fit(known, label, flags.FLAGS.critics, flags.FLAGS.tries)
    # Learning is no part of sampling: it takes as long for one graph as for many.
    about = {"critics": flags.FLAGS.critics, "critic_label": label,
             "critic_cpu_seconds": round(time.process_time() - started, 2)}
  started = time.process_time()
  drawn = model.sample(flags.FLAGS.count, labels, flags.FLAGS.seed, options, critic)
  seconds = time.process_time() - started
  drawn = drawn.with_provenance({**drawn.provenance, **about, "cpu_seconds": round(seconds, 2),
                                 "graphs_per_cpu_second": round(len(drawn) / seconds, 2)})
  dags.save(flags.FLAGS.output, drawn)
  print(f"{len(drawn)} graphs, {len(drawn.x)} nodes, in {seconds:.1f} CPU s, the first traces "
        f"included; {drawn.provenance['given_up']} were given up and drawn again: {flags.FLAGS.output}")


def _given() -> dict[str, float]:
  """What --labels says."""
  found = {}
  for entry in flags.FLAGS.labels:
    name, _, value = entry.partition("=")
    try:
      found[name.strip()] = float(value)
    except ValueError:
      raise errors.ConfigError(
          f"--labels has {entry!r}; expected NAME=NUMBER, such as size=40") from None
  return found
