# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 · Strategy A: soft and hierarchical gating
#
# **Can a small network that sees the image predict which prior to use?**
#
# Inputs of the gate are the current image of the loop, the change that the data step would make in it, and the noise
# level. A small convolutional encoder turns them into features; a head compares the features with a learned embedding
# of each prior (cosine routing); a softmax gives one weight per prior, for each image, patch or pixel. Top 1 and top 2
# are the same gate, used with its one or two largest weights. MGPF (multi-gate prior fusion) has one gate for the
# priors that know no objects (identity, total variation, FFDNet, super-resolution), one for those trained on images of
# objects (digits, faces, galaxies, torus), and a third gate over the two groups.
#
# Our own gates have affine weights: they sum to one and may be negative. `gradient` has a linear head, per pixel, and
# is fitted by gradient descent. `closed_form` has weights linear in local features, fitted by ridge regression.
# `closed_union` ("bank + levels") is the same with the prior that is best on the labels added to the bank at five
# other noise levels. `unrolled` is the closed form after a last fit by gradients through the last iterations of the
# loop.

# %%
import pandas as pd
import torch

from fusionlib import paper
from fusionlib.gates import routing
from fusionlib.paper.studies import headroom, strategies
from fusionlib.priors import zoo

_ = torch.set_flush_denormal(True)  # denormal numbers slow CPUs down

# %% tags=["parameters"]
profile: str = "quick"  # smoke, quick or paper: sizes, and the folder build/<profile> for results
priors: list = ["identity", "tv", "ffdnet", "sr", "digits", "faces", "galaxies", "torus"]  # the bank; any subset
sky: str = ""  # folder of .npy, .npz or .fits images instead of the simulator

# %% [markdown]
# ## The modules
#
# Drawn from the modules themselves: layers in the order they run, for one image and the whole bank.

# %%
out = paper.output(profile)
found, lacking = zoo.available(priors)
n, x = len(found), torch.rand(1, 1, 64, 64)
strategies.shapes(routing.cosine_router(n, None), x, 0.1)

# %% [markdown]
# ## How the gates are fitted
#
# Every iteration of the loop has a gate of its own. The gate of iteration k is fitted on the images that the
# iterations 0 .. k - 1, already fitted, lead to, and starts from the gate of iteration k - 1. The frozen priors are
# called once per image and iteration. All methods are fitted on the same labelled images. Gains are over the single
# prior that is best on them. The bank is used with the thick torus (`main`) and without (`far`).
#
# Not all methods are tuned equally. Gates fitted by gradient descent, `unrolled`, `lora` and the networks trained on
# the labels use one setting of the loop and one length of training (chapter 07 varies it: `tab07_training`). Gates in
# closed form, `heldout`, `consensus` and `mace` choose among 4 settings; single priors, the average and RML among 24.
# At partial coverage the labelled images are divided among three lists of scans.
#
# `a_meta` is strategy A as the essay describes it. The gate is meta-learned by exact second-order MAML over geometric
# skies (rings and crescents among them) at two coverages and two noise levels, with the labelled images as one more
# task; then its head is adapted to the labelled images by five gradient steps on the logarithm of the mean squared
# error. All other gates see the labelled images alone.
#
# Beside them stand `consensus` (priors that agree with the others weigh more), `mace` (consensus equilibrium of the
# priors and the data), `csnet` (convex weights from estimated errors), `heldout` (weights by how well each prior alone
# predicts scans held out: no labels, except to choose its settings) and `lora` (low-rank adaptation of the priors
# themselves, under a plain router). `denoiser`, `finetuned` and the U-Net use the same labels without fusing priors.

# %%
strategy = ("a:image", "a:8", "a:pixel", "a_meta:image", "mgpf:image")
specs = paper.strategy_specs(profile, found, only=strategy, all_coverages=True, sky=sky)
table = headroom.table(specs, found)
paper.write_table(table, "tab03_strategies", out)
table.sort_values(["bank", "psnr"], ascending=False).round(3)

# %%
facts = {"profile": profile, "split": specs[0].split, "seeds": sorted({s.seed for s in specs})}
paper.save(paper.figures.forest, table, out, "fig03_strategies", **facts)

# %% [markdown]
# The gap is the gain of the in-domain ceiling over the best single prior. `closed` is a method's gain divided by this
# gap.

# %%
gap = headroom.gap_table(table[table.coverage == 1.0]).round(3)
paper.write_table(gap, "tab03_gap", out)
gap[gap.gain > 0]

# %% [markdown]
# ## Weights over the iterations
#
# On development images: the mean, and the middle 80 % over images and pixels. Affine weights may be negative, and may
# exceed one.

# %%
shown = paper.PROFILES[profile].n_show
mine = strategies.of(specs, strategies.WATCHED["03"], found)
stages = [strategies.stages(s, 4 * shown) for s in mine]
paper.save(
    paper.figures.weights, strategies.joined(stages, "weights"), out, "fig03_weights", **facts | {"split": "dev"}
)

# %% [markdown]
# ## The fit, iteration by iteration
#
# PSNR after every iteration, on the labelled images that the method was fitted to and on development images. A growing
# gap between the two is overfitting. The two sets also differ in difficulty; compare the gap with that of a method
# that has few parameters.

# %%
paper.save(
    paper.figures.curves, strategies.joined(stages, "curves"), out, "fig03_fit", **facts | {"split": "train and dev"}
)

