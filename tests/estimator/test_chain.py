"""Chains of flows: what they keep, how they stop, how they are resumed, and what else they are."""

import pickle

import jax
import numpy as np
import pytest
from sklearn.base import clone

import otflow.estimator.chain
import otflow.estimator.chaining
from otflow import OTFlow, OTFlowChain, load
from otflow.data.shards import ShardedTable
from otflow.estimator.blocks import LEAST_GAIN, MOST_BLOCKS, Block, ChainPlan, strength
from otflow.model.modelfile import load_model, save_model
from otflow.targets import StandardNormal
from tests.fakes import forbid_training, no_training

RNG = np.random.default_rng(0)
X = RNG.gamma(1.5, size=(240, 1)) + 3.0
HELD = RNG.gamma(1.5, size=(100, 1)) + 3.0
TINY = {
    "blocks": 2,
    "joint_iter": 25,
    "max_iter": 25,
    "width": 4,
    "batch_size": 64,
    "random_state": 0,
    "verbose": False,
}


@pytest.fixture(scope="module")
def model():
    return OTFlowChain(**TINY).fit(X, X_val=HELD)


def block(tau=1.0, way=1.0, gain=1.0, gain_error=0.01):
    return Block(tau, way, gain, gain_error, 10, "max_iter")


class TestPlan:
    def test_tau_grows_as_the_rows_slow_down(self):
        plan = ChainPlan("auto", None, 0)
        assert plan.next_tau([]) == 1.0
        assert plan.next_tau([block(way=2.0), block(tau=1.5, way=1.0)]) == 3.0
        assert plan.next_tau([block(way=1.0), block(tau=2.0, way=1.5)]) == 2.0
        assert plan.next_tau([block(way=1.0), block(tau=2.0, way=0.0)]) == 8.0
        assert plan.next_tau([block(way=1.0), block(tau=900.0, way=0.5)]) == 1000.0

    def test_a_tau_that_is_set_stays(self):
        assert ChainPlan(3, 0.5, 0).next_tau([block(way=2.0), block(way=0.1)]) == 0.5

    def test_strength_is_that_of_one_contraction(self):
        """SPEC 7: KL falls by (1 + tau)^2 a block, by (1 + alpha)^2 in one."""
        assert strength([block(tau=1.0), block(tau=0.5)]) == pytest.approx(2.0)

    def test_a_gain_has_to_be_certain(self):
        assert block(gain=LEAST_GAIN + 0.03, gain_error=0.01).worth_it
        assert not block(gain=LEAST_GAIN + 0.03, gain_error=0.02).worth_it
        assert not block(gain=np.nan).worth_it

    @pytest.mark.parametrize(
        ("fields", "error", "message"),
        [
            (("many", None, 0), ValueError, "^blocks: expected an integer >= 1 or 'auto'"),
            ((0, None, 0), ValueError, "^blocks: expected an integer >= 1; got 0"),
            ((True, None, 0), TypeError, "^blocks: expected an integer >= 1"),
            ((2.5, None, 0), TypeError, "^blocks: expected an integer >= 1"),
            ((2, 0.0, 0), ValueError, "^tau: expected a finite number > 0"),
            ((2, "1", 0), TypeError, "^tau: expected a number > 0"),
            ((2, None, -1), ValueError, "^joint_iter: expected an integer >= 0"),
        ],
    )
    def test_refused(self, fields, error, message):
        with pytest.raises(error, match=message):
            ChainPlan(*fields)


