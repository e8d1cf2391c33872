"""A stand-in for a verb, started as one (`--config-path F --config-name N`): does what its config says."""

import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def main() -> None:
    folder = Path(sys.argv[sys.argv.index("--config-path") + 1])
    name = sys.argv[sys.argv.index("--config-name") + 1]
    config: Any = OmegaConf.load(folder / f"{name}.yaml")
    print("arguments", *sys.argv[5:])
    if config.get("metrics"):
        (folder / "run.json").write_text(json.dumps({"metrics": OmegaConf.to_container(config.metrics)}))
    exec(config.get("code", ""))


if __name__ == "__main__":
    main()
