# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 07 · Ablations: one thing changed at a time
#
# **Which parts of the strategies improve the reconstruction?**
#
# Strategy A is a gate that looks at the image (chapter 03), B adds output adapters and a shared prior (chapter 04), C
# weighs the priors by a vote on their outputs (chapter 05). A gate is the function that gives each prior of the bank
# its weight. The closed form is our gate with weights linear in local features, fitted by ridge regression.
#
# Every arm is fitted on the same labelled images and scored on the same images as the first arm of its group.
# Differences are paired, with 95 % intervals and p values after Holm's correction over all comparisons of a table. A
# difference is `better` or `worse` if it is significant and at least 0.1 dB, `negligible` if it is significant and
# smaller or its interval lies within 0.1 dB of zero, and `undecided` otherwise.

# %%
import pandas as pd
import torch
from IPython.display import display

from fusionlib import paper
from fusionlib.paper.studies import ablations, strategies, stress
from fusionlib.priors import zoo

_ = torch.set_flush_denormal(True)  # denormal numbers slow CPUs down
pd.set_option("display.max_colwidth", None)

# %% tags=["parameters"]
profile: str = "quick"  # smoke, quick or paper: sizes, and the folder build/<profile> for results
priors: list = ["identity", "tv", "ffdnet", "sr", "digits", "faces", "galaxies", "torus"]  # the bank; any subset
sky: str = ""  # folder of .npy, .npz or .fits images instead of the simulator

# %% [markdown]
# ## The verdicts

# %%
out = paper.output(profile)
found, lacking = zoo.available(priors)
table = ablations.ablation_table(profile, found, sky)
paper.write_table(table, "tab07_ablations", out)
shots = ablations.shot_table(profile, found, sky)
paper.write_table(shots, "tab07_shots", out)
told = ablations.verdicts(pd.concat([table, shots]))
paper.write_table(told, "tab07_verdicts", out)
told.style.hide(axis="index").set_properties(**{"text-align": "left"})

# %%
facts = {"profile": profile, "split": paper.PROFILES[profile].split, "seeds": list(paper.PROFILES[profile].seeds)}
paper.save(paper.figures.fig07_ablations, table, out, **facts)

# %% [markdown]
# Blue: better than the first row of its group (significant, and at least 0.1 dB); orange: worse; grey: a negligible
# difference; ochre: undecided. The axis is linear near zero and logarithmic beyond half a decibel. The first row of
# each group has its PSNR beside its name.
#
# - *A1*: same encoder, cosine or linear head; `raw pixels` is a linear head on the image averaged to 8 x 8.
# - *C1*: a penalty w' S w on the weights w of similar priors, S their similarity: `quadratic` with the diagonal of S,
#   `literal` without it, as the essay has it.
# - *MGPF groups*: by hand (priors that know objects, priors that do not), by clustering the correlation of their
#   errors, at random, and one gate for all.
# - *entropy*: a penalty that raises (`spread`) or lowers (`sharpened`) the entropy of the weights of each image, or
#   raises that of their mean over images (`shared out`).
# - *images*: which images a gate is fitted on: the truth in white noise, the iterates of a loop that averages the
#   priors, or the iterates of its own loop.
# - *unseen prior*: strategy C fitted without the torus, which joins the bank after the fit; with `random subsets` half
#   of the steps of the fit see a random subset of the priors.
# - *A2*: strategy A meta-learned or trained jointly, then adapted to a few labels; its figure is further below.
# - *harmful prior*: the output of `galaxies`, upside down, is added to the bank before the fit. The average has
#   nothing to fit.

# %% [markdown]
# ## How many labels
#
# The essay's central claim is about scarce data: with few labelled images, fusing frozen priors should beat training a
# network. All methods use one setting of the loop, so that no labels are spent on tuning it.

# %%
labels = ablations.label_table(profile, found, sky)
paper.write_table(labels, "tab07_labels", out)
if len(labels):
    display(paper.save(paper.figures.fig07_labels, labels, out, **facts))

# %% [markdown]
# From how many labels on is an end-to-end network better than fusing? The paired difference of the best fused method
# to that network, with 95 % intervals.

