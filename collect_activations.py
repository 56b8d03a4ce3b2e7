"""Collect activations: run a model over text once and store its residual stream at any layers and hooks.

  python collect_activations.py                                     the testbed, all layers
  python collect_activations.py model=gpt2 dataset=wikitext2        a model and text from the hub
  python collect_activations.py layers=[0,5] hooks=[resid_post,mlp_out] num_tokens=50000
  torchrun --nproc-per-node 4 collect_activations.py                four processes fill one store

Run the same command again after an interruption: finished parts are kept.
"""

from src.artifacts import Artifact, Draft, label
from src.config.stages import CollectConfig
from src.stage import Stage, entry_point


def run(config: CollectConfig, stage: Stage) -> Artifact | None:
    """Make the store, or go on with it; None while other workers still have parts to do."""
    from src.activations import collect, job
    from src.activations.workers import choose_worker
    from src.models import layers_in_config, load_model
    from src.report.collection import keep_figures, keep_table, store_text
    from src.stage.sequences import prepare_sequences
    from src.text import SequenceTable

    worker = choose_worker(config.num_workers, config.worker_index)
    # a slip in `layers` is told before text is tokenised and weights are loaded
    if (n_layers := layers_in_config(config.model)) is not None:
        job.chosen_layers(config.layers, n_layers, config.model.name)
    sequences = prepare_sequences(config, stage)
    table = SequenceTable(sequences.path)
    model = load_model(config.model, stage.device)
    points = job.hook_points_of(model, list(config.hooks), config.layers)
    job.refuse_long_sequences(model, table)
    layout = job.plan_layout(
        model, table, points, config.storage_dtype, config.max_length, config.part_megabytes * 2**20, config.batch_size
    )
    settings = collect.CollectSettings(config.batch_size, config.sink_norm, config.non_finite)
    identity = {"model": model.identity(), "layout": layout.as_json(), "settings": vars(settings)}
    name = label(config.model.name, config.dataset.dataset_name, config.dataset.dataset_split or "all")
    plan = stage.plan("activations", name, identity, [sequences.parent], config.name)

    # before anything is said or counted: a folder of this name that holds something else is refused
    begun = stage.find(plan)
    missing = job.missing_parts(plan.path, layout, plan.fingerprint, repair=config.repair, overwrite=config.overwrite)
    # the parts were looked at: what lies beside them is checked as well, and mended by sealing the store again
    finished = stage.reuse(plan, job.lies_beside_parts) if begun is not None and not missing else None
    if finished is None:
        needed = job.tokens_of(layout, table, missing) * layout.bytes_per_token
        job.refuse_full_disk(plan.path, needed, overwrite=config.overwrite)
        stage.say(
            f"{len(missing)} of {layout.n_parts} parts to make, up to {needed / 1e6:,.1f} MB: "
            f"{len(points)} hook points, {layout.n_tokens:,} tokens of {layout.n_sequences:,} sequences"
        )
        check = job.self_test(model, table, config.batch_size)
        mine = worker.share(missing)

        def publish(draft: Draft) -> None:
            tables, figures = [keep_table(draft.summary)], keep_figures(draft.summary)
            stage.report(draft, "Activations", store_text(draft.summary), tables, figures)

        with (
            job.filling(plan, worker, overwrite=config.overwrite),
            stage.progress("collecting", job.tokens_of(layout, table, mine), "tokens") as advance,
        ):
            collect.collect_parts(model, table, plan.path, layout, settings, mine, plan.fingerprint, advance)
            if not job.finish(plan.path, layout, plan, stage.provenance, check, publish):
                stage.say(f"worker {worker.index} is done; the last of the {worker.count} workers seals {plan.path}")
                return None
        finished = stage.finished(plan)
    else:
        stage.show_report(finished)
    stage.say(f"{plan.path}: {layout.n_tokens:,} tokens at {len(points)} hook points")
    return finished


main = entry_point(run, CollectConfig, "collect_activations")

if __name__ == "__main__":
    main()
