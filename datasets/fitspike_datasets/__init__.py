"""Datasets of fitspike, registered by hook: generators with known truth, and cards of recordings that others made public."""

from pathlib import Path

from fitspike.plugin import hookimpl


@hookimpl
def fitspike_register_datasets(register):
    """Register the generators, and a dataset per card in cards/."""
    register("fitspike_datasets.generators_glm:CoupledGLMNetwork", name="coupled-glm-network")
    register("fitspike_datasets.generators_lif:EscapeNoiseLIFNetwork", name="escape-noise-lif-network")
    register("fitspike_datasets.generators_populations:PopulationNetwork", name="population-network")
    register("fitspike_datasets.generators_two_areas:TwoAreaTrials", name="two-area-trials")
    register("fitspike_datasets.generators_v1_like:SlowNoiseMovie", name="slow-noise-movie")
    register("fitspike_datasets.generators_v1_like:HiddenAssembliesMovie", name="hidden-assemblies-movie")
    register("fitspike_datasets.generators_v1_like:DisynapticMovie", name="disynaptic-movie")
    register("fitspike_datasets.generators_poisson:InhomogeneousPoisson", name="inhomogeneous-poisson")
    register("fitspike_datasets.task_evidence:EvidenceAccumulation", name="evidence-accumulation")
    register("fitspike_datasets.task_pattern:PatternGeneration", name="pattern-generation")
    register("fitspike_datasets.task_store_recall:StoreRecall", name="store-recall")

    from fitspike.plugin import read_cards

    for dataset in read_cards(Path(__file__).parent / "cards"):
        register(dataset, name=dataset.name)
