"""Model files: exact round trips, and one clean error for everything else."""

import json
import pickle
import random
import resource
import signal
import time
import tracemalloc
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import polars
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import otflow
from otflow.data.preprocessing import Standardizer
from otflow.estimator.estimator import OTFlow
from otflow.flow.flow import Flow
from otflow.model import modelfile, tensorfile
from otflow.model.model import Model, package_versions
from otflow.model.modelfile import FORMAT_VERSION, load_model, save_model
from otflow.potentials import ConditionalGaussian, ConditionalResNet, GaussianBase, ResNetPotential
from otflow.schemes import RK4
from otflow.support.precision import dtype_of, precision
from otflow.targets import GaussianMixture, StandardNormal
from tests.fakes import SMALL, Translation, no_training

X = np.random.default_rng(0).standard_normal((40, 2)) @ [[2.0, 0.3], [0.0, 0.5]] + [5.0, -1.0]
# compiled quickly; with this seed the untrained network does not fold the rows
QUICK = SMALL | {"scheme": "conforming", "n_steps": 3, "width": 4, "depth": 0, "random_state": 10}
NOT_READABLE = "not a readable otflow model"
VERSION_1 = Path(__file__).parents[1] / "saved" / "version1.safetensors"
SCORES_1 = [-3.5193984899344137, -3.564574042302578, -3.9885960016073874]


def drawn(create):
    """A tree of the shapes that `create` gives, with random numbers."""
    rng = np.random.default_rng(3)
    return jax.tree.map(
        lambda leaf: jax.numpy.asarray(rng.standard_normal(leaf.shape), float),
        jax.eval_shape(create),
    )


def make_model(dtype="float32", mixture=False) -> Model:
    """Every class that a file may hold, small, with numbers that no default gives."""
    with precision(dtype):
        base = GaussianBase.solve(np.array([0.1, -0.3]), np.array([[1.5, 0.2], [0.2, 0.7]]), 3.0)
        network = drawn(lambda: ResNetPotential.create(2, 4, 2, jax.random.key(3)))
        target = StandardNormal(2)
        if mixture:
            target = GaussianMixture([0.3, 0.7], [[1.0, 0.0], [-1.0, 0.5]], [np.eye(2)] * 2)
        flow = Flow(base + network, target, RK4(3, trace="stages"))
    standardizer = Standardizer(np.array([0.25, 1 / 3]), np.array([2.0, 0.1]))
    training = {"history": {"iteration": [0, 25], "objective": [1 / 3, None]}, "status": "max_iter"}
    return Model(flow, standardizer, ("a", "b"), {"alpha": 0.1, "base": None}, training | {"n": 25})


def assert_equal(a: Model, b: Model) -> None:
    """Bit for bit, types and structure included."""
    for part in ("flow", "standardizer"):
        left, right = getattr(a, part), getattr(b, part)
        assert jax.tree.structure(left) == jax.tree.structure(right)
        for u, v in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
            assert u.dtype == v.dtype
            assert np.array_equal(u, v)
    assert (a.columns, a.settings, a.training) == (b.columns, b.settings, b.training)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.otflow"


@pytest.fixture
def saved(path):
    save_model(path, make_model())
    return path


def rewrite(path, change) -> None:
    """Change the metadata (a dictionary) and the tensors of a file in place."""
    with safe_open(path, framework="numpy") as file:
        metadata = json.loads(file.metadata()["otflow"])
    tensors = load_file(path)
    change(metadata, tensors)
    save_file(tensors, path, metadata={"otflow": json.dumps(metadata)})


