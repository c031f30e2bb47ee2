"""What follows from a measured step: how many there are, on how many pictures each, and how large they are."""

import math

from .case import Case, Derived, clamp, rule, two_digits
from .rules_of_pictures import has_label_maps, is_pretrained


MINUTES_OF_MAPS, MINUTES_OF_OBJECTS = 15.0, 60.0
"""That a run on a CPU may take, evaluations included. What finds objects by queries learns slowly."""
EVALUATIONS_OF_MAPS, EVALUATIONS_OF_OBJECTS, EVALUATIONS = 4, 8, 12
"""On a CPU in these minutes, and elsewhere."""
EVALUATION_SECONDS = 60.0
"""Of one evaluation on a CPU."""
CHECKPOINT_SECONDS = 4.0
BETWEEN_CHECKPOINTS = 180.0

USUAL_STEPS = 4000
PASSES = (12, 200)
FEWEST_STEPS = {True: 20, False: 500}

SAMPLES = 16
"""Of a step."""
ON_A_CPU = 4

MEMORY = 0.8
"""Of what is free."""


@rule("training.mixed_precision", "bf16 where the device computes in it; on a CPU where a measured step is faster", "")
def mixed_precision(case: Case) -> Derived | None:
    seconds = case.measured.seconds
    if "bf16" not in seconds:
        return "no", "the device does not compute in bf16"
    if not case.device.is_cpu:
        return "bf16", "the device computes in it"
    ratio = seconds["no"] / seconds["bf16"]
    precision = "bf16" if ratio > 1.1 else "no"
    return precision, f"a step in bf16 takes {1 / ratio:.0%} of the time of one in float32"


def seconds_per_picture(case: Case) -> float:
    seconds = case.measured.seconds
    return seconds.get(case["training.mixed_precision"], seconds["no"])


