# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · Strategy C: the priors vote
#
# **Is it better to look at what the priors return than at what they are given?**
#
# One small network judges each prior's output beside the mean of all of them: what it changed, how far it is from the
# others, its gradient, and what the data step would change in it. Permuting the priors permutes the weights, and a
# prior that was not there when the network learned can vote too. A diversity term w' S w with its diagonal is added
# to the loss; without the diagonal, as the literature has it, its least value is any single prior: it would cause the
# collapse it is meant to prevent. (Merging experts, where the essay takes the term from, does not apply to frozen
# networks of different kinds: they have no parameters in common to merge.) Beside it stand the vote without training
# (agreement) and CsNet, which estimates each prior's error and solves for the weights.

# %%
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
# Drawn from the module itself: layers in the order they run; encoder and judge are applied to every prior.

# %%
out = paper.output(profile)
found, lacking = zoo.available(priors)
n, x = len(found), torch.rand(1, 1, 64, 64)
strategies.shapes(routing.Voter(routing.Encoder(routing.Voter.maps)), x, 0.1, torch.rand(n, 1, 1, 64, 64))

# %% [markdown]
# ## Fitted where it is used
#
# As in chapter 03: along the trajectory, on the same few labelled images as the rows beside it, with one setting of
# the loop where those choose among 4 or 24; repeated without the torus. Beside it stand the references alone; all rows
# are in `tab03_strategies`.

# %%
specs = paper.strategy_specs(profile, found, only=("c:image",), sky=sky)
table = strategies.beside_references(headroom.table(specs, found), ("c:image", "consensus:image", "csnet", "mace"))
paper.write_table(table, "tab05_strategies", out)
table.sort_values(["bank", "psnr"], ascending=False).round(3)

# %%
facts = {"profile": profile, "split": specs[0].split, "seeds": sorted({s.seed for s in specs})}
paper.save(paper.figures.forest, table, out, "fig05_strategies", **facts)

# %% [markdown]
# ## Weights, fit and pictures
#
# As in chapter 03, on development images.

# %%
shown = paper.PROFILES[profile].n_show
mine = strategies.of(specs, strategies.WATCHED["05"], found)
stages = [strategies.stages(s, 4 * shown) for s in mine]
paper.save(
    paper.figures.weights, strategies.joined(stages, "weights"), out, "fig05_weights", **facts | {"split": "dev"}
)

# %%
paper.save(
    paper.figures.curves, strategies.joined(stages, "curves"), out, "fig05_fit", **facts | {"split": "train and dev"}
)

# %%
collapsed = strategies.joined(stages, "collapse")
paper.write_table(collapsed, "tab05_collapse", out)
collapsed.round(3)

# %%
compared = strategies.of(
    specs,
    [
        *(f"single:{name}" for name in found if name in ("torus", "ffdnet")),
        "average",
        "static_affine",
        "closed_form",
        "c:image",
        "consensus:image",
    ],
    found,
)
paper.save(
    paper.figures.mosaic, strategies.pictures(compared, shown), out, "fig05_reconstructions", **facts | {"split": "dev"}
)

# %% [markdown]
# ## What was learned
#
# In the paper's run (100 labels, 1,000 test images, three seeds; rows off the headline the first 200 images, one seed):
# looking at the outputs does not help the vote. It is 0.79 dB below the single best prior with the torus in the bank
# and 0.15 without, and below strategy A (chapter 13; most of that is the diversity term, chapter 07). With the torus it
# is level with MACE and CsNet and 0.2 dB above the vote without training, without it above CsNet. Agreement among
# priors is no sign of being right when most of them know nothing of the object.

# %% [markdown]
# ## Provenance

# %%
paper.show(paper.provenance(chapter="05_strategy_c", profile=profile, priors=found, sky=sky, split=facts["split"]))
