from core_attn.training.callbacks import Progress


class Trainer:
    num_training_batches = 50


def test_a_bar_is_redrawn_by_the_clock_and_at_the_end(monkeypatch):
    drawn, clock = [], iter(range(1000))
    monkeypatch.setattr("core_attn.training.callbacks.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr(
        "core_attn.training.callbacks.RichProgressBar.on_train_batch_end",
        lambda self, trainer, module, outputs, batch, index: drawn.append(index),
    )
    bar = Progress(a_second=0.1)  # every ten ticks
    for index in range(Trainer.num_training_batches):
        bar.on_train_batch_end(Trainer(), None, None, None, index)
    assert drawn == [0, 10, 20, 30, 40, 49]