@rule(
    "training.batch_size",
    "as many pictures of a step as fit into four fifths of the free memory, by a measured step",
    "powers of two up to 16, on a CPU and where memory cannot be measured 4; never more than there are",
)
def batch_size(case: Case) -> Derived | None:
    cost = case.measured
    if case.device.is_cpu:
        return min(ON_A_CPU, case.pictures), "on a CPU more steps are better than larger ones"
    if cost.fixed + cost.each == 0:
        return min(ON_A_CPU, case.pictures), f"how much memory of {case.device.kind} a step needs is not known"
    wanted = max(1, SAMPLES // case.device.processes)
    room = int((MEMORY * case.device.memory - cost.fixed) / max(cost.each, 1e-6))
    size = 2 ** int(math.log2(clamp(min(wanted, room, case.pictures), 1, wanted)))
    return size, (
        f"{cost.fixed:.1f} GiB and {cost.each:.2f} for each picture, {case.device.memory:.0f} GiB are free; "
        f"{case.pictures:,} pictures"
    )


@rule(
    "training.gradient_accumulation",
    "so many passes that a step has 16 pictures; 1 on a CPU, where more steps are better than larger ones",
    "1 to 16",
)
def gradient_accumulation(case: Case) -> Derived | None:
    size = case["training.batch_size"] * case.device.processes
    if case.device.is_cpu or case.pictures < SAMPLES or size >= SAMPLES:
        return 1, "a step has one batch"
    return -(-SAMPLES // size), f"for {SAMPLES} pictures a step"


@rule("training.samples_per_step", "what the learning rate is for: another number of processes is warned of", "")
def samples_per_step(case: Case) -> Derived | None:
    return case.samples_per_step, "what the learning rate is for"


@rule(
    "data.max_validation_samples",
    "on a CPU, as many as are measured in a minute, by a measured picture",
    "16 at least",
)
def max_validation_samples(case: Case) -> Derived | None:
    if not case.device.is_cpu or case.validation is None:
        return None
    most = max(16, int(EVALUATION_SECONDS / max(case.measured.evaluation, 1e-6)))
    if case.validation <= most:
        return None
    return most, f"all {case.validation:,} would take {case.validation * case.measured.evaluation:.0f} s each time"


@rule(
    "training.steps",
    "4,000, but each picture 12 to 200 times; on a CPU as many as a measured step allows in 15 minutes, of heads with "
    "queries in an hour, evaluations included",
    "500 at least, on a CPU 20",
)
def steps(case: Case) -> Derived | None:
    if case["training.epochs"] is not None:
        return None
    fewest, most = (passes * case.pictures / case.samples_per_step for passes in PASSES)
    by_pictures = round(max(FEWEST_STEPS[False], clamp(USUAL_STEPS, fewest, most)))
    passes = by_pictures * case.samples_per_step / case.pictures
    shown = f"{case.pictures:,} pictures, each {passes:.0f} times"
    in_time = max(steps_in_time(case), warmup_that_was_typed(case) + 1) if case.device.is_cpu else by_pictures
    if by_pictures <= in_time:
        return by_pictures, shown
    return in_time, (
        f"{minutes(case):.0f} minutes on this CPU, {step_seconds(case):.1f} s a step; by its {case.pictures:,} "
        f"pictures it would be {by_pictures:,}"
    )


def minutes(case: Case) -> float:
    """That a CPU is given."""
    return MINUTES_OF_MAPS if has_label_maps(case) else MINUTES_OF_OBJECTS


def evaluations(case: Case) -> int:
    """Of a run."""
    if not case.device.is_cpu:
        return EVALUATIONS
    return EVALUATIONS_OF_MAPS if has_label_maps(case) else EVALUATIONS_OF_OBJECTS


def warmup_that_was_typed(case: Case) -> int:
    """Steps, 0 if none was."""
    return case["optimization.warmup_steps"] if case.is_typed("optimization.warmup_steps") else 0


def step_seconds(case: Case) -> float:
    return seconds_per_picture(case) * case.samples_per_step / case.device.processes


def steps_in_time(case: Case) -> int:
    """How many a CPU makes in the minutes that are left beside the evaluations."""
    pictures = min(case.validation or 0, case["data.max_validation_samples"] or math.inf)
    beside = evaluations(case) * (pictures * case.measured.evaluation + CHECKPOINT_SECONDS)
    seconds = max(0.4 * minutes(case) * 60, minutes(case) * 60 - beside)
    return max(FEWEST_STEPS[True], round(seconds / step_seconds(case)))


RATES = {"upernet": 5e-4}
"""Of 16 pictures a step, by the head; of a trunk that is trained."""
OTHER_RATES = 2e-4
FROZEN = 2.0
"""Times so much where the trunk is frozen."""


@rule(
    "optimization.learning_rate",
    "5e-4 for UperNet, 2e-4 for heads with queries, twice as much where the trunk is frozen, times the square root of "
    "a step's pictures over 16 where there are more",
    "",
)
def learning_rate(case: Case) -> Derived | None:
    base = RATES.get(case["head.name"], OTHER_RATES)
    frozen = FROZEN if case["backbone.freeze_trunk"] else 1.0
    batch = max(1.0, math.sqrt(case.samples_per_step / SAMPLES))
    trunk = "a frozen trunk" if case["backbone.freeze_trunk"] else "a trunk that learns"
    return two_digits(
        base * frozen * batch
    ), f"{case['head.name']} on {trunk}, {case.samples_per_step} pictures a step"


@rule(
    "optimization.trunk_lr_multiplier",
    "a tenth where a pretrained trunk learns, which would forget what it knows",
    "0.1",
)
def trunk_lr_multiplier(case: Case) -> Derived | None:
    if not is_pretrained(case) or case["backbone.freeze_trunk"]:
        return None
    return 0.1, "a pretrained trunk would forget what it knows"


@rule("optimization.warmup_steps", "a twentieth of the run", "1 to 500, and fewer than the steps")
def warmup_steps(case: Case) -> Derived | None:
    count = run_length(case)
    return int(clamp(round(count / 20), min(1, count - 1), 500)), f"a twentieth of {count:,} steps"


@rule("training.log_every", "about sixty points of the loss curve", "1 to 50")
def log_every(case: Case) -> Derived | None:
    wanted = int(clamp(run_length(case) // 60, 1, 50))
    if case.is_typed("training.checkpoint_every"):  # which has to be a multiple
        every = case["training.checkpoint_every"]
        wanted = next(divisor for divisor in range(wanted, 0, -1) if every % divisor == 0)
    return wanted, "about sixty points of the loss curve"


@rule("training.evaluate_every", "four times in a run on a CPU, eight times with queries; twelve times elsewhere", "")
def evaluate_every(case: Case) -> Derived | None:
    times = evaluations(case)
    return max(1, -(-run_length(case) // times)), f"{times} times in the run"


@rule("training.checkpoint_every", "three minutes, by a measured step; at every evaluation in any case", "")
def checkpoint_every(case: Case) -> Derived | None:
    every = case["training.log_every"]
    wanted = clamp(BETWEEN_CHECKPOINTS / max(step_seconds(case), 1e-6), 1, case["training.evaluate_every"])
    return max(1, round(wanted / every)) * every, "at most about three minutes are lost"


@rule("training.early_stopping", "a third of the evaluations without a better model", "3 at least")
def early_stopping(case: Case) -> Derived | None:
    times = -(-run_length(case) // case["training.evaluate_every"])
    return max(3, -(-times // 3)), f"of {times} evaluation{'s' if times > 1 else ''}"


def run_length(case: Case) -> int:
    """Steps of the run, also where epochs were typed."""
    if case["training.steps"] is not None:
        return case["training.steps"]
    return math.ceil(case["training.epochs"] * case.pictures / case.samples_per_step)


@rule(
    "transforms.photometric",
    "light where each picture is seen less than 10 times, strong where more than 100 times, else standard",
    "",
)
def photometric(case: Case) -> Derived | None:
    passes = run_length(case) * case.samples_per_step / case.pictures
    strength = "light" if passes < 10 else "strong" if passes > 100 else "standard"
    return strength, f"each picture is seen {passes:.0f} times"


@rule("data.workers", "none on a CPU, whose cores compute; else one for each core but one", "0 to 8")
def workers(case: Case) -> Derived | None:
    if case.device.is_cpu:
        return 0, "the cores compute"
    return int(clamp(case.device.cores // case.device.processes - 1, 0, 8)), f"{case.device.cores} cores"
