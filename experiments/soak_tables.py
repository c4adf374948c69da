"""Tables of `results/soak.json`, which `./run soak` writes."""

from typing import Any

from tpugraphs_rank import tables

# Reader -> what it reads, for readers of the documentation.
_NAMES = {
    "graph": "`.npz` graphs", "packed": "packed graphs", "packed_index": "indices of packed splits",
    "hlo": "HLO protobufs", "raw": "raw measurements", "hlo_text": "HLO text",
    "candidates": "candidates in `.npz` files", "config": "settings",
    "layerdag_config": "settings of LayerDAG", "descriptor": "collections",
    "run_config": "run directories: `config.json`", "status": "run directories: `status.json`",
    "evidence": "run directories: `calibration.json`", "programs": "synthetic programs",
    "eval_indices": "evaluation indices", "costs": "costs of operators",
    "submission": "submissions", "trace": "execution traces, binary",
    "trace_packed": "execution traces, gzip", "trace_text": "execution traces, jsonizer's text",
    "trace_json": "execution traces, JSON of the feeder and of PyTorch", "dags": "files of graphs",
    "normalizer": "run directories: `normalizer.npz`",
    "checkpoint": "run directories: checkpoints", "layerdag_model": "LayerDAG models",
    "prior": "run directories: `prior.json`", "kinds": "run directories: `kinds.json`",
    "trees": "run directories: trees",
    "history": "run directories: `history.csv`", "per_graph": "evaluations: `per_graph.csv`",
    "settings": "settings of a folder that resumes", "plan": "plans of the collector",
    "hlo_plan": "plans of `collect hlo` and `tune`", "tile_record": "records of measured tiles",
    "layout_record": "records of measured layouts", "report": "reports of the collector",
    "machines": "reports on several machines", "claim": "claims of several machines",
    "tuning_journal": "journals of `tune`", "tuning_confirmed": "confirmations of `tune`",
    "tuned": "results of `tune`", "worker_answer": "answers of measuring processes",
    "download_record": "records of downloads", "download_version": "versions of partial downloads",
    "search_space": "search spaces of `sweep`", "augment_case": "results of trainings of `augment`",
    "private_names": "names that `chakra synthesize` hides"}


def inputs(stored: dict[str, Any]) -> str:
  """The mutated inputs of each reader, and what it did with them."""
  rows = []
  for name, entry in stored["readers"].items():
    counts = entry["counts"]
    rows.append([_NAMES.get(name, name), f"{entry['inputs']:,}", *(
        f"{counts.get(kind, 0):,}" for kind in (
            "accepted", "refused", "untyped", "slow", "memory")),
                 f"{counts.get('wrong', 0):,}" if entry["checked"] else "-"])
  return tables.markdown(
      ["reader", "inputs", "accepted", "refused", "untyped errors", "above 2 s", "above 1 GB",
       "wrongly accepted"], rows)


def kills(stored: dict[str, Any]) -> str:
  """The kills of each command, and what was wrong after it was resumed."""
  rows = []
  for name, entry in stored["commands"].items():
    # Commands that measure are never forks, and are killed at random times only.
    kinds = [entry["at_operations"], entry["new_processes"]]
    rows.append([f"`{name}`", f"{entry['kills']:,}",
                 *(f"{count:,}" if any(kinds) else "-" for count in kinds),
                 *(f"{entry[key]:,}" for key in ("trials", "lost", "different", "leftovers"))])
  return tables.markdown(
      ["command", "kills", "before a file operation", "new processes", "resumed to the end", "lost",
       "different", "leftovers"], rows)
