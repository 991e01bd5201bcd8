"""Scripts of Stable-Baselines3's documentation run with only their imports changed.

The texts are SB3's own. What is replaced is listed here: the names of modules and
algorithms, numbers of steps, environments whose actions are continuous or whose
simulator may not be installed, and two calls that are not there, by what docs/migration.md
names instead. Left out is `CheckpointCallback(save_vecnormalize=True)`:
there is no VecNormalize here.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from sbdqn import DQN, callbacks, evaluate_policy
from sbdqn.envs import SB3View

IMPORTS = {
    "from stable_baselines3 import A2C": "from sbdqn import DQN",
    "from stable_baselines3 import DQN": "from sbdqn import DQN",
    "from stable_baselines3 import PPO": "from sbdqn import DQN",
    "from stable_baselines3 import SAC": "from sbdqn import DQN",
    "from stable_baselines3.common.": "from sbdqn.",
}
ALGORITHMS = {"A2C": "DQN", "PPO": "DQN", "SAC": "DQN"}
ENVIRONMENTS = {"Pendulum-v1": "CartPole-v1", "LunarLander-v3": "CartPole-v1"}

NOT_THERE = {
    "from stable_baselines3.sac.policies import MlpPolicy\n": "",
    "replay_buffer.size()": "replay_buffer.stored",
    'policy.save("sac_policy_pendulum")': 'model.save("sac_policy_pendulum")',
    'MlpPolicy.load("sac_policy_pendulum")': 'DQN.load("sac_policy_pendulum").policy',
}


def migrated(script: str, shorter: dict[str, str]) -> str:
    for old, new in {**NOT_THERE, **IMPORTS, **ALGORITHMS, **ENVIRONMENTS, **shorter}.items():
        assert old in script or old not in shorter, f"{old} is not in the script"
        script = script.replace(old, new)
    assert "stable_baselines3" not in script
    return script


def run(script: str, **shorter: str) -> dict[str, Any]:
    """Run a script; `shorter` maps its numbers, as `n10_000="200"`."""
    replaced = {old.removeprefix("n"): new for old, new in shorter.items()}
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(migrated(script, replaced), "script.py", "exec"), namespace)
    return namespace


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def painted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames that were painted, by CartPole without pygame."""
    frames: list[int] = []

    def paint(env: CartPoleEnv) -> Any:
        frames.append(1)
        return np.zeros((4, 6, 3), np.uint8)

    monkeypatch.setattr(CartPoleEnv, "render", paint)
    return frames


def files(folder: str = ".") -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*.*"))


def scalars(folder: str, key: str) -> list[tuple[int, float]]:
    events = EventAccumulator(folder, size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(key)]


QUICKSTART = """
import gymnasium as gym

from stable_baselines3 import A2C

env = gym.make("CartPole-v1", render_mode="rgb_array")

model = A2C("MlpPolicy", env, verbose=1)
model.learn(total_timesteps=10_000)

vec_env = model.get_env()
obs = vec_env.reset()
for i in range(1000):
    action, _state = model.predict(obs, deterministic=True)
    obs, reward, done, info = vec_env.step(action)
    vec_env.render("human")
    # VecEnv resets automatically
    # if done:
    #   obs = vec_env.reset()
"""


