"""A ranker with the interface of scikit-learn and LightGBM: fit, predict, get_params.

    from tpugraphs_rank import sklearn as tgr_sklearn
    ranker = tgr_sklearn.Ranker(epochs=20, hidden_width=32).fit(graphs)
    scores = ranker.predict(graph)   # (c,), higher = faster
    ranker.save("runs/mine")         # A run directory, which all commands accept.

The graphs hold the configurations and their runtimes, so there is no separate `y`. Everything else
is `tpugraphs_rank.train`.
"""

from collections.abc import Sequence
import json
import pathlib
import shutil
import tempfile
from typing import Any
import weakref

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank.data import graphs as graphs_lib
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import splits

# Share of the graphs that validation uses where no validation graphs are given.
_VALID_FRACTION = 0.2


class Ranker:
  """A ranker of configurations that is fitted on a list of graphs.

  Attributes:
    run_: the trained run (`tpugraphs_rank.api.Run`); only after `fit` or `load`.
  """

  def __init__(self, config: files.PathLike | None = None, **settings: Any):
    """Stores the settings. `fit` checks them.

    Args:
      config: name of a recipe, or path of a JSON file with settings.
      **settings: settings of `tpugraphs_rank.train` by the names of their flags, for example
        `epochs=20`.
    """
    self.config = config
    self._settings = dict(settings)
    self.run_: Any = None

  def get_params(self, deep: bool = True) -> dict[str, Any]:
    """The arguments of the constructor, as scikit-learn's `clone` needs them."""
    del deep
    return {"config": self.config, **self._settings}

  def set_params(self, **params: Any) -> "Ranker":
    """Changes settings; they apply from the next `fit`."""
    params = dict(params)
    self.config = params.pop("config", self.config)
    self._settings.update(params)
    return self

  def __repr__(self) -> str:
    params = {name: value for name, value in self.get_params().items() if value is not None}
    return f"Ranker({', '.join(f'{name}={value!r}' for name, value in params.items())})"

  def fit(self, graphs: Sequence[graphs_lib.ConfiguredGraph],
          valid_graphs: Sequence[graphs_lib.ConfiguredGraph] | None = None) -> "Ranker":
    """Trains on graphs with runtimes.

    Args:
      graphs: graphs of one kind, tile or layout.
      valid_graphs: graphs for early stopping. Default: a fifth of `graphs`, sampled with the seed.

    Returns:
      The ranker itself.

    Raises:
      ConfigError: unknown settings.
      DataError: too few graphs, or graphs that do not fit together or have no runtimes.
    """
    from tpugraphs_rank import api  # TensorFlow.
    resolved = api.configuration(self.config, self._settings)
    train, valid = _divide(graphs, valid_graphs, resolved.training.seed)
    root = pathlib.Path(tempfile.mkdtemp(prefix="tpugraphs_rank_"))
    weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)
    descriptor = _write_collection(root / "graphs", train, valid)
    settings = {name: value for name, value in self._settings.items() if name != "collection"}
    self.run_ = api.train(descriptor, root / "run", config=self.config, **settings)
    shutil.rmtree(root / "graphs")
    return self

  def predict(self, graph: graphs_lib.ConfiguredGraph, configs: np.ndarray | None = None
              ) -> np.ndarray:
    """Scores configurations: (c,) float32, higher = faster.

    Args:
      graph: the graph. It needs no runtimes.
      configs: configurations to score instead of the graph's own, as for `Run.score`.

    Raises:
      RunDirectoryError: the ranker is not fitted.
    """
    return self._fitted().score(graph, configs)

  def rank(self, graph: graphs_lib.ConfiguredGraph, k: int = 10) -> np.ndarray:
    """Indices of the best k configurations, fastest first.

    Raises:
      RunDirectoryError: the ranker is not fitted.
    """
    return self._fitted().rank(graph, k)

  def score(self, graphs: Sequence[graphs_lib.ConfiguredGraph]) -> float:
    """The mean Kendall tau over graphs with runtimes; scikit-learn's searches maximise it.

    Raises:
      RunDirectoryError: the ranker is not fitted.
    """
    taus = [metrics.kendall_tau(splits.ProgramView(graph).runtimes, self.predict(graph))
            for graph in graphs]
    return float(metrics.mean_over_graphs(taus).mean)

  def save(self, run_dir: files.PathLike) -> None:
    """Copies the run directory to a new folder.

    Raises:
      RunDirectoryError: the ranker is not fitted.
      OutputError: the folder exists or cannot be written.
    """
    try:
      shutil.copytree(self._fitted().directory.path, run_dir)
    except OSError as error:
      raise errors.OutputError(f"cannot write {run_dir}: {error}; choose a new folder") from error

  @classmethod
  def load(cls, run_dir: files.PathLike) -> "Ranker":
    """A fitted ranker from a run directory or `bundled:NAME`.

    Raises:
      RunDirectoryError: the directory is incomplete or damaged.
    """
    from tpugraphs_rank import api  # TensorFlow.
    run = api.load_run(run_dir)
    ranker = cls(config=run.directory / "config.json")
    ranker.run_ = run
    return ranker

  def _fitted(self) -> Any:
    if self.run_ is None:
      raise errors.RunDirectoryError("this Ranker is not fitted; call fit(graphs) or load(run_dir)")
    return self.run_


def _divide(graphs: Sequence[graphs_lib.ConfiguredGraph],
            valid: Sequence[graphs_lib.ConfiguredGraph] | None, seed: int
            ) -> tuple[list[graphs_lib.ConfiguredGraph], list[graphs_lib.ConfiguredGraph]]:
  """Training and validation graphs."""
  for members in (graphs, valid):
    if members is not None and (isinstance(members, str) or not isinstance(members, Sequence)
                                or not all(isinstance(member, graphs_lib.Graph)
                                           for member in members)):
      raise errors.DataError(
          f"expected a list of graphs, not {type(members).__name__}; "
          "list(tpugraphs_rank.load_collection(...)) is one")
  if valid is not None:
    train, held_out = list(graphs), list(valid)
  else:
    order = np.random.default_rng(seed).permutation(len(graphs))
    count = max(round(_VALID_FRACTION * len(graphs)), 1)
    train = [graphs[place] for place in sorted(order[count:])]
    held_out = [graphs[place] for place in sorted(order[:count])]
  if not train or not held_out:
    raise errors.DataError(
        f"{len(train)} training and {len(held_out)} validation graphs; expected at least one of "
        "each")
  kinds = sorted({graph.kind or "bare" for graph in (*train, *held_out)})
  if len(kinds) > 1:
    raise errors.DataError(f"the graphs are of the kinds {', '.join(kinds)}; expected one kind")
  return train, held_out


def _write_collection(folder: pathlib.Path, train: Sequence[graphs_lib.ConfiguredGraph],
                      valid: Sequence[graphs_lib.ConfiguredGraph]) -> pathlib.Path:
  """Writes graphs as a collection; returns the path of its descriptor."""
  for split, members in (("train", train), ("valid", valid)):
    for place, graph in enumerate(members):
      npz.save_graph(folder / split / f"{place:06d}.npz", graph)
  kind = train[0].kind
  path = folder / "collection.json"
  files.write_text(path, json.dumps({
      "name": f"{kind}:fitted", "kind": kind, "target": "unknown",
      "padding": train[0].feature_padding,
      "splits": {"train": len(train), "valid": len(valid)}}))
  return path
