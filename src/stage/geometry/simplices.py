"""analysis=simplices."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.store import ActivationStore
from src.activations.token_means import token_means
from src.artifacts import Parent, label
from src.config.geometry.stage import Analysis, GeometryConfig
from src.errors import NotApplicableError, StrataError
from src.geometry.simplices.joint import JointStatistics, joint_statistics
from src.geometry.simplices.moments import cloud_moments
from src.geometry.simplices.notebook import notebook_joint_r, notebook_volumes
from src.geometry.simplices.profile import SimplexProfile, SimplexSettings, simplex_profile
from src.hook_points import HookPoint
from src.models.checkpoint import open_weights
from src.models.embedding_tables import EmbeddingTables, read_embeddings
from src.models.loading import load_tokenizer
from src.models.token_table import TokenTable, token_table
from src.report.finding import Finding
from src.report.geometry.simplices.finding import NotebookFigures, simplex_finding
from src.stage.context import Stage
from src.stage.stores import find_store
from src.text import tokenizer_identity

INPUT, OUTPUT = "input embeddings", "output embeddings"


@dataclass(frozen=True, eq=False)
class Space:
    """Points of some tokens in one space. token_ids: ascending."""

    name: str
    token_ids: Int[np.ndarray, " token"]
    points: Float[Tensor, "token d"]

    def of(self, token_ids: Int[np.ndarray, " some"]) -> Float[Tensor, "some d"]:
        """The points of some of its tokens."""
        return self.points[torch.from_numpy(np.searchsorted(self.token_ids, token_ids))]


@dataclass(frozen=True, eq=False)
class SimplexAnalysis:
    """Simplices of the tokens of one model. weights: of rows of the embeddings, with the digest of their file."""

    config: GeometryConfig
    tables: EmbeddingTables
    tokens: TokenTable
    tokenizer: dict[str, Any]
    store: ActivationStore | None
    weights: tuple[Float[np.ndarray, " row"], str] | None
    name: Analysis = "simplices"

    @property
    def parents(self) -> list[Parent]:
        """The store, where a layer is asked for."""
        return [] if self.store is None else [self.store.artifact.parent]

    @property
    def title(self) -> str:
        """Of the report."""
        return f"Simplices of {self.config.model.name}"

    @property
    def label(self) -> str:
        """Of the artifact."""
        return label(self.config.model.name, self.name)

    def identity(self) -> dict[str, Any]:
        """What decides the content."""
        settings = self.config.simplices.model_dump(mode="json", exclude={"activations", "weights"})
        return {
            "analysis": self.name,
            "embeddings": self.tables.digest,
            "tokenizer": self.tokenizer,
            "settings": settings,
            "weights": None if self.weights is None else self.weights[1],
            "compat": self.config.compat,
            "seed": self.config.seed,
        }

    def measure(self, stage: Stage) -> list[Finding]:
        """Each space beside its nulls, and the input embeddings beside each other space."""
        config = self.config.simplices
        settings = SimplexSettings(
            k=config.k,
            n_simplices=config.n_simplices,
            pool=config.pool,
            null_draws=config.null_draws,
            resamples=config.resamples,
            dtype=getattr(torch, config.precision),
        )
        # Apple's devices know no float64
        device = torch.device("cpu") if stage.device.type == "mps" else stage.device
        first, *others = spaces = self._spaces(stage)
        n_clouds = len(spaces) * (1 + sum(settings.n_draws.values())) + len(others) * (1 + config.permutations)
        profiles: dict[str, SimplexProfile] = {}
        joint: dict[str, JointStatistics] = {}
        with stage.progress("measuring simplices", n_clouds, "clouds") as advance:
            for space in spaces:
                weights = self._weights_of(space.token_ids)
                profiles[space.name] = simplex_profile(
                    space.points, settings, self.config.seed, weights, device, advance
                )
            for space in others:
                both = np.intersect1d(first.token_ids, space.token_ids)
                joint[space.name] = joint_statistics(
                    first.of(both),
                    space.of(both),
                    settings,
                    config.permutations,
                    self.config.seed,
                    self._weights_of(both),
                    device,
                    advance,
                )
        notebook = self._notebook() if self.config.compat == "notebook" else None
        described = {**config.model_dump(mode="json"), "seed": self.config.seed, "device": str(device)}
        return [simplex_finding(profiles, joint, described, notebook, tied=self.tables.tied)]

    def _spaces(self, stage: Stage) -> list[Space]:
        counted = self.tokens.counted
        spaces = [Space(INPUT, counted, self.tables.input[torch.from_numpy(counted)])]
        output = self.tables.output
        if output is not None and not self.tables.tied:
            known = counted[counted < len(output)]
            spaces.append(Space(OUTPUT, known, output[torch.from_numpy(known)]))
        if self.store is not None:
            point = HookPoint("resid_post", self.config.simplices.layer or 0)
            with stage.progress("reading activations", self.store.layout.n_tokens, "tokens") as advance:
                ids, means = token_means(self.store, point, self.config.simplices.occurrences, advance)
            known = np.isin(ids, counted)
            spaces.append(Space(f"layer {point.layer}", ids[known], means[torch.from_numpy(known)]))
            _refuse_too_few(len(spaces[-1].token_ids), self.config.simplices.k, f"tokens of {spaces[-1].name}")
        return spaces

    def _weights_of(self, token_ids: Int[np.ndarray, " token"]) -> Float[np.ndarray, " token"] | None:
        return None if self.weights is None else self.weights[0][token_ids]

    def _notebook(self) -> NotebookFigures:
        """Over all rows of the tables, as the notebook takes them."""
        tables = {INPUT: self.tables.input}
        output = None if self.tables.tied else self.tables.output
        if output is not None:
            tables[OUTPUT] = output
        volumes = {name: notebook_volumes(table, cloud_moments(table)) for name, table in tables.items()}
        r = notebook_joint_r(self.tables.input, output) if output is not None else None
        return NotebookFigures(volumes, r)


def prepare(config: GeometryConfig, stage: Stage) -> SimplexAnalysis:
    """Read the embeddings.

    Raises:
        StrataError: no token embeddings, no tokenizer, no store of the layer that is asked for, weights that don't fit,
            too few tokens or dimensions for k.
    """
    wanted = config.simplices
    tables = read_embeddings(open_weights(config.model))
    tokenizer = load_tokenizer(config.model)
    tokens = token_table(tokenizer, len(tables.input))
    if wanted.k > tables.input.shape[1]:
        raise StrataError(
            f"simplices.k={wanted.k}: simplices of {wanted.k} dimensions have no volume in {tables.input.shape[1]}: "
            "choose a smaller k"
        )
    weights = None if wanted.weights is None else _read_weights(Path(wanted.weights).expanduser(), tokens)
    usable = tokens.counted if weights is None else tokens.counted[weights[0][tokens.counted] > 0]
    _refuse_too_few(len(usable), wanted.k, "tokens" if weights is None else "tokens with a weight above 0")
    store = None
    if wanted.layer is not None:
        store = find_store(stage, wanted.activations, config.model, config.dataset)
        if store.model_name != config.model.name:
            raise StrataError(
                f"simplices.activations={store.path.name} is of {store.model_name}, not {config.model.name}"
            )
        store.require([HookPoint("resid_post", wanted.layer)])
    return SimplexAnalysis(config, tables, tokens, tokenizer_identity(tokenizer), store, weights)


def _refuse_too_few(n_tokens: int, k: int, what: str) -> None:
    if n_tokens <= k:
        raise NotApplicableError(f"simplices.k={k}: a simplex needs {k + 1} {what}; there are {n_tokens}")


def _read_weights(path: Path, tokens: TokenTable) -> tuple[Float[np.ndarray, " row"], str]:
    """The weights of a .npy file, and its sha256."""
    try:
        weights = np.load(path, allow_pickle=False)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, EOFError) as error:
        raise StrataError(f"simplices.weights={path} can't be read ({error}): give a .npy file of numbers") from None
    fits = isinstance(weights, np.ndarray) and weights.shape == (tokens.n_rows,) and weights.dtype.kind in "iuf"
    if not fits or not np.isfinite(weights).all() or (weights < 0).any():
        raise StrataError(
            f"simplices.weights={path}: needs one finite number of 0 or more for each of {tokens.n_rows} rows of the "
            f"embeddings; it has shape {getattr(weights, 'shape', '?')}"
        )
    return weights.astype(np.float64), digest
