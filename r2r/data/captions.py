"""Captions: where they come from, how a template words them, and when training drops them."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from r2r.data.samples import Sample
from r2r.errors import DataError, InputError

CAPTION_FILES = ("captions.json", "metadata.jsonl")


def read_captions(folder: Path, captions: str | Path | None = None) -> dict[str, str]:
    """Captions by relative image path or shard key.

    Read from `captions` if given, else from `captions.json` (`{"a/b.png": "red dress"}`, what `r2r.caption` writes) or
    `metadata.jsonl` (`{"file_name": "a/b.png", "text": "red dress"}` per line, as diffusers' scripts read) in `folder`.
    Raises: DataError naming a missing or broken file.
    """
    found = [Path(captions).expanduser()] if captions else [folder / n for n in CAPTION_FILES if (folder / n).is_file()]
    if not found:
        return {}
    try:
        text = found[0].read_text(encoding="utf-8")
        return _from_lines(text) if found[0].suffix == ".jsonl" else _from_mapping(text)
    except OSError as error:
        raise DataError(f"cannot read caption file {found[0]}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"broken caption file: {found[0]} ({error!r}); see r2r.data.captions for the format") from error


def _from_mapping(text: str) -> dict[str, str]:
    return {key: str(caption) for key, caption in json.loads(text).items()}


def _from_lines(text: str) -> dict[str, str]:
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    return {row["file_name"]: str(row["text"]) for row in rows}


@dataclass(frozen=True)
class CaptionRule:
    """Words for a sample: its caption in `template`, else `prompt` alone.

    The caption is, in this order: the caption file's (or folder name's), field `field` of the JSON member, the text
    member; lower-cased, as CLIP's tokenizers do anyway. `template` may name other JSON fields too.
    """

    template: str = "{caption}"
    prompt: str = "a photo of clothing"
    field: str = "caption"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout <= 1:
            raise InputError(f"caption_dropout outside [0, 1]: {self.dropout}")

    def __call__(self, sample: Sample, chance: random.Random | None = None) -> str:
        """The caption; with `chance`, "" at the dropout rate.

        Raises: DataError when the template names a field that the sample lacks.
        """
        if chance is not None and chance.random() < self.dropout:
            return ""
        fields = sample.fields()
        found = sample.caption or fields.get(self.field) or self._text(sample)
        if not found:
            return self.prompt
        words = {name: str(value).lower() for name, value in fields.items()} | {"caption": str(found).strip().lower()}
        try:
            return self.template.format(**words)
        except (KeyError, IndexError, ValueError) as error:
            raise DataError(
                f"caption_template {self.template!r} does not fit sample {sample.key}: {error!r}"
            ) from error

    @staticmethod
    def _text(sample: Sample) -> str:
        return sample.parts["txt"].read().decode("utf-8", "replace") if "txt" in sample.parts else ""