class TestFitted:
    @pytest.mark.slow
    def test_the_history_is_of_the_whole_chain(self, model):
        """Steps add up, and the validation nll is that of the chain, in the flow's space."""
        history = model.history_
        assert history["iteration"] == [0, 25, 50, 75]
        assert history["block"] == [1, 2, 0, 0]
        assert len({len(column) for column in history.values()}) == 1
        last = history["val_nll"][history["iteration"].index(model.n_iter_)]
        expected = -model.score(HELD) - np.log(model.standardizer_.scale[0])
        assert last == pytest.approx(expected, abs=1e-4)

    def test_gains_add_up_to_the_chain_without_joint_steps(self):
        chain = OTFlowChain(**TINY | {"joint_iter": 0}).fit(X, X_val=HELD)
        z = chain.standardizer_.forward(HELD)
        normal = -np.asarray(StandardNormal(1).log_prob(z)).mean()
        scale = np.log(chain.standardizer_.scale[0])
        total = sum(b.gain for b in chain.blocks_)
        assert total == pytest.approx(normal + chain.score(HELD) + scale, abs=1e-4)
        assert chain.used("alpha") == pytest.approx(strength(chain.blocks_))

    def test_the_first_block_is_the_flow_of_its_tau(self):
        """The same rows, seed and settings: bit for bit what OTFlow gives."""
        chain = OTFlowChain(**TINY | {"joint_iter": 0, "blocks": 1, "tau": 2.0}).fit(X, X_val=HELD)
        shared = {k: v for k, v in TINY.items() if k not in ("blocks", "joint_iter")}
        flow = OTFlow(alpha=2.0, beta=0.0, n_steps=1, **shared).fit(X, X_val=HELD)
        ours, theirs = (jax.tree.leaves(m.flow_.potential) for m in (chain, flow))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_it_is_a_bijection_and_a_density(self, model):
        np.testing.assert_allclose(model.inverse_transform(model.transform(HELD)), HELD, rtol=1e-4)
        x = np.linspace(-30, 60, 2001)[:, None]
        assert np.exp(model.score_samples(x)).sum() * 0.045 == pytest.approx(1.0, abs=1e-3)
        assert model.integral_ is None

    def test_files_and_pickles_hold_all_of_it(self, model, tmp_path):
        model.save(tmp_path / "m")
        for again in (load(tmp_path / "m"), pickle.loads(pickle.dumps(model))):
            assert isinstance(again, OTFlowChain)
            assert again.blocks_ == model.blocks_
            assert again.get_params() == model.get_params()
            np.testing.assert_equal(again.history_, model.history_)  # NaN among them
            np.testing.assert_array_equal(again.score_samples(HELD), model.score_samples(HELD))

    def test_it_goes_on(self, model):
        """partial_fit trains all blocks together, and never ends below its start."""
        again = pickle.loads(pickle.dumps(model))
        again.partial_fit(X, X_val=HELD)
        assert again.score(HELD) >= model.score(HELD) - 1e-6
        assert len(again.blocks_) == 2

    @pytest.mark.parametrize("rate", [None, 0.02])
    def test_it_goes_on_as_joint_steps_train(self, model, monkeypatch, rate):
        """A fifth of the blocks' rate, and their alpha, in both."""
        told = []

        def heard(settings, *args, **options):
            told.append((settings.learning_rate, settings.alpha, settings.weight_decay))
            raise InterruptedError

        again = pickle.loads(pickle.dumps(model)).set_params(learning_rate=rate)
        monkeypatch.setattr(otflow.estimator.chain, "fit_flow", heard)
        with pytest.raises(InterruptedError):
            again.partial_fit(X, X_val=HELD)
        assert told[0][:2] == (0.2 * (rate or 0.05), model.used("alpha"))
        train = otflow.estimator.chaining.fit_flow
        monkeypatch.setattr(
            otflow.estimator.chaining,
            "fit_flow",
            lambda *args, start=None: train(*args) if start is None else heard(*args),
        )
        with pytest.raises(InterruptedError):
            OTFlowChain(**TINY | {"learning_rate": rate}).fit(X, X_val=HELD)
        assert told[1][0] == told[0][0]

    def test_a_clone_has_the_settings_alone(self, model):
        again = clone(model)
        assert again.get_params() == model.get_params()
        assert not hasattr(again, "blocks_")
        assert "alpha" not in again.get_params()
        with pytest.raises(ValueError, match="alpha"):
            again.set_params(alpha=3.0)

    def test_blocks_are_flows(self, model):
        z = model.standardizer_.forward(HELD).astype(np.float32)
        ends = model.block(2).forward(model.block(1).forward(z))
        np.testing.assert_allclose(ends, model.transform(HELD), atol=1e-5)
        for number, error in ((0, ValueError), (3, ValueError), (1.0, TypeError)):
            with pytest.raises(error, match=r"^number: expected"):
                model.block(number)


@pytest.mark.slow
def test_a_condition_weights_and_columns(tmp_path):
    """What an OTFlow takes a chain takes."""
    c, weight = RNG.normal(size=(len(X), 1)), RNG.random(len(X)) + 0.5
    chain = OTFlowChain(**TINY | {"joint_iter": 0}, bounds={0: (0, None)}, dequantize={0: 0.5})
    rows = np.round(2 * X) / 2
    chain.fit(rows, condition=c, sample_weight=weight)
    assert chain.n_conditions_ == 1
    assert np.isfinite(chain.score(rows, condition=c))
    drawn = chain.sample(20, random_state=0, condition=[0.3])
    assert (drawn >= 0).all()
    np.testing.assert_array_equal(np.round(2 * drawn), 2 * drawn)
    one = chain.given([0.3])
    np.testing.assert_allclose(
        one.score_samples(rows[:9]), chain.score_samples(rows[:9], condition=[0.3]), rtol=1e-5
    )
    chain.save(tmp_path / "m")
    assert load(tmp_path / "m").n_conditions_ == 1


