"""The config group of SAEs (configs/sae/): which one, and where it is."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from src.config.schema import Schema
from src.errors import StrataError

_RELEASE = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class SaeConfig(Schema):
    """An SAE of a SAELens release, or one on this disk; {layer} and {width} in sae_id and path are filled in."""

    release: str | None = Field(min_length=1, description="SAELens release, or hub repository; null = path is given")
    sae_id: str | None = Field(
        min_length=1, description="the SAE in its release; {layer} and {width} stand for sae.layer and sae.width"
    )
    path: str | None = Field(
        min_length=1,
        description="local SAELens folder (cfg.json), or Gemma Scope params.npz or its folder; knows {layer}, {width}",
    )
    layer: Annotated[int, Field(ge=0)] | None = Field(
        description="layer whose SAE it is, counted from 0; null = as the stage asks, or as the SAE says"
    )
    width: str | None = Field(
        pattern=r"^[\w.-]+$", description="number of features as the release spells it, e.g. 16k or 65k"
    )
    hook: Literal["resid_pre", "attn_out", "mlp_out", "resid_post"] | None = Field(
        description="hook that the SAE reads; null = as its own config, or its Gemma Scope folder, says"
    )
    device: str | None = Field(min_length=1, description="auto, cpu, cuda, cuda:1, mps; null = that of the stage")
    force_download: bool = Field(description="download a release again, even if it is in the hub's cache")
    max_fvu: Annotated[float, Field(gt=0)] | None = Field(
        description="fraction of variance unexplained above which an SAE is refused for its hook; null = refuse none"
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.release is None) == (self.path is None):
            raise ValueError("set either sae.release (and sae.sae_id) or sae.path")
        if (self.release is None) != (self.sae_id is None):
            raise ValueError("sae.sae_id names an SAE of sae.release: set both or neither")
        if self.release is not None and not _RELEASE.fullmatch(self.release):
            raise ValueError(f"sae.release={self.release} is neither a release of SAELens nor a hub repository")
        if self.sae_id is not None and _leaves_its_folder(self.sae_id):
            raise ValueError(f"sae.sae_id={self.sae_id} leaves its release: it must not hold .. or begin with /")
        if self.path is not None and self.force_download:
            raise ValueError("sae.force_download=true means nothing to sae.path")
        return self

    def filled(self, layer: int | None = None) -> Self:
        """The config of one layer's SAE, {layer} and {width} filled in; layer wins over self.layer.

        Raises StrataError for a placeholder that has no value or no meaning.
        """
        of_layer = self.model_copy(update={} if layer is None else {"layer": layer})
        texts = {key: of_layer._fill(key) for key in ("sae_id", "path") if getattr(self, key) is not None}
        return of_layer.model_copy(update=texts)

    def _fill(self, key: str) -> str:
        text: str = getattr(self, key)
        for name in dict.fromkeys(re.findall(r"\{(.*?)\}", text)):
            if name not in ("layer", "width"):
                raise StrataError(f"sae.{key}={text}: {{{name}}} has no meaning; there are {{layer}} and {{width}}")
            value = getattr(self, name)
            if value is None:
                raise StrataError(f"sae.{key}={text} needs sae.{name}: set it")
            text = text.replace(f"{{{name}}}", str(value))
        return text


def _leaves_its_folder(sae_id: str) -> bool:
    path = PurePosixPath(sae_id.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts
