# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 14 · The explorer
#
# **Move a slider, see the reconstruction and who was trusted.**
#
# Choose a black hole (or a folder of images), what the array sees of it, which priors are there and how they are fused.
# Gates are those of the quick profile. `make explore` shows this page alone in a browser; in JupyterLab run this
# notebook. *pin* keeps a run for comparison, *export* gives the picture, the Python lines behind it and the table of
# runs.

# %%
import torch

from fusionlib import explorer, paper
from fusionlib.explorer.widget import Explorer

_ = torch.set_flush_denormal(True)  # denormal numbers slow CPUs down

# %% tags=["parameters"]
profile: str = "quick"  # smoke, quick or paper: the folder build/<profile> for results

# %%
page = Explorer()
page

# %% [markdown]
# For those who read this without running it: what the page shows at the start.

# %%
page.wait()
out = paper.output(profile)
if page.view is None:
    raise RuntimeError(page.status.value)
paper.save(paper.figures.fig14_view, explorer.pictures(page.view), out, profile=profile)

# %% [markdown]
# ## Provenance

# %%
paper.show(paper.provenance(chapter="14_explorer", profile=profile))