@pytest.mark.parametrize("mixture", [False, True], ids=["normal", "mixture"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip_is_exact(path, dtype, mixture):
    model = make_model(dtype, mixture)
    save_model(str(path), model)
    found = load_model(str(path))
    assert_equal(found, model)
    assert dtype_of(found.flow) == dtype
    assert isinstance(found.standardizer.mean, np.ndarray)


def test_a_loaded_flow_computes_the_same_bits(saved):
    x = np.random.default_rng(1).standard_normal((5, 2)).astype(np.float32)
    found, expected = (m.flow.trajectories(x) for m in (load_model(saved), make_model()))
    assert found.shape == (4, 5, 2)
    assert np.array_equal(found, expected)


# float64 files have a test above, the setting "float64" one below
@pytest.mark.parametrize(
    ("dtype", "depth"), [("float32", 0), pytest.param("float64", 1, marks=pytest.mark.slow)]
)
def test_estimator_round_trip(path, dtype, depth, monkeypatch):
    no_training(monkeypatch)
    frame = polars.DataFrame(X, schema=["height", "weight"])
    model = OTFlow(**QUICK | {"dtype": dtype, "depth": depth, "alpha": 2.5, "base": None}).fit(
        frame
    )
    model.history_["train_nll"] = [float("nan")]
    model.save(path)
    found = otflow.load(path)
    assert np.array_equal(found.score_samples(frame), model.score_samples(frame))
    assert np.array_equal(found.sample(3), model.sample(3))
    assert list(found.feature_names_in_) == ["height", "weight"]
    assert found.n_features_in_ == 2
    assert found.get_params() == model.get_params()
    assert (found.n_iter_, found.status_) == (model.n_iter_, model.status_)
    assert np.isnan(found.history_.pop("train_nll")).all()
    model.history_.pop("train_nll")
    assert found.history_ == model.history_


def test_estimator_with_a_mixture_target(path, monkeypatch):
    no_training(monkeypatch)
    target = GaussianMixture([0.5, 0.5], [[1.0, 0.0], [-1.0, 0.0]], [np.eye(2)] * 2)
    model = OTFlow(**QUICK, target=target).fit(X)
    model.save(path)
    found = otflow.load(path)
    assert isinstance(found.flow_.target, GaussianMixture)
    assert np.array_equal(found.score_samples(X), model.score_samples(X))
    assert not hasattr(found, "feature_names_in_")


def test_columns_that_happen_to_have_the_default_names(path, monkeypatch):
    no_training(monkeypatch)
    frame = polars.DataFrame(X, schema=["x0", "x1"])
    OTFlow(**QUICK).fit(frame).save(path)
    found = otflow.load(path)
    found.score_samples(frame)  # a warning about names is an error here
    assert list(found.feature_names_in_) == ["x0", "x1"]


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("width", np.int64(8), 8),
        ("alpha", np.float32(0.5), 0.5),
        ("random_state", np.int64(3), 3),
        ("dtype", np.float64, "float64"),
        ("standardize", np.bool_(True), True),
    ],
)
def test_settings_from_numpy_can_be_saved(path, monkeypatch, name, value, stored):
    no_training(monkeypatch)
    OTFlow(**QUICK | {name: value}).fit(X).save(path)
    found = otflow.load(path).get_params()[name]
    assert found == stored
    assert type(found) is type(stored)


def test_unknown_classes_are_not_written(path):
    flow = Flow(Translation(jax.numpy.zeros(2)), scheme=RK4(1))
    model = Model(flow, Standardizer.identity(2), ("a", "b"), {}, {})
    with pytest.raises(TypeError, match="do not know the class Translation"):
        save_model(path, model)
    assert not path.exists()


def test_impostors_of_a_known_class_are_not_written(path):
    impostor = type("RK4", (RK4,), {"__module__": __name__})
    model = Model(Flow(make_model().flow.potential, scheme=impostor(2)), *[None] * 4)
    with pytest.raises(TypeError, match="do not know the class RK4"):
        save_model(path, model)


