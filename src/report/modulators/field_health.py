"""What became of the simplices and gates of a field modulator."""

from collections.abc import Sequence

from src.modulators.field_health import QUANTILES, ExpertHealth, FieldHealth
from src.report.finding import Finding
from src.report.tables import Cell, Table, format_number

# of log V^2: a volume below a thousandth of the template's
_FLAT = -13.8
_LOW, _MIDDLE, _HIGH = (QUANTILES.index(share) for share in (0.05, 0.5, 0.95))


def field_health_finding(health: FieldHealth) -> Finding:
    """Volumes and edges beside the template's, gates, and norms of what was trained."""
    flat = [each for each in health.experts if each.log_volume[_LOW] < _FLAT]
    lows = [each.log_volume[_LOW] for each in health.experts]
    ratios = [each.edge_ratio[_HIGH] for each in health.experts if each.k > 1]
    words = (
        f"At {health.n_positions:,} positions of val examples the simplices of {len(health.experts) - len(flat)} of "
        f"{len(health.experts)} experts, layers apart, are whole: 95 % of their volumes are more than a thousandth of "
        f"the template's. The smallest such quantile of log V^2 is {format_number(min(lows))}, and the template's "
        "log V^2 is 0."
    )
    if ratios:
        words += (
            f" In 95 % of simplices the longest edge is up to {format_number(max(ratios))} times the shortest, where "
            "the template's are equal."
        )
    words += (
        f" Gates scale {health.n_active:,} dimensions; {health.n_null:,} are never touched. V^2 > 0 is true of any "
        "points, so it is no sign of health."
    )
    parts: list[Sequence[Cell]] = [
        [each.k, each.square_volume, each.deformation_weight, each.deformation_bias, each.gate_weight, each.gate_bias]
        for each in health.parts
    ]
    columns = ["k", "template V^2", "deformation |W|", "|b|", "gates |W|", "|b| "]
    return Finding(
        words,
        details=[
            Table("Simplices and gates", _COLUMNS, [_row(each) for each in health.experts], _CAPTION),
            Table("Parameters of experts", columns, parts, "Frobenius norms of weights, and norms of biases."),
        ],
        files={"health.json": health.to_json()},
    )


_COLUMNS = ["layer", "k", "alpha", "log V^2 5 %", "50 %", "95 %", "edges 50 %", "95 % ", "gates 5 %", "50 % ", "95 %  "]
_CAPTION = (
    "Quantiles over positions, of gates over dimensions too. log V^2: relative to the template's; of k = 1, log d^2. "
    "Edges: longest over shortest. A gate g scales a dimension by 1 + alpha g."
)


def _row(each: ExpertHealth) -> list[Cell]:
    volumes, gates = ([values[place] for place in (_LOW, _MIDDLE, _HIGH)] for values in (each.log_volume, each.gate))
    ratios = [each.edge_ratio[place] if each.k > 1 else None for place in (_MIDDLE, _HIGH)]
    return [each.layer, each.k, each.alpha, *volumes, *ratios, *gates]
