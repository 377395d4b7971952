# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 13 · Conclusions
#
# **Which rule for fusing the priors gives the best picture, and what of the two essays holds?**

# %%
import pandas as pd
import torch
from IPython.display import display

from fusionlib import paper
from fusionlib.paper.studies import claims, conclusions, headroom, strategies
from fusionlib.priors import zoo

_ = torch.set_flush_denormal(True)  # denormal numbers slow CPUs down
pd.set_option("display.max_colwidth", None, "display.max_rows", None)

# %% tags=["parameters"]
profile: str = "quick"  # smoke, quick or paper: sizes, and the folder build/<profile> for results
priors: list = ["identity", "tv", "ffdnet", "sr", "digits", "faces", "galaxies", "torus"]  # the bank; any subset
sky: str = ""  # folder of .npy, .npz or .fits images instead of the simulator

# %% [markdown]
# ## The main table
#
# The headline: every single prior, the plain average, the field's own method, static weights, the essay's strategies
# A, B and C, the closed form, its controls (one prior, the same gate), and networks trained on the same labels; with
# the whole bank, and with the bank less the torus, the one prior that is near to the object. `delta_best_single` is
# the gain over the single prior that is best on the labels. All other rows are in chapters 01 to 06.

# %%
out = paper.output(profile)
found, lacking = zoo.available(priors)
specs = conclusions.result_specs(profile, found, sky=sky)
results = headroom.table(specs, found)
paper.write_table(results, "tab13_results", out)
results.sort_values(["bank", "psnr"], ascending=False).round(3)

# %%
facts = {"profile": profile, "split": specs[0].split, "seeds": sorted({s.seed for s in specs})}
paper.save(paper.figures.forest, results, out, "fig13_results", **facts)

# %% [markdown]
# ## In pictures
#
# The first development images, from the truth to the oracle that picks the best prior for every pixel. Of strategy A
# the form by pixel is shown, of the others the essay's.
#
# On images of your own the chapter ends here: what follows are claims on our sky (chapter 07 counts labels on any).

# %%
shown = conclusions.strip_specs(profile, found, sky)
pictures = strategies.pictures(shown, paper.PROFILES[profile].n_show)
paper.save(paper.figures.fig13_strip, pictures, out, **facts | {"split": "dev"})

# %% [markdown]
# ## What labels buy
#
# The in-domain ceiling is a denoiser trained on 10,000 simulated skies, in the same loop. `closed` is the share of the
# way from the best single prior to it that a method goes with n labels, with its interval; it is left out where the
# ceiling itself is not surely above the best single prior. It is a ceiling of one denoiser in the loop: levels of noise
# together, and networks outside of it, can pass it.

# %%
gap = conclusions.gap_table(profile, found, sky)
paper.write_table(gap, "tab13_gap", out)
if len(gap):
    display(paper.save(paper.figures.fig13_efficiency, gap, out, **facts))
gap.round(2)

# %% [markdown]
# ## The essay's table 1, measured
#
# The essay compares its three strategies in words. Here the same properties are measured, with one weight per image, as
# in the essay.

# %%
if claims.whole(profile, sky):
    essay = conclusions.essay_table(profile, found, results, sky)
    paper.write_table(essay, "tab13_essay", out)
    display(essay)

# %% [markdown]
# ## What holds
#
# Each claim of the two essays is stated as differences of PSNR that it says are positive. A difference counts if it is
# significant (95 % bootstrap interval, and p < 0.05 of Wilcoxon's signed-rank test over images after Holm's correction
# over all comparisons) and at least 0.1 dB. A claim *holds* if all of its differences count, or *holds* in the cases
# that are named; it is *negligible* if all of its differences are surely smaller than 0.1 dB; *the reverse holds* if
# all differences count with the other sign; otherwise it *does not hold*.

# %%
compared = claims.claim_table(profile, found, sky)
paper.write_table(compared, "tab13_claims", out)
parts = [claims.verdict_table(compared)]
if claims.whole(profile, sky):
    parts += [claims.size_claim(profile, found, sky), claims.patch_claims(profile)]
verdicts = pd.concat(parts, ignore_index=True)
paper.write_table(verdicts, "tab13_verdicts", out)
verdicts.style.hide(axis="index").set_properties(**{"text-align": "left"})

# %%
if len(compared):
    display(paper.save(paper.figures.fig13_claims, compared, out, **facts))

# %% [markdown]
# ## What was learned
#
# In the paper's run (100 labels, 1,000 test images, three seeds; other numbers of labels: 200 images, one seed):
#
# - With the torus, a prior near to the object, in the bank there is little to win: the ceiling is 0.1 dB above the best
#   single prior. The bank and six noise levels of its best prior together (`closed_union`, ours) win 0.45 dB, the
#   closed form of the bank alone 0.34, its control, the best prior at six levels and the identity, 0.38.
# - Without it fusing wins 1.1 dB by the closed form and 1.2 by `closed_union`, as much as the ceiling; with 1,000
#   labels 1.35, more than the ceiling.
# - So the closed form, fitted along the trajectory it takes, is the best rule of those that leave the priors as they
#   are. Of the essay's strategies at image resolution B alone is above the best single prior, by 0.06 and 0.22 dB; A by
#   pixel is above it too.
# - It is in part the difference of the priors that wins. Where the torus is in the bank one prior at six noise levels
#   does as well as eight different ones; where it is not they are 0.2 dB better. Both together are better than one
#   prior at six levels from 30 labels on, without the torus from 10.
# - But scarce data are no argument for fusing frozen priors. A network from the data straight to the image, trained on
#   the same 100 labels turned, moved, brighter or fainter and observed anew, is the best row of all: 1.2 and 2.3 dB
#   above the best single prior, 0.8 and 1.1 above the best fused row, at 20 µas too, where the ceiling is better still;
#   it fits the data less well and its worst image is worse. With ten labels it is behind the best fused row where the
#   torus is in the bank and level with it where it is not; from 30 on it is ahead, and given fewer scans than it was
#   trained for it stays so, down to 7 of 22 (chapter 07). A denoiser trained on the labels alone, in the loop,
#   is as good as the ceiling: 0.35 dB below `closed_union` where the torus is in the bank, level with it where it is
#   not.
# - Most of what the essay proposes beyond weighing (cosine routing, shared priors, votes, diversity and entropy terms,
#   meta-learning) harms at the strength tried, or makes a difference of hundredths or none. Its adapters help.

# %% [markdown]
# ## The checklist
#
# Everything that the two essays name: the tests that check it, and where the paper shows it.

# %%
checklist = claims.checklist_table()
paper.write_table(checklist, "tab13_checklist", out)
checklist.style.hide(axis="index").set_properties(**{"text-align": "left"})

# %% [markdown]
# ## Provenance

# %%
paper.show(paper.provenance(chapter="13_conclusions", profile=profile, priors=found, sky=sky, split=facts["split"]))
