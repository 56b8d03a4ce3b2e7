"""A chart becomes files: a picture, a page that works offline, and its Vega-Lite specification."""

import base64
import functools
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import vl_convert
from markupsafe import Markup

from src.artifacts import disk_errors

TEMPLATES = Path(__file__).parent / "templates"
PNG_SCALE = 2


def save_chart(chart: alt.TopLevelMixin, stem: Path) -> dict[str, Path]:
    """Write a chart as `<stem>.png`, `<stem>.html` (interactive, with all libraries inside) and `<stem>.vl.json`.

    Each file appears whole or not at all. Returns the paths by suffix: "png", "html", "vl.json".
    """
    spec = chart_spec(chart)
    contents = {
        "png": draw_png(spec),
        "html": _chart_html(spec, title=stem.name).encode(),
        "vl.json": json.dumps(spec, indent=1, allow_nan=False, ensure_ascii=False).encode(),
    }
    paths = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in contents}
    for suffix, path in paths.items():
        write_whole(path, contents[suffix])
    return paths


def chart_spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The Vega-Lite specification of a chart, data included, as plain JSON values."""
    return json.loads(chart.to_json(indent=None))


def draw_png(spec: dict[str, Any]) -> bytes:
    """Draw a Vega-Lite specification, at twice its size in pixels. Nothing is fetched: data must lie in the spec."""
    return vl_convert.vegalite_to_png(spec, scale=PNG_SCALE, allowed_base_urls=[])


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part. Makes missing folders.

    Raises StrataError when the disk is full or the place can't be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@functools.cache
def templates() -> jinja2.Environment:
    """The templates of the report; every value is escaped, and JSON for scripts too (`tojson`)."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


@functools.cache
def page_assets() -> dict[str, Any]:
    """What every page carries inside: style, the Vega libraries, our script, and the policy that allows only these.

    The policy names the two scripts by their hash and forbids every request, so that neither a hostile string in the
    data nor a specification with an address in it can run code or reach the network.
    """
    # "</script" inside the libraries would end their script element
    vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    boot = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return {
        "style": Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        "vega": Markup(vega),
        "boot": Markup(boot),
        "policy": page_policy(vega, boot),
    }


def page_policy(*scripts: str) -> str:
    """A content security policy: these scripts run, by their hash, and no other; nothing is requested of a network."""
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(_hash_source(code) for code in scripts),
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{directive} {sources}" for directive, sources in policy.items())


def _hash_source(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _chart_html(spec: dict[str, Any], title: str) -> str:
    return templates().get_template("chart.html.j2").render(spec=spec, title=title, **page_assets())