# %%
rows = ablations.label_specs(profile, found, sky)
numbers = sorted({s.n_train for s in rows})
leads = [strategies.lead_table([s for s in rows if s.n_train == n], found) for n in numbers]
if leads:
    against = pd.concat(leads).query("minus == 'unet'").sort_values(["bank", "n_train"], ignore_index=True)
    paper.write_table(against, "tab07_overtaking", out)
    display(against.round(2))

# %% [markdown]
# Supervised baselines depend on the length of training. PSNR on development images by the number of steps (paper
# profile). Everywhere else the U-Net is trained for 4,000 steps, the denoiser from labels alone for 9,600, and the
# fine-tuned prior for 200.

# %%
training = ablations.training_table(profile, found, sky)
paper.write_table(training, "tab07_training", out)
if len(training):
    display(training.pivot_table(index=["method", "steps"], columns="n_train", values="psnr").round(2))

# %% [markdown]
# ## Meta-learning: zero, one, five, ten labels
#
# Strategy A trained on geometric skies at full and a third of the coverage, with MAML or jointly (the same images and
# rounds, no inner step), then adapted by five gradient steps to labelled black holes at a tenth of the coverage.
# Neither black holes nor this coverage were seen in training. `from nothing` is strategy A fitted to these labels
# alone.

# %%
if len(shots):
    display(paper.save(paper.figures.fig07_shots, shots, out, **facts))

# %% [markdown]
# ## How many priors
#
# The bank grows prior by prior: in its own order, from the identity to the torus, the prior trained on the most
# similar images, and in the reverse order. One setting of the loop for all. A point is hollow where the difference
# that the last prior makes is negligible or undecided.

# %%
number = ablations.number_table(profile, found, sky)
paper.write_table(number, "tab07_number", out)
if len(number):
    display(paper.save(paper.figures.fig07_number, number, out, **facts))

# %% [markdown]
# ## Each prior left out
#
# Affine weights do not measure the value of a prior: priors with correlated errors exchange weight. Here the closed
# form is fitted again without each prior, and its loss is measured.

# %%
leave = ablations.leave_table(profile, found, sky)
paper.write_table(leave, "tab07_leave", out)
if len(leave):
    display(paper.save(paper.figures.fig07_leave, leave, out, **facts))

# %% [markdown]
# ## Stress
#
# Methods fitted and tuned at full coverage are given skies of half or twice the flux, shifted skies, three times the
# noise, or 7 or 3 of the 22 scans. Nothing is fitted again. Development images, observed from 64 pixels here.

# %%
stress = stress.stress_table(stress.stress_specs(profile, found, sky), stress.IMAGES[profile])
paper.write_table(stress, "tab07_stress", out)
if profile != "smoke":
    display(paper.save(paper.figures.fig07_stress, stress, out, **facts))

