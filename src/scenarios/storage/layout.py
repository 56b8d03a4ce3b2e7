"""Names of the files of a captured scenario: one home for those that write and those that read."""

KIND = "scenario_run"  # of artifacts
REFERENCES = "references"
# of the artifact
SCENARIO, RUN = "scenario.json", "run.json"
# of an item
ITEM, CONVERSATION, INDEX, STATES = "item.json", "conversation.json", "index.json", "states.safetensors"


def steps_name(generation: int) -> str:
    """The file of a generation's steps."""
    return f"steps_{generation}.jsonl"
