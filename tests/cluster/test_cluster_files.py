"""The files in cluster/, read by Ray's own readers; nothing is started, nothing is asked."""

import json
import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import ray
import ray.autoscaler
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler._private.util import prepare_config, validate_config

import rayprune
from rayprune.config import Scaling
from rayprune.config.load import load_study
from rayprune.trials import make_trials

CLUSTER = Path(rayprune.__file__).parents[1] / "cluster"
FILES = sorted(CLUSTER.glob("*.yaml"))
AWS, KUBERAY = CLUSTER / "aws.yaml", CLUSTER / "kuberay-rayjob.yaml"

# The fields that KubeRay's API reference gives these objects: without a cluster nobody else would
# notice one that is misspelt.
KUBERAY_FIELDS = {
    "RayJobSpec": """activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint
        entrypointNumCpus entrypointNumGpus entrypointResources jobId managedBy metadata
        rayClusterSpec runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig
        submitterPodTemplate suspend ttlSecondsAfterFinished""",
    "RayClusterSpec": """authOptions autoscalerOptions enableInTreeAutoscaling
        gcsFaultToleranceOptions headGroupSpec headServiceAnnotations managedBy rayVersion suspend
        workerGroupSpecs""",
    "AutoscalerOptions": """env envFrom idleTimeoutSeconds image imagePullPolicy resources
        securityContext upscalingMode version volumeMounts""",
    "HeadGroupSpec": """enableIngress headService labels rayStartParams resources serviceType
        template""",
    "WorkerGroupSpec": """groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts
        rayStartParams replicas resources scaleStrategy suspend template""",
}


def load(file):
    return yaml.safe_load(file.read_text())


def header(file):
    """The comment that a file opens with, as one text."""
    lines = file.read_text().split("\n")
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:first])


def entrypoint(file):
    """What the job runs: the field of a RayJob, or the command that the header tells to submit."""
    if file == KUBERAY:
        return shlex.split(load(file)["spec"]["entrypoint"])
    submit = re.search(r"ray job submit .*? -- (.*)", header(file).replace("\\\n", " "))
    return shlex.split(submit[1])


def worker_types(file):
    """Name -> (resources of a node, fewest nodes, most nodes) of everything but the head."""
    config = kuberay_autoscaling() if file == KUBERAY else prepare_config(load(file))
    return {
        name: (node["resources"], node["min_workers"], node["max_workers"])
        for name, node in config["available_node_types"].items()
        if name != config["head_node_type"]
    }


def storage(file):
    config = load(file)
    if file == KUBERAY:
        groups = kuberay_groups()
        return {
            env["value"]
            for group in groups
            for container in group["template"]["spec"]["containers"]
            for env in container["env"]
            if env["name"] == "RAYPRUNE_STORAGE"
        }
    options = " ".join(config["docker"]["run_options"])
    return set(re.findall(r"RAYPRUNE_STORAGE=(\S+)", options))