def test_missing_file(path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*model\.otflow"):
        load_model(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        otflow.load(path.parent)


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def fails_half_way(tensors, target, metadata):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorfile, "save_file", fails_half_way)
    with pytest.raises(OSError, match="No space left"):
        save_model(saved, make_model("float64"))
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_settings_that_json_cannot_hold_leave_the_old_file(saved):
    before = saved.read_bytes()
    for bad in (object(), float("nan"), {1, 2}):
        model = make_model()
        model.settings["alpha"] = bad
        with pytest.raises((TypeError, ValueError)):
            save_model(saved, model)
    assert saved.read_bytes() == before


def contents():
    header = (10**15).to_bytes(8, "little")
    return {
        "empty": b"",
        "short": b"\x01\x02",
        "text": b"alpha,beta\n1,2\n",
        "zeros": bytes(1000),
        "huge header": header + b"{}",
        "header beyond the end": (500).to_bytes(8, "little") + b"{}",
        "pickle": pickle.dumps({"otflow": 1}),
    }


@pytest.mark.parametrize("content", contents().values(), ids=contents().keys())
def test_foreign_files(path, content):
    path.write_bytes(content)
    for read in (load_model, otflow.load):
        with pytest.raises(ValueError, match=NOT_READABLE) as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("metadata", [None, {"other": "1"}])
def test_safetensors_of_another_program(path, metadata):
    save_file({"a": np.zeros(3)}, path, metadata=metadata)
    with pytest.raises(ValueError, match=f"{NOT_READABLE}.*another program"):
        load_model(path)


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "3", "{}", "[" * 100_000], ids=lambda t: t[:4] or "empty"
)
def test_metadata_that_is_no_model(path, text):
    save_file({"a": np.zeros(3)}, path, metadata={"otflow": text})
    with pytest.raises(ValueError, match=NOT_READABLE):
        load_model(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=NOT_READABLE):
        load_model(saved)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, -1, "1", None, 1.5, True])
def test_another_version(saved, version):
    rewrite(saved, lambda metadata, _: metadata.update(format_version=version))
    with pytest.raises(ValueError, match=f"{NOT_READABLE}.*version {version!r}"):
        load_model(saved)


@pytest.mark.parametrize(
    "key",
    ["format_version", "dtype", "structure", "columns", "settings", "training"],
)
def test_missing_metadata(saved, key):
    rewrite(saved, lambda metadata, _: metadata.pop(key))
    with pytest.raises(ValueError, match=f"{NOT_READABLE}.*{key}"):
        load_model(saved)


def every_tensor():
    tensors = {}
    for name, part in (("flow", make_model(mixture=True).flow), ("standardizer", None)):
        modelfile.encode(part or make_model().standardizer, name, tensors)
    return sorted(tensors)


@pytest.mark.parametrize("name", every_tensor())
def test_missing_or_misshapen_tensor(path, name):
    """Each array of the file: absent, a row short, with one more axis, of integers."""
    save_model(path, make_model(mixture=True))
    content = path.read_bytes()
    changes = {
        "absent": lambda a: None,
        "one more axis": lambda a: a[..., None],
        "integers": lambda a: a.astype(np.int32),
    }
    if load_file(path)[name].ndim:
        changes["first of its rows"] = lambda a: a[:1]
    for change in changes.values():

        def apply(metadata, tensors, change=change):
            array = change(tensors.pop(name))
            if array is not None:
                tensors[name] = np.ascontiguousarray(array)

        path.write_bytes(content)
        if change is changes.get("first of its rows") and name.endswith("terms.1.A"):
            continue  # A may have any number of rows
        rewrite(path, apply)
        with pytest.raises(ValueError, match=NOT_READABLE) as caught:
            load_model(path)
        assert str(path) in str(caught.value)


