"""debian2mix in rooms: mixtures without stems to learn from, test sets whose references are in the rooms too."""

import numpy as np
import pytest
from conftest import recipe_script
from lookalikes import write_librimix

from tasnet_attn.data import LibriMix, Recordings
from tasnet_attn.data.augment import room
from tasnet_attn.errors import UserError

rooms = recipe_script("debian2mix/local/rooms.py")
SUBSETS = ("train", "test", "test-speakers")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """debian2mix, and the same in rooms."""
    root = tmp_path_factory.mktemp("data") / "debian2mix"
    for training in ("train", "test-speakers"):
        write_librimix(root, training=training, lengths=(3000, 4000) + (2000,) * 10)
    rooms.build(root, root.with_name("rooms"))
    return root, root.with_name("rooms")


@pytest.mark.parametrize("subset", SUBSETS[1:])
def test_the_speakers_of_a_mixture_share_a_room_and_each_has_a_distance(subset, corpora):
    """Against a plain convolution."""
    dry, wet = (LibriMix(["a", "b"], 8000, root, testing=subset).tracks("test")[1] for root in corpora)
    assert dry.name == wet.name and dry.length == wet.length == 4000
    rng = np.random.default_rng([0, SUBSETS.index(subset), 1])
    rng.random()  # whether there is a room: always
    responses = room((2, 1), 8000, rng)
    mixture, references = wet.read()
    levels = []
    for found, source, response in zip(references.numpy(), dry.read()[1].numpy(), responses, strict=True):
        expected = np.convolve(source[0], response[0])[: dry.length]
        levels.append(found[0] @ expected / (expected @ expected))
        np.testing.assert_allclose(found[0], levels[-1] * expected, atol=5e-5)
    assert levels[0] == pytest.approx(levels[1], rel=1e-3) and levels[0] <= 1.001  # turned down together, if at all
    np.testing.assert_array_equal(mixture, references.sum(0))


def test_recordings_are_the_training_mixtures_without_stems(corpora):
    dry, wet = corpora
    names = {track.name for track in LibriMix(["a", "b"], 8000, dry, testing="train").tracks("test")}
    assert {path.stem for path in (wet / "recordings").iterdir()} == names
    assert len(Recordings(["a", "b", "c", "d"], 8000, wet / "recordings").tracks("train")) == len(names) - 4
    assert not (wet / "wav8k/min/train").exists()


def test_the_seed_determines_all_and_nothing_is_written_over(corpora, tmp_path, capsys):
    dry, wet = corpora
    rooms.build(dry, tmp_path / "same")
    rooms.build(dry, tmp_path / "other", seed=1)
    files = sorted(path.relative_to(wet) for path in wet.rglob("*.*"))
    same, other = (
        [(tmp_path / name / file).read_bytes() == (wet / file).read_bytes() for file in files]
        for name in ("same", "other")
    )
    assert all(same) and sum(other) == len(SUBSETS) - 1  # the two tables
    with pytest.raises(UserError, match="already exists"):
        rooms.build(dry, wet)
    assert rooms.main(["--corpus", str(tmp_path / "nowhere"), "--out", str(tmp_path / "third")]) == 2
    assert "nowhere" in capsys.readouterr().err and not (tmp_path / "third").exists()