class TestAuto:
    def test_a_block_that_gains_nothing_ends_the_chain(self, monkeypatch):
        """Normal rows: the first block, the Gaussian solution, leaves too little to a second."""
        no_training(monkeypatch)
        rows = RNG.normal(size=(500, 1))
        chain = OTFlowChain(**TINY | {"blocks": "auto", "joint_iter": 0, "tau": 50.0}).fit(rows)
        assert len(chain.blocks_) == 1
        assert chain.status_ == "early_stopping"

    def test_gains_that_go_on_end_at_the_most(self, monkeypatch):
        """Far rows at a small tau: each block gains by the exact contraction of the mean."""
        no_training(monkeypatch)
        rows = RNG.normal(size=(300, 1)) + 40.0
        settings = TINY | {"blocks": "auto", "joint_iter": 0, "tau": 0.2}
        chain = OTFlowChain(**settings, standardize=False).fit(rows)
        assert len(chain.blocks_) == MOST_BLOCKS
        assert chain.status_ == "max_iter"
        end = chain.transform(rows).mean()
        assert end == pytest.approx(rows.mean() / 1.2**MOST_BLOCKS, rel=1e-2)

    def test_held_out_rows_are_needed(self, monkeypatch):
        forbid_training(monkeypatch)
        with pytest.raises(ValueError, match=r"^blocks: expected a number where no rows are held"):
            OTFlowChain(blocks="auto", validation_fraction=0).fit(X)


class Killed(BaseException):
    """What a kill looks like from within: nobody catches it."""


@pytest.mark.parametrize("block", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 0))])
def test_a_killed_run_goes_on_bit_for_bit(model, block, tmp_path):
    """After a kill in any block, and in the steps of all together."""
    file = tmp_path / "run"

    def kill(row):
        if row["block"] == block and row["iteration"] % 25 == 0 and row["iteration"] > 0:
            raise Killed

    with pytest.raises(Killed):
        OTFlowChain(**TINY).fit(X, X_val=HELD, checkpoint=file, on_validation=kill)
    again = OTFlowChain(**TINY)
    if file.exists():  # a kill before the first write leaves nothing to find
        with pytest.raises(FileExistsError, match="holds a run"):
            again.fit(X, X_val=HELD, checkpoint=file)
    again.fit(X, X_val=HELD, checkpoint=file, resume=True)
    for ours, theirs in zip(*(jax.tree.leaves(m.flow_) for m in (again, model)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again.blocks_ == model.blocks_
    assert again.history_["val_nll"] == model.history_["val_nll"]


def test_a_block_left_by_another_run_is_found_before_the_first_is_trained(tmp_path, monkeypatch):
    forbid_training(monkeypatch)
    (tmp_path / "run.block2").write_bytes(b"")
    with pytest.raises(FileExistsError, match=r"run.block2 holds a run"):
        OTFlowChain(**TINY).fit(X, checkpoint=tmp_path / "run")


@pytest.mark.slow
def test_an_interrupted_chain_keeps_its_blocks(monkeypatch):
    def interrupt(row):
        if row["block"] == 2 and row["iteration"] > 25:
            raise KeyboardInterrupt

    chain = OTFlowChain(**TINY)
    with pytest.raises(KeyboardInterrupt):
        chain.fit(X, X_val=HELD, on_validation=interrupt)
    assert (len(chain.blocks_), chain.status_) == (2, "interrupted")
    assert np.isfinite(chain.score(HELD))


def test_streams_are_refused(tmp_path, monkeypatch):
    forbid_training(monkeypatch)
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(ValueError, match=r"^X: expected a table in memory"):
        OTFlowChain(**TINY).fit(ShardedTable(tmp_path / "x.npy"))


def test_certificates_of_a_block_and_of_the_whole(model, monkeypatch):
    """Each has its own law, flow and penalty."""
    asked = []
    monkeypatch.setattr(
        "otflow.certificates.certify", lambda flow, rows, **o: asked.append((flow, rows, o))
    )
    model.certify_block(2, HELD, seconds=1.0)
    ((flow, rows, options),) = asked
    z = model.standardizer_.forward(HELD).astype(np.float32)
    np.testing.assert_allclose(rows, model.block(1).forward(z), atol=1e-6)
    np.testing.assert_allclose(flow.forward(rows), model.transform(HELD), atol=1e-5)
    assert options["alpha"] == model.blocks_[1].tau
    assert options["seconds"] == 1.0
    assert "before block 2" in options["space"]


def test_what_reports_read(model):
    """The strength of the chain stands where a flow has its alpha."""
    assert model.used("alpha") == pytest.approx(strength(model.blocks_))
    assert model.used("width") == 4
    assert otflow.estimator.chaining.block_path("run", "together").name == "run.together"


def test_a_file_whose_blocks_are_not_those_of_its_flow_is_damaged(model, tmp_path):
    model.save(tmp_path / "m")
    for blocks in (
        [vars(model.blocks_[0])],
        [vars(block) | {"tau": "much"} for block in model.blocks_],
        [{"tau": 1.0}] * 2,
    ):
        found = load_model(tmp_path / "m")
        found.training["blocks"] = blocks
        save_model(tmp_path / "n", found)
        with pytest.raises(ValueError, match="not a readable otflow model"):
            load(tmp_path / "n")
