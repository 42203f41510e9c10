"""Whether the names of folders tell of a split into what trains, validates and tests."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

TRAINING, VALIDATION, TEST = range(3)
# What people call the folders of a split, in small letters.
PART_NAMES = {
    **dict.fromkeys(("train", "training"), TRAINING),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
# What people add to such a name, which says no more: train_images, training_set, test2017.
_MORE = frozenset(("set", "data", "dataset", "images", "image", "imgs", "split", "seg"))
_ENDING = re.compile("(?:data)?(?:set|data|images)$")
# Words of other names for it, which alone say too little: a class may be called so.
_OF_SPLITS = frozenset(
    (
        *(*PART_NAMES, "trn", "tst", "eval", "evaluation", "holdout", "heldout", "unseen", "fold"),
        *("split", "subset", "partition", "gallery", "query"),
        *("labeled", "unlabeled", "labelled", "unlabelled"),
    )
)
# How such words begin, in the plural, in composites and in other languages; two tell of a split.
_BEGINNINGS = (
    *("train", "test", "valid", "lern", "prüf", "entrena", "prueba", "trein", "trenin"),
    *("apprenti", "entrain", "entraîn", "addestra", "prova"),
    *("обуч", "трен", "тест", "провер", "валид"),
    *("训练", "訓練", "测试", "測試", "验证", "驗證"),
    *("学習", "検証", "テスト", "훈련", "학습", "테스트", "검증"),
)
_MOST_PARTS = 4  # of a split, where not each has a name that tells of one


def _part_like(name: str) -> int | None:
    """The part of a split that a folder of such a name may be."""
    words = [word for word in _words(name) if word not in _MORE]
    return PART_NAMES.get(words[0]) if len(words) == 1 else None


def may_be_split(names: Iterable[str]) -> list[str]:
    """Those names that may be of a split; none where nothing may train, or nothing else."""
    parts = {name: part for name in names if (part := _part_like(name)) is not None}
    is_split = TRAINING in parts.values() and len(set(parts.values())) > 1
    return list(parts) if is_split else []


def hints_of_split(names: Collection[str]) -> list[str]:
    """Those of some names that tell of a split; none where it would have too many other parts."""
    found = [name for name in names if set(_words(name)) & _OF_SPLITS]
    if len(names) > _MOST_PARTS and len(found) < len(names):
        return []
    begun = [name for name in names if any(word.startswith(_BEGINNINGS) for word in _words(name))]
    return found or (begun if len(begun) > 1 else [])


def _words(name: str) -> list[str]:
    """The words of a folder's name, in small letters: those of photosTrain and photos_trainset."""
    whole = unicodedata.normalize("NFC", name)  # a file system may keep a letter and its dots apart
    apart = re.sub("(?<=[a-z])(?=[A-Z])", " ", whole).lower()
    return [_ENDING.sub("", word) or word for word in re.findall(r"[^\W\d_]+", apart)]
