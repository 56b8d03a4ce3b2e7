"""What measure_topology.py shows of its clouds: the same for its report and for whoever checks the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from src.report import topology as tables
from src.report.artifact_report import NamedChart
from src.report.tables import Table
from src.report.topology_words import topology_text
from src.stage.topology.measuring import TopologyWork
from src.topology.profile import CloudProfile


@dataclass(frozen=True, eq=False)
class Shown:
    """Text, tables for the terminal, tables for the report alone, figures, and numbers for a tracker."""

    text: str
    tables: list[Table]
    details: list[Table]
    figures: list[NamedChart]
    metrics: Mapping[str, float]


def show(profiles: Sequence[CloudProfile], work: TopologyWork) -> Shown:
    """All that the report holds."""
    level = work.config.level
    main, details = report_tables(profiles, level)
    text = topology_text(profiles, work.source.describe(), work.protocol, level)
    figures = tables.topology_figures(profiles, level)
    return Shown(text, main, details, figures, tables.topology_metrics(profiles, level))


def report_tables(profiles: Sequence[CloudProfile], level: float) -> tuple[list[Table], list[Table]]:
    """Tables for the terminal, and tables for the report alone."""
    package = "actopo" if any("beta1" in profile.published for profile in profiles) else "todacomm"
    main = [tables.cloud_table(profiles, level), tables.published_table(profiles, package)]
    details = [tables.statistics_table(profiles), tables.dimension_table(profiles), tables.outlier_table(profiles)]
    return [table for table in main if table is not None], [table for table in details if table is not None]
