"""Element types of nodes, from their one-hot features."""

import numpy as np

from tpugraphs_rank.hlo import features

_PREFIX = "shape_element_type_is_"
_COLUMNS = [column for column, name in enumerate(features.NODE_FEATURE_NAMES)
            if name.startswith(_PREFIX)]
# Element types that XLA added after the features were defined have no column; they are "other".
NAMES = np.array([features.NODE_FEATURE_NAMES[column][len(_PREFIX):] for column in _COLUMNS]
                 + ["other"])


def indices(node_feat: np.ndarray) -> np.ndarray:
  """(n,) int64 index in `NAMES` of each node's element type, from features (n, 140)."""
  one_hot = node_feat[:, _COLUMNS]
  return np.where((one_hot > 0).any(axis=1), one_hot.argmax(axis=1), len(_COLUMNS))
