# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 11 · Where conditions change
#
# **Which rule is safe when the array, the coverage or the object are not those it was fitted to?**
#
# The chapters before ask on one kind of object through one array. There a mixture of experts has nothing to choose: the
# same prior is best for every image, and a network trained on the labels learns this one situation by itself. Here
# every method is tried under twenty-seven conditions, most of which its fit has not seen.
#
# Set down before the test images were opened: one fused rule, fitted once on 100 labels, is a success if
#
# - (a) at home it is not below the best network by more than 0.05 dB;
# - (b) over the map its regret, the PSNR below the best of all rows in a cell, is at most 0.15 dB in the mean and at
#   most 0.5 dB in the worst cell;
# - (c) its median chi-square is under 3 in every cell without unmodelled errors;
# - (d) on the headline set it beats every single prior, the average, each network and each strategy of the essay with
#   paired intervals above zero, and the best single prior by 1 dB or more.

# %%
import pandas as pd
import torch
from IPython.display import display

from fusionlib import paper, sky
from fusionlib.paper.studies import shift
from fusionlib.priors import zoo

_ = torch.set_flush_denormal(True)  # denormal numbers slow CPUs down
pd.set_option("display.max_colwidth", None, "display.max_rows", None)

# %% tags=["parameters"]
profile: str = "quick"  # smoke, quick or paper: sizes, and the folder build/<profile> for results
priors: list = ["identity", "tv", "ffdnet", "sr", "digits", "faces", "galaxies", "torus"]  # the bank; any subset
objects: str = ""  # a folder of .npy, .npz or .fits images: one more condition, in no fit

# %% [markdown]
# ## Conditions and fits
#
# Arrays: the packaged one, thinned to 0.3 and 0.1 of its scans, with four times the noise, with gain errors of 5 % that
# nobody is told of, the one of 10 April 2017, the same stations following a source at declination −29°, and the
# packaged one turned by 40°. Objects: the discs of the labels, and rings, crescents, pairs, discs, Gaussians and thick
# tori. Banks: as fitted; a prior replaced by another of the same training images that no fit has seen; the near-domain
# prior, the torus, missing, with that in its place; and a prior that turns its images upside down.
#
# A fit is `home`: the labels as the packaged array sees them; or `mixed`: the same labels, once more through other
# arrays, turned by up to 30°, thinned to no less than 0.3 and up to three times as noisy, and rings, crescents and
# pairs, which are simulated and cost no label. Discs, Gaussians and tori are in no fit. The networks are trained on
# the same data. A network from the data to the image can also be one of the priors, one that ignores its input; the
# gate is fitted to images of networks that have not seen the label, and sees for each prior what the data say against
# its output. All rows that learn, but for the networks, have one setting of the loop.

# %%
out = paper.output(profile)
found, lacking = zoo.available(priors)
specs = shift.map_specs(profile, found, objects=objects)
table = shift.named(shift.map_table(specs))
paper.write_table(table.drop(columns="name"), "tab11_shift", out)
facts = {"profile": profile, "split": specs[0].split, "seeds": sorted({s.seed for s in specs})}
summary = shift.summary_table(table)
paper.write_table(summary, "tab11_summary", out)
shift.named(summary).set_index("name")[["home", "regret", "worst", "worst_cell", "chi2"]].round(2)

# %%
paper.save(paper.figures.fig11_map, table, out, **facts)

# %% [markdown]
# The image that is shown is the last output of the priors. One more data step after it: what it costs or gains, the
# mean over the conditions and the least, and the largest median chi-square before and after.

# %%
ended = shift.ended_table(specs)
paper.write_table(ended, "tab11_ended", out)
shift.named(ended).set_index("name")[["gain", "least", "chi2", "chi2_ended"]].round(2)

# %% [markdown]
# ## What was chosen beforehand
#
# On development images. Whether the gate sees what the data say against each prior, alike everywhere or where the image
# is bright, by simulated objects that are left out of the fit with those like them (rings and crescents together); how
# long a network is trained, whether it is shown the beam of the array, and its width; and the weight of diversity in
# strategy C: 0 (`c_plain`), 1e-5 (`c_weak`), 1e-4 (`c`, as in the chapters before) and 1e-3 (`c_strong`).

# %%
choice = shift.choice_table(profile, found)
paper.write_table(choice, "tab11_choice", out)
choice.round(2)

# %% [markdown]
# ## The headline set
#
# Images under twenty conditions drawn at random, from ranges wider than those of the fits: arrays turned by up to 45°,
# thinned to as little as a tenth, up to four times as noisy. Half of the conditions show objects that are in no fit.
#
# First, on development images: what could be won by picking among the priors, if one knew how?

# %%
picking = shift.picking_table(profile, found)
paper.write_table(picking, "tab11_picking", out)
picking.round(2)

# %%
headline = shift.headline_specs(profile, found)
mixed = shift.mixed_table(headline) if headline else pd.DataFrame()
if headline:
    paper.write_table(mixed, "tab11_mixed", out)
    same = mixed[mixed.n_train.isin((specs[0].n_train, sky.MANY))]
    display(paper.save(paper.figures.fig11_mixed, shift.named(same), out, **facts))
    gains = shift.against(headline, shift.row_of(shift.safe(profile, found)))
    paper.write_table(gains, "tab11_gains", out)
    display(gains.round(3))

# %% [markdown]
# ## By the number of labels

# %%
labels = shift.labels_table(profile, found)
paper.write_table(labels, "tab11_labels", out)
paper.save(paper.figures.fig11_labels, labels, out, **facts)

# %% [markdown]
# ## In pictures

# %%
pictures = shift.pictures(shift.shown(profile, found))
paper.save(paper.figures.fig11_pictures, pictures, out, **facts | {"split": "dev"})

# %% [markdown]
# ## When the network is trusted
#
# The weight of the network in the safe rule against the chi-square of its own image, a point for each image.

# %%
trust = pd.concat([task.result() for task in shift.trust_tasks(profile, found)])
paper.save(paper.figures.fig11_trust, trust, out, **facts | {"split": "dev"})

# %% [markdown]
# ## What came of the aims
#
# The rule's values, and those of the network fitted to the same conditions.

# %%
aims = shift.aims_table(table, headline, shift.row_of(shift.safe(profile, found)))
paper.write_table(aims, "tab11_aims", out)
aims.round(2)

# %% [markdown]
# ## Provenance

# %%
paper.show(paper.provenance(chapter="11_shift", profile=profile, priors=found, split=specs[0].split))
