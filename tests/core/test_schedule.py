import math

import pytest

from sefar_core.schedule import Schedule, learning_rate, rising_share


def schedule(num_labeled=640, *, warmup_epochs=5, **other):
    settings = {"batch_size": 64, "epochs": 30, "warmup_epochs": warmup_epochs} | other
    return Schedule(num_labeled=num_labeled, **settings)


def test_a_run_takes_every_labeled_clip_epochs_times():
    gym99_5 = schedule(1316)
    assert gym99_5.num_steps == round(30 * 1316 / 64) == 617
    assert gym99_5.warmup_steps == 103
    assert schedule(10).num_steps == 5  # fewer labels than a batch still train
    only_labels = schedule(warmup_epochs=30)
    assert only_labels.warmup_steps == only_labels.num_steps


@pytest.mark.parametrize(
    ("num_labeled", "steps_an_epoch"), [(1316, 20), (1466, 22), (959, 14), (64, 1), (127, 1)]
)
def test_the_published_run_drops_what_is_left_of_each_pass(num_labeled, steps_an_epoch):
    # Steps an epoch of Gym99 5 %, Gym288 5 % and UB 10 % in the public code.
    dropped = schedule(num_labeled, leftovers="dropped")
    assert dropped.num_steps == 30 * steps_an_epoch
    assert dropped.warmup_steps == 5 * steps_an_epoch
    assert dropped.per_pass == 64 * steps_an_epoch


def test_a_run_without_one_whole_batch_is_refused_if_leftovers_are_dropped():
    with pytest.raises(ValueError, match="40 labeled clips.*smaller batch_size"):
        schedule(40, leftovers="dropped")
    assert schedule(40).num_steps == 19


@pytest.mark.parametrize("steps", [1, 7, 30, 617, 6170])
def test_a_run_given_in_steps_keeps_the_shares_of_warm_up_and_ramp(steps):
    plan = schedule(steps=steps)
    assert plan.num_steps == steps
    assert plan.warmup_steps == math.ceil(steps / 6)
    assert plan.warmup_steps == 0 or plan.ramp(plan.warmup_steps - 1) == 0
    for step in range(plan.warmup_steps, steps):
        epoch = 30 * step // steps
        published = math.sin(math.pi / 2 * (epoch + 1 - 5) / (30 - 5))
        assert plan.ramp(step) == pytest.approx(published)


def test_the_ramp_is_constant_within_an_epoch_and_ends_at_one():
    plan = schedule()
    values = [plan.ramp(step) for step in range(plan.num_steps)]
    assert values[: plan.warmup_steps] == [0.0] * 50
    assert [round(value, 3) for value in values[50:300:10]][:3] == [0.063, 0.125, 0.187]
    assert len(set(values[50:60])) == 1
    assert values[-1] == pytest.approx(1.0)


def test_the_published_teacher_keeps_two_thirds_of_the_warm_up_at_batches_of_8():
    gym99_5 = schedule(1316, leftovers="dropped")
    assert gym99_5.warmup_left(0.9999, updates_per_step=8) == pytest.approx(0.67, abs=0.005)
    assert gym99_5.warmup_left(0.9999, updates_per_step=64) == pytest.approx(0.04, abs=0.005)


def test_the_published_rate_falls_at_25_and_28_of_30_and_the_cosine_to_nearly_nothing():
    falls = {0.0: 1, 0.83: 1, 0.84: 0.1, 0.93: 0.1, 0.94: 0.01}
    for progress, factor in falls.items():
        assert learning_rate(0.005, "step", progress) == pytest.approx(0.005 * factor)
    assert learning_rate(1.0, "cosine", 0.0) == 1
    assert learning_rate(1.0, "cosine", 0.5) == pytest.approx(0.5)
    assert learning_rate(1.0, "cosine", 0.999) < 1e-4


@pytest.mark.parametrize(
    ("warmup", "shares"), [(4, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]), (1, [1.0] * 3), (0, [1.0] * 3)]
)
def test_the_rate_rises_in_equal_parts_from_the_first_step_to_the_whole(warmup, shares):
    assert [rising_share(step, warmup) for step in range(len(shares))] == shares
