"""Which conditions a set of trials needs."""

from pathlib import Path

import pytest
import torch

from src.causal.design import PairSubject, design_conditions
from src.causal.directions import Directions
from src.causal.interventions import AlongDirections, Constant, CopySource, Transport
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.operator import TransportOperator
from src.transport.pairs import LayerPair

D = 4
NAMES = ("transport", "rotated", "identity", "null", "mean", "resample", "zero")


def subject(layer: int, leap: int, *methods: str) -> PairSubject:
    source, target = HookPoint("resid_post", layer), HookPoint("resid_post", layer + leap)
    operators = {
        method: TransportOperator((index + 1) * torch.eye(D), torch.full((D,), index + 1.0), source, target, method)
        for index, method in enumerate(methods)
    }
    return PairSubject(source, target, operators, torch.zeros(D), torch.ones(D))


def test_what_does_not_depend_on_the_source_is_one_condition_of_its_target() -> None:
    subjects = {LayerPair(0, 2): subject(0, 2, "ridge"), LayerPair(1, 1): subject(1, 1, "ridge")}
    design = design_conditions(subjects, NAMES, [(3,), (5, 6)], D, seed=0)
    assert len(design.trials) == 2 * 7 * 3
    assert len(design.conditions) == 2 * (2 * 4 + 3)
    assert len({condition.name for condition in design.conditions}) == len(design.conditions)
    pooled = [trial for trial in design.trials if trial.positions == "pooled" and trial.intervention == "zero"]
    assert [trial.conditions for trial in pooled] == [("zero resid_post.2 at 3", "zero resid_post.2 at 5-6")] * 2
    assert {trial.operator for trial in design.trials} == {"ridge", ""}
    assert all(trial.label == trial.intervention for trial in design.trials)
    by_name = {condition.name: condition for condition in design.conditions}
    transport, identity = by_name["transport L1_k1 at 3"], by_name["identity resid_post.0->resid_post.2 at 5-6"]
    assert isinstance(transport.intervention, Transport)
    assert transport.intervention.operator.source == HookPoint("resid_post", 1)
    assert identity.intervention == CopySource(HookPoint("resid_post", 0))
    assert (identity.target, identity.positions) == (HookPoint("resid_post", 2), (5, 6))
    mean = by_name["mean resid_post.2 at 3"].intervention
    assert isinstance(mean, Constant)
    assert mean.value.tolist() == [1.0] * D


def test_operators_of_several_names_are_told_apart() -> None:
    subjects = {LayerPair(0, 1): subject(0, 1, "ridge", "jacobian"), LayerPair(0, 2): subject(0, 2, "ridge")}
    design = design_conditions(subjects, ("zero", "null"), [None], D, seed=0)
    names = [(str(trial.pair), trial.label, trial.operator) for trial in design.trials]
    assert names == [
        ("L0_k1", "zero", ""),
        ("L0_k1", "null (ridge)", "ridge"),
        ("L0_k1", "null (jacobian)", "jacobian"),
        ("L0_k2", "zero", ""),
        ("L0_k2", "null (ridge)", "ridge"),
    ]
    values = {
        condition.name: condition.intervention.value[0].item()
        for condition in design.conditions
        if isinstance(condition.intervention, Constant)
    }
    assert values["null (jacobian) L0_k1 at all"] == 2
    assert values["null (ridge) L0_k1 at all"] == 1


def test_with_directions_every_edit_is_along_them() -> None:
    bases = {"directions": torch.eye(D)[:, :1], "resid_post.2": torch.eye(D)[:, 1:3]}
    pairs = {LayerPair(0, k): subject(0, k, "ridge") for k in (1, 2)}
    design = design_conditions(pairs, NAMES, [None], D, seed=0, directions=Directions(bases, Path("file")))
    for condition in design.conditions:
        assert isinstance(condition.intervention, AlongDirections)
        own = "resid_post.2" if condition.target.layer == 2 else "directions"
        assert torch.equal(condition.intervention.basis, bases[own])


def test_without_operators_and_means_there_are_fewer() -> None:
    source, target = HookPoint("mlp_out", 0), HookPoint("mlp_out", 1)
    bare = {LayerPair(0, 1): PairSubject(source, target, {}, None, None)}
    design = design_conditions(bare, NAMES, [None], D, seed=0)
    assert [trial.intervention for trial in design.trials] == ["identity", "resample", "zero"]
    with pytest.raises(StrataError, match="none of the interventions mean, null can be made"):
        design_conditions(bare, ("mean", "null"), [None], D, seed=0)


def test_with_an_offset_all_edit_the_tokens_whose_source_is_there() -> None:
    source, target = HookPoint("resid_post", 0), HookPoint("resid_post", 1)
    operator = TransportOperator(torch.eye(D), torch.zeros(D), source, target.at(1), "ridge")
    pairs = {
        LayerPair(0, 1): subject(0, 1, "ridge"),
        LayerPair(0, 1, 1): PairSubject(source.at(-1), target, {"ridge": operator}, torch.zeros(D), torch.ones(D)),
    }
    design = design_conditions(pairs, NAMES, [None], D, seed=0)
    assert len(design.conditions) == 14
    editable = torch.ones(1, 4, dtype=torch.bool)
    edited = {trial.conditions[0]: trial.pair.offset for trial in design.trials}
    for condition in design.conditions:
        offset = edited[condition.name]
        assert condition.edited(editable).tolist() == [[not offset, True, True, True]]
    assert "zero resid_post.1@+1 at all" in edited
