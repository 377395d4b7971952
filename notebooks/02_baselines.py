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
# Every method runs the same Plug-and-Play loop (annealed half-quadratic splitting with the exact data step) and is
# tuned alike: the same grid of settings, on the same few labelled training images, scored inside the loop.

# %%
import pandas as pd
import torch

from fusionlib import metrics, paper, zoo

torch.set_flush_denormal(True)  # denormal numbers slow CPUs down

# %% tags=["parameters"]
profile: str = "quick"  # smoke, quick or paper: sizes, and the folder build/<profile> for results
priors: list = ["identity", "tv", "ffdnet"]  # the bank; any subset
sky: str = ""  # folder of .npy, .npz or .fits images instead of the simulator
observation: str = ""  # UVFITS or CSV file whose coverage and noise replace the packaged ones

# %% [markdown]
# ## The methods
#
# The identity believes what it sees: the loop then only smooths what the data leave open. Total variation prefers flat
# patches with sharp borders. FFDNet is a published denoiser trained on photographs. The average fuses all of them with
# equal weights. A prior whose weights cannot be had is named here and left out everywhere.

# %%
out = paper.output(profile)
found, lacking = zoo.available(priors)
specs = paper.baseline_specs(profile, found, sky=sky, observation=observation)
pd.DataFrame({"prior": priors, "status": [lacking.get(name, "ready") for name in priors]})

# %% [markdown]
# ## The settings that tuning chose
#
# `sigma_max` to `sigma_min` is the noise level told to the prior, falling geometrically; `lam` weighs the prior against
# the data (penalty ρ = lam / σ²). Every method tried the same number of settings on the same `n_train` images.

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
n_show = paper.PROFILES[profile].n_show
whole = [s for s in specs if s.coverage == 1.0 and s.seed == specs[0].seed]
array = paper.arrays(whole[0])[0]
truth, y = paper.observed(whole[0], "dev", n_show, 0, array)
results = {s.method: paper.reconstruct(s, paper.tuned(s)[0], paper.prior_of(s), array, y) for s in whole}
images = torch.stack([r.image for r in results.values()])
dirty = array.dirty_image(y)
paper.save(
    paper.figures.fig02_reconstructions,
    {
        "truth": truth[:, 0].cpu().numpy(),
        "dirty": (dirty / dirty.amax((2, 3), keepdim=True))[:, 0].cpu().numpy(),
        "image": images[:, :, 0].cpu().numpy(),
        "psnr": torch.stack([metrics.psnr(x, truth) for x in images]).cpu().numpy(),
        "method": list(results),
    },
    out,
    **facts,
)
# %% [markdown]
# ## On the way there
#
# How much the image still changes, and the reduced chi-square of the denoised image, iteration by iteration.

# %%
paths = pd.concat(
    pd.DataFrame(
        {"method": m, "iteration": range(1, len(r.record["chi2"]) + 1)}
        | {k: v.mean(1).cpu() for k, v in r.record.items() if v.ndim == 2}
    )
    for m, r in results.items()
)
paper.save(paper.figures.fig02_convergence, paths, out, **facts)
# %% [markdown]
# ## What follows
#
# The difference between the learned prior and total variation, paired over images:

# %%
by_method = {s.method: paper.scores(s)["psnr"].mean(0) for s in whole}
pairs = [(a, b) for a in by_method for b in by_method if a < b]
comparison = [{"method": a, "minus": b, **metrics.bootstrap(by_method[a] - by_method[b])._asdict()} for a, b in pairs]
comparison = pd.DataFrame(comparison, columns=["method", "minus", "mean", "lo", "hi"]).round(3)
paper.write_table(comparison, "tab02_pairs", out)
comparison

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
        **{k: facts[k] for k in ("split", "seeds")},
    )
)
