"""Scripts that reproduce the published results; they are not installed.

Each file in results/ records the command that wrote it. The scripts that write them:

  results/quality.json                                   quality_study
  results/scale_study.json, scale_study_rules.json       scale_study
  results/tile_groups.json                               tile_groups
  results/prior_weights.json                             prior_weights
  results/tpu_kernels.json                               known_programs
  results/tpu_layouts.json                               tpu_layouts
  results/benchmark.json, recipes.json                   benchmark
  results/layerdag_tpu_tile.json                         layerdag_study
  results/layerdag_growth.json                           layerdag_benchmark
  results/chakra.json                                    chakra_study
  results/cones.json                                     cone_study
  results/augmentation*.json, except _labels             augmentation_study
  results/augmentation_labels.json                       label_study
  results/tuning.json, tuning_live.json                  tuning_study, tuning_live

results/attention_tile_v1.json and attention_layout_v1.json are results of earlier versions of the
demo, at commits that they name.

`tables` writes the tables of README.md and docs/results from these files. `benchmark_packing`
measures packed collections, and `bundle_models` copies trained runs into the package. Run a script
with `python -m experiments.NAME --help` for its flags.
"""
