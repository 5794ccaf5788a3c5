"""The Ray engine: tasks with declared resources on the nodes of a cluster.

Ray places each task where its cores and GPUs are free, and begins it again elsewhere if its node
dies (https://docs.ray.io/en/latest/ray-core/fault-tolerance.html). The study's directory has to lie
on a file system that all nodes see. A node reads a base once: its tasks share the page cache.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from knowundo.errors import BadInput, first_line
from knowundo.studies.tasks import Outcome, Resources, Task, run_task

# How often Ray begins a task again whose node died.
_NODE_DEATHS = 5


def run_on_ray(
    tasks: Sequence[Task], resources: Resources, say: Callable[[str], None]
) -> Iterator[Outcome]:
    """Run tasks on a Ray cluster.

    Raises:
        BadInput: Ray is not installed, the cluster does not answer, or it has no node that a task
            fits on.
    """
    ray = _connected(resources)
    try:
        need = {"CPU": float(resources.cpus), "GPU": float(resources.gpus)}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(k, 0.0) >= v for k, v in need.items()) for node in nodes):
            raise BadInput(
                f"--engine ray: no node has {resources.cpus} cores and {resources.gpus:g} GPUs for "
                "a run; lower --cpus or --gpus, or add a node"
            )
        say(f"ray: {len(nodes)} nodes, {ray.cluster_resources().get('CPU', 0):g} cores")
        remote = ray.remote(
            num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=_NODE_DEATHS
        )(run_task)
        names = {remote.remote(task): task.name for task in tasks}
        waiting = list(names)
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            yield _outcome(ray, done[0], names[done[0]])
    finally:
        ray.shutdown()


def _connected(resources: Resources) -> Any:
    try:
        import ray
    except ImportError:
        raise BadInput("--engine ray: pip install 'knowundo[ray]'") from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    try:
        if resources.address is not None:
            ray.init(address=resources.address, **quiet)
        else:
            try:
                ray.init(address="auto", **quiet)
            except ConnectionError:  # no cluster runs here
                ray.init(include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BadInput(
            f"--engine ray: the cluster does not answer ({first_line(error)}); start it with "
            "`ray start --head`, or name it with --address"
        ) from None
    return ray


def _outcome(ray: Any, reference: Any, name: str) -> Outcome:
    try:
        found: Outcome = ray.get(reference)
    except ray.exceptions.RayError as error:
        return Outcome(name, 1, f"ray: {first_line(error)}")
    return found
