"""One thread per test process: the models are tiny, and threads that wait for each other cost more than they do."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_SILENT", "true")

from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

from tests.fixtures.true_double import TrueDouble  # noqa: E402

torch.set_num_threads(1)
# a busy machine is slow, and nothing is wrong with that
settings.register_profile("strata", deadline=None)
settings.load_profile("strata")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws does not turn on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture
def true_double() -> Iterator[None]:
    """Models in float64 compute in float64 throughout (see TrueDouble)."""
    with TrueDouble():
        yield
