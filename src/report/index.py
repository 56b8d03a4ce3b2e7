"""All artifacts of a folder in one report."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from src.artifacts import META, Meta, open_meta
from src.errors import StrataError
from src.report.artifact_report import REPORT, read_report
from src.report.page import Section, duration, write_page
from src.report.tables import Table

# Chapters of the report, and the kinds of artifacts in each, in the order in which stages follow each other
CHAPTERS = {
    "Activations": ("sequences", "activations", "moments"),
    "Transport": ("operators", "scaling", "evaluation"),
    "Causality": ("causal_evaluation",),
    "Features": ("sae", "feature_scores", "explanations"),
    "Topology": ("topology", "topology_comparison"),
    "Geometry": ("geometry", "geometry_comparison", "model_alignment"),
    "Modulators": ("modulator_comparison", "modulator_evaluation", "modulator"),
    "Conversations": ("scenario_run", "run_comparison", "run_analysis", "run_heatmaps"),
}
OTHERS, PROVENANCE = "More", "Provenance"
_CHAPTER_OF = {kind: chapter for chapter, kinds in CHAPTERS.items() for kind in kinds}
_PLACE_OF = {kind: place for place, kind in enumerate(_CHAPTER_OF)}

_META_FORMAT = TypeAdapter(Meta)


def write_index(artifacts_dir: Path) -> Path:
    """Write `index.html` into the folder: one page of all its artifacts. Returns its path.

    Raises StrataError if the folder is missing or holds no artifact, or the page can't be written.
    """
    if not artifacts_dir.is_dir():
        raise StrataError(
            f"there is no folder {artifacts_dir}: run a stage first, or name the folder of your artifacts"
        )
    sections = collect_sections(artifacts_dir)
    if not sections:
        raise StrataError(
            f"{artifacts_dir} holds no finished artifact (KIND/NAME/{META}): run a stage first, or name the folder of "
            "your artifacts"
        )
    page = artifacts_dir / "index.html"
    write_page(page, "Strata", sections, _subtitle(sections))
    return page


def _subtitle(sections: Sequence[Section]) -> str:
    """The models and datasets that the sections are about, in their order."""
    parts = []
    for group, key, word in (("model", "name", "Model"), ("dataset", "dataset_name", "Dataset")):
        names = list(dict.fromkeys(name for section in sections if (name := _configured(section, group, key))))
        if names:
            parts.append(f"{word}{'s' if len(names) > 1 else ''}: {', '.join(names)}")
    return ". ".join(parts)


def _configured(section: Section, group: str, key: str) -> str:
    values = section.source.config.get(group) if section.source else None
    return str(values.get(key) or "") if isinstance(values, dict) else ""


def collect_sections(artifacts_dir: Path) -> list[Section]:
    """One section for each finished artifact that has a report, what could not be read, and a table of all artifacts.

    Folders without meta.json (unfinished) and drafts (names with a leading dot) are passed over. Anything damaged or
    foreign becomes a section that says so; this function does not raise for it.
    """
    sections: list[Section] = []
    problems: list[Section] = []
    finished: list[tuple[Path, Meta]] = []
    for path in artifacts_dir.glob(f"[!.]*/[!.]*/{META}"):
        folder = path.parent
        try:
            finished.append((folder, _read_meta(folder)))
        except StrataError as error:
            problems.append(_problem(folder, error))
    finished.sort(key=lambda item: _reading_order(item[1]))
    for folder, meta in finished:
        if not (folder / REPORT).exists():
            continue
        try:
            section = read_report(folder, meta)
            sections.append(replace(section, chapter=_CHAPTER_OF.get(meta.kind, OTHERS)))
        except StrataError as error:
            problems.append(_problem(folder, error, meta))
    problems.sort(key=lambda section: section.title)
    overview = [_overview([meta for _, meta in finished])] if finished else []
    return sections + problems + overview


def _read_meta(folder: Path) -> Meta:
    try:
        meta = _META_FORMAT.validate_python(asdict(open_meta(folder)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StrataError(f"{folder / META} is damaged or foreign ({place}: {first['msg']})") from None
    except OSError as error:
        raise StrataError(f"{folder / META} can't be read ({error.strerror})") from None
    if meta.kind != folder.parent.name:
        raise StrataError(f"{folder} holds {meta.kind!r}, but lies among {folder.parent.name!r}: move or remove it")
    return meta


def _reading_order(meta: Meta) -> tuple[int, str, str]:
    return _PLACE_OF.get(meta.kind, len(_PLACE_OF)), meta.ended_at, meta.name


def _problem(folder: Path, error: StrataError, meta: Meta | None = None) -> Section:
    return Section(
        f"{folder.parent.name}/{folder.name} can't be shown", str(error), source=meta, problem=True, chapter=PROVENANCE
    )


def _overview(metas: list[Meta]) -> Section:
    table = Table(
        title="All artifacts",
        columns=["kind", "name", "fingerprint", "made from", "seed", "device", "ended (UTC)", "took"],
        rows=[
            [
                meta.kind,
                meta.name,
                meta.fingerprint[:12],
                ", ".join(f"{parent.kind}/{parent.name}" for parent in meta.parents),
                str(meta.seed),
                meta.device,
                meta.ended_at.removesuffix("+00:00").replace("T", " "),
                duration(meta),
            ]
            for meta in metas
        ],
        caption="Every finished artifact of this folder, in the order in which stages follow each other.",
    )
    return Section("Artifacts", _made_with(metas), [table], chapter=PROVENANCE)


def _made_with(metas: Sequence[Meta]) -> str:
    """Whether one revision of the code and one set of packages made everything, in words."""
    revisions = Counter((meta.git_revision or "unknown")[:12] for meta in metas)
    if len(revisions) == 1:
        text = f"All {len(metas)} artifacts were made at git revision {next(iter(revisions))}."
    else:
        counted = ", ".join(f"{revision} ({count})" for revision, count in revisions.most_common())
        text = f"{len(metas)} artifacts were made at {len(revisions)} git revisions: {counted}."
    versions: dict[str, set[str]] = {}
    for meta in metas:
        for package, version in meta.versions.items():
            versions.setdefault(package, set()).add(version)
    mixed = [f"{package} ({', '.join(sorted(found))})" for package, found in versions.items() if len(found) > 1]
    return f"{text} Versions differ of {', '.join(mixed)}." if mixed else f"{text} Versions of packages are the same."
