"""docs/tutorial.md as a newcomer follows it."""

import pytest
import soundfile
from pages import BRIEF, Page, run, write_stems

PAGE = Page("tutorial.md", BRIEF | {"seeds: [0, 1]": "seeds: [0]"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = PAGE.lay_out(tmp_path_factory.mktemp("tutorial"))
    write_stems(folder, "stems/{split}/one/{source}.wav")
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.mark.slow
@pytest.mark.parametrize("line", PAGE.commands)
def test_a_command_of_the_page(line, capfd):
    """In their order: later ones read what earlier ones wrote."""
    assert run(line) == 0, capfd.readouterr().err[-2000:]


@pytest.mark.slow
def test_the_program_of_the_page(capfd):
    assert run("python stems.py") == 0
    assert "{'guitar': (2, 30000), 'backing': (2, 30000)}" in capfd.readouterr().out


@pytest.mark.slow
def test_the_commands_left_what_the_page_says(folder):
    for name in (
        "separated/song/guitar.wav",
        "separated/song/backing.wav",
        "two/song/guitar.flac",
        "two/song/rest.flac",
    ):
        assert soundfile.info(folder / name).frames == 30_000
    for name in ("exp/mine/evaluation/report.html", "exp/lstms/table.md", "exp/mine/model.safetensors"):
        assert (folder / name).stat().st_size > 100, name
    assert "lstm_before=1" in (folder / "exp/lstms/table.md").read_text()
