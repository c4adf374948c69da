"""Ranking losses over lists of configurations."""

from tpugraphs_rank.losses.ranking import LOSSES
from tpugraphs_rank.losses.ranking import combined_loss
