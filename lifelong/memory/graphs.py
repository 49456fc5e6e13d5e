"""One graph of an artifact, opened in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lifelong.errors import ArtifactError, require

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact, Graph


class Session:
    """A graph that can be run. Threads may share it.

    Args:
        artifact: of a model that is served.
        name: of the graph.
        threads: of one run; one is the fastest for single requests.

    Raises:
        ArtifactError: the graph cannot be run.
    """

    def __init__(self, artifact: Artifact, name: Graph, threads: int) -> None:
        runtime = require("onnxruntime", extra="serve", purpose="running a model's graphs")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Waiting threads sleep: spinning ones cost other processes their cores, and the slowest requests most.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        path = artifact.graph(name)
        try:
            self.session: Any = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ArtifactError(f"{path} cannot be run: {error}", fix="train again with this release") from error
        self.taken: frozenset[str] = frozenset(part.name for part in self.session.get_inputs())
        self.metadata: Mapping[str, str] = self.session.get_modelmeta().custom_metadata_map

    def __call__(self, outputs: Sequence[str], feed: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
        """Run the graph on those of the inputs that it takes; gives the named outputs."""
        inputs = {name: np.ascontiguousarray(value) for name, value in feed.items() if name in self.taken}
        found: list[npt.NDArray[Any]] = self.session.run(list(outputs), inputs) if outputs else []
        return found
