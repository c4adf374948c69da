"""Parts of `experiments.scale_study`: programs, labels, models and training by CPU second."""
