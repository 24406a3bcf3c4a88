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
        assert scaling.slots, "who tries the file should know what it costs at most"
        assert scaling.gpus_per_worker > 0, "the workers' GPUs would idle"
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


def test_aws_nodes_share_an_image_and_a_group_but_no_rights():
    configs = {name: node["node_config"] for name, node in aws_nodes().items()}
    assert len({config["ImageId"] for config in configs.values()}) == 1
    assert {tuple(config["SecurityGroupIds"]) for config in configs.values()} == {("GROUP",)}
    profiles = {name: config["IamInstanceProfile"]["Name"] for name, config in configs.items()}
    assert profiles == {"head": "rayprune-head", "gpu_spot": "rayprune-worker"}


def test_aws_lets_nobody_in_but_the_caller():
    text = AWS.read_text()
    assert "0.0.0.0" not in text and "::/0" not in text
    opened = re.findall(r"authorize-security-group-ingress (.*)", header(AWS).replace("\\\n", " "))
    ssh, among_each_other = sorted(opened, key=lambda words: "--protocol all" in words)
    assert "--source-group $GROUP" in among_each_other and "--cidr" not in among_each_other
    assert "--protocol tcp --port 22" in ssh and ssh.endswith("/32")


def test_ray_makes_no_role_and_no_group_of_its_own():
    """Both would be wider; Ray makes them, by asking AWS, only where the file names none."""
    pytest.importorskip("boto3")
    from ray.autoscaler._private.aws.config import _configure_iam_role, _configure_security_group

    config = prepare_config(load(AWS))
    assert _configure_security_group(_configure_iam_role(config)) == prepare_config(load(AWS))


@pytest.mark.parametrize("role", ["head", "worker"])
def test_aws_roles_reach_the_bucket_and_what_they_name(role):
    rights = aws_rights(role)
    assert "file://cluster/aws-${role#rayprune-}-role.json" in header(AWS)
    on_s3 = {action: resource for action, resource, _ in rights if action.startswith("s3:")}
    bucket = "arn:aws:s3:::BUCKET"
    assert on_s3.pop("s3:ListBucket") == bucket
    assert set(on_s3.values()) == {f"{bucket}/rayprune/*"}
    (place,) = storage(AWS)
    assert place.replace("s3://", "arn:aws:s3:::") + "/*" in on_s3.values()
    assert not [action for action, _, _ in rights if "*" in action]
    assert "FullAccess" not in AWS.read_text()


def test_aws_workers_reach_nothing_but_the_bucket():
    assert {action.split(":")[0] for action, _, _ in aws_rights("worker")} == {"s3"}


def test_aws_head_touches_machines_of_its_cluster_alone():
    config, rights = load(AWS), aws_rights("head")
    region, name = config["provider"]["region"], config["cluster_name"]
    for action, resource, condition in rights:
        if action.startswith("ec2:Describe"):  # EC2 narrows these to a region at best
            assert condition == {"aws:RequestedRegion": region}
        elif action.startswith("ec2:"):
            assert resource.startswith(f"arn:aws:ec2:{region}:")
    on_machines = {
        (action, tuple(condition.items()))
        for action, resource, condition in rights
        if resource.endswith("instance/*") or resource == "*"
    }
    assert on_machines == {
        ("ec2:DescribeInstances", (("aws:RequestedRegion", region),)),
        ("ec2:RunInstances", (("aws:RequestTag/ray-cluster-name", name),)),
        ("ec2:CreateTags", (("ec2:CreateAction", "RunInstances"),)),
        ("ec2:CreateTags", (("aws:ResourceTag/ray-cluster-name", name),)),
        ("ec2:TerminateInstances", (("aws:ResourceTag/ray-cluster-name", name),)),
    }
    (handed_on,) = [resource for action, resource, _ in rights if action == "iam:PassRole"]
    worker = aws_nodes()["gpu_spot"]["node_config"]
    assert handed_on.endswith(f":role/{worker['IamInstanceProfile']['Name']}")
    launched = {resource for action, resource, _ in rights if action == "ec2:RunInstances"}
    assert any(resource.endswith(f"image/{worker['ImageId']}") for resource in launched)
    (group,) = worker["SecurityGroupIds"]
    assert any(resource.endswith(f"security-group/{group}") for resource in launched)


def aws_nodes():
    return load(AWS)["available_node_types"]


def aws_rights(role):
    """(action, resource, what must hold) of all that a role may do."""
    policy = json.loads((CLUSTER / f"aws-{role}-role.json").read_text())
    rights = []
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        actions, resources = as_list(statement["Action"]), as_list(statement["Resource"])
        condition = statement.get("Condition", {}).get("StringEquals", {})
        rights += [(action, resource, condition) for action in actions for resource in resources]
    return rights


def as_list(value):
    return [value] if isinstance(value, str) else value


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


def test_kuberay_pods_have_no_right_that_they_do_not_use():
    """The head has an account for the autoscaler beside it; workers ask Kubernetes for nothing."""
    head, *workers = [group["template"]["spec"] for group in kuberay_groups()]
    assert "serviceAccountName" not in head, "KubeRay gives it one, for this cluster alone"
    for pod in workers:
        assert pod["automountServiceAccountToken"] is False
    for pod in (head, *workers):
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
