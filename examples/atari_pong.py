"""Pong, in ALE's own vector environment of eight games.

The setting is that of Stable-Baselines3's zoo, for --timesteps 10000000. --fast is ours, for a
CPU and the million that is the default: returns over several steps and double DQN carry a point
back to the stroke that made it within fewer updates, and layer norm bears a higher learning
rate. A game ends at 21 points; random play loses by about 20. Needs `pip install "sbdqn[atari]"`.
"""

from returns import Returns, arguments

from sbdqn import DQN, evaluate_policy, recipes
from sbdqn.recipes import Recipe

FAST = Recipe(
    "Pong on a CPU",
    recipes.atari,
    {
        "backup": "double",
        "n_steps": 4,
        "learning_rate": 0.00025,
        "buffer_size": 150_000,
        "learning_starts": 5_000,
        "target_update_interval": 2_000,
        "exploration_fraction": 0.12,  # of a million
        "exploration_final_eps": 0.02,
        "policy_kwargs": {"layer_norm": True, "optimizer_kwargs": {"eps": 1.5e-4}},
    },
)


def main() -> None:
    parser = arguments(__doc__, timesteps=1_000_000)
    parser.add_argument("--fast", action="store_true", help="learn from fewer transitions")
    options = parser.parse_args()
    recipe = FAST if options.fast else recipes.atari
    model = DQN("CnnPolicy", "ALE/Pong-v5", n_envs=8, **recipe, seed=options.seed)
    returns = Returns(options.episodes)
    model.learn(options.timesteps, callback=returns)
    games = model.make_eval_env(n_envs=4)
    print(f"Mean of 4 games: {evaluate_policy(model, games, 4, deterministic=False)[0]:.1f}")
    games.close()
    returns.plot(options.plot, window=100)


if __name__ == "__main__":
    main()
