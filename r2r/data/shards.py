"""Local WebDataset shards as an exact index: tar headers are read once, members by seeking.

Order, epoch length and resume are therefore exact, and the number of shards matters neither to ranks nor to workers.
"""

import tarfile
from pathlib import Path

from webdataset.shardlists import expand_urls
from webdataset.tariterators import base_plus_ext

from r2r.data.samples import Sample, ShardPart
from r2r.errors import DataError


def is_streamed(root: str | Path) -> bool:
    """True for shard addresses that cannot be seeked: `pipe:...` and `scheme://...`."""
    return str(root).startswith("pipe:") or "://" in str(root)


def shard_addresses(root: str | Path, split: str) -> list[str]:
    """Shards of one split, sorted: `{root}/{split}-*.tar`, or a brace pattern with `{split}` in it.

    Raises: DataError when a pattern names no split.
    """
    if not is_streamed(root) and not str(root).endswith(".tar"):
        return sorted(str(path) for path in Path(root).glob(f"{split}-*.tar"))
    if "{split}" not in str(root):
        raise DataError(f"no {{split}} in data.root={root}; write {{split}} where the addresses say train or val")
    return expand_urls(str(root).replace("{split}", split))


def index_shards(shards: list[str]) -> list[Sample]:
    """All samples of local shards, in file order. Raises: DataError naming a missing, truncated or empty shard."""
    return [sample for shard in shards for sample in _index_shard(shard)]


def _index_shard(shard: str) -> list[Sample]:
    samples: dict[str, dict[str, ShardPart]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                key, suffix = base_plus_ext(member.name)
                if member.isreg() and key and suffix:
                    part = ShardPart(shard, member.name, member.offset_data, member.size)
                    samples.setdefault(key, {})[suffix.lower()] = part
            complete = _ends_at(shard, tar.offset)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"broken or truncated shard: {shard} ({error}); copy or generate it again") from error
    if not complete:
        raise DataError(f"truncated shard: {shard} has no end mark; copy or generate it again")
    if not samples:
        raise DataError(f"empty shard: {shard} holds no samples; copy or generate it again")
    return [Sample(key, parts) for key, parts in samples.items()]


def _ends_at(shard: str, offset: int) -> bool:
    """Whether an end mark (a block of zeros) is where `tarfile` stopped: it passes over a cut header in silence."""
    with open(shard, "rb") as file:
        file.seek(offset)
        return file.read(512) == bytes(512)
