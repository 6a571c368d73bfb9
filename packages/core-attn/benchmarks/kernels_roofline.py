"""What the kernels should reach: FLOPs, bytes and the arithmetic between, over data-sheet rates."""

from typing import NamedTuple

SCORE_OPS = {  # float32 and integer instructions for each score, besides exp2, by hand
    "forward": 8, "queries": 9, "keys": 10, "bias": 10, "short forward": 11, "short backward": 16,
    "list forward": 12, "list backward": 18,
    "edge forward": 50, "edge backward": 120, "edge tangent": 300,
    "bias and mask": 6,
    "dropout": 20, "short dropout": 60,  # 7 rounds of Philox, for four scores or for one
}  # fmt: skip


class Card(NamedTuple):
    """Rates of the fastest card of a compilation target, per second."""

    name: str
    memory: float  # bytes
    half: float  # dense FLOPs of the tensor cores on 16 bits
    single: float  # the same at our float32 precision: three tf32 products, or AMD's float32 ones
    exponentials: float
    lanes: float  # instructions of all float32 lanes


CARDS = {
    "sm80": Card("A100 80GB", 2.04e12, 312e12, 52e12, 2.4e12, 9.7e12),
    "sm90": Card("H100 SXM", 3.35e12, 989e12, 165e12, 3.9e12, 31e12),
    "sm100": Card("B200", 8.0e12, 2250e12, 375e12, 4.4e12, 35e12),
    "gfx942": Card("MI300X", 5.3e12, 1307e12, 163e12, 10e12, 41e12),
}


class Work(NamedTuple):
    """Of one head: useful FLOPs, FLOPs and scores really computed, instructions, bytes."""

    useful: float
    flops: float
    scores: float
    instructions: float
    bytes: float


class Estimate(NamedTuple):
    """Where a kernel stands on the roofline."""

    intensity: float
    bound: str
    share: float


def attention_work(kernel: str, size: int, width: int, full: bool) -> Work:
    """2048 queries and keys, all visible; a full bias plane of float32 and a mask if `full`."""
    scores = 2048**2
    products, tensors = {
        "forward": (2, 4), "queries": (3, 6), "keys": (4, 6), "bias": (2, 4),
    }[kernel]  # fmt: skip
    flops = 2 * products * scores * width
    ops = SCORE_OPS[kernel]
    moved = tensors * 2048 * width * size
    if full:
        ops += SCORE_OPS["bias and mask"] + SCORE_OPS["dropout"]
        moved += scores * (4 + 1 + (4 if kernel in ("queries", "bias") else 0))
    return Work(flops, flops, scores, scores * ops, moved)


def short_work(kernel: str, size: int, tokens: int, width: int) -> Work:
    """A problem of 5/8 of the tokens that fit, alone in its tile; bias, mask and dropout."""
    used = tokens * 5 // 8
    products, tensors = {"forward": (2, 4), "backward": (5, 7)}[kernel]
    ops = sum(SCORE_OPS[name] for name in (f"short {kernel}", "bias and mask", "short dropout"))
    moved = tensors * used * width * size + used**2 * (1 + (8 if kernel == "backward" else 0))
    per_score = 2 * products * width
    return Work(used**2 * per_score, tokens**2 * per_score, tokens**2, tokens**2 * ops, moved)


def list_work(operator: str, kernel: str, size: int, width: int, full: bool) -> Work:
    """Of one group: a query with 49 keys, a cluster of 256 or a block of 64 with its 196 slots.

    Keys and values are counted as read once a list, except of blocks, whose windows overlap in the
    caches: 64 keys of a map for each. Backward adds 4-byte gradients of both, read and written.
    """
    members, picks, fresh = {
        "gather_attention": (1, 49, 49), "cluster_attention": (256, 256, 256),
        "neighborhood_attention": (64, 196, 64),
    }[operator]  # fmt: skip
    scores = members * picks
    products, rows = {"forward": (2, 2), "backward": (5, 4)}[kernel]
    ops = SCORE_OPS[f"list {kernel}"] + (SCORE_OPS["dropout"] if full else 0)
    moved = (rows * members + 2 * fresh) * width * size
    if kernel == "backward":
        moved += 2 * picks * width * 8
    if full and operator != "cluster_attention":
        moved += scores * (size + (4 if kernel == "backward" else 0))
    flops = 2 * products * scores * width
    if members == 1:  # on the lanes, not the tensor cores
        return Work(flops, 0.0, scores, scores * ops + flops / 2, moved)
    return Work(flops, flops, scores, scores * ops, moved)


def edge_work(kernel: str, longest: int, width: int, degrees: int) -> Work:
    """One head of an atom with 7/8 of the edges that its tile holds; products degree by degree."""
    used = longest * 7 // 8
    by_degree, plain, rows = {
        "forward": (1, 1, 4), "backward": (4, 2, 8), "tangent": (10, 5, 14),
    }[kernel]  # fmt: skip
    useful = 2 * (by_degree + plain) * used**2 * width
    flops = 2 * (by_degree * degrees + plain) * longest**2 * width
    ops = SCORE_OPS[f"edge {kernel}"]
    return Work(useful, flops, longest**2, longest**2 * ops, rows * used * width * 4)


def along_work(operator: str, kernel: str, channels: int) -> Work:
    """Of one token: a state goes from one to the next, which takes longer than all of this."""
    if operator == "pluecker_mean":
        pairs = channels * (channels - 1) / 2
        flops = {"forward": 6 * 6 * channels + 3 * pairs, "backward": 12 * 6 * pairs}[kernel]
        moved = 4 * (7 * channels + pairs) if kernel == "forward" else 4 * (channels + 12 * pairs)
        return Work(flops, 0.0, 0.0, flops, moved)
    flops, exponentials, moved = {
        ("wkv", "forward"): (20, 4, 12), ("wkv", "sums"): (14, 2, 20),
        ("wkv", "backward"): (34, 4, 32), ("lif", "forward"): (5, 0, 8), ("lif", "sums"): (5, 0, 8),
        ("lif", "backward"): (14, 0, 12),
    }[operator, kernel]  # fmt: skip
    return Work(flops * channels, 0.0, exponentials * channels, flops * channels, moved * channels)


def roofline(work: Work, arch: str, size: int) -> Estimate:
    """Memory moves beside the computation; products, exp2 and the rest take turns in a program."""
    card = CARDS[arch]
    tensor = card.half if size == 2 else card.single
    memory, products = work.bytes / card.memory, work.flops / tensor
    between = work.scores / card.exponentials + work.instructions / card.lanes
    busy = products + between
    slower = "tensor cores" if products > between else "scores"
    bound = "memory" if memory >= busy else slower
    share = max(memory, work.useful / tensor) / max(memory, busy)
    return Estimate(work.useful / work.bytes, bound, share)
