# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 15 · Training our own priors
#
# **What were the priors of this project trained on, how, and are they any good?**
#
# The networks ship with the project, so that nothing here needs to run for the other chapters. `make train` trains them
# anew (hours on two cores, resumable), `make weights` ships what came of it; this chapter reads what the shipped files
# say of themselves. None of the priors has seen the sky of the experiments. `sky` has: it is the in-domain ceiling,
# trained on 10,000 simulated black holes of a stream of its own, and stands in no bank.

# %%
import pandas as pd
import torch

from fusionlib import paper
from fusionlib.paper.studies import trained_priors
from fusionlib.priors import training

_ = torch.set_flush_denormal(True)  # denormal numbers slow CPUs down

# %% tags=["parameters"]
profile: str = "quick"  # smoke, quick or paper: sizes, and the folder build/<profile> for results
train: list = []  # recipes to train now, such as ["torus"]: hours; into build/training, shipped by `make weights`

# %%
out = paper.output(profile)
for name in train:
    training.train(name)

# %% [markdown]
# ## Recipes
#
# All are trained with Adam, a cosine rate, averaged weights and noise levels log-uniform between `sigma_low` and
# `sigma_high`, on the CPU; `seconds` is what it took there. The averaged weights of the last step ship. `faces` takes
# no steps: it is a Gaussian on the 400 principal components of its images, turned and moved, solved for.

# %%
recipes = trained_priors.recipe_table()
paper.write_table(recipes, "tab15_recipes", out)
recipes

# %%
facts = {"profile": profile}
paper.save(paper.figures.fig15_losses, trained_priors.loss_table(), out, **facts)

# %% [markdown]
# ## What they have seen
#
# Six images of every set, each over its own peak. Batches are turned, mirrored, moved and scaled beyond that. The faces
# are 100 images of 25 pixels: thin data.

# %%
pictures, lacking = trained_priors.data_pictures()
paper.save(paper.figures.fig15_data, pictures, out, **facts)

# %%
pd.Series(lacking, name="cannot be had here", dtype=str)

# %% [markdown]
# ## What the diffusion model draws
#
# The prior `digits` is the score of a diffusion model. Left to itself, from noise, it draws strokes, and no digits:
# what it brings into the loop is a preference for strokes.

# %%
paper.save(paper.figures.fig15_samples, trained_priors.digit_samples(), out, **facts)

# %% [markdown]
# ## Inside the loop, on other families
#
# Geometric skies (no black holes), the same settings of the loop for all, so that a prior can be judged without the sky
# of the experiments. Dashed: networks of three convolutions, which see 15 pixels.

# %%
families = trained_priors.family_table(2 if profile == "smoke" else 8)
paper.write_table(families, "tab15_families", out)
paper.save(paper.figures.fig15_families, families, out, **facts)

# %% [markdown]
# Tori and galaxies were learned with two bodies, a U-Net and three convolutions; the one that reconstructs these
# families better stands in the bank `main`.

# %%
choice = trained_priors.choice_table(families)
paper.write_table(choice, "tab15_choice", out)
choice.round(2)

# %% [markdown]
# ## What half precision costs
#
# The same, over all families, with bfloat16 inside the network in place of float32. A prior is `reduced` where that
# costs less than 0.02 dB, on processors that compute in bfloat16; others emulate it, and use float32. `time` is that of
# bfloat16 over that of float32, the loop included, on the processor that made this table: below 1 on the former, far
# above on the latter. FFDNet stays as it was published.

# %%
precision = trained_priors.precision_table(1 if profile == "smoke" else 4)
paper.write_table(precision, "tab15_precision", out)
precision.round(3)

# %% [markdown]
# ## Provenance

# %%
paper.show(paper.provenance(chapter="15_train_priors", profile=profile))