def kuberay_groups():
    cluster = load(KUBERAY)["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def kuberay_autoscaling():
    """The file as Ray's autoscaler reads it in the head pod; it validates it, too."""
    job = load(KUBERAY)
    return _derive_autoscaling_config_from_ray_cr(
        {
            "metadata": {"name": job["metadata"]["name"], "namespace": "default"},
            "spec": job["spec"]["rayClusterSpec"],
        }
    )


# ---- every file ----


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
class TestEveryFile:
    def test_opens_with_commands_results_and_cost(self, file):
        text = header(file)
        assert f"cluster/{file.name}" in text
        assert re.search(r"^Results:", text, re.M)
        assert re.search(r"^Cost:", text, re.M)
        assert not re.search(r"[$€]\s?\d", text), "prices change, and nobody measured them"

    def test_runs_a_study_that_loads(self, file):
        command = entrypoint(file)
        assert command[:3] == ["python", "-m", "rayprune.tune"]
        name, *overrides = command[3:]
        assert make_trials(load_study(name, overrides))

    def test_its_study_fits_on_its_workers(self, file):
        name, *overrides = entrypoint(file)[3:]
        scaling = load_study(name, overrides).scaling
        assert scaling.slots, "an empty cluster cannot say how many slots it will hold"
        assert scaling.gpus_per_worker > 0, "the workers' GPUs would idle"
        assert scaling.max_failures > Scaling().max_failures, "spot takes workers away"
        places = 0
        for resources, _, most in worker_types(file).values():
            fits = min(
                resources["CPU"] // scaling.cpus_per_worker,
                resources["GPU"] // scaling.gpus_per_worker,
            )
            places += most * int(fits)
        assert scaling.slots * scaling.workers <= places

    def test_workers_come_only_when_wanted(self, file):
        assert worker_types(file)
        for resources, fewest, most in worker_types(file).values():
            assert resources["GPU"] >= 1
            assert fewest == 0 < most

    def test_all_nodes_write_to_one_storage(self, file):
        (place,) = storage(file)
        if "://" not in place:
            mounts = [
                (mount["mountPath"], volume["persistentVolumeClaim"]["claimName"])
                for group in kuberay_groups()
                for pod in [group["template"]["spec"]]
                for mount in pod["containers"][0]["volumeMounts"]
                for volume in pod["volumes"]
                if volume["name"] == mount["name"]
            ]
            assert len(mounts) == len(kuberay_groups())
            assert len(set(mounts)) == 1
            assert place.startswith(mounts[0][0])

    def test_names_the_ray_that_is_tested_here(self, file):
        named = re.findall(
            r"(?:ray:|rayVersion: \"|ray\[default\]==)(\d+\.\d+)\.", file.read_text()
        )
        assert len(named) >= 2
        assert set(named) == {".".join(ray.__version__.split(".")[:2])}


# ---- AWS ----


def test_aws_passes_rays_schema_and_checks():
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(load(AWS), schema)
    prepared = prepare_config(load(AWS))
    validate_config(prepared)
    assert sum(most for _, _, most in worker_types(AWS).values()) <= prepared["max_workers"]


def test_aws_head_gives_no_cpu_away_and_workers_are_spot():
    nodes = dict(load(AWS)["available_node_types"])
    head = nodes.pop(load(AWS)["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"], "the head must not be taken away"
    for node in nodes.values():
        assert node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert node["labels"] == {"ray.io/market-type": "spot"}
    assert load(AWS)["idle_timeout_minutes"] == 5


def test_aws_nodes_share_role_and_image():
    """Workers write results themselves; Ray would give a role to the head alone."""
    configs = [node["node_config"] for node in load(AWS)["available_node_types"].values()]
    assert len({config["ImageId"] for config in configs}) == 1
    assert {config["IamInstanceProfile"]["Name"] for config in configs} == {"rayprune"}


def test_aws_nodes_ask_for_the_token():
    config = load(AWS)
    assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert "ray get-auth-token --generate" in header(AWS)
    assert "RAY_AUTH_MODE=token ray job submit" in header(AWS)


def test_aws_nodes_install_what_the_header_builds():
    config = load(AWS)
    (mounted,) = [there for there, here in config["file_mounts"].items() if here == "dist"]
    assert "pip wheel --no-deps --wheel-dir dist ." in header(AWS)
    assert config["setup_commands"] == [f"pip install {mounted}/rayprune-*.whl"]


# ---- KubeRay ----


def test_kuberay_is_a_job_that_cleans_up_after_itself():
    job = load(KUBERAY)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec["submissionMode"] == "K8sJobMode", "the job's log is a pod's log"
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] == 0


def test_kuberay_has_a_token_and_the_second_autoscaler():
    cluster = load(KUBERAY)["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    for group in kuberay_groups():
        assert group["template"]["spec"]["restartPolicy"] == "Never"


def test_kuberay_is_what_the_autoscaler_reads():
    nodes = dict(kuberay_autoscaling()["available_node_types"])
    head = nodes.pop("headgroup")
    assert head["resources"]["CPU"] == 0
    assert "GPU" not in head["resources"]
    for node in nodes.values():
        assert node["idle_timeout_s"] == 300
        assert node["labels"] == {"ray.io/market-type": "spot"}
    for group in load(KUBERAY)["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        assert "spot" in str(group["template"]["spec"]["nodeSelector"]).lower()


def test_kuberay_uses_fields_that_exist():
    spec = load(KUBERAY)["spec"]
    cluster = spec["rayClusterSpec"]
    parts = [
        ("RayJobSpec", spec),
        ("RayClusterSpec", cluster),
        ("AutoscalerOptions", cluster["autoscalerOptions"]),
        ("HeadGroupSpec", cluster["headGroupSpec"]),
        *(("WorkerGroupSpec", group) for group in cluster["workerGroupSpecs"]),
    ]
    for kind, part in parts:
        assert set(part) <= set(KUBERAY_FIELDS[kind].split()), kind
    for group in kuberay_groups():
        for params in group["rayStartParams"].values():
            assert isinstance(params, str), "KubeRay takes only text here"


def test_kuberay_pods_run_the_image_that_the_header_builds():
    images = {
        container["image"]
        for group in kuberay_groups()
        for container in group["template"]["spec"]["containers"]
    }
    assert len(images) == 1
    assert f"docker build --tag {images.pop()} " in header(KUBERAY)
