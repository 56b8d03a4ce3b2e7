"""What measure_topology.py shows of its clouds: the same for its report and for whoever checks the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from src.report.artifact_report import NamedChart
from src.report.tables import Table
from src.report.topology import profiles as tables
from src.report.topology.files import MeasuredCloud
from src.report.topology.loops import loop_figures, loop_table
from src.report.topology.profile_figures import ablation_figures, topology_figures
from src.report.topology.words import topology_text
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


def show(clouds: Sequence[MeasuredCloud], work: TopologyWork) -> Shown:
    """All that the report holds."""
    level, profiles = work.config.level, [cloud.profile for cloud in clouds]
    of_points = {cloud.profile.name: cloud.table for cloud in clouds}
    ablation = [record for cloud in clouds for record in cloud.ablation]
    main, details = report_tables(profiles, of_points, ablation, level)
    text = topology_text(profiles, work.source.describe(), work.protocol, level)
    figures = topology_figures(profiles, level)
    figures += loop_figures(profiles, of_points, {cloud.profile.name: cloud.points for cloud in clouds}, level)
    figures += ablation_figures(ablation)
    return Shown(text, main, details, figures, tables.topology_metrics(profiles, level))


def report_tables(
    profiles: Sequence[CloudProfile],
    of_points: Mapping[str, pa.Table],
    ablation: Sequence[Mapping[str, Any]],
    level: float,
) -> tuple[list[Table], list[Table]]:
    """Tables for the terminal, and tables for the report alone. of_points: what the rows of each cloud are."""
    package = "actopo" if any("beta1" in profile.published for profile in profiles) else "todacomm"
    loops = loop_table(profiles, of_points, level)
    main = [tables.cloud_table(profiles, level), tables.published_table(profiles, package)]
    main += [tables.expansion_table(profiles), tables.ablation_table(ablation)]
    details = [loops, tables.statistics_table(profiles), tables.dimension_table(profiles)]
    details += [tables.outlier_table(profiles)]
    if any(profile.cycles for profile in profiles):
        main.append(loop_table(profiles, of_points, level, one_each=True))
    return [table for table in main if table is not None], [table for table in details if table is not None]
