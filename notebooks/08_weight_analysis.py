# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 08 · What the weights say
#
# **How do the weights change over iterations and regions, what does a weight mean, and does disagreement of the priors
# predict the error?**
#
# The strategies as they were fitted in chapters 03 to 05, with the whole bank, on development images at full coverage;
# every reconstruction watched from inside.

# %%
import pandas as pd
import torch
from IPython.display import display

from fusionlib import paper
from fusionlib.interferometer import released_data
from fusionlib.paper.studies import disagreement, m87, strategies, weight_analysis
from fusionlib.priors import zoo

_ = torch.set_flush_denormal(True)  # denormal numbers slow CPUs down

# %% tags=["parameters"]
profile: str = "quick"  # smoke, quick or paper: sizes, and the folder build/<profile> for results
priors: list = ["identity", "tv", "ffdnet", "sr", "digits", "faces", "galaxies", "torus"]  # the bank; any subset
sky: str = ""  # folder of .npy, .npz or .fits images instead of the simulator
observation: str = ""  # UVFITS file of the observation; by default the released one, if it lies in the folder data

# %%
out = paper.output(profile)
found, lacking = zoo.available(priors)
specs, single, uncalibrated = weight_analysis.analysed(paper.weight_specs(profile, found, sky=sky))
n = weight_analysis.IMAGES[profile]
seen = {s.method: weight_analysis.analysis(s, single, n) for s in specs}
best = seen["closed_form"] if "closed_form" in seen else next(iter(seen.values()))
facts = {"profile": profile, "split": "dev", "seeds": [0], "images": n}

# %% [markdown]
# ## Over the iterations
#
# Mean and middle 80 % over images and places; the noise level falls from left to right (`sigma` in the table).
# Affine weights may be negative, and exceed one.

# %%
weights = strategies.joined(seen.values(), "weights")
paper.write_table(weights, "tab08_weights", out)
paper.save(paper.figures.weights, weights, out, "fig08_weights", **facts)

# %% [markdown]
# ## By structure
#
# The truth tells where an image is bright, ring, edge, shadow, faint arm or empty. How much more a prior weighs there
# than in the whole image, with the strategies that weigh pixels: averaged over iterations, paired by image; a star
# where Wilcoxon's test says so after Holm's correction over the table. `simplex` in the table are the weights *without*
# sign that come nearest to what was fused there: where priors agree, affine weights can be traded among them at
# no cost, and only these can be read as shares.

# %%
structure = strategies.joined(seen.values(), "structure")
paper.write_table(structure, "tab08_structure", out)
if len(structure):
    display(paper.save(paper.figures.fig08_structure, structure, out, **facts))

# %% [markdown]
# ## A weight, and what is lost without it
#
# For each prior its output is replaced by the mean of the others', all else as fitted, and the loop runs again. A
# weight that meant importance would rise with the loss.

# %%
occluded = []
for spec in weight_analysis.occluded(specs):
    method, lost = spec.method, weight_analysis.occlusion_table(spec, n)
    mean = weights[weights.method == method].groupby("prior").weight.mean()
    occluded.append(lost.assign(method=method, weight=lost.prior.map(mean)))
occlusion = pd.concat(occluded, ignore_index=True)
paper.write_table(occlusion, "tab08_occlusion", out)
paper.save(paper.figures.fig08_occlusion, occlusion, out, **facts)

# %%
ranked = {m: part.weight.corr(part.loss, "spearman") for m, part in occlusion.groupby("method")}
pd.Series(ranked, name="rank correlation of weight and loss").round(2)

# %% [markdown]
# ## Collapse
#
# Entropies over log N, of each image's own weights and of the mean weights; `greatest` the largest weight. 1 and 1 is
# the plain average; a small `batch_entropy` a gate that always picks the same prior.

# %%
collapsed = strategies.joined(seen.values(), "collapse")
paper.write_table(collapsed, "tab08_collapse", out)
collapsed.round(3)

# %% [markdown]
# ## What cosine routing has learned
#
# Strategy A keeps a direction for each prior and turns every image into one; priors near an image weigh more. Both as
# unit vectors on their two principal axes.

# %%
if "a:image" in seen:
    embedded = weight_analysis.part(seen["a:image"], "embedding")
    display(paper.save(paper.figures.fig08_embeddings, embedded, out, **facts))