def test_the_quickstart(painted: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    after = run(QUICKSTART, n10_000="1_100", n1000="60")
    assert after["model"].num_timesteps == 1_100
    assert isinstance(after["vec_env"], SB3View)
    assert after["obs"].shape == (1, 4)
    assert after["reward"].shape == after["done"].shape == after["action"].shape == (1,)
    assert len(after["info"]) == 1
    # A loop of gymnasium paints in the loop, once a step.
    assert len(painted) == 60
    assert "| rollout/" in capsys.readouterr().out


def test_the_quickstart_in_one_line() -> None:
    script = """
from stable_baselines3 import A2C

model = A2C("MlpPolicy", "CartPole-v1").learn(10000)
"""
    assert run(script, n10000="150")["model"].num_timesteps == 150


DQN_PAGE = """
import gymnasium as gym

from stable_baselines3 import DQN

env = gym.make("CartPole-v1", render_mode="rgb_array")

model = DQN("MlpPolicy", env, verbose=1)
model.learn(total_timesteps=10000, log_interval=4)
model.save("dqn_cartpole")

del model # remove to demonstrate saving and loading

model = DQN.load("dqn_cartpole")

obs, info = env.reset()
while True:
    action, _states = model.predict(obs, deterministic=True)
    obs, reward, terminated, truncated, info = env.step(action)
    if terminated or truncated:
        obs, info = env.reset()
        break
"""


def test_the_page_of_dqn(capsys: pytest.CaptureFixture[str]) -> None:
    after = run(DQN_PAGE, n10000="200")
    assert files() == ["dqn_cartpole.zip"]
    assert after["model"].num_timesteps == 200
    assert type(after["action"]) is np.int64
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [int(row[3]) for row in printed if row[1:2] == ["episodes"]][:1] == [4]


SAVING_AND_LOADING = """
import gymnasium as gym

from stable_baselines3 import DQN
from stable_baselines3.common.evaluation import evaluate_policy


# Create environment
env = gym.make("LunarLander-v3", render_mode="rgb_array")

# Instantiate the agent
model = DQN("MlpPolicy", env, verbose=1)
# Train the agent and display a progress bar
model.learn(total_timesteps=int(2e5), progress_bar=True)
# Save the agent
model.save("dqn_lunar")
del model  # delete trained model to demonstrate loading

# Load the trained agent
# NOTE: if you have loading issue, you can pass `print_system_info=True`
# to compare the system on which the model was trained vs the current one
# model = DQN.load("dqn_lunar", env=env, print_system_info=True)
model = DQN.load("dqn_lunar", env=env)

# Evaluate the agent
# NOTE: If you use wrappers with your environment that modify rewards,
#       this will be reflected here. To evaluate with original rewards,
#       wrap environment in a "Monitor" wrapper before other wrappers.
mean_reward, std_reward = evaluate_policy(model, model.get_env(), n_eval_episodes=10)

# Enjoy trained agent
vec_env = model.get_env()
obs = vec_env.reset()
for i in range(1000):
    action, _states = model.predict(obs, deterministic=True)
    obs, rewards, dones, info = vec_env.step(action)
    vec_env.render("human")
"""


def test_training_saving_loading_and_evaluating(capsys: pytest.CaptureFixture[str]) -> None:
    shorter = {"n2e5": "300", "nn_eval_episodes=10": "n_eval_episodes=3", "n1000": "5"}
    after = run(SAVING_AND_LOADING, **shorter)
    assert files() == ["dqn_lunar.zip"]
    model, env = after["model"], after["env"]
    assert model.num_timesteps == 300
    assert model.env.envs[0] is env
    assert 8 <= after["mean_reward"] <= 500
    assert after["std_reward"] >= 0
    assert "300/300" in capsys.readouterr().err
    assert model.learn(50).num_timesteps == 350


POLICY_ALONE = """
from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.sac.policies import MlpPolicy

# Create the model and the training environment
model = SAC("MlpPolicy", "Pendulum-v1", verbose=1,
            learning_rate=1e-3)

# train the model
model.learn(total_timesteps=6000)

# save the model
model.save("sac_pendulum")

# the saved model does not contain the replay buffer
loaded_model = SAC.load("sac_pendulum")
print(f"The loaded_model has {loaded_model.replay_buffer.size()} transitions in its buffer")

# now save the replay buffer too
model.save_replay_buffer("sac_replay_buffer")

# load it into the loaded_model
loaded_model.load_replay_buffer("sac_replay_buffer")

# now the loaded replay is not empty anymore
print(f"The loaded_model has {loaded_model.replay_buffer.size()} transitions in its buffer")

# Save the policy independently from the model
# Note: if you don't save the complete model with `model.save()`
# you cannot continue training afterward
policy = model.policy
policy.save("sac_policy_pendulum")

# Retrieve the environment
env = model.get_env()

# Evaluate the policy
mean_reward, std_reward = evaluate_policy(policy, env, n_eval_episodes=10, deterministic=True)

print(f"mean_reward={mean_reward:.2f} +/- {std_reward}")

# Load the policy independently from the model
saved_policy = MlpPolicy.load("sac_policy_pendulum")

# Evaluate the loaded policy
mean_reward, std_reward = evaluate_policy(saved_policy, env, n_eval_episodes=10, deterministic=True)

print(f"mean_reward={mean_reward:.2f} +/- {std_reward}")
"""


def test_saving_the_replay_and_the_policy(capsys: pytest.CaptureFixture[str]) -> None:
    after = run(POLICY_ALONE, n6000="150", n10="2")
    assert after["loaded_model"].replay_buffer.stored == 150
    said = capsys.readouterr().out
    assert "has 0 transitions" in said
    assert "has 150 transitions" in said
    assert said.count("mean_reward=") == 2
    observation = np.zeros(4)
    np.testing.assert_array_equal(
        after["saved_policy"].q_values(observation), after["model"].q_values(observation)
    )


CUSTOM_CALLBACK = """
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback


class CustomCallback(BaseCallback):
    \"\"\"
    A custom callback that derives from ``BaseCallback``.

    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    \"\"\"
    def __init__(self, verbose=0):
        super().__init__(verbose)
        # Those variables will be accessible in the callback
        # (they are defined in the base class)
        # The RL model
        # self.model = None  # type: BaseAlgorithm
        # An alias for self.model.get_env(), the environment used for training
        # self.training_env # type: VecEnv
        # Number of time the callback was called
        # self.n_calls = 0  # type: int
        # num_timesteps = n_envs * n times env.step() was called
        # self.num_timesteps = 0  # type: int
        # local and global variables
        # self.locals = {}  # type: Dict[str, Any]
        # self.globals = {}  # type: Dict[str, Any]
        # The logger object, used to report things in the terminal
        # self.logger # type: stable_baselines.common.logger.Logger
        # Sometimes, for event callback, it is useful
        # to have access to the parent object
        # self.parent = None  # type: Optional[BaseCallback]
        self.seen = []

    def _on_training_start(self) -> None:
        \"\"\"
        This method is called before the first rollout starts.
        \"\"\"
        self.seen.append("training_start")

    def _on_rollout_start(self) -> None:
        \"\"\"
        A rollout is the collection of environment interaction
        using the current policy.
        This event is triggered before collecting new samples.
        \"\"\"
        self.seen.append("rollout_start")

    def _on_step(self) -> bool:
        \"\"\"
        This method will be called by the model after each call to `env.step()`.

        For child callback (of an `EventCallback`), this will be called
        when the event is triggered.

        :return: If the callback returns False, training is aborted early.
        \"\"\"
        self.seen.append("step")
        return True

    def _on_rollout_end(self) -> None:
        \"\"\"
        This event is triggered before updating the policy.
        \"\"\"
        self.seen.append("rollout_end")

    def _on_training_end(self) -> None:
        \"\"\"
        This event is triggered before exiting the `learn()` method.
        \"\"\"
        self.seen.append("training_end")


callback = CustomCallback()
model = A2C("MlpPolicy", "CartPole-v1")
model.learn(2000, callback=callback)
"""


def test_a_custom_callback() -> None:
    after = run(CUSTOM_CALLBACK.replace("stable_baselines.common", "the"), n2000="200")
    callback = after["callback"]
    assert callback.seen[:3] == ["training_start", "rollout_start", "step"]
    assert callback.seen[-1] == "training_end"
    assert callback.seen.count("step") == callback.n_calls >= 200
    assert callback.num_timesteps == 200
    assert callback.seen.count("rollout_start") == callback.seen.count("rollout_end") > 1
    assert callback.training_env is callback.model.env


CALLBACK_LIST = """
import gymnasium as gym

from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import CallbackList, CheckpointCallback, EvalCallback

checkpoint_callback = CheckpointCallback(save_freq=1000, save_path="./logs/")
# Separate evaluation env
eval_env = gym.make("Pendulum-v1")
eval_callback = EvalCallback(eval_env, best_model_save_path="./logs/best_model",
                             log_path="./logs/results", eval_freq=500)
# Create the callback list
callback = CallbackList([checkpoint_callback, eval_callback])

model = SAC("MlpPolicy", "Pendulum-v1")
# Equivalent to:
# model.learn(5000, callback=[checkpoint_callback, eval_callback])
model.learn(5000, callback=callback)
"""


@pytest.mark.parametrize("callback", ["callback", "[checkpoint_callback, eval_callback]"])
def test_a_list_of_callbacks(callback: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = CALLBACK_LIST.replace("callback=callback", f"callback={callback}")
    after = run(script, n5000="130", n1000="100", n500="50")
    assert files("logs") == [
        "best_model/best_model.zip",
        "results/evaluations.npz",
        "rl_model_100_steps.zip",
    ]
    results = np.load("logs/results/evaluations.npz")
    assert results["timesteps"].tolist() == [50, 100]
    assert results["results"].shape == results["ep_lengths"].shape == (2, 5)
    assert "Eval num_timesteps=50, episode_reward=" in capsys.readouterr().out
    assert after["model"].num_timesteps == 130


CHECKPOINTS = """
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import CheckpointCallback

# Save a checkpoint every 1000 steps
checkpoint_callback = CheckpointCallback(
  save_freq=1000,
  save_path="./logs/",
  name_prefix="rl_model",
  save_replay_buffer=True,
)

model = SAC("MlpPolicy", "Pendulum-v1")
model.learn(2000, callback=checkpoint_callback)
"""


def test_checkpoints() -> None:
    run(CHECKPOINTS, n1000="60", n2000="130")
    assert files("logs") == [
        "rl_model_120_steps.zip",
        "rl_model_60_steps.zip",
        "rl_model_replay_buffer_120_steps.zip",
        "rl_model_replay_buffer_60_steps.zip",
    ]
    assert DQN.load("logs/rl_model_60_steps").num_timesteps == 60


EVALUATION = """
import gymnasium as gym

from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import EvalCallback

# Separate evaluation env
eval_env = gym.make("Pendulum-v1")
# Use deterministic actions for evaluation
eval_callback = EvalCallback(eval_env, best_model_save_path="./logs/",
                             log_path="./logs/", eval_freq=500,
                             deterministic=True, render=False)

model = SAC("MlpPolicy", "Pendulum-v1")
model.learn(5000, callback=eval_callback)
"""


def test_evaluation_while_training() -> None:
    after = run(EVALUATION, n5000="130", n500="60")
    assert files("logs") == ["best_model.zip", "evaluations.npz"]
    assert after["eval_callback"].evaluations_timesteps == [60, 120]
    assert DQN.load("logs/best_model").num_timesteps in (60, 120)


REWARD_THRESHOLD = """
import gymnasium as gym

from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold

# Separate evaluation env
eval_env = gym.make("Pendulum-v1")
# Stop training when the model reaches the reward threshold
callback_on_best = StopTrainingOnRewardThreshold(reward_threshold=-200, verbose=1)
eval_callback = EvalCallback(eval_env, callback_on_new_best=callback_on_best, verbose=1)

model = SAC("MlpPolicy", "Pendulum-v1", verbose=1)
# Almost infinite number of timesteps, but the training will stop
# early as soon as the reward threshold is reached
model.learn(int(1e10), callback=eval_callback)
"""


def test_stopping_at_a_reward(capsys: pytest.CaptureFixture[str]) -> None:
    script = REWARD_THRESHOLD.replace("verbose=1)\n\nmodel", "verbose=1, eval_freq=70)\n\nmodel")
    assert run(script)["model"].num_timesteps == 70
    assert "Stopping: mean reward " in capsys.readouterr().out


NO_IMPROVEMENT = """
import gymnasium as gym

from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnNoModelImprovement

# Separate evaluation env
eval_env = gym.make("Pendulum-v1")
# Stop training if there is no improvement after more than 3 evaluations
stop_train_callback = StopTrainingOnNoModelImprovement(max_no_improvement_evals=3, min_evals=5, verbose=1)
eval_callback = EvalCallback(eval_env, eval_freq=1000, callback_after_eval=stop_train_callback, verbose=1)

model = SAC("MlpPolicy", "Pendulum-v1", learning_rate=1e-3, verbose=1)
# Almost infinite number of timesteps, but the training will stop early
# as soon as the the number of consecutive evaluations without model
# improvement is greater than 3
model.learn(int(1e10), callback=eval_callback)
"""  # noqa: E501, so in SB3


def test_stopping_without_improvement(capsys: pytest.CaptureFixture[str]) -> None:
    # A learning rate of next to nothing: there is little to improve.
    shorter = {"n1000": "10", "nmin_evals=5": "min_evals=2", "n1e-3": "1e-9", "nevals=3": "evals=1"}
    after = run(NO_IMPROVEMENT, **shorter)
    evaluations = after["eval_callback"].evaluations_timesteps
    assert len(evaluations) >= 4
    assert after["model"].num_timesteps == evaluations[-1] == 10 * len(evaluations)
    assert "Stopping: no new best mean reward in 2 evaluations" in capsys.readouterr().out


EVERY_N = """
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback, EveryNTimesteps

# this is equivalent to defining CheckpointCallback(save_freq=500)
# checkpoint_callback will be triggered every 500 steps
checkpoint_on_event = CheckpointCallback(save_freq=1, save_path="./logs/")
event_callback = EveryNTimesteps(n_steps=500, callback=checkpoint_on_event)

model = PPO("MlpPolicy", "Pendulum-v1", verbose=1)

model.learn(int(2e4), callback=event_callback)
"""


def test_every_n_timesteps() -> None:
    run(EVERY_N, n500="50", n2e4="130")
    assert files("logs") == ["rl_model_100_steps.zip", "rl_model_50_steps.zip"]


MAX_EPISODES = """
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import StopTrainingOnMaxEpisodes

# Stops training when the model reaches the maximum number of episodes
callback_max_episodes = StopTrainingOnMaxEpisodes(max_episodes=5, verbose=1)

model = A2C("MlpPolicy", "Pendulum-v1", verbose=1)
# Almost infinite number of timesteps, but the training will stop
# early as soon as the max number of episodes is reached
model.learn(int(1e10), callback=callback_max_episodes)
"""


def test_stopping_after_episodes(capsys: pytest.CaptureFixture[str]) -> None:
    model = run(MAX_EPISODES)["model"]
    assert len(model.ep_info_buffer) == 5
    assert "Stopping after 5 episodes" in capsys.readouterr().out


PROGRESS = """
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import ProgressBarCallback

model = PPO("MlpPolicy", "CartPole-v1")
# Display progress bar using the progress bar callback
# this is equivalent to model.learn(100_000, callback=ProgressBarCallback())
model.learn(100_000, progress_bar=True)
"""


@pytest.mark.parametrize("how", ["progress_bar=True", "callback=ProgressBarCallback()"])
def test_the_progress_bar(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(PROGRESS.replace("progress_bar=True", how), n100_000="130")
    assert "130/130" in capsys.readouterr().err


TENSORBOARD = """
from stable_baselines3 import A2C

model = A2C("MlpPolicy", "CartPole-v1", verbose=1, tensorboard_log="./a2c_cartpole_tensorboard/")
model.learn(total_timesteps=10_000, tb_log_name="first_run")
# Pass reset_num_timesteps=False to continue the training curve in tensorboard
# By default, it will create a new curve
# Keep tb_log_name constant to have continuous curve (see note below)
model.learn(total_timesteps=10_000, tb_log_name="second_run", reset_num_timesteps=False)
model.learn(total_timesteps=10_000, tb_log_name="third_run", reset_num_timesteps=False)
"""


def test_tensorboard() -> None:
    run(TENSORBOARD, n10_000="150")["model"].close()
    parent = "a2c_cartpole_tensorboard"
    assert sorted(os.listdir(parent)) == ["first_run_1", "second_run_1", "third_run_1"]
    for name, step in (("first_run_1", 150), ("second_run_1", 300), ("third_run_1", 450)):
        (scalar,) = scalars(f"{parent}/{name}", "time/total_timesteps")
        assert scalar == (step, step)


LOGGING_MORE = """
import numpy as np

from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback

model = SAC("MlpPolicy", "Pendulum-v1", tensorboard_log="sac/", verbose=1)


class TensorboardCallback(BaseCallback):
    \"\"\"
    Custom callback for plotting additional values in tensorboard.
    \"\"\"

    def __init__(self, verbose=0):
        super().__init__(verbose)

    def _on_step(self) -> bool:
        # Log scalar value (here a random variable)
        value = np.random.random()
        self.logger.record("random_value", value)
        return True


model.learn(50000, callback=TensorboardCallback())
"""


def test_logging_more_values() -> None:
    run(LOGGING_MORE, n50000="150", **{'n"sac/"': '"logs/"'})["model"].close()
    ((step, value),) = scalars("logs/DQN_1", "random_value")
    assert step == 150
    assert 0 <= value < 1


DIRECT_ACCESS = """
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat

model = SAC("MlpPolicy", "Pendulum-v1", tensorboard_log="logs/", verbose=1)


class SummaryWriterCallback(BaseCallback):

    def _on_training_start(self):
        self._log_freq = 1000  # log every 1000 calls

        output_formats = self.logger.output_formats
        # Save reference to tensorboard formatter object
        # note: the failure case (not formatter found) is not handled here, should be done with try/except.
        self.tb_formatter = next(formatter for formatter in output_formats if isinstance(formatter, TensorBoardOutputFormat))

    def _on_step(self) -> bool:
        if self.n_calls % self._log_freq == 0:
            # You can have access to info from the env using self.locals.
            # for instance, when using one env (index 0 of locals["infos"]):
            # lap_count = self.locals["infos"][0]["lap_count"]
            # self.tb_formatter.writer.add_scalar("train/lap_count", lap_count, self.num_timesteps)

            self.tb_formatter.writer.add_text("direct access", "this is a value", self.num_timesteps)
            self.tb_formatter.writer.flush()
        return True


model.learn(50000, callback=SummaryWriterCallback())
"""  # noqa: E501, so in SB3


def test_direct_access_to_the_summary_writer() -> None:
    run(DIRECT_ACCESS, n50000="150", n1000="50")["model"].close()
    events = EventAccumulator("logs/DQN_1")
    events.Reload()
    texts = events.Tensors("direct access/text_summary")
    assert {text.tensor_proto.string_val[0] for text in texts} == {b"this is a value"}


HYPERPARAMETERS = """
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HParam


class HParamCallback(BaseCallback):
    \"\"\"
    Saves the hyperparameters and metrics at the start of the training, and logs them to TensorBoard.
    \"\"\"

    def _on_training_start(self) -> None:
        hparam_dict = {
            "algorithm": self.model.__class__.__name__,
            "learning rate": self.model.learning_rate,
            "gamma": self.model.gamma,
        }
        # define the metrics that will appear in the `HPARAMS` Tensorboard tab by referencing their tag
        # Tensorbaord will find & display metrics from the `SCALARS` tab
        metric_dict = {
            "rollout/ep_len_mean": 0,
            "train/value_loss": 0.0,
        }
        self.logger.record(
            "hparams",
            HParam(hparam_dict, metric_dict),
            exclude=("stdout", "log", "json", "csv"),
        )

    def _on_step(self) -> bool:
        return True


model = A2C("MlpPolicy", "CartPole-v1", tensorboard_log="runs/", verbose=1)
model.learn(total_timesteps=int(5e4), callback=HParamCallback())
"""  # noqa: E501, so in SB3


def test_hyperparameters() -> None:
    run(HYPERPARAMETERS, n5e4="150")["model"].close()
    events = EventAccumulator("runs/DQN_1")
    events.Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata


OWN_LOGGER = """
from stable_baselines3 import A2C
from stable_baselines3.common.logger import configure

tmp_path = "sb3_log/"
# set up logger
new_logger = configure(tmp_path, ["stdout", "csv", "tensorboard"])

model = A2C("MlpPolicy", "CartPole-v1", verbose=1)
# Set new logger
model.set_logger(new_logger)
model.learn(10000)
"""


def test_a_logger_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    run(OWN_LOGGER, n10000="150")["model"].close()
    assert "progress.csv" in files("sb3_log")
    assert scalars("sb3_log", "time/total_timesteps") == [(150, 150)]
    printed = capsys.readouterr().out
    assert "Logging to sb3_log" in printed
    assert "| time/" in printed


DEFAULTS: dict[Any, dict[str, Any]] = {
    evaluate_policy: {
        "n_eval_episodes": 10,
        "deterministic": True,
        "render": False,
        "callback": None,
        "reward_threshold": None,
        "return_episode_rewards": False,
        "warn": True,
    },
    callbacks.BaseCallback: {"verbose": 0},
    callbacks.EventCallback: {"callback": None, "verbose": 0},
    callbacks.CheckpointCallback: {
        "name_prefix": "rl_model",
        "save_replay_buffer": False,
        "verbose": 0,
    },
    callbacks.ConvertCallback: {"verbose": 0},
    callbacks.EvalCallback: {
        "callback_on_new_best": None,
        "callback_after_eval": None,
        "n_eval_episodes": 5,
        "eval_freq": 10_000,
        "log_path": None,
        "best_model_save_path": None,
        "deterministic": True,
        "render": False,
        "verbose": 1,
        "warn": True,
    },
    callbacks.StopTrainingOnRewardThreshold: {"verbose": 0},
    callbacks.StopTrainingOnNoModelImprovement: {"min_evals": 0, "verbose": 0},
    callbacks.StopTrainingOnMaxEpisodes: {"verbose": 0},
    DQN.predict: {"state": None, "episode_start": None},  # but greedy unless told otherwise
    DQN.learn: {"callback": None, "tb_log_name": "DQN", "progress_bar": False},
    DQN.set_parameters: {"exact_match": True},
}


@pytest.mark.parametrize("thing", DEFAULTS, ids=lambda thing: thing.__qualname__)
def test_defaults_are_those_of_sb3(thing: Any) -> None:
    parameters = inspect.signature(thing).parameters
    known = {name: parameters[name].default for name in DEFAULTS[thing]}
    assert known == DEFAULTS[thing]