def spoilt_structures():
    def potential(metadata):
        return metadata["structure"]["flow"]["fields"]["potential"]

    def fields(metadata):
        return metadata["structure"]["flow"]["fields"]

    return {
        "unknown class": lambda m: fields(m)["scheme"].update({"class": "Popen"}),
        "a class from elsewhere": lambda m: fields(m)["scheme"].update({"class": "os.system"}),
        "class of the wrong kind": lambda m: fields(m).update(scheme=fields(m)["target"]),
        "a list as class": lambda m: fields(m)["scheme"].update({"class": ["RK4"]}),
        "missing field": lambda m: fields(m).pop("target"),
        "extra field": lambda m: fields(m).update(more={"value": 1}),
        "field is no node": lambda m: fields(m).update(target=3),
        "value for a potential": lambda m: fields(m).update(potential={"value": 1.0}),
        "no terms": lambda m: potential(m)["fields"].update(terms={"tuple": []}),
        "no layers": lambda m: potential(m)["fields"]["terms"]["tuple"][1]["fields"].update(
            weights={"tuple": []}
        ),
        "steps of zero": lambda m: fields(m)["scheme"]["fields"].update(n_steps={"value": 0}),
        "steps of text": lambda m: fields(m)["scheme"]["fields"].update(n_steps={"value": "3"}),
        "other dimension": lambda m: fields(m)["target"]["fields"].update(_dim={"value": 3}),
        "dimension of float": lambda m: fields(m)["target"]["fields"].update(_dim={"value": 2.0}),
        "flow is a standardizer": lambda m: m["structure"].update(
            flow=m["structure"]["standardizer"]
        ),
        "standardizer is a flow": lambda m: m["structure"].update(
            standardizer=m["structure"]["flow"]
        ),
        "unknown dtype": lambda m: m.update(dtype="float16"),
        "dtype of a list": lambda m: m.update(dtype=[1]),
        "too few columns": lambda m: m.update(columns=["a"]),
        "columns of numbers": lambda m: m.update(columns=[1, 2]),
        "settings of a number": lambda m: m.update(settings=3),
    }


@pytest.mark.parametrize("spoil", spoilt_structures().values(), ids=spoilt_structures().keys())
def test_spoilt_structure(saved, spoil):
    rewrite(saved, lambda metadata, _: spoil(metadata))
    with pytest.raises(ValueError, match=NOT_READABLE):
        load_model(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["settings"].update(surprise=1),
        lambda m: m["settings"].update(target=1),
        lambda m: m["settings"].update(width="wide"),
        lambda m: m["training"].pop("history"),
        lambda m: m["training"].update(history=[1, 2]),
        lambda m: m["training"].update(history={"objective": None}),
        lambda m: m["training"].update(history={"objective": ["low"]}),
        lambda m: m["training"].pop("n_iter"),
    ],
    ids=[
        "unknown setting",
        "a target",
        "a width",
        "no history",
        "history a list",
        "null column",
        "text",
        "no n_iter",
    ],
)
def test_estimator_with_spoilt_settings(path, monkeypatch, change):
    no_training(monkeypatch)
    OTFlow(**QUICK).fit(X).save(path)
    rewrite(path, lambda metadata, _: change(metadata))
    with pytest.raises(ValueError, match=NOT_READABLE):
        otflow.load(path)


def test_negative_scales_are_refused(saved):
    rewrite(saved, lambda _, tensors: tensors["standardizer.scale"].__imul__(-1))
    with pytest.raises(ValueError, match="positive scales"):
        load_model(saved)


def test_loading_builds_listed_classes_only(saved, monkeypatch):
    """Whatever the file says, no other class is looked up, imported or called."""
    built = []
    check = modelfile._check_fields
    monkeypatch.setattr(
        modelfile, "_check_fields", lambda node: (built.append(type(node)), check(node))
    )
    monkeypatch.setattr("builtins.eval", None)
    monkeypatch.setattr("builtins.exec", None)
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    load_model(saved)
    assert set(built) <= set(modelfile._CLASSES.values())
    assert len(built) == 7


