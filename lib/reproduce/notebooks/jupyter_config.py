"""JupyterLab as `make lab` opens it: the root is the repository, masters in notebooks/ are saved without outputs."""

from pathlib import Path

from reproduce.notebooks.workbook import FOLDER, save_masters_without_outputs

c = get_config()  # type: ignore[name-defined]  # noqa: F821
c.ServerApp.root_dir = str(Path.cwd())
c.ContentsManager.pre_save_hook = save_masters_without_outputs
c.LabApp.default_url = f"/lab/tree/{FOLDER}/00_start_here.ipynb"
