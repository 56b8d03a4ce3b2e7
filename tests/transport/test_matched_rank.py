import pytest
import torch

from src.config.matched_rank import MatchedRankConfig
from src.errors import StrataError
from src.transport.matched_rank import RankSettings
from src.transport.operator import TransportOperator
from tests.fixtures.planted_transport import X, Y, moments_of, planted

KEYS = dict.fromkeys(("permutations", "floor", "alpha", "ranks"))
RIDGE = {"normalize": False, "target": "y", "alpha_per_output": False}


def settings(d_model=128, **keys):
    return RankSettings.of(MatchedRankConfig(**KEYS | keys), d_model)


def operator(method="ridge", alpha=7.5):
    return TransportOperator(torch.eye(4), torch.zeros(4), X, Y, method, alpha)


@pytest.mark.parametrize(
    ("d_model", "ranks"), [(1, (1,)), (5, (1, 5)), (128, (1, 4, 16, 64, 128)), (2304, (1, 4, 16, 64, 256, 1024, 2304))]
)
def test_ranks_of_the_table_go_from_one_to_the_width(d_model, ranks):
    assert settings(d_model).ranks == ranks


def test_given_keys_arrive_and_a_standard_that_is_written_out_is_the_standard():
    assert settings(permutations=19, floor=1e-6).identity() == settings().identity()
    given = settings(permutations=0, floor=0.0, alpha=0.5, ranks=[9, 3, 9]).identity()
    assert given == {"permutations": 0, "floor": 0.0, "alpha": 0.5, "ranks": [3, 9]}
    assert MatchedRankConfig(**KEYS).is_standard
    assert not MatchedRankConfig(**KEYS | {"permutations": 0}).is_standard
    with pytest.raises(StrataError, match=r"matched_rank\.ranks: 9 is above d_model, which is 8"):
        settings(8, ranks=[3, 9])


def test_the_penalty_is_that_of_a_ridge_that_full_rank_can_equal():
    x, y = planted(200, 4, 2, 0.9, 0)
    train = moments_of(x, y, torch.zeros(200, dtype=torch.int64)).subset([0])
    own = settings()
    assert own.penalty(operator(), RIDGE, train) == 7.5
    for changed in ({"normalize": True}, {"target": "delta"}, {"alpha_per_output": True}):
        assert own.penalty(operator(), RIDGE | changed, train) == 0
    assert own.penalty(operator("procrustes", None), {}, train) == 0
    assert own.penalty(operator("lasso", 0.1), RIDGE, train) == 0
    unit = ((x - x.mean(0)) ** 2).sum() / 4
    assert settings(alpha=0.01).penalty(operator("lasso", 0.1), RIDGE, train) == pytest.approx(0.01 * unit)
