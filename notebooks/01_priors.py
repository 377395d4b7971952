# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · Priors, and the headroom they leave
#
# **How different are the priors, and how much could the best possible fusion win over the best of them?**
#
# Before any gate is trained: what each prior is, what it does to a noisy black hole, how its errors go with those of
# the others, and what weights would be worth if somebody told us the truth.

# %%
import pandas as pd
import torch

from fusionlib import paper
from fusionlib.paper.studies import headroom
from fusionlib.priors import zoo

_ = torch.set_flush_denormal(True)  # denormal numbers slow CPUs down

# %% tags=["parameters"]
profile: str = "quick"  # smoke, quick or paper: sizes, and the folder build/<profile> for results
priors: list = ["identity", "tv", "ffdnet", "sr", "digits", "faces", "galaxies", "torus"]  # the bank; any subset
sky: str = ""  # folder of .npy, .npz or .fits images instead of the simulator

# %% [markdown]
# ## The cards
#
# What each prior was trained on and by whom; none has seen the test sky. `torus` comes from a simulator of the same
# object: near the domain, and called so; every result is repeated without it (bank `far`). Receptive field in pixels;
# milliseconds per image on one core, batch of 32.

# %%
out = paper.output(profile)
found, lacking = zoo.available(priors)
cards = headroom.card_table(found)
paper.write_table(cards, "tab01_cards", out)
pd.concat([cards.set_index("prior"), pd.Series(lacking, name="missing", dtype=str)], axis=1)

# %% [markdown]
# ## The guard
#
# Before any of them is used: does a prior keep its contract, and does it make labelled images with white noise worse
# than they came? Named here are those that do, by more than 1 dB at some noise level; `-p priors=[...]` leaves them
# out.

# %%
pd.Series(headroom.faults(found, n=4, sky=sky), name="at fault", dtype=str)

# %% [markdown]
# ## One noisy black hole through each of them
#
# A development image with white noise of three levels; PSNR in each picture.

# %%
n_show = paper.PROFILES[profile].n_partial
pictures, denoising = headroom.one_shot(found, n_show, sky=sky)
facts = {"profile": profile, "split": "dev"}
paper.save(paper.figures.fig01_denoised, pictures, out, **facts)

# %% [markdown]
# PSNR of one denoising step on development images, dB, by noise level; `oracle:*` picks with the truth in hand. What is
# best here need not be best inside the reconstruction loop.

# %%
paper.write_table(denoising, "tab01_denoising", out)
denoising.round(1)

# %% [markdown]
# ## Do they err alike?
#
# Correlation of the priors' errors over pixels, and who is best where: the prior with the least squared error at each
# pixel of the images above, at the middle noise level.

# %%
paper.save(paper.figures.fig01_correlation, headroom.correlation(found, n_show, sky=sky), out, **facts)

# %%
paper.save(paper.figures.fig01_winners, headroom.winners(found, min(n_show, 4), sky=sky), out, **facts)

# %% [markdown]
# ## Headroom inside the loop
#
# Simple weights fitted on the labelled images (`static_*`: one weight per prior and iteration, on the simplex or free
# of sign), controls that no gain should be confused with (`single_identity`: the best prior relaxed; `noise_levels`:
# the best prior told six noise levels, and the identity), and oracles that see the truth and pick greedily: a prior per
# image, the best affine weights per image, a prior per patch of 8 pixels, a prior per pixel. All of these choose among
# 4 settings of the loop, the others among 24; at partial coverage the labels are dealt out to three lists of scans.
# `ceiling` is no method: a denoiser trained on 10,000 simulated skies of the very kind, what a prior could be if there
# were labels without end.

# %%
specs = paper.headroom_specs(profile, found, sky=sky)
table = headroom.table(specs, found)
paper.write_table(table, "tab01_headroom", out)
table[table.coverage == 1.0].round(3)

# %%
paper.save(paper.figures.forest, table, out, "fig01_headroom", **facts | {"split": specs[0].split})

# %% [markdown]
# ## What was learned
#
# In the paper's run, with 100 labelled images:
#
# - Denoising once, FFDNet and the torus are best, by noise level; in the loop the torus is, by a decibel. It is the one
#   prior that has seen something like the sky.
# - With it in the bank a pick per image has nothing to win, even with the truth in hand (0.02 dB). What can be won is
#   1.1 dB by the best affine weights of each image or by a pick per patch of 8 pixels, and seven by a pick per pixel,
#   which no rule without the truth will come near.
# - Simple weights win nothing there (`static_affine` within 0.03 dB of the torus at full coverage). Without the torus
#   affine ones win 0.3 dB over the best single prior, those on the simplex nothing; the plain average loses as
#   much.
# - The ceiling of a single denoiser is 0.1 dB above the torus, and 1.2 above the best prior without it.
# - At 7 and at 3 of 22 scans it is much the same.

# %% [markdown]
# ## Provenance

# %%
paper.show(paper.provenance(chapter="01_priors", profile=profile, priors=found, sky=sky, split=specs[0].split))
