"""modulator.init on the small testbed model: what a modulator begins with."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.config.modulators.train import TrainModulatorConfig
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import capture
from src.modulators.beginning.begun import Begun
from src.modulators.field import FieldModulator
from src.modulators.residual import ResidualModulator
from src.report.modulators.beginning import beginning_finding
from src.stage.context import Stage
from src.stage.entry import compose, run_stage
from src.stage.modulators.beginning import begin
from src.stage.modulators.candidates import candidate
from src.stage.modulators.describing import described
from src.stage.modulators.word_states import read_word_states
from src.stage.modulators.work import MODULATOR, ModulatorWork, Run, prepare

_SMALL = ("model=testbed_small", "num_sequences=400", "max_length=64", "modulator.residual.width=12")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project") / "artifacts"


def _in_stage(artifacts: Path, words: Sequence[str], function: Any) -> Any:
    overrides = [f"artifacts_dir={artifacts}", "threads=1", *_SMALL, *words]

    def run(config: TrainModulatorConfig, stage: Stage) -> Any:
        return function(prepare(config, stage), stage)

    return run_stage(run, TrainModulatorConfig, "train_modulator", compose("train_modulator", overrides), overrides)


def _begun(artifacts: Path, *words: str) -> tuple[ModulatorWork, Begun]:
    return _in_stage(artifacts, words, lambda work, stage: (work, begin(work, stage, work.config.seed)))


def test_lexicon_turns_vectors_onto_states_of_the_words(artifacts: Path) -> None:
    work, begun = _begun(artifacts)
    assert begun.start is not None
    assert begun.relations is not None
    assert begun.map is not None
    assert begun.map.held_out.low > begun.map.null_high
    assert begun.relations.held_out.r > begun.relations.held_out.null_high
    assert work.lexicon is not None
    known = {word.token_ids[0] for word in work.lexicon.split.words}
    assert set(begun.start.known.nonzero()[:, 0].tolist()) == known
    assert begun.start.offset.norm() > 0
    assert set(begun.map.by_layer) == set(work.layers)


def test_words_are_read_where_they_stand_in_training_examples(artifacts: Path) -> None:
    """By hand: the mean input of a block at a word's first occurrences, over the layer's root mean square length."""

    def read(work: ModulatorWork, stage: Stage) -> None:
        assert work.lexicon is not None
        words = [*work.lexicon.split.anchors, *work.lexicon.split.evaluated]
        n_anchors = len(work.lexicon.split.anchors)
        states = read_word_states(work, stage, words, n_anchors)
        points = [HookPoint("resid_pre", layer) for layer in work.layers]
        tokens = {words[place].token_ids[0]: place for place in states.words.tolist()}
        sums: dict[int, list[torch.Tensor]] = {place: [] for place in tokens.values()}
        for example in work.train:
            ids = torch.from_numpy(example.input_ids.astype(np.int64))[None]
            here = [
                position
                for position in np.flatnonzero(example.predicted)
                if int(example.input_ids[position]) in tokens
                and len(sums[tokens[int(example.input_ids[position])]]) < 32
            ]
            if not here:
                continue
            found = capture(work.model, ids, torch.ones_like(ids), points)
            for position in here:
                rows = torch.stack([found[point][0, position] for point in points])
                sums[tokens[int(example.input_ids[position])]].append(rows.double())
        means = torch.stack([torch.stack(sums[place][:32]).mean(0) for place in states.words.tolist()])
        units = means[states.words < n_anchors].square().sum(-1).mean(0).sqrt()
        torch.testing.assert_close(states.mean, (means / units[:, None]).mean(1), atol=1e-4, rtol=1e-4)
        assert list(states.lengths.values()) == pytest.approx(units.tolist(), rel=1e-4)

    _in_stage(artifacts, ["num_sequences=60"], read)


@pytest.mark.parametrize("init", ["random", "simplices", "relational"])
def test_other_beginnings(artifacts: Path, init: str) -> None:
    work, begun = _begun(artifacts, f"modulator.init={init}")
    assert begun.start is not None
    assert begun.map is None
    assert not begun.start.offset.any()
    n_known = int(begun.start.known.sum())
    if init == "relational":
        assert work.lexicon is not None
        assert n_known == len(work.lexicon.split.words)
    else:
        # special tokens have no neighbours worth the name, and random vectors are for all
        assert (n_known == 557) == (init == "random")
        assert n_known > 500
    size = begun.start.table[begun.start.known].square().mean().sqrt()
    assert float(size) == pytest.approx(1, abs=0.05)


def test_all_runs_of_a_seed_begin_with_the_same(artifacts: Path) -> None:
    def two(work: ModulatorWork, stage: Stage) -> None:
        assert begin(work, stage, 0) is begin(work, stage, 0)
        first, second = begin(work, stage, 0).start, begin(work, stage, 1).start
        assert first is not None
        assert second is not None
        # the words are those of config.seed: repeats are judged on the same ones
        assert torch.equal(first.known, second.known)
        assert torch.equal(first.table, second.table)

    _in_stage(artifacts, ["modulator.init=relational"], two)


def test_a_residual_modulator_is_what_was_begun(artifacts: Path) -> None:
    def built(work: ModulatorWork, stage: Stage) -> None:
        run = Run(MODULATOR)
        modulator = candidate(run, work, stage)
        begun = begin(work, stage, work.seed(run))
        assert isinstance(modulator, ResidualModulator)
        assert begun.start is not None
        tokens = begun.start.known.nonzero()[:, 0]
        expected = begun.start.table[tokens] @ begun.start.projection.T + begun.start.offset
        torch.testing.assert_close(modulator.target(tokens).detach(), expected)
        texts = " ".join(finding.text for finding in described(run, modulator, work))
        assert "110 of 557 tokens have vectors" in texts
        assert "Before training" in texts

    _in_stage(artifacts, [], built)


def test_experts_of_a_field_read_where_words_lie(artifacts: Path) -> None:
    """Their rows lie in the span of the map's directions; random ones do not."""

    def outside(work: ModulatorWork, stage: Stage) -> float:
        modulator = candidate(Run(MODULATOR), work, stage)
        assert isinstance(modulator, FieldModulator)
        directions = begin(work, stage, 0).directions
        if directions is None:
            return 1.0
        basis = torch.linalg.qr(directions[:, modulator.active].T).Q
        rows = modulator.deform.weight.detach().double()
        return float((rows - rows @ basis @ basis.T).norm() / rows.norm())

    field = ["modulator=field", "modulator.residual.width=12"]
    assert _in_stage(artifacts, [*field, "modulator.init=lexicon"], outside) < 1e-5
    assert _in_stage(artifacts, [*field, "modulator.init=random"], outside) == 1


