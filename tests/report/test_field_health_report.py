"""What is said of the simplices of a field modulator."""

from src.modulators.field_health import ExpertHealth, FieldHealth, PartHealth
from src.report.modulators.field_health import field_health_finding


def _expert(layer: int, k: int, low: float, high: float) -> ExpertHealth:
    gates = [-0.9, -0.5, 0.0, 0.5, 0.9]
    return ExpertHealth(layer, k, 0.05, [low - 1, low, 0.1, 0.2, 0.3], [1.0, 1.0, 1.2, high, 9.0], gates)


def test_flat_simplices_are_counted_and_numbers_stand_beside_the_templates() -> None:
    experts = [_expert(0, 1, -0.5, 1.0), _expert(0, 2, -0.7, 2.5), _expert(1, 1, -0.2, 1.0), _expert(1, 2, -13.81, 7.0)]
    parts = [PartHealth(1, 1.0, 2.0, 0.3, 0.4, 0.5), PartHealth(2, 0.1875, 3.0, 0.3, 0.4, 0.5)]
    finding = field_health_finding(FieldHealth(experts, parts, 4_096, 9_602, 96, 32, None))
    first, _, rest = finding.text.partition(": ")
    assert first == "At 4,096 positions of val examples the simplices of 3 of 4 experts, layers apart, are whole"
    assert "smallest such quantile of log V^2 is -13.81" in rest
    assert "the longest edge is up to 7" in rest
    assert "96 dimensions; 32 are never touched" in rest
    rows = finding.details[0].rows
    assert list(rows[1]) == [0, 2, 0.05, -0.7, 0.1, 0.2, 1.2, 2.5, -0.5, 0.0, 0.5]
    assert list(rows[0])[6:8] == [None, None]  # an edge has no other beside it
    assert list(finding.details[1].rows[1]) == [2, 0.1875, 3.0, 0.3, 0.4, 0.5]
    assert finding.files["health.json"]["tracked"] is None
    assert finding.files["health.json"]["quantiles"][2] == 0.5
