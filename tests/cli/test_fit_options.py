"""`otflow fit`: configuration files, checkpoints, logs, columns, pipes."""

import json
import re
import tomllib

import numpy as np
import polars
import pytest
from typer.testing import CliRunner

import otflow.estimator.fitting
from otflow import OTFlowChain
from otflow.cli.app import app
from otflow.cli.column_options import parse_scales
from otflow.cli.config import to_toml
from otflow.data.tables import Table, read_table, write_table
from otflow.estimator.loading import load
from tests.fakes import no_training, untrained

X = np.random.default_rng(0).standard_normal((120, 3)) @ np.diag([2.0, 0.3, 1.0]) + [
    10.0,
    -3.0,
    0.0,
]
NAMES = ("height", "weight", "age")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with a table and a configuration; nothing trains."""
    monkeypatch.chdir(tmp_path)
    write_table("data.csv", Table(X, NAMES))
    no_training(monkeypatch)
    return tmp_path


def run(words, code=0, stdin=None):
    result = CliRunner().invoke(
        app, words.split() if isinstance(words, str) else words, input=stdin
    )
    assert result.exit_code == code, result.output
    return result


TINY = "--n-steps 1 --depth 0 --width 8"  # the same programs in all tests
CONFIG = """
data = "data.csv"
out = "m"
alpha = 7.5
batch-size = 32
columns = ["age", "height"]
scheme = "rk4"
mlflow = false
"""


def test_a_file_gives_the_options_and_flags_win(folder):
    (folder / "run.toml").write_text(CONFIG)
    run("fit --config run.toml --alpha 2 --seed 4")
    found = load("m")
    assert (found.alpha, found.batch_size, found.scheme) == (2.0, 32, "rk4")
    assert (found.random_state, found.width, found.used("width")) == (4, None, 64)
    assert found.columns_ == ("age", "height")


def test_effective_options_can_be_fed_back(folder, monkeypatch):
    """Standard output is TOML: the options, then the result as comments."""
    monkeypatch.setattr(otflow.estimator.fitting, "train", reporting)
    (folder / "run.toml").write_text(CONFIG)
    told = run("fit --config run.toml --alpha 2").stdout
    options = tomllib.loads(told)
    assert options["columns"] == "age,height"
    assert options["alpha"] == 2.0
    assert options["batch_size"] == 32
    assert not {"n_steps", "learning_rate"} & set(options)
    assert "# m: 120 rows, 2 columns" in told
    before = (folder / "m").read_bytes()
    (folder / "again.toml").write_text(told)
    again = run("fit --config again.toml").stdout
    assert again == told
    assert load("m").get_params().items() >= {"alpha": 2.0, "batch_size": 32}.items()
    assert (folder / "m").read_bytes() == before


def reporting(*args, **kwargs):
    """Untrained, with a first row."""
    from tests.fakes import train_arguments

    train_arguments(*args, **kwargs)["watch"].report("first-order", {"iteration": 0})
    return untrained(*args, **kwargs)


BAD_CONFIGS = {
    'alhpa = 3\ndata = "data.csv"': "got alhpa",
    "as_json = true": "got as_json",
    'config = "other.toml"': "got config",
    "alpha = ": "run.toml: ",
    'alpha = "much"': "--alpha",
    "width = 2.5": "--width",
}


@pytest.mark.parametrize(("text", "message"), BAD_CONFIGS.items(), ids=BAD_CONFIGS)
def test_bad_configurations(folder, text, message):
    (folder / "run.toml").write_text(text)
    result = run("fit data.csv --out m --config run.toml", code=2)
    assert message in " ".join(re.sub("[│\n]", " ", result.stderr).split())  # a box breaks lines
    assert not (folder / "m").exists()


def test_a_missing_configuration(folder):
    assert "no.toml" in run("fit data.csv --out m --config no.toml", code=2).stderr


def test_toml_holds_any_text(folder):
    options = {
        "out": folder / 'a "b" \\ é',
        "n": 3,
        "on": True,
        "off": False,
        "none": None,
        "x": 0.1,
    }
    found = tomllib.loads(to_toml(options))
    assert found == {"out": str(options["out"]), "n": 3, "on": True, "x": 0.1}


def test_columns_by_name(folder):
    run(f"fit data.csv --out m {TINY} --columns weight,height")
    fitted = load("m")
    assert fitted.columns_ == ("weight", "height")
    by_name = json.loads(run("score m data.csv --json").stdout)["log_prob"]
    frame = polars.DataFrame(X[:, [1, 0]], ["weight", "height"])
    assert by_name == pytest.approx(fitted.score_samples(frame).mean(), rel=1e-12)
    write_table("other.csv", Table(X, ("h", "w", "a")))
    chosen = json.loads(run("score m other.csv --columns w,h --json").stdout)["log_prob"]
    assert chosen == by_name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("fit data.csv --out m --columns height,size", "got no size"),
        ("fit data.csv --out m --columns height,height", "got height, height"),
        ("fit x.npy --out m --columns height", "a table with names"),
    ],
)
def test_bad_columns(folder, words, message):
    np.save("x.npy", X)
    assert message in run(words, code=2).stderr


def test_pipes(folder):
    """CSV in, CSV out, and only that on standard output."""
    table = (folder / "data.csv").read_text()
    run(f"fit - --out m {TINY}", stdin=table)
    piped = json.loads(run("score m - --json", stdin=table).stdout)
    assert piped == json.loads(run("score m data.csv --json").stdout)
    result = run("score m - --out -", stdin=table)
    (folder / "scores.csv").write_text(result.stdout)
    assert read_table("scores.csv").values.mean() == pytest.approx(piped["log_prob"], rel=1e-12)
    assert "mean log-density" in result.stderr
    (folder / "s.csv").write_text(run("sample m -n 5 --seed 2 --out -").stdout)
    run("sample m -n 5 --seed 2 --out t.csv")
    assert (folder / "s.csv").read_text() == (folder / "t.csv").read_text()


@pytest.mark.parametrize("text", ["", "a,b\n", "1,2\n3,4\n", "a,b\n1,x\n", "\x00\xff"])
def test_bad_pipes(folder, text):
    result = run("fit - --out m", code=2, stdin=text)
    assert "standard input" in result.stderr
    assert result.stderr.count("\n") == 1


def test_json(folder):
    found = json.loads(run(f"fit data.csv --out m {TINY} --json").stdout)
    assert (found["rows"], found["columns"], found["model"]) == (120, 3, "m")
    assert found["status"] == "max_iter"
    assert found["options"]["alpha"] == 30.0
    assert json.loads(run("sample m -n 4 --out s.csv --json").stdout)["rows"] == 4


SHORT = f"fit data.csv --out m {TINY} --max-iter 75 --batch-size 64"


def test_checkpoint_resume_and_logs(tmp_path, monkeypatch):
    """An interruption from inside, then the rest: the same model as without one."""
    monkeypatch.chdir(tmp_path)
    write_table("data.csv", Table(X, NAMES))
    run(SHORT)
    expected = load("m")
    row, train = [], otflow.estimator.fitting.train

    def interrupted(*args, **kwargs):
        watch = args[7]

        def stop(found):
            watch.on_validation(found)
            row.append(found)
            if len(row) == 3:
                raise KeyboardInterrupt

        changed = type(watch)(watch.checkpoint, watch.checkpoint_every, True, stop)
        return train(*args[:7], changed, *args[8:], **kwargs)

    monkeypatch.setattr(otflow.estimator.fitting, "train", interrupted)
    options = " --checkpoint c --checkpoint-every 25 --log run.jsonl"
    result = run(SHORT + options, code=130)
    assert "best weights so far are in m" in result.stderr
    monkeypatch.setattr(otflow.estimator.fitting, "train", train)
    assert "holds a run" in run(SHORT + options, code=2).stderr
    assert "alpha (30.0 there, 3.0 now)" in run(SHORT + options + " --resume --alpha 3", 2).stderr
    run(SHORT + options + " --resume")
    rows = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [r["iteration"] for r in rows] == [0, 25, 50, 50, 75]
    found = load("m")
    frame = polars.DataFrame(X, NAMES)
    assert np.array_equal(found.score_samples(frame), expected.score_samples(frame))
    assert found.history_["objective"] == expected.history_["objective"]


class TestBlocks:
    """A chain: defaults of its own, and no option that means nothing to it."""

    TINY = "fit data.csv --out m --blocks 2 --width 8 --joint-iter 0"

    def test_what_was_asked_for_reaches_the_chain(self, folder):
        run(f"{self.TINY} --max-iter 50 --tau 2.5 --seed 3")
        found = load("m")
        assert isinstance(found, OTFlowChain)
        assert (found.blocks, found.tau, found.max_iter, found.joint_iter) == (2, 2.5, 50, 0)
        assert (found.n_steps, found.beta, found.random_state) == (1, 0.0, 3)
        assert [block.tau for block in found.blocks_] == [2.5, 2.5]

    def test_effective_options_can_be_fed_back(self, folder, monkeypatch):
        monkeypatch.setattr(otflow.estimator.fitting, "train", reporting)
        told = run(self.TINY).stdout
        options = tomllib.loads(told)
        assert (options["blocks"], options["max_iter"], options["joint_iter"]) == (2, 500, 0)
        assert not {"alpha", "scheme", "depth", "natural_iter"} & set(options)
        (folder / "again.toml").write_text(told)
        assert run("fit --config again.toml").stdout == told

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--blocks 2 --alpha 30", "--alpha: expected not to be set with --blocks."),
            ("--blocks auto --scheme rk4 --depth 2", "--depth, --scheme: expected not to be set"),
            ("--tau 2", "--tau: expected not to be set without --blocks."),
            ("--blocks two", "blocks: expected an integer >= 1 or 'auto'; got 'two'."),
            ("--blocks 0", "blocks: expected an integer >= 1; got 0."),
            ("--blocks -1", "blocks: expected an integer >= 1 or 'auto'; got '-1'."),
            ("--blocks 2 --distributed", "distributed: expected without --blocks"),
        ],
    )
    def test_refused(self, folder, words, message):
        assert message in run(f"fit data.csv --out m {words}", code=2).stderr
        assert not (folder / "m").exists()


def test_columns_by_what_they_are(folder):
    """Condition, weights, bounds, steps and scales, from the table to the model and back."""
    rng = np.random.default_rng(1)
    values = np.column_stack(
        [
            *(rng.gamma(2.0, 1.0, 120), rng.poisson(9.0, 120), rng.standard_t(2.0, 120)),
            *(rng.integers(2, size=120), np.ones(120)),
        ]
    )
    write_table("t.csv", Table(values, ("income", "visits", "profit", "north, or not", "weight")))
    words = ["fit", "t.csv", "--out", "m", *TINY.split(), "--weights", "weight"]
    words += ["--arcsinh", "profit=2"]
    words += ["--bounds", "income=0:,visits=0:", "--dequantize", "visits=1", "--preset", "density"]
    run([*words, "--condition", '"north, or not"', "--alpha", "5"])
    found = load("m")
    assert found.columns_ == ("income", "visits", "profit")
    assert found.condition_names_ == ("north, or not",)
    assert found.bounds == {"income": (0.0, None), "visits": (0.0, None)}
    assert found.column_map_.step == (0.0, 1.0, 0.0)
    assert found.column_map_.arcsinh == (None, None, (np.median(values[:, 2]), 2.0))
    assert (found.alpha, found.n_steps, found.beta) == (5.0, 1, 0.0)  # flags win over the preset
    file = 'condition = ["north, or not"]\nalpha = 5\npreset = "density"\nn-steps = 1\n'
    (folder / "again.toml").write_text(file)
    run([*words[:-2], "--config", "again.toml", "--out", "m2"])
    assert load("m2").get_params() == found.get_params()
    scored = json.loads(run("score m t.csv --json").stdout)["log_prob"]
    rows = polars.DataFrame(values[:, :3], schema=["income", "visits", "profit"])
    assert scored == pytest.approx(found.score(rows, condition=values[:, 3]), rel=1e-6)
    wide = polars.read_csv("t.csv").with_columns(name=polars.lit("A1"), note=None)
    wide.select(wide.columns[::-1]).write_csv("wide.csv")
    assert json.loads(run("score m wide.csv --json").stdout)["log_prob"] == scored
    assert json.loads(run("score m - --json", stdin=wide.write_csv()).stdout)["rows"] == len(values)
    assert (
        "got name (String)" in run("score m wide.csv --columns income,name,visits", code=2).stderr
    )
    wide.drop("profit").write_csv("lacks.csv")
    assert "got no profit, which the model has, and name" in run("score m lacks.csv", code=2).stderr
    run("sample m --out s.csv -n 20 --condition 1")
    drawn = read_table("s.csv").values
    assert (drawn[:, 1] == drawn[:, 1].round()).all()


@pytest.mark.parametrize(
    ("text", "scales"),
    [
        (None, None),
        ("auto", "auto"),
        ("auto=", {"auto": None}),
        ('loss=100,"a, b",=x=', {"loss": 100.0, "a, b": None, "=x": None}),
    ],
)
def test_scales_as_text(text, scales):
    assert parse_scales(text) == scales


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--bounds height", "--bounds: expected columns once each"),
        ("--bounds height=1", "--bounds: expected LOWER:UPPER for height; got '1'"),
        ("--bounds height=a:b", "--bounds: expected LOWER:UPPER for height; got 'a:b'"),
        ("--bounds shape=0:", "bounds: expected columns among"),
        ("--dequantize height=x", "--dequantize: expected a step for height; got 'x'"),
        ("--dequantize height", "--dequantize: expected columns once each"),
        ("--arcsinh height=x", "--arcsinh: expected a scale for height; got 'x'"),
        ("--arcsinh height,height=2", "--arcsinh: expected columns once each"),
        ("--arcsinh shape", "arcsinh: expected columns among"),
        ("--preset best", "--preset: expected one of density, map, quick; got 'best'"),
        ("--condition tallness", "tallness"),
        ("--condition height,weight,age", "expected to leave columns to fit; got all"),
        ('--columns "height', "--columns: expected names, quotes closed"),
    ],
)
def test_columns_said_wrongly(folder, words, told):
    assert told in " ".join(run(f"fit data.csv --out q {words}", code=2).stderr.split())
