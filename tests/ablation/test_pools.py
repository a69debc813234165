"""A worker's modules: those of the installation and of --import, not those that happen to lie in the working folder."""

import pytest

from tasnet_attn.ablation.pools import LocalPool


@pytest.mark.slow
def test_a_file_of_the_working_folder_replaces_no_library(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("queue", "my_own"):
        (tmp_path / f"{name}.py").write_text(f"open('{name} ran', 'w').close()\n")
    pool = LocalPool(1, 1)
    try:
        settings = {"arguments": ["--config", "nowhere.yml"], "evaluate": {}, "key": "", "threads": 1}
        places = {"cwd": str(tmp_path), "folder": str(tmp_path / "out"), "trained": str(tmp_path / "out")}
        answer = pool.submit({**settings, **places, "imports": ["my_own"]}).result()
    finally:
        pool.close()
    assert "nowhere.yml: no such file" in answer["error"]
    assert (tmp_path / "my_own ran").exists() and not (tmp_path / "queue ran").exists()
