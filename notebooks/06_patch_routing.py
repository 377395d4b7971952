# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 06 · Routing by patch
#
# **How finely should weights be chosen, who should choose, and which priors need not be called at all?**
#
# A weight can be shared by the whole image, by patches of 16, 8 or 4 pixels (interpolated between their centres), or
# belong to one pixel; the same code does all of them. Either each patch weighs the priors (*token choice*), or each
# prior picks its l patches and a shared prior, the one that is best alone, serves the rest (*expert choice*, as in
# pMoE, chapter 09). And what has no weight need not be computed: priors are skipped per iteration where the fit finds
# that they are not worth their operations, per image where a gate that reads the image gives them nothing, and in the
# bank `local`, whose networks see 15 pixels, per patch.

# %%
import torch

from fusionlib import paper
from fusionlib.paper.specs import banks_of
from fusionlib.paper.studies import patches, strategies
from fusionlib.priors import zoo

_ = torch.set_flush_denormal(True)  # denormal numbers slow CPUs down

# %% tags=["parameters"]
profile: str = "quick"  # smoke, quick or paper: sizes, and the folder build/<profile> for results
priors: list = ["identity", "tv", "ffdnet", "sr", "digits", "faces", "galaxies", "torus"]  # the bank; any subset
sky: str = ""  # folder of .npy, .npz or .fits images instead of the simulator

# %%
out = paper.output(profile)
found, lacking = zoo.available(priors)
specs = paper.patch_specs(profile, found, sky=sky)
facts = {"profile": profile, "split": specs[0].split, "seeds": sorted({s.seed for s in specs})}

# %% [markdown]
# ## What it costs
#
# Floating-point operations of the priors and wall time, both per image and for the whole loop, on a batch of
# development images (32 but in smoke), every method in turn in one process, the lesser of two times. Times are
# of the machine that measured them; operations are not. Gates that call every prior differ in little but the gate,
# so that two of them stand for all.

# %%
costs = patches.timed(specs, profile).result()
paper.write_table(costs, "tab06_cost", out)

# %% [markdown]
# ## How finely
#
# `choice` is who chooses, `l` the patches each prior picks, `p` the share of weight that is kept. Gates fitted by
# gradient have one setting of the loop, those that are solved for choose among 4, single priors among 24
# (`settings_tried`): the families of methods are not tuned alike, the resolutions within one are. In the paper's run
# rows of the main table are scored on 1,000 images, others on the first 200 of them (`n_test`): differences are of the
# images that both have.

# %%
banks = [*banks_of(found), zoo.BANKS["local"]]
table = patches.resolution_table(specs, banks, costs)
paper.write_table(table, "tab06_resolution", out)
table.drop(columns=["regime", "seed"]).sort_values(["bank", "coverage", "psnr"], ascending=False).round(3)

# %%
sides = patches.side_table(table)
paper.save(paper.figures.fig06_resolution, sides, out, **facts)

# %% [markdown]
# Gains on the same images (95 % intervals, not corrected for their number): of patch and pixel over one weight per
# image of the same strategy, of expert choice over token choice, and of fewer calls (below) over all.

# %%
pairs = [
    *((f"a:{side}", "a:image") for side in ("16", "8", "4", "pixel")),
    *((f"{kind}:8", f"{kind}:image") for kind in ("b", "c")),
    *((f"closed_form:{side}", "closed_form:image") for side in ("16", "8", "4", "coarse")),
    ("closed_form", "closed_form:image"),
    ("b_separate:8", "b:8"),
    ("expert:8/16", "a:8"),
    *((f"closed_expert:8/{patches}", "closed_form:8") for patches in (4, 16, 32)),
    *((f"cost_pruned:{price}", "closed_form") for price in ("0.0003", "0.001", "0.003", "0.01")),
    *((f"top_p:image/{p}", "a:image") for p in (0.5, 0.7, 0.9)),
]
gains = patches.paired_gains(specs, pairs)
paper.write_table(gains, "tab06_gains", out)
gains.round(3)

# %% [markdown]
# ## What can be skipped
#
# `price` is in dB of a stage's predicted error that a hundredth of the bank's operations has to save; a fit drops, one
# by one, the priors that do not, and it chooses its setting of the loop for itself. Strategy A's gate reads the image
# before any prior is called: of its weights only the largest that together reach p are kept.

