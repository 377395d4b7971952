# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · Baselines
#
# **How good is each prior alone, and is their plain average any better?**
#
# Every prior runs in the same Plug-and-Play loop (annealed half-quadratic splitting with the exact data step). Beside
# them stands the field's own method, regularised maximum likelihood (RML). All are tuned alike: as many settings, on
# the same few labelled training images, scored inside the loop; and all are told that the source is compact, 60 µas:
# RML by its prior image, the others by the metric in which the data step measures how far an image moves.

# %%
import pandas as pd
import torch

from fusionlib import paper
from fusionlib.priors import zoo

_ = torch.set_flush_denormal(True)  # denormal numbers slow CPUs down

# %% tags=["parameters"]
profile: str = "quick"  # smoke, quick or paper: sizes, and the folder build/<profile> for results
priors: list = ["identity", "tv", "ffdnet", "sr", "digits", "faces", "galaxies", "torus"]  # the bank; any subset
sky: str = ""  # folder of .npy, .npz or .fits images instead of the simulator
observation: str = ""  # UVFITS or CSV file whose coverage and noise replace the packaged ones

# %% [markdown]
# ## The methods
#
# The identity believes what it sees: the loop then only smooths what the data leave open. Total variation prefers flat
# patches with sharp borders. FFDNet is a published denoiser trained on photographs; `sr` doubles the resolution of
# photographs, `digits` is a diffusion model entering through its score; `faces`, `galaxies` and `torus` (a plasma
# simulation near the domain, and called so) are small denoisers of ours. The average fuses all of them with equal
# weights. A prior whose weights cannot be had is named here and left out everywhere.

# %%
out = paper.output(profile)
found, lacking = zoo.available(priors)
specs = paper.baseline_specs(profile, found, sky=sky, observation=observation)
pd.DataFrame({"prior": priors, "status": [lacking.get(name, "ready") for name in priors]})

# %% [markdown]
# ## The settings that tuning chose
#
# `sigma_max` to `sigma_min` is the noise level told to the prior, falling geometrically; `lam` weighs the prior against
# the data (penalty ρ = lam / σ²); `entropy`, `tv`, `tsv`, `l1` are the weights of RML's regularisers. Every method had
# the same budget: all `settings_tried` on a quarter of the same `n_train` images, the best quarter of them on all.

# %%
settings = paper.settings_table(specs)
paper.write_table(settings, "tab02_settings", out)
settings

# %% [markdown]
# ## Scores
#
# PSNR has data range 1 and no clipping; `psnr_blur` compares after blurring both to 20 µas, the part of the image the
# array resolves. `delta_best_single` is the paired difference to the single prior that did best on the training images,
# with its 95 % interval. In a run of profile `smoke` or `quick` these are development images, not the test set.

# %%
table = paper.score_table(specs, found)
paper.write_table(table, "tab02_baselines", out)
table.round(3)

# %%
facts = {"profile": profile, "split": specs[0].split, "seeds": sorted({s.seed for s in specs})}
paper.save(paper.figures.fig02_psnr, table, out, **facts)

# %% [markdown]
# ## The pictures
#
# The first development images at full coverage. All intensities share one scale; the number is the PSNR.

# %%
pictures, paths = paper.examples(specs, paper.PROFILES[profile].n_show)
paper.save(paper.figures.mosaic, pictures, out, "fig02_reconstructions", **facts | {"split": "dev"})

# %% [markdown]
# ## On the way there
#
# How much the image still changes, and the reduced chi-square of the denoised image, iteration by iteration.

# %%
paper.save(paper.figures.fig02_convergence, paths, out, **facts | {"split": "dev"})

# %% [markdown]
# ## Who beats whom
#
# Every method against every other at full coverage, paired over images:

# %%
pairs = paper.paired_table(specs)
paper.write_table(pairs, "tab02_pairs", out)
pairs.round(3)

# %% [markdown]
# ## What was learned
#
# In the paper's run (1,000 test images, three seeds; 60 images at partial coverage):
#
# - The torus, the prior near the domain, is a decibel above all others. The plain average of all eight is 0.04 dB
#   below the next best, galaxies: equal weights keep what the priors share and no more.
# - RML is below five of the priors, a denoiser of photographs among them, and above the identity, faces and total
#   variation. All pairs of methods differ significantly.
# - Blurred to what the array resolves, the average is second, and faces pass RML.
# - From 7 of the 22 scans to 3 all methods lose, on the same images, 0.1 to 0.5 dB; their order hardly changes.

# %% [markdown]
# ## Provenance

# %%
paper.show(
    paper.provenance(
        chapter="02_baselines",
        profile=profile,
        priors=found,
        sky=sky,
        observation=observation,
        split=facts["split"],
        seeds=facts["seeds"],
    )
)