# %% [markdown]
# ## Collapse
#
# A gate has collapsed when it always picks the same prior: the entropy of the *mean* weights is then small. Entropies
# are divided by log N, so that 1 is the average of the priors. `entropy` is of the weights of each image, `greatest`
# the largest weight.

# %%
collapsed = strategies.joined(stages, "collapse")
paper.write_table(collapsed, "tab03_collapse", out)
collapsed.round(3)

# %% [markdown]
# ## Reconstructions
#
# The first development images; all intensities share one scale.

# %%
compared = strategies.of(
    specs,
    [
        *(f"single:{name}" for name in found if name in ("torus", "ffdnet")),
        "average",
        "static_affine",
        "closed_form",
        "a:image",
        "mgpf:image",
        "gradient:pixel",
    ],
    found,
)
paper.save(
    paper.figures.mosaic, strategies.pictures(compared, shown), out, "fig03_reconstructions", **facts | {"split": "dev"}
)

# %% [markdown]
# ## With more labels
#
# The wide run: 300 labelled and 200 development images, one setting for every row (in the loop sigma from 0.2 to 0.02
# and lambda 0.1), full coverage. It takes hours (`make wide`), so that its scores ship with the project.

# %%
wide = strategies.known(paper.strategy_specs("wide", found, sky=sky))
if wide:
    table = headroom.table(wide, found)
    paper.write_table(table, "tab03_wide", out)
    paper.save(paper.figures.forest, table, out, "fig03_wide", **facts | {"profile": "wide", "split": "dev"})

# %% [markdown]
# Paired differences of the best fused method to every other one, image by image, with 95 % intervals, p values after
# Holm and a verdict: `better` or `worse` is significant and at least 0.1 dB; `negligible` is significant and smaller,
# or has its whole interval within 0.1 dB of zero; all else is `undecided`. For this profile and for the wide run.

# %%
lead = pd.concat([strategies.lead_table(some, found) for some in (specs, wide)], ignore_index=True)
paper.write_table(lead, "tab03_lead", out)
lead[lead.lo < 0.5].round(3)

# %% [markdown]
# ## What was learned
#
# In the paper's run (100 labels). Methods of the main table (chapter 13) are scored on 1,000 test images with three
# seeds, the others on the first 200 test images with one seed.
#
# - Finer weights are better: per pixel above per patch above per image. With the torus, strategy A per pixel has the
#   smallest loss on its worst image (`delta_worst`) of the fused methods here: nowhere more than 1.3 dB below the best
#   single prior.
# - Meta-learning over geometric skies, other coverages and noise does not beat fitting to the labels alone.
# - With the torus in the bank a better denoiser gains little: the ceiling is 0.1 dB above the torus, so that shares of
#   the gap in this bank mean little. The closed form gains 0.34 dB, and `closed_union` 0.45; the control that uses the
#   best prior at six noise levels and the identity under the same gate gains 0.38.
# - Without the torus the best single prior is the galaxy network, 1.2 dB below the ceiling. The closed form closes
#   nine tenths of that gap, `closed_union` all of it, the strongest control three quarters: here the differences
#   between the priors are worth 0.2 to 0.3 dB.
# - But the same labels do more without fusing frozen priors. An end-to-end network, trained on the labels augmented by
#   rotation, shift, rescaled brightness and newly simulated observations, is 0.8 dB above all fused methods where the
#   torus is in the bank, and 1.1 where it is not; trained at partial coverage it is better than the closed form there
#   too, by 0.7 to 1.1 dB. A denoiser trained on the labels alone, for 9,600 steps, is as good as the ceiling, 0.1 dB
#   above the torus and 1.2 above the galaxy network: below `closed_union` with the torus in the bank, equal to it
#   without. Without the torus `lora`, with over a thousand times the parameters of the closed form, gains 0.8 dB over
#   the best single prior.
# - The part of affine weights that depends on the image is bounded: `gradient:pixel` limits the outputs of its head to
#   a half, and the closed form predicts an offset to static weights from features whose leverage is clipped to that of
#   the images it was fitted on. The worst image of the closed form (`delta_worst`) is 2.6 dB below the best single
#   prior with the torus in the bank, 1.4 dB without.
# - With 300 labels (the wide run, development images) fusing gains more. `closed_union` is the best method in the loop
#   in both banks: in `tab03_lead` its advantage over the best single prior, static weights, both controls and the
#   ceiling has intervals above zero. The U-Net is above it by 0.8 dB with the torus and 1.1 dB without. The closed
#   form over the bank alone, and over the noise levels alone, are both worse.
# - The essay's strategies gain little from 300 labels. At image resolution A, C, MGPF and both that are meta-learned
#   are below the best single prior with the torus in the bank, and within a tenth of a decibel of it without; B is a
#   tenth above it in the former and a third in the latter; A per pixel gains a tenth. What gains most are weights per
#   pixel, affine, above all in closed form; a last pass of that through the unrolled loop (`unrolled`) adds two
#   hundredths.
# - With the torus in the bank, no fusion rule gains much more than half a decibel over it, and a denoiser trained
#   on 10,000 images from the sky simulator hardly gains in this loop (on test images 0.1 dB). Without the torus both
#   gain over a decibel.
# - Held-out scans say little about which prior to use: weights chosen from them (`heldout`) are worse than the best
#   single prior, with five times as many prior calls as the other gates.

# %% [markdown]
# ## Provenance

# %%
paper.show(paper.provenance(chapter="03_strategy_a", profile=profile, priors=found, sky=sky, split=facts["split"]))