def test_only_the_inits_that_use_words_depend_on_them(artifacts: Path) -> None:
    def identity(*words: str) -> dict[str, Any]:
        return _in_stage(artifacts, words, lambda work, _: work.identity(Run(MODULATOR)))

    assert identity("modulator.init=random") == identity("modulator.init=random", "lexicon.held_out=0.4")
    assert identity("modulator.init=random", "lexicon.taxonomy=/nowhere")["lexicon"] is None
    first = identity("modulator.init=relational")
    assert first != identity("modulator.init=relational", "lexicon.held_out=0.4")
    assert first != identity("modulator.init=relational", "lexicon.similarity=path")


def test_a_text_without_the_words_is_refused(artifacts: Path) -> None:
    def read(work: ModulatorWork, stage: Stage) -> None:
        begin(replace(work, train=work.train[:1], begun={}), stage, 0)

    with pytest.raises(StrataError, match=r"init=lexicon: \d of 77 anchors .* occur in the training examples"):
        _in_stage(artifacts, [], read)


def test_words_of_definitions_are_read_in_the_prompt(artifacts: Path) -> None:
    work, begun = _begun(artifacts, "objective=definitions", "training.batch_size=4")
    assert begun.map is not None
    # every word can be put where a definition stands
    assert work.lexicon is not None
    assert begun.map.n_anchors == len(work.lexicon.split.anchors)
    # BUG G-7: no word that val or test examples ask for makes a vector
    asked = {int(each.input_ids[-1]) for each in (*work.val, *work.test)}
    assert asked
    assert asked.isdisjoint(word.token_ids[0] for word in work.lexicon.split.anchors)


def test_a_width_beyond_the_relations_is_told(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _begun(artifacts, "modulator.init=relational", "modulator.residual.width=64", "lexicon.max_anchors=20")
    assert "width=64 is more than the" in " ".join("".join(capsys.readouterr()).split())


def test_the_finding_says_what_it_is_to_be_compared_with(artifacts: Path) -> None:
    found = beginning_finding(_begun(artifacts)[1])
    assert found is not None
    first, second = found.text.split("\n\n")
    assert "33 evaluated words" in first
    assert "shuffled words stay below" in first
    assert "more than maps of shuffled anchors" in second
    assert set(found.files["beginning.json"]) == {"relations", "map"}
    assert beginning_finding(Begun()) is None
