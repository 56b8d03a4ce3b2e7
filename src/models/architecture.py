"""What a model's config says of its structure, for fingerprints."""

import json

from transformers import PreTrainedConfig

from src.config.schema import fingerprint

# where it was read, and by which version
_ELSEWHERE = ("_name_or_path", "transformers_version")


def architecture_digest(config: PreTrainedConfig) -> str:
    """sha256 (hex) of all keys of a config with their defaults: equal weights with other heads are another model."""
    keys = json.loads(config.to_json_string(use_diff=False))
    return fingerprint({key: value for key, value in keys.items() if key not in _ELSEWHERE})