# %% [markdown]
# ## Do adapters align the priors?
#
# Every pair of priors before and after strategy B's adapters: linear CKA of the outputs over images, and the
# correlation of their errors. Below the dotted line the adapters have made them less alike.

# %%
if "b:image" in seen:
    alignment = seen["b:image"]["alignment"]
    paper.write_table(alignment, "tab08_alignment", out)
    display(paper.save(paper.figures.fig08_alignment, alignment, out, **facts))

# %% [markdown]
# ## Regret
#
# How much nearer to the truth the best single pick of the very same outputs would have been, if somebody knew it. Below
# zero the mixture is better than any pick. The map: squared error of the fused image less that of the best pick per
# patch of 8 pixels, at the last iteration (its signed root).

# %%
regret = strategies.joined(seen.values(), "regret")
paper.write_table(regret, "tab08_regret", out)
paper.save(paper.figures.fig08_regret, regret, out, **facts)

# %%
paper.save(paper.figures.fig08_regret_maps, weight_analysis.part(best, "regret"), out, **facts)

# %% [markdown]
# ## Disagreement as an error map
#
# Where the priors disagree, somebody is wrong. Is the standard deviation of what each makes of the data by itself a map
# of the error of the fused image, one that needs no truth? Rank correlation with the absolute error, image by image,
# beside the disagreement inside the loop and two guesses that need no second prior, the image itself and its gradient;
# and the error by how large the disagreement is.

# %%
paper.save(paper.figures.fig08_disagreement, weight_analysis.part(best, "apart"), out, **facts)

# %%
guesses = strategies.joined(seen.values(), "guesses")
paper.write_table(guesses, "tab08_error_maps", out)
guesses.round(2)

# %%
calibration = strategies.joined(seen.values(), "calibration")
paper.write_table(calibration, "tab08_calibration", out)
paper.save(paper.figures.fig08_calibration, calibration, out, **facts)

# %% [markdown]
# On M87, from uncalibrated data, with the average of the priors (chapter 10), and on its simulated twin, where the
# error is known.

# %%
sources, told = m87.sources(observation or next(map(str, released_data()), ""))
pictures = disagreement.disagreement_on(uncalibrated, sources)
paper.save(paper.figures.fig08_m87, pictures, out, **facts)

# %% [markdown]
# ## What was learned
#
# In the paper's run, with gates fitted to 100 labelled images, on 100 development images:
#
# - In the bright core the data are trusted most (the identity), by the closed form in the ring too; in the shadow the
#   torus is; on faint arms and empty sky they share. Most other priors have little; on empty sky strategy A gives them
#   four tenths. Of 96 differences between a structure and the whole image 89 differ significantly from zero, a fifth
#   are above a tenth.
# - A weight is a poor measure of worth: it goes along with the loss only loosely (rank correlation 0.4 for strategy A,
#   0.5 for the closed form), and not with what refitting shows. The closed form gives the identity nearly half. Taken
#   away, its weight dealt to the others, that costs it 0.7 dB; but fitted without the identity it loses nothing that
#   can be told from zero (chapter 07). Total variation has a mean weight of zero; taken away it costs 0.3 dB, and
#   fitted without it the closed form is better. Strategy A gives the identity a third and loses less than a tenth of a
#   decibel. Read as shares (`simplex`), in closed form bright core and ring are all data.
# - Strategy A per image has learned a schedule, not a choice: entropies of the weights and of their mean are equal, no
#   weight differs by more than 0.005 between images (middle 80 %), and all images lie at one point among the priors'
#   directions. It goes from the data to the torus as the noise falls, for every image alike.
# - Adapters leave the outputs as alike as they were (CKA), but make the errors less so: their correlation falls by an
#   eighth to a fifth in the mean, most in pairs with the identity or total variation. They do not align the priors,
#   they set those two apart.
# - One pick per image would win 0.04 to 0.12 dB over what is fused at the end; one per patch 0.2 to 0.5.
# - Disagreement grows with the error over a decade, and falls short of it by a factor of two where it is largest. But
#   as a map of the error it says less than the image itself, and under B's adapters disagreement inside the loop runs
#   against the error: errors lie where the light is.

# %% [markdown]
# ## Provenance

# %%
paper.show(paper.provenance(chapter="08_weight_analysis", profile=profile, priors=found, sky=sky, data=told))
