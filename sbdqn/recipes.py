"""Named settings: the agents of the papers, and the same ideas on small tasks.

A recipe is a mapping of `DQN`'s parameters::

    DQN("MlpPolicy", env, **recipes.rainbow_classic)

`rainbow` has the hyperparameters of its paper, which are for Atari and its
millions of transitions; `rainbow_atari` adds how the paper plays the games, and
`atari` is such a recipe too: for ids such as `ALE/Pong-v5`. `rainbow_classic` has
the same parts as `rainbow` on this library's defaults, scaled to tasks such as
CartPole. `cartpole`, `mountain_car` and others were tuned for one task each;
`tuned_for` finds them. What the sources count in frames is in transitions here, of 4 frames
each. Epsilon and beta move from the first transition on, where the published code
begins with the first update.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from sbdqn.backups import Munchausen
from sbdqn.errors import require
from sbdqn.exploration import EpsilonGreedy
from sbdqn.heads import Categorical, ImplicitQuantile, Quantile
from sbdqn.replay import Prioritized
from sbdqn.schedules import Linear

_MERGED = ("policy_kwargs", "env_kwargs")


class Recipe(dict[str, Any]):
    """Parameters of `DQN`, by name.

    Args:
        summary: what it is and where it comes from, in one line.
        parts: mappings of parameters; later ones override earlier ones, and
            `policy_kwargs` and `env_kwargs` are merged.
        envs: patterns of the ids that it was tuned for, as `"ALE/*"`.
        timesteps: that it was tuned for.

    Attributes:
        summary: as given.
        envs: as given.
        timesteps: as given.
    """

    def __init__(
        self,
        summary: str,
        *parts: Mapping[str, Any],
        envs: Sequence[str] = (),
        timesteps: int | None = None,
    ) -> None:
        super().__init__()
        require(isinstance(summary, str), "summary", summary, "text, before the parts")
        self.summary = summary
        self.envs = tuple(envs)
        self.timesteps = timesteps
        for part in map(copy.deepcopy, parts):
            both = {name: {**self.get(name, {}), **part.get(name, {})} for name in _MERGED}
            self.update(part)
            self.update({name: merged for name, merged in both.items() if merged})


def _adam(learning_rate: float, eps: float) -> dict[str, Any]:
    network = {"optimizer_class": "Adam", "optimizer_kwargs": {"eps": eps}}
    return {"learning_rate": learning_rate, "policy_kwargs": network}


def _explore(final: float, steps: int) -> dict[str, Any]:
    return {"exploration": EpsilonGreedy(Linear(1.0, final, steps))}


_NATURE = {
    "head": "scalar",
    "backup": "greedy",
    "replay": "uniform",
    "buffer_size": 1_000_000,
    "learning_starts": 50_000,
    "batch_size": 32,
    "gamma": 0.99,
    "n_steps": 1,
    "max_grad_norm": None,
    "train_freq": 4,
    "gradient_steps": 1,
    "target_update_interval": 10_000,
    "tau": 1.0,
    "policy_kwargs": {"layer_norm": False},
    **_explore(0.1, 1_000_000),
}


def _rmsprop(learning_rate: float, eps: float) -> dict[str, Any]:
    network = {
        "optimizer_class": "CenteredRMSprop",
        "optimizer_kwargs": {"alpha": 0.95, "eps": eps},
    }
    return {"learning_rate": learning_rate, "policy_kwargs": network}


# 0.01 was added to the variance of a gradient summed over 32 transitions; this one is the mean.
_RMSPROP_EPS = 0.01 / 32**2
_ADAM_EPS = 0.01 / 32

_DOUBLE = {"backup": "double", "target_update_interval": 30_000, **_explore(0.01, 1_000_000)}
_DUELING = {"policy_kwargs": {"dueling": True}}
_NOISY = {"policy_kwargs": {"noisy": True}, "exploration": "greedy"}
_DISTRIBUTIONAL = _explore(0.01, 1_000_000)
_DOPAMINE = {
    "learning_starts": 20_000,
    "target_update_interval": 8_000,
    **_explore(0.01, 250_000),
}

dqn = Recipe(
    "DQN: Mnih et al. 2015, Extended Data Table 1",
    _NATURE,
    _rmsprop(2.5e-4, _RMSPROP_EPS),
)
double_dqn = Recipe(
    "Double DQN, tuned: van Hasselt et al. 2016, on human starts",
    dqn,
    _DOUBLE,
)
dueling_ddqn = Recipe(
    "Dueling double DQN: Wang et al. 2016, and their prioritized learning rate",
    double_dqn,
    _rmsprop(6.25e-5, _RMSPROP_EPS),
    {"max_grad_norm": 10.0},
    _DUELING,
)
prioritized_ddqn = Recipe(
    "Prioritized double DQN, proportional: Schaul et al. 2016, Table 3",
    double_dqn,
    _rmsprop(2.5e-4 / 4, _RMSPROP_EPS / 4**2),
    {"replay": Prioritized(alpha=0.6, beta=Linear(0.4, 1.0, 50_000_000))},
)
c51 = Recipe(
    "C51: Bellemare et al. 2017, section 5",
    _NATURE,
    _adam(2.5e-4, _ADAM_EPS),
    _DISTRIBUTIONAL,
    {"head": Categorical(atoms=51, low=-10.0, high=10.0)},
)
qr_dqn = Recipe(
    "QR-DQN: Dabney et al. 2018a, Atari section",
    _NATURE,
    _adam(5e-5, _ADAM_EPS),
    _DISTRIBUTIONAL,
    {"head": Quantile(quantiles=200, kappa=1.0)},
)
iqn = Recipe(
    "IQN: Dabney et al. 2018b, section 4",
    _NATURE,
    _adam(5e-5, _ADAM_EPS),
    _DISTRIBUTIONAL,
    {"head": ImplicitQuantile(samples=64, target_samples=64, acting_samples=32, cosines=64)},
)
munchausen_dqn = Recipe(
    "Munchausen DQN: Vieillard et al. 2020, appendix, and its published settings",
    _NATURE,
    _adam(5e-5, _ADAM_EPS),
    _DOPAMINE,
    {"backup": Munchausen(alpha=0.9, temperature=0.03, clip=-1.0)},
)
munchausen_iqn = Recipe(
    "Munchausen IQN: Vieillard et al. 2020, appendix, and its published settings",
    munchausen_dqn,
    {"head": iqn["head"]},
)
rainbow = Recipe(
    "Rainbow: Hessel et al. 2018, Table 1, and its authors' gradient norm",
    c51,
    _adam(6.25e-5, 1.5e-4),
    {"backup": "double", "n_steps": 3, "learning_starts": 20_000, "target_update_interval": 8_000},
    {"replay": Prioritized(alpha=0.5, beta=Linear(0.4, 1.0, 50_000_000)), "max_grad_norm": 10.0},
    _DUELING,
    _NOISY,
)

# Games begin with fewer than 30 frames of no-ops, no action sticks, and 30 minutes of 60 frames per
# second are the most. In training a lost life ends an episode, and rewards are clipped.
_NO_OPS = {
    "repeat_action_probability": 0.0,
    "frameskip": 4,
    "noop_max": 30,
    "max_num_frames_per_episode": 108_000,
    "terminal_on_life_loss": True,
    "clip_reward": True,
}

rainbow_atari = Recipe(
    "Rainbow with its Atari games: Hessel et al. 2018, Tables 1 and 4, no-op starts",
    rainbow,
    {"env_kwargs": {**_NO_OPS, "use_fire_reset": False}},
)
atari = Recipe(
    "DQN on Atari as in the RL Baselines3 Zoo: dqn.yml, SB3's defaults and AtariWrapper",
    {
        "head": "scalar",
        "loss": "huber",
        "backup": "greedy",
        "replay": "uniform",
        "buffer_size": 100_000,
        "learning_starts": 100_000,
        "batch_size": 32,
        "gamma": 0.99,
        "n_steps": 1,
        "max_grad_norm": 10.0,
        "train_freq": 4,
        "gradient_steps": 1,
        "target_update_interval": 1_000,
        "tau": 1.0,
        "exploration": "epsilon_greedy",
        "exploration_fraction": 0.1,  # of 10 million transitions
        "exploration_initial_eps": 1.0,
        "exploration_final_eps": 0.01,
        "policy_kwargs": {"layer_norm": False},
        "env_kwargs": {**_NO_OPS, "use_fire_reset": True},
    },
    _adam(1e-4, 1e-8),
)

# CartPole, Acrobot and MountainCar give rewards of 1 in size, which a gamma of 0.99 sums to 100.
_WIDE = {"head": Categorical(atoms=101, low=-100.0, high=100.0)}
_FEW_SAMPLES = {
    "head": ImplicitQuantile(samples=16, target_samples=16, acting_samples=16, cosines=32)
}

dqn_classic = Recipe("DQN on small tasks", {"backup": "greedy"})
double_dqn_classic = Recipe("Double DQN on small tasks: the defaults", {"backup": "double"})
dueling_ddqn_classic = Recipe("Dueling double DQN on small tasks", double_dqn_classic, _DUELING)
prioritized_ddqn_classic = Recipe(
    "Prioritized double DQN on small tasks",
    double_dqn_classic,
    {"replay": Prioritized(alpha=0.6, beta=Linear(0.4, 1.0, 50_000))},
)
c51_classic = Recipe("C51 on small tasks, returns from -100 to 100", dqn_classic, _WIDE)
qr_dqn_classic = Recipe("QR-DQN on small tasks", dqn_classic, {"head": Quantile(quantiles=50)})
iqn_classic = Recipe("IQN on small tasks", dqn_classic, _FEW_SAMPLES)
munchausen_dqn_classic = Recipe(
    "Munchausen DQN on small tasks", {"backup": munchausen_dqn["backup"]}
)
munchausen_iqn_classic = Recipe(
    "Munchausen IQN on small tasks", munchausen_dqn_classic, _FEW_SAMPLES
)
rainbow_classic = Recipe(
    "Rainbow on small tasks, returns from -100 to 100",
    double_dqn_classic,
    _WIDE,
    {"replay": Prioritized(alpha=0.5, beta=Linear(0.4, 1.0, 50_000))},
    _DUELING,
    _NOISY,
    # Noise of 0.5 drowns small layers for most of 50 000 steps, and noise alone sees too little
    # of a task in its beginning.
    {"policy_kwargs": {"noisy_sigma": 0.1}, "learning_starts": 1_000},
)

# For one task each, tuned on seeds from 1000, which no table reports. docs/learning.md has what was
# measured.
# Of what the defaults say and may change, all that was tuned is said again.
_TUNED = {
    **_adam(1e-3, 1e-8),
    "head": "scalar",
    "loss": "huber",
    "backup": "double",
    "replay": "uniform",
    "buffer_size": 100_000,
    "learning_starts": 100,
    "batch_size": 64,
    "gamma": 0.99,
    "n_steps": 8,
    "max_grad_norm": 10.0,
    "train_freq": 2,
    "gradient_steps": 1,
    "target_update_interval": 500,
    "tau": 1.0,
}
_SMALL_NETWORK = {"policy_kwargs": {"net_arch": (64, 64), "layer_norm": True}}
_MIDDLE_NETWORK = {"policy_kwargs": {"net_arch": (128, 128), "layer_norm": True}}
_BOTH_NETWORKS_EVERY_STEP = {"train_freq": 1, "target_update_interval": 1, "tau": 0.005}
cartpole = Recipe(
    "CartPole, tuned to be solved soon and to stay so",
    _TUNED,
    _SMALL_NETWORK,
    _explore(0.05, 5_000),
    {"learning_rate": Linear(1e-3, 1e-4, 50_000)},
    envs=("CartPole-v*",),
    timesteps=50_000,
)
cartpole_fast = Recipe(
    "CartPole in the fewest episodes: four updates a step, no exploration after 600 steps",
    _TUNED,
    _SMALL_NETWORK,
    _explore(0.0, 600),
    _BOTH_NETWORKS_EVERY_STEP,
    {"gradient_steps": 4, "learning_rate": 5e-4, "learning_starts": 64},
)
acrobot = Recipe(
    "Acrobot, tuned on three seeds: double QR-DQN with an update a step",
    _TUNED,
    _MIDDLE_NETWORK,
    _BOTH_NETWORKS_EVERY_STEP,
    _explore(0.05, 10_000),
    {"head": Quantile(quantiles=25), "n_steps": 1, "batch_size": 128},
    {"learning_rate": Linear(5e-4, 1e-5, 100_000)},
    envs=("Acrobot-v*",),
    timesteps=100_000,
)
mountain_car = Recipe(
    "MountainCar, tuned on three seeds",
    _TUNED,
    _SMALL_NETWORK,
    _explore(0.05, 48_000),
    {"n_steps": 5, "target_update_interval": 2, "tau": 0.01},
    {"learning_rate": Linear(1e-3, 1e-5, 120_000)},
    envs=("MountainCar-v*",),
    timesteps=120_000,
)
lunar_lander = Recipe(
    "LunarLander, tuned on eight seeds: double QR-DQN, two steps, a long horizon",
    _TUNED,
    _MIDDLE_NETWORK,
    _BOTH_NETWORKS_EVERY_STEP,
    _explore(0.05, 30_000),
    {"head": Quantile(quantiles=25), "n_steps": 2, "gamma": 0.995},
    {"learning_starts": 1_000, "batch_size": 128},
    {"learning_rate": Linear(1e-3, 1e-5, 100_000)},
    envs=("LunarLander-v*",),
    timesteps=100_000,
)
minatar = Recipe(
    "MinAtar's games, with the network of Young & Tian 2019",
    _TUNED,
    _explore(0.05, 100_000),
    {"n_steps": 1, "learning_starts": 1_000, "target_update_interval": 1_000},
    {
        "learning_rate": 2.5e-4,
        "n_envs": 8,
        "train_freq": 4,
        # Most games have no end for one who never fails.
        "env_kwargs": {"max_episode_steps": 5_000},
        "policy_kwargs": {
            "net_arch": (128,),
            "layer_norm": True,
            "features_extractor": "minatar",
            "features_extractor_kwargs": {"channels_last": True},
        },
    },
    envs=("MinAtar/*",),
    timesteps=1_000_000,
)


def by_name() -> dict[str, Recipe]:
    """All recipes, in the order in which they stand here."""
    return {name: value for name, value in globals().items() if isinstance(value, Recipe)}


def tuned_for(env_id: str) -> str | None:
    """The name of the recipe that was tuned for an environment, if there is one.

    Example:
        >>> from sbdqn.recipes import tuned_for
        >>> tuned_for("CartPole-v1")
        'cartpole'
        >>> tuned_for("Blackjack-v1") is None
        True
    """
    for name, recipe in by_name().items():
        if any(fnmatch.fnmatchcase(env_id, pattern) for pattern in recipe.envs):
            return name
    return None
