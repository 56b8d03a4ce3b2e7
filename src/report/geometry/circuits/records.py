"""Records of QK and OV circuits, for data frames."""

from typing import Any

from src.geometry.circuits.profile import HeadStatistic
from src.report.geometry.circuits.results import CircuitResults


def head_records(results: CircuitResults) -> list[dict[str, Any]]:
    """One for each head: every number, and what its nulls give."""
    records = []
    for each in results.layers:
        for head in range(each.n_heads):
            record: dict[str, Any] = {
                "stack": each.stack,
                "layer": each.layer,
                "attention": each.attention,
                "head": head,
            }
            record["kv_head"] = head // (each.n_heads // each.n_kv_heads)
            for name, statistic in each.statistics.items():
                record |= _with_nulls(name, statistic, head)
            record |= {name: float(values[head]) for name, values in each.plain.items()}
            for offset, statistic in each.offsets.items():
                record[f"symmetry_offset_{offset}"] = float(statistic.values[head])
            if each.top_overlap is not None and each.top_overlap_p is not None:
                record["top_overlap_mean_embedding"] = float(each.top_overlap[head])
                record["top_overlap_p"] = float(each.top_overlap_p[head])
            records.append(record)
    return records


def _with_nulls(name: str, statistic: HeadStatistic, head: int) -> dict[str, Any]:
    record = {name: float(statistic.values[head])}
    if statistic.random is not None:
        test = statistic.random[head]
        record |= {f"{name}_random": test.mean, f"{name}_random_z": test.z, f"{name}_random_p": test.p}
    test = statistic.others[head]
    return record | {f"{name}_others": test.mean, f"{name}_others_z": test.z, f"{name}_others_p": test.p}


def layer_records(results: CircuitResults) -> list[dict[str, Any]]:
    """One for each layer and statistic: means over heads beside dealings to other heads."""
    records = []
    for each in results.layers:
        for name, statistic in [*each.statistics.items(), *each.offsets.items()]:
            record: dict[str, Any] = {"stack": each.stack, "layer": each.layer, "attention": each.attention}
            record["statistic"] = f"symmetry_offset_{name}" if isinstance(name, int) else name
            record["mean"] = float(statistic.values.nanmean())
            for which, mean in (("mean", statistic.mean), ("strength", statistic.strength)):
                if mean is not None:
                    record[which] = mean.value
                    record |= {f"{which}_others_{key}": value for key, value in vars(mean.test).items()}
            records.append(record)
    return records
