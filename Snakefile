# Winnow: one DAG from images to a summary table.
#
#   results/downloads/{dataset}/                          archives as their sources serve them; weights/: torchvision's
#   results/datasets/{dataset}/                           images.npy (uint8, memory-mapped), index.parquet, manifest.json
#   results/splits/{dataset}/{fold}.parquet               which images train, choose and judge
#   results/backbones/{backbone}/                         weights.safetensors, channels.parquet, manifest.json;
#                                                         pretrained.safetensors, pretrained.json
#   results/statistics/{images}/{backbone}/               activations, gradients, moments: .npz, .json (manifest)
#   results/scores/{images}/{backbone}/                   {criterion}.parquet
#   results/masks/{images}/{backbone}/{criterion}/{scope}/{ratio}.parquet
#   results/cells/{dataset}/{backbone}/{criterion}/{scope}/{ratio}/{init}/{seed}/
#                                                         metrics.json, history.parquet, predictions.parquet, mask.parquet
#   results/models/{cell}/                                a cell's network, model.safetensors and model.json: where its
#                                                         grid keeps it, or it may be taken home; else trained once more
#                                                         for what asks for it
#   results/trunks/{images}/{backbone}/{criterion}/{scope}/{share}/{epochs}/{seed}/
#                                                         what cells begin with that prune what they have trained:
#                                                         trunk.safetensors, history.parquet, mask.parquet, trunk.json
#   results/rates/{dataset}/{backbone}/{criterion}/{scope}/{ratio}/{init}/rate.json
#                                                         the learning rate of all cells of one shape, where their
#                                                         recipe says learning_rate: auto
#   results/prices/{dataset}/{backbone}/{measure}.json    macs, params, latency: what a network costs by its widths
#   results/latency/{dataset}/{backbone}/{criterion}/{scope}/{ratio}.json
#   results/experiments/{experiment}/                     summary.parquet, .csv, .md, recommendation.*, figures/,
#                                                         figures.zip, figures.json (digests), report.html
#   results/experiments/{experiment}/growth/{step}.json   what a grid with seeds: auto trains next; see
#                                                         scripts/winnow/answers/growth.py
#   results/experiments/{experiment}/models/{dataset}-{backbone}/
#                                                         the chosen cell's network, to take home; see rules/export.smk;
#                                                         models.json: the files' digests; certificates.json: what they
#                                                         are worth; report_models.html: the report with that
#   results/exports/{cell}/                               any cell's network, to take home
#   results/logs/{rule}/...                               one log a job
#
# fold:      only, the one split of a data set; or, where it has `folds: K`, 0 to K − 1: each judges with other images. A
#            cell's is its seed modulo K
# images:    those that train: a data set's name, photos; where it has folds, photos~2: those that fold 2 does not judge
# criterion: unpruned (ratio 0), any (by layer with random weights), random~{seed}, or a name in config.yaml, such as apoz;
#            reversed_apoz: the best go first; apoz@flowers102: by the statistics of flowers102's images
# scope:     global, global_normalized, layer, budget_macs, budget_params, budget_latency, or none (ratio 0)
# ratio:     share of filters to remove, or of a budget of what they cost, three decimals; 0.400~16 rounds the kept counts
#            to multiples of 16
# share:     of filters that a trunk's own mask removes: 2_15 is 2/15; 0 for unpruned/none
#            2_15~compensated adds the repairs
# init:      inherited or random weights; inherited~compensated_iterative_3 adds repairs and protocol, see
#            scripts/winnow/training/protocols.py

from snakemake.utils import min_version

min_version("9.20")


configfile: "config.yaml"


# On a cluster a rule with `localrule: True` runs where Snakemake runs: it takes seconds, less than a submitted job's
# start, or needs the network, which compute nodes often lack. A list of such rules would not survive their renaming.
include: "rules/common.smk"
include: "rules/inputs.smk"
include: "rules/resources.smk"
include: "rules/datasets.smk"
include: "rules/backbones.smk"
include: "rules/statistics.smk"
include: "rules/scores.smk"
include: "rules/prices.smk"
include: "rules/masks.smk"
include: "rules/finetune.smk"
include: "rules/growth.smk"
include: "rules/latency.smk"
include: "rules/summary.smk"
include: "rules/report.smk"
include: "rules/export.smk"
include: "rules/display.smk"


rule all:
    default_target: True
    input:
        [experiment_files(name) for name in CONFIG.targets],


for name in CONFIG.experiments:

    rule:
        name:
            name
        input:
            experiment_files(name),
