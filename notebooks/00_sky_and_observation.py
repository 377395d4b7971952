# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 00 · Sky and observation
#
# **What does a black hole look like, and how little of it does the array of April 2017 see?**
#
# We simulate the sky, observe it through the real schedule, station positions and noise of M87 on 11 April 2017, and
# look at what the telescope hands to a reconstruction method.

# %%
import numpy as np
import pandas as pd
import torch
from torch.utils.benchmark import Timer

from fusionlib import Interferometer, black_holes, paper
from fusionlib import sky as skies
from fusionlib.interferometer import S_REF

_ = torch.set_flush_denormal(True)  # denormal numbers slow CPUs down
pd.options.display.max_colwidth = 100

# %% tags=["parameters"]
profile: str = "quick"  # smoke, quick or paper: sizes, and the folder build/<profile> for results
sky: str = ""  # folder of .npy, .npz or .fits images instead of the simulator
observation: str = ""  # UVFITS file of a released observation, to compare with the packaged coverage

# %% [markdown]
# ## The sky
#
# A thin, turbulent disc around a spinning (Kerr) black hole: light bent to the camera directly and once around the hole
# (the photon ring), redshifted by orbiting and falling gas. Spin, inclination, size, emissivity and turbulence are
# drawn from stated ranges; the centre lies up to 12 µas off, peak brightness between 0.5 and 1. Spin below zero is a
# disc turning against the hole; inclination beyond 90° a view from below.

# %%
out = paper.output(profile)
shown = skies.from_folder(sky)[:16] if sky else skies.split("dev", 16)
blank = torch.full((len(shown.image),), torch.nan)
paper.save(
    paper.figures.fig00_sky,
    {"image": shown.fine[:, 0].numpy()}
    | {name: shown.parameters.get(name, blank).numpy() for name in ("spin", "inclination")},
    out,
    profile=profile,
    source=sky or "simulated, dev images",
)

# %% [markdown]
# The ranges the simulator draws from, and what each means:

# %%
pd.DataFrame(skies.RANGES, index=["low", "high", "meaning"]).T

# %% [markdown]
# ## The array
#
# Seven stations, 22 scans, 216 pairs of stations; the 27 pairs shorter than 0.1 Gλ see the jet rather than the ring and
# are dropped. Partial coverage means committed lists of 7 and of 3 scans, three lists each.

# %%
lists, points = paper.coverage_table()
paper.write_table(lists, "tab00_coverage", out)
lists

# %% [markdown]
# `rank` counts the singular modes kept for exact arithmetic (above 10⁻⁹ of the largest); `rank_noise` those that an
# image of unit norm moves by more than the noise: of 4,096 pixels the data fix about that many combinations,
# and a prior has to say the rest.

# %%
paper.save(paper.figures.fig00_coverage, points, out, profile=profile)

# %% [markdown]
# ## One observation
#
# The sky is observed at 128 pixels and will be reconstructed at 64: the model used for reconstruction is not the one
# that made the data.

# %%
array = Interferometer.eht2017()
y = array.observe(shown.fine[:1], seed=0)
measured, clean = array.visibilities(y)[0], array.visibilities(array(shown.fine[:1]))[0]
paper.save(
    paper.figures.fig00_observation,
    {
        "truth": shown.image[0, 0].numpy(),
        "beam": array.dirty_beam()[0, 0].numpy(),
        "dirty": array.dirty_image(y)[0, 0].numpy(),
        "baseline": np.hypot(array.table.u, array.table.v).to_numpy() / 1e9,
        "amplitude": measured.abs().numpy(),
        "clean": clean.abs().numpy(),
        "sigma": array.sigma.numpy(),
    },
    out,
    profile=profile,
)

# %% [markdown]
# The truth itself does not reach a reduced chi-square of 1 at 64 pixels, because it was observed at 128:

# %%
n = min(16, len(shown.image))
y = array.observe(shown.fine[:n], seed=0)
chi2 = {
    "seen at 128 px": (y - array(shown.fine[:n])).square().mean(),
    "seen at 64 px": array.chi2(shown.image[:n], y).mean(),
}
pd.DataFrame({"reduced chi-square of the truth": {k: round(float(v), 3) for k, v in chi2.items()}})

# %% [markdown]
# ## Against the released data
#
# With `observation` set to the UVFITS file of M87, 11 April 2017, low band (data product 2019-D01-01 of the EHT
# collaboration), the packaged table is compared with it, scan by scan. Without a file this says so and goes on.

# %%
release = pd.DataFrame({"packaged against given": paper.compare_observation(observation)})
release

# %% [markdown]
# ## How long a sky takes

# %%
timer = Timer("black_holes(4, 1)", globals={"black_holes": black_holes}, num_threads=1)
print(f"{timer.timeit(2).mean / 4:.3f} s per image on one core; image value 1 = {1e3 * S_REF:g} mJy per pixel")

# %% [markdown]
# ## Provenance

# %%
paper.show(paper.provenance(chapter="00_sky_and_observation", profile=profile, sky=sky, observation=observation))