def test_random_damage_gives_one_kind_of_error(path):
    """400 small files with one to three bytes changed: a model or a ValueError with the path."""
    rng = random.Random(0)
    save_model(path, make_model(mixture=True))
    whole, refused, loaded = path.read_bytes(), 0, 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            first = rng.choice([0, len(content) * 3 // 4])  # anywhere, or among the tensors
            content[rng.randrange(first, len(content))] = rng.randrange(256)
        path.write_bytes(content)
        try:
            model = load_model(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
        else:
            assert isinstance(model.flow, Flow)
            assert all(eqx.is_array(leaf) for leaf in jax.tree.leaves(model.flow))
            loaded += 1
    assert refused > 100
    assert loaded > 50


# --- versions --------------------------------------------------------------------------------


def test_a_file_of_version_1_still_loads():
    """Written by the first release: its numbers come back to float32."""
    found = otflow.load(VERSION_1)
    rows = polars.DataFrame(
        [[5.0, -1.0], [7.0, -0.5], [2.0, -2.0]], ["height", "weight"], orient="row"
    )
    with pytest.warns(UserWarning, match="may fold, and the integral .* was not measured"):
        scores = found.score_samples(rows)
    np.testing.assert_allclose(scores, SCORES_1, atol=2e-5)
    assert (found.n_iter_, found.status_, found.width) == (75, "max_iter", 4)
    assert load_model(VERSION_1).versions == {}


def test_older_versions_go_through_every_step(saved, monkeypatch):
    """Two made-up migrations, the second of which needs the first."""

    def renamed(metadata, tensors):
        return {**metadata, "columns": metadata["names"]}, {k: 2 * v for k, v in tensors.items()}

    def added(metadata, tensors):
        return {**metadata, "names": ["p", "q"]}, tensors

    before = load_model(saved).standardizer
    monkeypatch.setattr(modelfile, "FORMAT_VERSION", FORMAT_VERSION + 2)
    steps = {FORMAT_VERSION: added, FORMAT_VERSION + 1: renamed}
    monkeypatch.setattr(modelfile, "MIGRATIONS", steps)
    found = load_model(saved)
    assert found.columns == ("p", "q")
    assert np.array_equal(found.standardizer.mean, 2 * before.mean)


def test_every_older_version_has_its_migration():
    assert sorted(modelfile.MIGRATIONS) == list(range(1, FORMAT_VERSION))


def test_versions_are_recorded(saved):
    versions = load_model(saved).versions
    assert versions == package_versions()
    assert versions["jax"] == jax.__version__
    assert versions["otflow"] == otflow.__version__


def test_the_header_is_read_without_the_tensors(saved, monkeypatch):
    for name in ("read_tensors", "decode"):
        monkeypatch.setattr(modelfile, name, None)
    header = modelfile.read_model_header(saved)
    assert header.document["columns"] == ["a", "b"]
    assert header.tensors["standardizer.mean"] == ((2,), "F64")


# --- bounded memory --------------------------------------------------------------------------


def peak_memory(function) -> int:
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [2**24 + 1, 2**30, 2**63, 2**64 - 1])
def test_a_huge_header_is_not_read(path, length):
    """The file is sparse and really as long as it says, up to a gigabyte."""
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(min(length + 100, 2**31))

    def load():
        with pytest.raises(ValueError, match=NOT_READABLE):
            load_model(path)

    assert peak_memory(load) < 2**20


@pytest.mark.parametrize("text", ["[" * 65 + "]" * 65, '"\\"' * 100_000, '{"a":' * 1000])
def test_nested_and_unterminated_json(path, text):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"nested|damaged"):
        tensorfile._parse(text.encode())
    assert time.perf_counter() - start < 1  # quadratic matching would take minutes


def test_brackets_in_text_are_no_nesting():
    text = json.dumps({"columns": ["[" * 200, '\\"[', "{" * 200]})
    assert tensorfile._parse(text.encode()) == json.loads(text)


def test_a_tensor_is_used_once_and_none_is_left_over(saved):
    """Naming one large tensor a million times would take a million times its memory."""
    before = saved.read_bytes()

    def twice(metadata, tensors):
        fields = metadata["structure"]["standardizer"]["fields"]
        fields["mean"] = fields["scale"]
        del tensors["standardizer.mean"]

    rewrite(saved, twice)
    with pytest.raises(ValueError, match=f"{NOT_READABLE}.*standardizer.scale"):
        load_model(saved)
    saved.write_bytes(before)
    rewrite(saved, lambda _, tensors: tensors.update(more=np.zeros(3)))
    with pytest.raises(ValueError, match=f"{NOT_READABLE}.*no part of the model uses more"):
        load_model(saved)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["flow.potential.terms.1.w", "standardizer.mean"])