# %%
kept = ["closed_form", "a:image", "average"]
shown = costs[costs.method.isin(kept) | costs.method.str.contains("cost_pruned|top_p:image")]
paper.save(paper.figures.fig06_pareto, shown[shown.bank != "local"], out, **facts)

# %%
saved = patches.saving_table(costs)
paper.write_table(saved, "tab06_savings", out)
saved.round(3)

# %% [markdown]
# ## Only some patches
#
# In the bank `local` a prior is computed in the patches it chose, with the 6 pixels around them that it looks at: the
# result is the same to rounding (tested), the operations are those of the windows. The same networks are timed on all
# patches and on a share of them.

# %%
windows = patches.window_table(32 if profile != "smoke" else 2)
paper.write_table(windows, "tab06_windows", out)
windows.round(3)

# %% [markdown]
# ## Weights by region
#
# Weights of the closed-form pixel gate on development images, in the middle of the loop; affine, so that some are
# negative. Then their means over the ring (brighter than a quarter of the peak after a blur of one pixel), the core it
# encloses, and the empty sky: lines are means over images, bands the middle 80 %. Where an image is unlike those of the
# fit its features are drawn back to those, so that weights stay bounded about the static ones.

# %%
full = [s for s in specs if s.coverage == 1.0 and s.seed == specs[0].seed]
mine = strategies.of(full, ["closed_form"], found)
runs = strategies.runs(mine, 4 * paper.PROFILES[profile].n_show)
if runs:
    paper.save(paper.figures.fig06_maps, patches.weight_maps(runs[1], 2), out, **facts | {"split": "dev"})

# %%
where = patches.region_table(runs)
paper.write_table(where, "tab06_regions", out)
if runs:
    paper.save(paper.figures.fig06_regions, where, out, **facts | {"split": "dev"})

# %% [markdown]
# ## Coarse to fine
#
# The second seed asks for hierarchies of patches. For images that is a gate whose weights are a sum over scales: one
# for the image, one per 16 and per 4 pixels, one per pixel (`closed_form:coarse`), four times the coefficients of the
# pixel gate in one ridge. Its gain over one weight per image stands beside the others above. Its other outlook,
# fragments of text as patches, has no counterpart here: the priors are of images.

# %% [markdown]
# ## What was learned
#
# In the paper's run, with 100 labelled images:
#
# - Strategies A and C gain from patches, A further from the pixel: 0.26 dB over one weight per image with the torus in
#   the bank, 0.54 without, C 0.6 at 8 pixels. B, whose adapters act before the weights, loses.
# - The closed form gains from the pixel too, 0.2 dB with the torus and 0.64 without, and still where the array has
#   three of its 22 scans. The sum of scales is the best of these gates, with 0.3 and 0.7 dB. Features are drawn back to
#   those of the fit, so that no image of this kind is lost (of other kinds, chapter 10): at worst one is three decibels
#   below the best single prior, in the sum of scales (`delta_worst`).
# - Expert choice by gradient is a little better than token choice at 8 pixels (0.06 dB); in closed form it is worse
#   than the dense gate it is made from, by 0.11 to 0.13 dB, or with 32 of the 64 patches per prior cannot be told from
#   it.
# - Most calls of priors can be spared. With the torus in the bank, at a price of 0.0003, the fit keeps a quarter of the
#   operations and is 0.03 dB better than with all of them; at 0.001 it keeps a seventh and cannot be told from it.
#   Without the torus to keep a sixth costs 0.09 dB. Time falls less than operations do, to about a third: what is left
#   is mostly the gate. Of strategy A's weights the largest that together reach 0.7 lose nothing, at a tenth of the
#   operations; those that reach a half lose 0.03 dB.
# - Computing a prior in some patches alone saves nearly what its operations predict (`tab06_windows`). In the bank
#   `local`, two or four patches of 16 pixels per prior are worth no more than 0.1 dB over its best network, the closed
#   form by pixel 0.6.
#
# The oracles of chapter 01 show what is left: patches of 8 pixels picked by the truth lie 1.1 dB above the torus.

# %% [markdown]
# ## Provenance

# %%
paper.show(paper.provenance(chapter="06_patch_routing", profile=profile, priors=found, sky=sky, split=facts["split"]))
