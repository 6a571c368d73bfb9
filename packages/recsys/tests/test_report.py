"""What a report costs where a table is wide."""

import torch

from attn_recsys import Layout, create, report
from attn_recsys.report import attention_maps, rows_for


def test_a_report_of_three_hundred_fields_is_bounded_in_time_and_memory_and_says_what_it_left_out():
    layout = Layout.plain(300, rows=901)
    model = create("autoint", layout, dim=4, block_widths=(4,), heads=1).eval()
    sizes = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    index = torch.randint(1, 901, (1000, 300))
    batch = {"index": index, "value": torch.ones(index.shape), "label": torch.zeros(1000)}
    maps = attention_maps(model, [batch], rows_for(model)).numpy()
    assert max(sizes) * 300**2 <= 2**26
    assert sum(sizes) * 300**2 <= report.ROWS * 64**2 + 300**2
    sizes.clear()
    few = {name: x[:8] for name, x in batch.items()}
    exhibit = report._pairs(model, few, maps.max((0, 1)))
    assert len(sizes) <= 1 + layout.fields + report.PAIRS // 2
    assert "Measured are the 200 of 44,850 pairs that attend to each other most" in exhibit.caption
    assert exhibit.rows is not None and len(exhibit.rows) == report.PAIRS // 2
