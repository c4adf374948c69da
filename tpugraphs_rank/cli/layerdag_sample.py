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
from tpugraphs_rank.cli import app

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run directory of tpugraphs_rank.cli.layerdag_train, or "
                               "the file of a model.", required=True)
_COUNT = flags.DEFINE_integer("count", 100, "How many graphs.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "The file of graphs that is written.", required=True)
_LABELS = flags.DEFINE_list("labels", [], "Conditions of all graphs: NAME=NUMBER,...")
_LABELS_FROM = flags.DEFINE_string(
    "labels_from", None, "A file of graphs whose conditions are asked for, one after the other and "
    "again from the first.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of what is drawn. A critic is the same for all "
                             "samples.", lower_bound=0)
_CONSTRAINED = flags.DEFINE_boolean(
    "constrained", True, "Only numbers of operands that training showed for an operation.")
_TEMPERATURE = flags.DEFINE_float(
    "temperature", 1.0, "Below 1: likelier and less various graphs.", lower_bound=0.01)
_GUIDANCE = flags.DEFINE_float(
    "guidance", 1.0, "Above 1: what the conditions change is exaggerated.", lower_bound=0.0)
_NODE_SPANS = flags.DEFINE_integer(
    "node_spans", None, "Steps of the diffusion of nodes; otherwise as in training.", lower_bound=1)
_EDGE_SPANS = flags.DEFINE_integer(
    "edge_spans", None, "Steps of the diffusion of edges; otherwise as in training.", lower_bound=1)
_TRIES = flags.DEFINE_integer(
    "tries", 1, "Graphs drawn for each that is kept: that whose label, as a critic predicts it, is "
    "nearest to the one asked for.", lower_bound=1)
_CRITIC_GRAPHS = flags.DEFINE_string(
    "critic_graphs", None, "The training graphs, which the critic learns from; with --tries.")
_CRITIC_LABEL = flags.DEFINE_string(
    "critic_label", None, "The label that it predicts; otherwise the first of those graphs.")
_CRITICS = flags.DEFINE_integer("critics", 4, "Surrogates that make up the critic.", lower_bound=1)
_MOST_NODES = flags.DEFINE_integer(
    "most_nodes", None, "Larger graphs are given up; otherwise the most in training.",
    lower_bound=1)
_MOST_LAYERS = flags.DEFINE_integer(
    "most_layers", None, "Deeper graphs are given up; otherwise the most in training.",
    lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 256, "Graphs at a time; memory grows with it.",
                              lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads within an operation.", lower_bound=1)


def main(_) -> None:
  labels = _given()
  if (_TRIES.value > 1) != bool(_CRITIC_GRAPHS.value):
    raise errors.ConfigError("--tries above 1 and --critic_graphs, the file that the critic learns "
                             "from, go together; expected both or neither")
  from tpugraphs_rank.synthesis.dags import dags
  from tpugraphs_rank.synthesis.layerdag import critic as critic_lib
  from tpugraphs_rank.synthesis.layerdag import model as model_lib
  from tpugraphs_rank.synthesis.layerdag import sampler
  from tpugraphs_rank.training import runtime
  runtime.configure(_SEED.value, _THREADS.value)
  path = pathlib.Path(_RUN_DIR.value)
  model = model_lib.LayerDAG.load(path / "model.npz" if path.is_dir() else path)
  if _LABELS_FROM.value:
    names = model.generator.facts.conditions.names
    table = model.generator.conditions_of(dags.load(_LABELS_FROM.value))
    if not len(table):
      raise errors.ConfigError(f"--labels_from={_LABELS_FROM.value} holds no graphs; expected one "
                               "at least")
    rows = [place % len(table) for place in range(_COUNT.value)]
    labels = {**dict(zip(names, table[rows].T)), **labels}
  options = sampler.Options(
      constrained=_CONSTRAINED.value, temperature=_TEMPERATURE.value, guidance=_GUIDANCE.value,
      node_spans=_NODE_SPANS.value, edge_spans=_EDGE_SPANS.value, most_nodes=_MOST_NODES.value,
      most_layers=_MOST_LAYERS.value, batch=_BATCH.value)
  started = time.process_time()
  critic, about = None, {}
  if _CRITIC_GRAPHS.value:
    known = dags.load(_CRITIC_GRAPHS.value)
    label = _CRITIC_LABEL.value or next(iter(known.y_names), "")
    names = model.generator.facts.conditions.names
    if label not in names:  # Before minutes are spent on the critics.
      raise errors.ConfigError(
          f"--critic_label={label}: the model is not asked for it; expected one of its conditions: "
          f"{', '.join(names) or 'none'}")
    critic = critic_lib.Critic.fit(known, label, _CRITICS.value, _TRIES.value)
    # Learning is no part of sampling: it takes as long for one graph as for many.
    about = {"critics": _CRITICS.value, "critic_label": label,
             "critic_cpu_seconds": round(time.process_time() - started, 2)}
  started = time.process_time()
  drawn = model.sample(_COUNT.value, labels, _SEED.value, options, critic)
  seconds = time.process_time() - started
  drawn = drawn.with_provenance({**drawn.provenance, **about, "cpu_seconds": round(seconds, 2),
                                 "graphs_per_cpu_second": round(len(drawn) / seconds, 2)})
  dags.save(_OUTPUT.value, drawn)
  print(f"{len(drawn)} graphs, {len(drawn.x)} nodes, in {seconds:.1f} CPU s, the first traces "
        f"included; {drawn.provenance['given_up']} were given up and drawn again: {_OUTPUT.value}")


def _given() -> dict[str, float]:
  """What --labels says."""
  found = {}
  for entry in _LABELS.value:
    name, _, value = entry.partition("=")
    try:
      found[name.strip()] = float(value)
    except ValueError:
      raise errors.ConfigError(
          f"--labels has {entry!r}; expected NAME=NUMBER, such as size=40") from None
  return found


if __name__ == "__main__":
  app.run(main)
