"""Artifact folders: `artifacts/<kind>/<name>/` with a `meta.json` that says what made them and proves what they hold.

A folder is complete exactly when its meta.json is there: it is written last, and a draft is renamed into place whole.
"""

from src.artifacts.files import content_digest, disk_errors, write_json
from src.artifacts.folder import Draft, create_artifact, find_finished
from src.artifacts.meta import META, Artifact, DamagedArtifact, Meta, Parent, Plan, Provenance, label, now, open_meta
from src.artifacts.reading import choose_artifact, list_artifacts, open_artifact, refuse_damaged, verify

__all__ = [
    "META",
    "Artifact",
    "DamagedArtifact",
    "Draft",
    "Meta",
    "Parent",
    "Plan",
    "Provenance",
    "choose_artifact",
    "content_digest",
    "create_artifact",
    "disk_errors",
    "find_finished",
    "label",
    "list_artifacts",
    "now",
    "open_artifact",
    "open_meta",
    "refuse_damaged",
    "verify",
    "write_json",
]