# %% [markdown]
# ## What was learned
#
# In the paper's run (100 labelled images unless said otherwise). Arms are compared on 200 test images with one seed,
# or on 1,000 with three where all arms of a group are in the main table (chapter 13).
#
# - The images that a gate is fitted on matter more than its architecture. Gates fitted to the truth in white noise, as
#   denoisers are, lose 0.8 dB against fitting along the trajectory of their own loop. The iterates of a loop that
#   averages the priors do no better for a gate on the simplex. The closed form fitted on them fails completely; a
#   possible reason is that its own loop leaves the range of these images.
# - Three components that the essay proposes change PSNR by less than a tenth of a decibel: the cosine head loses 0.03
#   dB to a linear one, which does as well on 64 averaged pixels as on the encoder's features; grouping the priors
#   (MGPF) gains 0.01 to 0.02 dB, random groups as much as groups by hand; the shared prior of B makes a negligible
#   difference. Output adapters give B 0.2 dB. The quadratic diversity term costs C 0.6 dB, the literal one 2.2 dB;
#   every entropy term costs strategy A 0.8 dB or more (each at the one strength tried). Squared error is the best
#   loss.
# - Static affine weights are 0.2 dB better than static weights on the simplex. An affine gate fitted by gradient is
#   not significantly different from one on the simplex with the torus in the bank, and 0.4 dB better without it.
# - The change that the data step would make, as an input of the gate, gains the closed form 0.05 dB and strategy A
#   nothing.
# - In strategy A with one weight per image, using the two largest weights alone loses nothing: in the last iterations
#   this gate gives nearly all weight to one prior (`tab03_collapse`).
# - With the torus in the bank, the closed form over eight different priors is no better than over one prior (the best
#   at six noise levels, and the identity). Over the eight priors and the noise levels
#   together (`closed_union`) it is 0.07 dB better, a negligible difference.
# - Strategy C can use a prior that joins after the fit, with half of the gain that the prior brings when it is there
#   during the fit. Random subsets of the priors during the fit do not help.
# - A prior that is always wrong (the output of galaxies, upside down) costs the average 0.5 dB, strategy A 0.01 dB and
#   the closed form 0.05 dB; C gains 0.16 dB.
# - Fusing is better than an end-to-end network only with very few labels. Compared here is the fused method that is
#   best on these images at each number of labels, which favours fusing; chapter 13 compares the plain closed form.
#   With 10 labels the end-to-end network, trained with augmentation, is behind the best fused method where the torus
#   is in the bank; without the torus it is level with the closed form fitted on augmented labels, and ahead of the
#   plain closed form. From 30 labels on it is ahead in both banks, by 0.6 to 0.9 dB with the torus and by 0.9 to 1.2
#   dB without. So the number of labels from which it is better lies between 10 and 30. It is not tied to the array it
#   was trained for: given 7 of the 22 scans it keeps its lead, given 3 it is level with the closed form, neither
#   fitted again.
# - The closed form improves up to 1,000 labels, where static weights and the essay's strategies hardly change from 30
#   on; with few labels it gains more if they are augmented. A denoiser trained from scratch on 100 labels is slightly
#   better than the torus. With the torus in the bank it is below the closed form, by 0.2 to 0.4 dB; without the torus
#   it is above it, by 0.15 to 0.23 dB up to 100 labels (by 0.11 dB with 100 over three seeds, tuned), and level from
#   300 on. With ten labels the closed form fitted on augmented labels is better than that denoiser in both banks.
# - Longer training helps the denoiser at any number of labels, and the U-Net where there are many: 16,000 steps gain
#   0.1 dB over 4,000 with 100 labels and 0.8 dB with 1,000. With ten labels the shortest training of the U-Net is
#   best; fine-tuning is best at its shortest with any number. With many labels the curves of U-Net and denoiser are
#   therefore lower bounds.
# - With the torus in the bank, the gain of the closed form does not come from combining different priors: the best
#   prior alone, at six noise levels under the same gate (`closed_levels`), is within 0.05 dB at any number of labels.
#   Without the torus different priors are 0.2 to 0.4 dB better. Both together (`closed_union`) are better than one
#   prior at six levels from 300 labels on with the torus, and from 10 without.
# - Meta-learning, at the lowest coverage. Relative to joint training on the same skies, MAML is 0.19 dB worse with no
#   label to adapt to and 0.12 to 0.29 dB better with one or more. Strategy A fitted to those labels alone, even to
#   one, is better than both, 0.47 to 0.59 dB above joint training. More labels than one do not raise its PSNR here.
# - Under every stress fitted gates stay above the average of the priors; they lose most where the sky is moved by 30
#   µas. The U-Net is above all of them under every stress except 3 scans.
# - A few priors are enough. Adding priors from the torus down, the closed form gains 0.16 dB by the second prior and
#   0.17 dB by the six that follow; strategy A loses 0.14 dB on the way, the average 1.1 dB. Adding them from the
#   identity up, all but super-resolution and faces help all three methods, and in closed form six priors that were
#   trained on no similar images come within 0.1 dB of the torus alone.
# - Leaving out the torus costs the closed form 0.35 dB; leaving out any other prior makes a negligible difference.

# %% [markdown]
# ## Provenance

# %%
paper.show(paper.provenance(chapter="07_ablations", profile=profile, priors=found, sky=sky, split=facts["split"]))
