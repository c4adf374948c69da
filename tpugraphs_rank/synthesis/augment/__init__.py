"""Uses synthetic programs in the training of rankers, and measures the gains."""
