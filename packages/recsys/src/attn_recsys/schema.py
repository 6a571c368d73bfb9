"""What a table's columns mean: read from YAML, checked, and completed by the preparation."""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from .layout import Layout

LABEL, GROUP, WEIGHT = "__label__", "__group__", "__weight__"  # columns of shards beside the fields
TRANSFORMS = ("standard", "none", "log2", "minmax", "quantiles")


@dataclass(frozen=True)
class Field:
    """One column of the user's table.

    Attributes:
        name: the column.
        kind: "categorical", "numerical", "multi" (several categories in one cell, of which the mean
            is taken), or "sequence" (likewise, as a history, attended with the field `target`).
        min_count: how often a value must be seen in training for a row of its own; rarer and
            unseen values share the field's rare row.
        buckets: if > 0, values are hashed into so many rows instead, without a vocabulary; for
            categories only.
        missing: what an empty cell is. "empty": the zero vector, and NaN or infinity is refused;
            "zero": NaN and infinity are empty cells too; "learned": they share a learned row.
        transform: for numbers. "standard", the default: mean 0 and spread 1 over the training rows;
            "none"; "log2": int(ln(x)^2) above 2, unchanged up to 2 and for negatives; "minmax": to
            [0, 1] over the training rows; "quantiles": the number of one of `bins` equally full
            bins, learned like a category. But for "log2", later values are clipped to the range of
            the training rows.
        bins: bins of "quantiles".
        separator: between the categories of a "multi" or "sequence" cell.
        max_values: how many of them are kept.
        keep: which of them where there are more: the "first" or the "last".
        target: of a "sequence" the categorical field that it is a history of, as the item: its
            values are that field's, counted there, and what is read of it depends on the row's.
    """

    name: str
    kind: Literal["categorical", "numerical", "multi", "sequence"] = "categorical"
    min_count: int = 1
    buckets: int = 0
    missing: Literal["empty", "zero", "learned"] = "empty"
    transform: Literal["standard", "none", "log2", "minmax", "quantiles"] = "standard"
    bins: int = 32
    separator: str = "|"
    max_values: int = 6
    keep: Literal["first", "last"] = "first"
    target: str | None = None

    def __post_init__(self):
        allowed = {
            "kind": ("categorical", "numerical", "multi", "sequence"),
            "missing": ("empty", "zero", "learned"),
            "transform": TRANSFORMS,
            "keep": ("first", "last"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"field {self.name}: {name} must be one of {', '.join(values)}, "
                    f"got {getattr(self, name)!r}"
                )
        for name, least in {"min_count": 1, "buckets": 0, "bins": 2, "max_values": 1}.items():
            number = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise ValueError(
                    f"field {self.name}: {name} must be an integer >= {least}, got {number!r}"
                )
        if not isinstance(self.separator, str) or not self.separator:
            raise ValueError(
                f"field {self.name}: separator must be one or more characters, got "
                f"{self.separator!r}"
            )
        if not self.name:
            raise ValueError("schema: a field has no name; a name like null stands in quotes")
        if self.buckets >= 2**31 - 1:
            raise ValueError(f"field {self.name}: buckets must be below 2^31, got {self.buckets}")
        if self.name in (LABEL, GROUP, WEIGHT):
            raise ValueError(f"field {self.name}: that name is taken by the package")
        if self.transform not in ("standard", "none") and self.kind != "numerical":
            raise ValueError(f"field {self.name}: transform is for numerical fields")
        if self.buckets and self.kind == "numerical":
            raise ValueError(f"field {self.name}: buckets are for categories, not for numbers")
        if self.is_list and self.missing == "learned":
            raise ValueError(f"field {self.name}: a multi-valued field has no learned missing row")
        if (self.kind == "sequence") != (self.target is not None):
            raise ValueError(
                f"field {self.name}: a sequence, and nothing else, needs target: the field that it "
                "is a history of"
            )
        if self.kind == "sequence" and (self.buckets or self.min_count != 1):
            raise ValueError(f"field {self.name}: buckets and min_count are the target's to have")

    @property
    def is_number(self) -> bool:
        """Whether its value is a number that scales its row."""
        return self.kind == "numerical" and self.transform != "quantiles"

    @property
    def is_list(self) -> bool:
        """Whether a cell holds several categories."""
        return self.kind in ("multi", "sequence")

    @property
    def vocabulary(self) -> str:
        """The field whose table rows its values have: its own, or its target's."""
        return self.target or self.name

    @property
    def width(self) -> int:
        """Its slots."""
        return self.max_values if self.is_list else 1


@dataclass(frozen=True)
class Schema:
    """The fields of a table and its label.

    Attributes:
        label: the column with the label: 0 or 1, true or false, or what `positive` says.
        fields: the fields, in the order in which the model sees them.
        above: if given with `below`, the label column is a rating: larger ones are 1, ...
        below: ... smaller ones 0, and rows in between are dropped.
        group: a column, as the user, for the grouped AUC; it need not be a field.
        positive: the label column's value that means 1, as "yes"; every other one is 0.
        weight: a column with the weight of each row in losses and metrics, not negative.
        null_values: spellings of an empty cell in text files, beside nothing at all.
        decimal_comma: whether numbers in text files are written 3,5 instead of 3.5.

    Example:
        >>> Schema.parse({"label": "click", "fields": {"city": "categorical"}}).fields[0].name
        'city'
    """

    label: str
    fields: tuple[Field, ...]
    above: float | None = None
    below: float | None = None
    group: str | None = None
    positive: str | None = None
    weight: str | None = None
    null_values: tuple[str, ...] = ("NA", "N/A", "NULL", "null")
    decimal_comma: bool = False

    def __post_init__(self):
        spellings = [] if self.null_values is None else self.null_values
        spellings = spellings if isinstance(spellings, list | tuple) else [spellings]
        spellings = tuple(map(str, spellings))
        object.__setattr__(self, "null_values", spellings)
        for name in ("label", "group", "weight", "positive"):
            given = getattr(self, name)
            if not isinstance(given, str | int | float | bool | None):
                raise ValueError(f"schema: {name} must be one name or value, got {given!r}")
            if given is not None:
                text = str(given).lower() if isinstance(given, bool) else str(given)
                object.__setattr__(self, name, text)
        names = [field.name for field in self.fields]
        if not names:
            raise ValueError("schema: fields is empty")
        if len(set(names)) < len(names) or self.label in names:
            raise ValueError(f"schema: label and fields must differ, got {self.label}, {names}")
        for field in self.fields:
            if field.target is not None and (
                field.target not in names or self.field(field.target).kind != "categorical"
            ):
                raise ValueError(
                    f"field {field.name}: target {field.target!r} is no categorical field of the "
                    "schema"
                )
        if not isinstance(self.decimal_comma, bool):
            raise ValueError(
                f"schema: decimal_comma must be true or false, got {self.decimal_comma!r}"
            )
        both = (self.above, self.below)
        if both != (None, None) and not all(isinstance(x, int | float) and x == x for x in both):
            raise ValueError(
                "schema: above and below belong together and are numbers, got "
                f"{self.above!r} and {self.below!r}"
            )
        if self.above is not None and self.positive is not None:
            raise ValueError("schema: positive is for labels, above and below for ratings")

    @classmethod
    def parse(cls, content: dict[str, Any]) -> "Schema":
        """Reads a mapping as YAML gives it; a field is its kind or a mapping of its settings.

        Raises:
            ValueError: something is missing or unknown, named.
        """
        content = dict(content)
        if isinstance(label := content.get("label"), dict):  # {column: bought, positive: yes}
            unknown = set(label) - {"column", "positive", "above", "below"}
            if unknown or "column" not in label:
                raise ValueError(
                    "schema: label must be a column, or have the keys column and perhaps "
                    f"positive, above and below; got {label}"
                )
            content |= {"label": label["column"]}
            content |= {key: label[key] for key in label if key != "column"}
        missing = {"label", "fields"} - set(content)
        if missing:
            raise ValueError(f"schema: {', '.join(sorted(missing))} missing")
        fields = content.pop("fields")
        if not isinstance(fields, dict):
            raise ValueError("schema: fields must map each column's name to its kind or settings")
        known = {field.name for field in dataclasses.fields(Field)} - {"name"}
        parsed = []
        for name, given in fields.items():
            given = {"kind": given} if isinstance(given, str) else given or {}
            if not isinstance(given, dict):
                raise ValueError(
                    f"field {name}: its kind or a mapping of its settings is needed, got {given!r}"
                )
            settings: dict[str, Any] = {  # whose names `to_dict` repeats
                key: x for key, x in given.items() if (key, x) != ("name", name)
            }
            if not set(settings) <= known:
                raise ValueError(
                    f"field {name}: unknown settings {sorted(set(settings) - known)}; "
                    f"there are {sorted(known)}"
                )
            parsed.append(Field("" if name is None else str(name), **settings))
        unknown = set(content) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"schema: unknown keys {sorted(unknown)}")
        return cls(fields=tuple(parsed), **content)

    @classmethod
    def read(cls, path: str | Path) -> "Schema":
        """Reads a YAML file; `files`, `split`, `time` and `separator` are the data module's.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a schema.
        """
        ours = ("files", "split", "time", "separator")
        return cls.parse({k: v for k, v in read_yaml(path).items() if k not in ours})

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        others = [name for name in (self.group, self.weight) if name is not None]
        return list(dict.fromkeys([self.label, *self.names, *others]))

    @property
    def names(self) -> list[str]:
        """The fields' names."""
        return [field.name for field in self.fields]

    def field(self, name: str) -> Field:
        """The field of a name."""
        return self.fields[self.names.index(name)]

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `parse` makes the same schema."""
        fields = {f.name: dataclasses.asdict(f) | {"name": f.name} for f in self.fields}
        return dataclasses.asdict(self) | {"fields": fields}


@dataclass(frozen=True)
class PreparedSchema:
    """A schema with its vocabularies' sizes and numbers' ranges, as the preparation wrote it.

    Attributes:
        schema: the fields.
        layout: where they lie in the table.
        features: rows of the table that a value can reach.
        ranges: of the training values, for "standard" their mean, spread, least and largest; for
            "minmax" and "none" the latter two; for "quantiles" the bins' edges.
        rows: rows of each split.
        base_rate: share of ones in the training rows that were kept.
        rare: the table row of each vocabulary's rare and unseen values.
        missing: the table row of an empty cell, for the fields that learn one.
        unseen: for each vocabulary, the share of validation cells in the rare row.
        seed: of the hashing.
        vocabulary_hash: a digest of all vocabularies.
        negative_rate: share of the training rows with label 0 that was kept.
        empty: for each field, the share of all cells that hold no value.
        kinds: for each field of categories, what its training values were: "integer", "boolean",
            "datetime" or "text"; later spellings of the same values are brought to theirs.
        separator: between the cells of the text files that were read; None for their ending's.
    """

    schema: Schema
    layout: Layout
    features: int
    ranges: dict[str, list[float]]
    rows: dict[str, int]
    base_rate: float
    rare: dict[str, int]
    missing: dict[str, int]
    unseen: dict[str, float]
    seed: int
    vocabulary_hash: str
    negative_rate: float = 1.0
    empty: dict[str, float] = dataclasses.field(default_factory=dict)
    kinds: dict[str, str] = dataclasses.field(default_factory=dict)
    separator: str | None = None

    @property
    def hash(self) -> str:
        """Changes with the fields, their order, vocabularies, transforms and the down-sampling."""
        parts = [
            self.schema.to_dict(), dataclasses.asdict(self.layout), self.ranges, self.seed,
            self.vocabulary_hash,
        ]  # fmt: skip
        if self.negative_rate != 1:
            parts.append(self.negative_rate)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` makes the same."""
        return dataclasses.asdict(self) | {"schema": self.schema.to_dict(), "hash": self.hash}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "PreparedSchema":
        """Reads what `to_dict` wrote.

        Raises:
            ValueError: it was changed since.
        """
        content = dict(content)
        written = content.pop("hash")
        content["schema"] = Schema.parse(content["schema"])
        content["layout"] = Layout(**content["layout"])
        prepared = cls(**content)
        if prepared.hash != written:
            raise ValueError(
                f"schema hash {written} was written, but its content has {prepared.hash}: "
                "the prepared folder was edited; prepare it again"
            )
        return prepared

    def check_same(self, other_hash: str, what: str) -> None:
        """Requires that `what` was made for the same fields and vocabularies.

        Raises:
            ValueError: it was not.
        """
        if other_hash != self.hash:
            raise ValueError(
                f"{what} was made for schema {other_hash}, the data have schema {self.hash}: other "
                "fields, order or vocabulary; use the folder prepared for it"
            )


class _Loader(yaml.SafeLoader):
    """Reads booleans as YAML 1.2 does: a label `yes` and a column `no` are texts."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as in the base class)
        first: [(tag, form) for tag, form in forms if tag != "tag:yaml.org,2002:bool"]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), list("tf"))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, or not a mapping.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"schema file {path} does not exist")
    try:
        content = yaml.load(path.read_text("utf-8"), _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a mapping with label and fields")
    return content