def test_non_finite_weights_are_refused(saved, name, value):
    rewrite(saved, lambda _, tensors: tensors[name].__setitem__(0, value))
    with pytest.raises(ValueError, match=f"{NOT_READABLE}.*holds non-finite numbers in {name}"):
        load_model(saved)


@pytest.mark.parametrize("steps", [10_001, 10**12])
def test_absurd_numbers_of_steps_are_refused(saved, steps):
    def change(metadata, _):
        scheme = metadata["structure"]["flow"]["fields"]["scheme"]
        scheme["fields"]["n_steps"] = {"value": steps}

    rewrite(saved, change)
    with pytest.raises(ValueError, match=f"{NOT_READABLE}.*expected at most 10000"):
        load_model(saved)


def test_metadata_too_long_to_be_read_back_is_not_written(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(tensorfile, "MOST_HEADER", 200)
    with pytest.raises(ValueError, match="the metadata takes"):
        save_model(saved, make_model())
    assert saved.read_bytes() == before


def test_a_full_disk_is_an_os_error(saved):
    """The real thing: the process may write no file larger than 1 kB."""
    before = saved.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save_model(saved, make_model("float64"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


class TestConditional:
    @pytest.fixture
    def model(self):
        base = ConditionalGaussian.solve([0.1, -0.3], np.ones((2, 3)), np.eye(2), 3.0)
        network = drawn(lambda: ConditionalResNet.create(2, 3, 4, 1, jax.random.key(3)))
        flow = Flow(base + network, StandardNormal(2), RK4(3))
        plain = make_model()
        scaler = Standardizer(np.array([0.0, 1.0, 0.5]), np.array([1.0, 2.0, 1 / 3]))
        names = ("a", "b", "weather")
        return Model(flow, plain.standardizer, None, {}, plain.training, scaler, names)

    def test_round_trip_is_exact(self, model, path):
        save_model(path, model)
        found = load_model(path)
        assert_equal(found, model)
        np.testing.assert_array_equal(found.condition.mean, model.condition.mean)
        np.testing.assert_array_equal(found.condition.scale, model.condition.scale)
        assert found.condition_columns == model.condition_columns

    def test_files_of_unconditional_flows_are_as_before(self, saved):
        with safe_open(saved, framework="numpy") as file:
            metadata = json.loads(file.metadata()["otflow"])
        assert set(metadata["structure"]) == {"flow", "standardizer"}
        assert "condition_columns" not in metadata

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda m: m["structure"].pop("condition"),
            lambda m: m["structure"].update(condition=m["structure"]["standardizer"]),
            lambda m: m["structure"].update(condition=m["structure"]["flow"]),
            lambda m: m.update(condition_columns=["a"]),
            lambda m: m.update(condition_columns=[1, 2, 3]),
        ],
        ids=["missing", "other width", "a flow", "too few names", "numbers for names"],
    )
    def test_damage(self, model, path, spoil):
        save_model(path, model)
        rewrite(path, lambda metadata, _: spoil(metadata))
        with pytest.raises(ValueError, match=NOT_READABLE):
            load_model(path)

    def test_a_condition_for_an_unconditional_flow(self, saved):
        def add(metadata, _):
            metadata["structure"]["condition"] = metadata["structure"]["standardizer"]

        rewrite(saved, add)
        with pytest.raises(ValueError, match=NOT_READABLE):
            load_model(saved)

    @pytest.mark.parametrize("part", ["C", "G", "W", "shift_slope"])
    def test_misshapen_tensors(self, model, path, part):
        save_model(path, model)
        (name,) = (n for n in load_file(path) if n.endswith(f".{part}"))
        rewrite(path, lambda _, tensors: tensors.update({name: tensors[name][:, :1].copy()}))
        with pytest.raises(ValueError, match=NOT_READABLE):
            load_model(path)
