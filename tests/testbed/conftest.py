"""The testbed's corpus files, read once."""

import json
from pathlib import Path

import pytest

TESTBED = Path(__file__).resolve().parents[2] / "testbed"


def lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (TESTBED / "corpus" / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def corpus() -> list[dict]:
    return lines("train")


@pytest.fixture(scope="session")
def heldout() -> list[dict]:
    return lines("heldout")


@pytest.fixture(scope="session")
def chats_train() -> list[dict]:
    return lines("chats_train")


@pytest.fixture(scope="session")
def chats_heldout() -> list[dict]:
    return lines("chats_heldout")
