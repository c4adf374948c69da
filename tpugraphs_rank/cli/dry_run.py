"""The tables that `--dry_run` prints."""

from collections.abc import Mapping
import json
from typing import Any

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import tables


def text(config: Any, **sections: Mapping[str, Any]) -> str:
  """One table per section, then one of the settings that differ from their defaults.

  Args:
    config: the settings of the training.
    **sections: names and values; the section's name is the table's title.
  """
  defaults = {name: value for name, _, value in config_lib.leaves(type(config))}
  changed = {name: json.dumps(value) for name, _, value in config_lib.leaves(config)
             if value != defaults[name]}
  shown = {title.replace("_", " "): {name: _shown(value) for name, value in rows.items()}
           for title, rows in sections.items()}
  return "\n".join(
      tables.text((title, ""), list(rows.items()), tables.LEFT * 2)
      for title, rows in {**shown, "changed setting": changed}.items() if rows).rstrip()


def _shown(value: Any) -> str:
  if isinstance(value, float):
    return f"{value:.6g}"
  return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
