"""The tables of a comparison of runs, for spreadsheets (Activation Lab's four CSVs) and data frames."""

from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from src.artifacts import disk_errors
from src.report.run_comparison.compared import ComparedRuns
from src.scenarios.comparing.tables import run_tables


def write_comparison_tables(folder: Path, found: ComparedRuns) -> None:
    """Write comparison_report, comparison_cosines, intra_run_report and intra_run_cosines, as .csv and .parquet.

    Their columns are there without any row, too. Raises StrataError when the disk is full.
    """
    tables = run_tables([(one.compared, one.within) for one in found.runs], found.between)
    for name, table in tables.items():
        with disk_errors(folder / name):
            pq.write_table(table, folder / f"{name}.parquet")
            pa_csv.write_csv(table, folder / f"{name}.csv")
