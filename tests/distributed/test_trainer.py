"""What a slot takes from Ray Train, and leaves out of it, is there: a new Ray may rename it."""

import inspect
from types import SimpleNamespace

import pytest
import ray.train
from ray.train.backend import Backend
from ray.train.v2._internal.execution import controller as ray_controller
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy, ScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from rayprune.distributed import trainer as module
from rayprune.distributed.trainer import UNUSED, OwnGroup, SlotTrainer, _AsPlaced


def kinds(callbacks):
    return [type(callback).__name__ for callback in callbacks]


@pytest.fixture
def make(tmp_path):
    """A trainer that nothing has started."""

    def make(kind):
        return kind(
            lambda config: None,
            train_loop_config={},
            backend_config=OwnGroup(),
            scaling_config=ray.train.ScalingConfig(num_workers=2),
            run_config=ray.train.RunConfig(name="s", storage_path=str(tmp_path)),
        )

    return make


def test_what_is_left_out_is_what_ray_train_would_start(make):
    rays, ours = (kinds(make(kind)._create_default_callbacks()) for kind in _BOTH)
    assert set(UNUSED) <= set(rays)
    assert ours == [name for name in rays if name not in UNUSED]


_BOTH = (DataParallelTrainer, SlotTrainer)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (DataParallelTrainer, "_initialize_and_run_controller"),
        (DataParallelTrainer, "_create_default_callbacks"),
        (FixedScalingPolicy, "_maybe_send_resource_request"),
        (ScalingPolicy, "after_controller_start"),
        (ray_controller.TrainController, "run"),
        (ray_controller.TrainController, "get_result"),
    ],
)
def test_what_is_replaced_or_called_exists(kind, name):
    assert callable(getattr(kind, name))


def test_the_fit_of_ray_train_calls_what_is_replaced():
    source = inspect.getsource(DataParallelTrainer.fit)
    assert "self._initialize_and_run_controller(" in source
    assert "self._create_default_callbacks()" in source


def test_the_controller_takes_what_it_is_given():
    """Its parts are handed on as Ray Train's own ``fit`` has them."""
    source = inspect.getsource(DataParallelTrainer.fit)
    taken = inspect.signature(ray_controller.TrainController).parameters
    given = [name for name in taken if f"{name}=" in source]
    assert {"scaling_policy", "callbacks"} <= set(given)
    required = [name for name, p in taken.items() if p.default is p.empty]
    assert set(required) <= set(given)


def test_the_controller_runs_in_the_thread_that_calls_fit(make, monkeypatch):
    parts = {}

    class Controller:
        def __init__(self, **given):
            parts.update(given)

        async def run(self):
            parts["has run"] = True

        def get_result(self):
            return SimpleNamespace(error=parts.get("error"))

    monkeypatch.setattr(module, "TrainController", Controller)
    monkeypatch.setattr(
        "ray.train.v2.api.data_parallel_trainer.ObjectRefWrapper", lambda function: function
    )
    trainer = make(SlotTrainer)
    assert trainer.fit().error is None and parts["has run"]
    policy = parts["scaling_policy"]
    assert isinstance(policy, _AsPlaced)
    assert policy.scaling_config is trainer.scaling_config
    assert not set(UNUSED) & set(kinds(parts["callbacks"]))
    parts["error"] = ray.train.WorkerGroupError("died", {0: RuntimeError("killed")})
    with pytest.raises(ray.train.WorkerGroupError):
        trainer.fit()


def test_no_coordinator_is_asked_for_room(make):
    """The demand that an autoscaler sees is the placement group of the workers alone."""
    policy = _AsPlaced(ray.train.ScalingConfig(num_workers=2))
    policy.after_controller_start(SimpleNamespace(run_id="1"))
    policy._maybe_send_resource_request()
    decision = policy.make_decision_for_non_running_worker_group()
    assert decision.num_workers == 2


def test_workers_make_their_process_group_themselves_and_see_each_others_gpus():
    assert issubclass(OwnGroup().backend_cls, Backend)
    assert OwnGroup().backend_cls.share_cuda_visible_devices
