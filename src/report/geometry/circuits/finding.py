"""What is found of QK and OV circuits: words, tables, records, figures; every number beside its null."""

from typing import Any

from src.geometry.circuits.nulls import rejected
from src.geometry.circuits.profile import COPYING, LayerMean
from src.report.finding import Finding
from src.report.geometry.circuits.figures import circuit_figures
from src.report.geometry.circuits.records import head_records, layer_records
from src.report.geometry.circuits.results import SIGNED, TITLES, CircuitResults
from src.report.geometry.circuits.tables import (
    all_heads_table,
    head_table,
    layer_table,
    n_beyond_random,
    notebook_table,
    offset_tables,
)
from src.report.tables import finite_or_none


def circuits_finding(results: CircuitResults) -> Finding:
    """Everything about single heads."""
    tables = [layer_table(results), head_table(results)]
    return Finding(
        _text(results),
        [*tables, notebook_table(results)] if results.notebook else tables,
        circuit_figures(results),
        details=[all_heads_table(results), *offset_tables(results)],
        records={"circuit_heads": head_records(results), "circuit_layers": layer_records(results)},
        files={"circuits.json": _summary(results), **_notebook_file(results)},
        metrics=_metrics(results),
    )


def _text(results: CircuitResults) -> str:
    n_heads = sum(each.n_heads for each in results.layers)
    mass, strength = results.mean("positive_mass"), results.over_layers("positive_mass", "strength")
    random = _random(results, "positive_mass")
    words = f"{mass:.1%} of the eigenvalue mass of QK forms is positive (mean of {n_heads} heads"
    words += f"; {random['mean']:.1%} ± {random['sd']:.1%} for a head of random matrices)" if random else ")"
    if strength is not None:
        test = strength.test
        words += (
            f", and it lies {strength.value:.1%} off one half on average, against {test.mean:.1%} where queries meet "
            f"other heads' keys (p = {test.p:.2g})"
        )
    sentences = [f"{words}."]
    if strength is None:
        sentences.append("All queries of a layer read one key head: there are no other heads' keys to compare with.")
    if random:
        beyond = n_beyond_random(results, "positive_mass")
        sentences.append(f"{beyond} heads differ from random matrices (false discovery rate {results.level:g}).")
    copying = results.over_layers(COPYING, "strength")
    if copying is not None:
        test = copying.test
        sentences.append(
            f"OV circuits have a copying score of {results.mean(COPYING):+.2f} on average, {copying.value:.2f} off 0 "
            f"(with another head's values {test.mean:.2f}, p = {test.p:.2g})."
        )
    sentences += _single_layers(results)
    law = (
        "Counts of positive and negative eigenvalues are no finding: they are equal for any head of full rank with "
        "2 d_head <= d_model (Sylvester's law of inertia)."
    )
    left_out = f" Layers without circuits: {', '.join(results.unread)}." if results.unread else ""
    return " ".join(sentences) + "\n\n" + law + left_out


def _single_layers(results: CircuitResults) -> list[str]:
    ways = max(each.n_dealings for each in results.layers)
    if ways * results.level < 1:
        few = f"Single layers can't be judged: their heads can be dealt to each other's keys in {ways} ways only."
        return [few] if ways > 1 else []
    parts = [f"{TITLES[name]} in {n}" for name in SIGNED if (n := _n_layers(results, name)) is not None]
    found = (
        f"Of {len(results.layers)} attention layers, these are beyond other heads' keys and values: {', '.join(parts)}"
    )
    few = "" if ways * results.level >= len(results.layers) else f"; {ways} dealings of a layer's heads are few"
    return [f"{found} (false discovery rate {results.level:g}{few})."] if parts else []


def _n_layers(results: CircuitResults, name: str) -> int | None:
    """Layers whose heads are stronger or weaker than with other heads' keys or values; None where none is tested."""
    means = {(place,): each.statistics[name].strength for place, each in enumerate(results.layers)}
    p = {place: mean.test.p for place, mean in means.items() if mean is not None}
    return sum(rejected(p, results.level).values()) if p else None


def _random(results: CircuitResults, name: str) -> dict[str, float] | None:
    """Mean and standard deviation of a head of Gaussian matrices of the shape of the first layer's."""
    compared = next((each.statistics[name].random for each in results.layers if name in each.statistics), None)
    return {"mean": compared[0].mean, "sd": compared[0].sd} if compared else None


def _tested(mean: LayerMean | None) -> dict[str, float | None] | None:
    if mean is None:
        return None
    return {"value": finite_or_none(mean.value), **{key: finite_or_none(each) for key, each in vars(mean.test).items()}}


def _metrics(results: CircuitResults) -> dict[str, float]:
    found = {}
    for name in TITLES:
        if any(name in each.statistics for each in results.layers):
            found[f"circuits/{name}"] = results.mean(name)
        strength = results.over_layers(name, "strength")
        if strength is not None:
            test = strength.test
            found |= {f"circuits/{name}/off": strength.value, f"circuits/{name}/off_others": test.mean}
            found[f"circuits/{name}/off_p"] = test.p
    return found


def _notebook_file(results: CircuitResults) -> dict[str, Any]:
    if not results.notebook:
        return {}
    fractions = [record["units"]["positive_fraction"] for record in results.notebook if record["units"] is not None]
    trend = {"first": fractions[0], "last": fractions[-1], "trend": fractions[-1] - fractions[0]} if fractions else None
    return {"circuits_notebook.json": {"layers": list(results.notebook), "positive_fraction": trend}}


def _summary(results: CircuitResults) -> dict[str, Any]:
    names = [name for name in TITLES if any(name in each.statistics for each in results.layers)]
    return {
        "n_layers": len(results.layers),
        "n_heads": sum(each.n_heads for each in results.layers),
        "layers_without_circuits": list(results.unread),
        "draws": results.draws,
        "level": results.level,
        "seed": results.seed,
        "dtype": "float64",
        "statistics": {
            name: {
                "mean": finite_or_none(results.mean(name)),
                "random": _random(results, name),
                "mean_others": _tested(results.over_layers(name, "mean")),
                "strength_others": _tested(results.over_layers(name, "strength")),
            }
            for name in names
        },
    }
