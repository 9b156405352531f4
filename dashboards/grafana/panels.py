"""The content of the dashboard: one entry a panel, in reading order."""

SMALL, THIRD, HALF, FULL = (4, 4), (8, 8), (12, 8), (24, 7)
PHASES = "splitmask_train_phase_seconds_total"
OLD = [(None, "green"), (3600, "orange"), (7200, "red")]
WAIT = [(None, "green"), (0.05, "orange"), (0.2, "red")]


def panel(kind: str, title: str, text: str, unit: str, queries: list[tuple[str, str]], size: tuple[int, int] = THIRD, **more: object) -> dict:
    return {"kind": kind, "title": title, "text": text, "unit": unit, "queries": queries, "size": size, **more}


def stat(title: str, text: str, unit: str, expr: str, **more: object) -> dict:
    return panel("stat", title, text, unit, [(expr, "{{instance}}")], SMALL, **more)


def lines(title: str, text: str, unit: str, *queries: tuple[str, str], **more: object) -> dict:
    return panel("timeseries", title, text, unit, list(queries), **more)


def quantile(q: float, metric: str, by: str = "") -> str:
    group = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({group}) (rate({metric}_bucket{{$S}}[$I])))"


def rate(metric: str, by: str = "instance", more: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{$S{more}}}[$I]))"


def share_of_wall(phase: str) -> str:
    wanted = f',phase="{phase}"'
    return f"{rate(PHASES, more=wanted)} / {rate(PHASES)}"


STATUS = [
    stat("Up", "Whether Prometheus reaches the daemon's /metrics.", "none", "up{$S}", mappings=[("0", "down", "red"), ("1", "up", "green")]),
    stat("Paused", "Whether the run waits for a person: too many samples failed, or the store refuses the credentials. /-/ready says which and what to do.", "none", "max by (instance) (splitmask_train_paused{$S})", mappings=[("0", "no", "green"), ("1", "paused", "red")]),
    stat("Step", "Optimizer steps of the run, resumes included.", "locale", "splitmask_train_steps_total{$S}"),
    stat("Epoch", "Passes over the data that were finished.", "locale", "splitmask_train_epochs_total{$S}"),
    stat("Images/s", "Images that the trainer consumed, per second.", "short", rate("splitmask_pipeline_samples_total", more=',stage="consumed"'), decimals=0),
    stat("Data wait", "Share of the trainer's wall time spent waiting for batches. Above 5 % the pipeline limits training.", "percentunit", share_of_wall("data_wait"), decimals=1, steps=WAIT),
    stat(
        "Inpaint gain",
        "Marginal token entropy minus inpaint loss: how much the model knows about absent patches beyond the words' frequencies. 0 = nothing yet.",
        "suffix: nats",
        'splitmask_train_token_entropy_nats{$S} - ignoring (term) splitmask_train_loss{$S,term="inpaint"}',
        decimals=2,
    ),
    panel(
        "stat",
        "Accuracy",
        "Accuracy on the labelled validation set, last measured: of the frozen encoder by k-NN and by a linear probe, and of the classes that a run learns (top-1). 0 = not yet measured.",
        "percentunit",
        [('splitmask_eval_accuracy_ratio{$S,task="knn"}', "k-NN"), ('splitmask_eval_accuracy_ratio{$S,task="linear"}', "linear"), ('splitmask_eval_accuracy_ratio{$S,task="classify"}', "top-1")],
        SMALL,
        decimals=1,
    ),
    stat(
        "Since the last checkpoint",
        "Age of the newest checkpoint; before the first one, of the process. This much work is lost if the machine dies now.",
        "s",
        "time() - ((splitmask_checkpoint_last_success_timestamp_seconds{$S,rank=~\"0?\"} > 0) or process_start_time_seconds{$S,rank=~\"0?\"})",
        steps=OLD,
    ),
    stat("Mirror behind by", "Time between the newest checkpoint here and the newest one in checkpoint.mirror: the work that is lost with the machine, beside that since the last checkpoint. 0 where there is no mirror.", "s", "clamp_min(splitmask_checkpoint_last_success_timestamp_seconds{$S} - splitmask_checkpoint_mirror_newest_timestamp_seconds{$S}, 0) * splitmask_checkpoint_mirror_on{$S}", steps=[(None, "green"), (900, "orange"), (3600, "red")]),
    stat("Config file", "Whether the last attempt to load the config succeeded. If refused, the old config goes on.", "none", "splitmask_config_last_reload_successful{$S}", mappings=[("0", "refused", "red"), ("1", "in force", "green")]),
    stat("Config generation", "Configs that were in force so far; 1 after the start.", "none", "splitmask_config_generation{$S}"),
    stat("Since the last step", "Age of the last optimizer step. Grows while the trainer waits, evaluates or hangs.", "s", "time() - ((splitmask_train_last_step_timestamp_seconds{$S} > 0) or process_start_time_seconds{$S})", steps=[(None, "green"), (120, "orange"), (900, "red")]),
    stat("Uptime", "Age of the process; a fall to 0 is a restart.", "s", "time() - process_start_time_seconds{$S}"),
    panel("table", "What runs", "Version, commit, libtorch and device of each instance.", "short", [("splitmask_build_info{$S}", "")], (24, 4)),
]

LEARNING = [
    lines(
        "Losses",
        "Loss by term. The inpaint loss starts near ln(vocabulary) and means something once it is below the marginal token entropy; the match loss starts near ln(negatives + 1).",
        "suffix: nats",
        ("splitmask_train_loss{$S}", "{{term}} {{instance}}"),
        ("splitmask_train_token_entropy_nats{$S}", "marginal token entropy {{instance}}"),
        size=HALF,
    ),
    lines("Accuracy on the objective", "Shares that the objective measures: of words predicted right, or of images recognised among the batch, say. docs/monitoring.md lists them.", "percentunit", ("splitmask_train_objective_ratio{$S}", "{{number}} {{instance}}"), size=HALF, min=0),
    lines("Evaluation", "Accuracy on the validation set, of the frozen encoder or of the classes that a run learns: does it learn something useful? Steps down are over-fitting or a bad learning rate.", "percentunit", ("splitmask_eval_accuracy_ratio{$S}", "{{task}} {{instance}}"), min=0),
    lines("Linear probe by layer", "Accuracy of a linear classifier on each layer's features, with eval.probe_layers = all. The best layer of a masked model is often not the last.", "percentunit", ("splitmask_eval_layer_accuracy_ratio{$S} > 0", "layer {{layer}} {{instance}}"), min=0),
    lines("Spread of the features", "Dimensions that the features of the validation set use, effectively (RankMe), on a log scale. Needs no labels. A fall to 1 is a collapse: the encoder answers the same whatever it sees. 0 = not yet measured.", "short", ("splitmask_eval_feature_rank{$S} > 0", "effective rank {{instance}}"), log=True),
    lines("Likeness of the features", "Mean cosine of two images (1 = all alike) and deviation of the dimensions (0 = all alike, 1 = every direction), where the spread was measured.", "percentunit", ("splitmask_eval_feature_cosine_ratio{$S} and on (job, instance) splitmask_eval_feature_rank{$S} > 0", "cosine {{instance}}"), ("splitmask_eval_feature_deviation_ratio{$S} and on (job, instance) splitmask_eval_feature_rank{$S} > 0", "deviation {{instance}}")),
    lines("Over-fitting watch", "Validation loss (where eval.watch = loss), evaluations since the best one, and whether eval.patience is used up (1).", "short", ("splitmask_eval_loss{$S}", "validation loss {{instance}}"), ("splitmask_eval_since_best{$S}", "since the best {{instance}}"), ("splitmask_eval_overfitting{$S}", "over-fitting {{instance}}"), min=0),
    lines("Evaluations and pictures that failed", "In the rate interval, by kind. Training goes on; the log, the status page and journal.jsonl say why.", "short", ("increase(splitmask_eval_failures_total{$S}[$I])", "{{task}} {{instance}}"), min=0),
    lines("Best evaluation", "Step of the best evaluation beside the step in training. Its checkpoint is checkpoints/best in the run folder.", "short", ("splitmask_eval_best_step{$S}", "best {{instance}}"), ("splitmask_train_steps_total{$S}", "training {{instance}}")),
    lines("Codebook perplexity", "How many visual words are in use, effectively. A fall means blank or broken images, or augmentation that wipes them out.", "short", ("splitmask_train_codebook_perplexity{$S}", "{{instance}}"), min=0),
    lines("Other numbers of the objective", "On a log scale, beside the perplexity of the target words. A predicted_perplexity of 1 says one word whatever the model sees: normal in the warm-up, a collapse afterwards.", "short", ("splitmask_train_objective_value{$S}", "{{number}} {{instance}}"), ("splitmask_train_codebook_perplexity{$S}", "targets {{instance}}"), log=True),
    lines("Gradient norm", "Before clipping, on a log scale. A slow rise over hours often comes before divergence.", "short", ("splitmask_train_grad_norm{$S}", "{{instance}}"), log=True),
    lines("Learning rate", "Of the last step; shows the schedule and edits to it.", "sci", ("splitmask_train_learning_rate{$S}", "{{instance}}")),
    lines("Weight decay and averaging", "Weight decay of the last step, and momentum of the averaged weights (0 = none).", "short", ("splitmask_train_weight_decay{$S}", "weight decay {{instance}}"), ("splitmask_train_ema_momentum{$S}", "momentum {{instance}}")),
    lines("Skipped steps and rollbacks", "Steps skipped for a non-finite loss or gradient, loss spikes, and returns to an older checkpoint, in the rate interval.", "short", ("increase(splitmask_train_nonfinite_steps_total{$S}[$I])", "non-finite {{instance}}"), ("increase(splitmask_train_loss_spikes_total{$S}[$I])", "loss spikes {{instance}}"), ("increase(splitmask_train_rollbacks_total{$S}[$I])", "rollbacks {{instance}}"), min=0),
]

TIME = [
    lines(
        "Where the time goes",
        "Share of the trainer's wall time by phase; the phases sum to 100 %. data_wait is the pipeline's or the store's fault, ranks is waiting for other ranks between two steps, the rest is the model's.",
        "percentunit",
        (f"{rate(PHASES, 'phase')} / scalar(sum(rate({PHASES}{{$S}}[$I])))", "{{phase}}"),
        size=HALF,
        stack=True,
        min=0,
        max=1,
    ),
    panel("heatmap", "Step time", "How long steps take, waiting included. A second band above the main one is checkpoints, evaluation or stragglers of the pipeline.", "s", [("sum by (le) (increase(splitmask_train_step_duration_seconds_bucket{$S}[$I]))", "{{le}}")], HALF),
    lines("Step time quantiles", "Median and 99th percentile of a step.", "s", (quantile(0.5, "splitmask_train_step_duration_seconds", "instance"), "p50 {{instance}}"), (quantile(0.99, "splitmask_train_step_duration_seconds", "instance"), "p99 {{instance}}"), min=0),
    lines(
        "Throughput",
        "Images and steps per second. Both counters start at 0 in each process, so a resume from an older checkpoint makes no spike; the run's totals are splitmask_train_images_total and _steps_total.",
        "short",
        (rate("splitmask_pipeline_samples_total", more=',stage="consumed"'), "images/s {{instance}}"),
        (rate("splitmask_train_step_duration_seconds_count"), "steps/s {{instance}}"),
        min=0,
    ),
    lines("Patches through the encoder", "Patches per second, the model-side measure of throughput: comparable over image and patch sizes.", "short", ("splitmask_train_tokens_per_second{$S}", "{{instance}}"), min=0),
    lines("Model FLOPs utilization", "Floating point operations of the model (three forward passes a step) over the device's peak: by its name, by train.peak_tflops, or on a CPU by a measurement at the start. 0 where the peak is unknown.", "percentunit", ("splitmask_train_model_flops_utilization_ratio{$S}", "{{instance}}"), min=0),
    lines("Progress", "Images of the run, resumes included.", "short", ("splitmask_train_images_total{$S}", "{{instance}}")),
]

BUSY, PUT, GET = (f"splitmask_pipeline_{name}_seconds_total" for name in ("stage_busy", "blocked_put", "blocked_get"))

PIPELINE = [
    lines(
        "Queue level",
        "Batches and bytes in the queue over its capacity. Full: training limits, as it should. Empty: the pipeline limits.",
        "percentunit",
        ("splitmask_pipeline_queue_batches{$S} / splitmask_pipeline_queue_capacity_batches{$S}", "batches {{instance}}"),
        ("splitmask_pipeline_queue_bytes{$S} / splitmask_pipeline_queue_capacity_bytes{$S}", "bytes {{instance}}"),
        size=HALF,
        min=0,
        max=1,
    ),
    panel(
        "bargauge",
        "Which stage limits",
        "Busy time of a stage over its busy and blocked time. The stage nearest to 100 % limits the pipeline; docs/monitoring.md says which key to turn.",
        "percentunit",
        [(f"{rate(BUSY, 'stage')} / ({rate(BUSY, 'stage')} + {rate(PUT, 'stage')} + {rate(GET, 'stage')})", "{{stage}}")],
        HALF,
        min=0,
        max=1,
        steps=[(None, "green"), (0.8, "orange"), (0.95, "red")],
    ),
    lines("Busy by stage", "Threads' worth of work in each stage: seconds of work per second.", "short", (rate(BUSY, "stage"), "{{stage}}"), stack=True, min=0),
    lines("Blocked on the next stage", "Seconds per second that a stage waits because the next one is full: the limit lies further down.", "short", (rate(PUT, "stage"), "{{stage}}"), min=0),
    lines("Blocked on the stage before", "Seconds per second that a stage waits for input: the limit lies further up.", "short", (rate(GET, "stage"), "{{stage}}"), min=0),
    lines("Samples by stage", "Samples that left each stage, per second. Parallel lines are healthy; a gap is loss or a filling buffer.", "short", (rate("splitmask_pipeline_samples_total", "stage"), "{{stage}}"), min=0),
    lines("Stage time, p99", "99th percentile of the time one item spends in a stage.", "s", (quantile(0.99, "splitmask_pipeline_stage_duration_seconds", "stage"), "{{stage}}"), min=0),
    lines("Samples dropped", "Samples per second that could not be used, by reason. The log names shard and key.", "short", (rate("splitmask_pipeline_sample_errors_total", "reason"), "{{reason}}"), (rate("splitmask_pipeline_truncated_kept_total"), "truncated, kept {{instance}}"), (rate("splitmask_pipeline_slow_samples_total"), "slow, kept {{instance}}"), min=0),
    lines("Members passed over", "Entries of tars that are no part of a sample, per second, by reason; `splitmask inspect` names the first of each. Folders, other extensions and second images are usual.", "short", (rate("splitmask_pipeline_members_passed_over_total", "reason"), "{{reason}}"), min=0),
    lines("Objects by what became of them", "Objects of the samples per second, where a detector learns: kept in the view, outside of it, too small there, or hidden beyond its edge. Many small or hidden ones: the range of scales is too wide for the model's image.", "short", (rate("splitmask_pipeline_objects_total", "fate"), "{{fate}}"), min=0),
    lines("Shards lost", "Shards that could not be read to their end, in the rate interval, by reason.", "short", ("sum by (reason) (increase(splitmask_pipeline_shard_errors_total{$S}[$I]))", "{{reason}}"), min=0),
    lines("Manifest and shards differ", "Shards of which manifest.json says something else than what is there, and archives and folders beside them that are not read, in all, by kind. The log names them.", "short", ("sum by (kind) (splitmask_pipeline_manifest_differences_total{$S})", "{{kind}}"), min=0),
    lines(
        "Shards in flight",
        "Shards opened and finished per second; they run apart only while shards fail.",
        "short",
        (rate("splitmask_pipeline_shards_opened_total", "scheme"), "opened {{scheme}}"),
        (rate("splitmask_pipeline_shards_finished_total", "scheme"), "finished {{scheme}}"),
        min=0,
    ),
    lines("Share of samples dropped", "Dropped over read. The run pauses when the failure budget (data.failure_budget, 1 % by default) is spent.", "percentunit", (f"{rate('splitmask_pipeline_sample_errors_total')} / " + rate("splitmask_pipeline_samples_total", more=',stage="read"'), "{{instance}}"), min=0),
]

STORAGE = [
    lines("Bytes read", "Bytes of shards read per second, by scheme of their location.", "binBps", (rate("splitmask_pipeline_bytes_read_total", "scheme"), "{{scheme}}"), min=0),
    lines("Fetch time", "Median and 99th percentile of one ranged read, retries included.", "s", (quantile(0.5, "splitmask_pipeline_fetch_duration_seconds"), "p50"), (quantile(0.99, "splitmask_pipeline_fetch_duration_seconds"), "p99"), min=0),
    lines("Fetch retries", "Ranged reads that were tried again, per second, by reason.", "short", (rate("splitmask_pipeline_fetch_retries_total", "reason"), "{{reason}}"), min=0),
    lines("Store requests", "Requests to the object store per second, by operation and class of the answer.", "reqps", (rate("splitmask_store_requests_total", "op, code"), "{{op}} {{code}}"), min=0),
    lines("Store latency, p99", "99th percentile of one request, by operation.", "s", (quantile(0.99, "splitmask_store_request_duration_seconds", "op"), "{{op}}"), min=0),
    lines("Store retries and resumed reads", "Requests that were repeated, by reason, and bodies that broke and went on at their byte offset, per second.", "short", (rate("splitmask_store_retries_total", "reason"), "{{reason}}"), (rate("splitmask_store_resumed_reads_total"), "resumed reads {{instance}}"), (rate("splitmask_store_hedged_reads_total"), "asked twice {{instance}}"), min=0),
    lines("Requests in flight at most", "Requests that the store may be asked at once: readers × fetch_ahead, fewer while it answers 503 or 429.", "short", ("splitmask_store_request_limit{$S}", "{{instance}}"), min=0),
    lines("Checkpoint time", "Median and 99th percentile of writing a checkpoint, over an hour.", "s", ("histogram_quantile(0.5, sum by (le) (rate(splitmask_checkpoint_duration_seconds_bucket{$S}[1h])))", "p50"), ("histogram_quantile(0.99, sum by (le) (rate(splitmask_checkpoint_duration_seconds_bucket{$S}[1h])))", "p99"), min=0),
    lines("Checkpoints", "Step of the newest checkpoint beside the step in training; the distance is what a crash would cost.", "short", ("splitmask_checkpoint_last_step{$S}", "checkpoint {{instance}}"), ("splitmask_train_steps_total{$S}", "training {{instance}}")),
    lines("Checkpoint failures", "Checkpoints that could not be written, over an hour. Training goes on, and more work is at risk.", "short", ("increase(splitmask_checkpoint_failures_total{$S}[1h])", "{{instance}} {{reason}}"), min=0),
    lines("Mirror", "Step of the newest checkpoint here and in checkpoint.mirror, and whether this process may write there (1: it holds the lease).", "short", ("splitmask_checkpoint_last_step{$S}", "here {{instance}}"), ("splitmask_checkpoint_mirror_last_step{$S}", "mirror {{instance}}"), ("splitmask_checkpoint_mirror_lease_held{$S}", "lease {{instance}}"), min=0),
    lines("Mirror uploads", "Bytes that go to checkpoint.mirror per second.", "Bps", ("rate(splitmask_checkpoint_mirror_bytes_total{$S}[$I])", "{{instance}}"), min=0),
    lines("Mirror failures", "Tries to upload or to prune that failed, over an hour, by reason, beside the checkpoints that went up whole. Training never waits for them.", "short", ("increase(splitmask_checkpoint_mirror_failures_total{$S}[1h])", "{{reason}} {{instance}}"), ("increase(splitmask_checkpoint_mirror_uploads_total{$S}[1h])", "uploaded {{instance}}"), min=0),
    lines("Damaged checkpoints and lines that wait", "Checkpoints that could not be read and were set aside, and lines of metrics.jsonl and journal.jsonl that found no room at once.", "short", ("increase(splitmask_checkpoint_damaged_total{$S}[1h])", "damaged checkpoints {{instance}}"), ("increase(splitmask_run_write_failures_total{$S}[$I])", "{{file}} {{instance}}"), min=0),
    lines("Disk of the run folder", "Free space, size of the file system, and size of one checkpoint.", "bytes", ("splitmask_checkpoint_disk_free_bytes{$S}", "free {{instance}}"), ("splitmask_checkpoint_disk_size_bytes{$S}", "size {{instance}}"), ("splitmask_checkpoint_bytes{$S}", "one checkpoint {{instance}}"), size=HALF, min=0),
    lines("Reloads of the config", "Attempts to reload in the rate interval, by outcome.", "short", ("sum by (outcome) (increase(splitmask_config_reloads_total{$S}[$I]))", "{{outcome}}"), size=HALF, min=0),
]

MACHINE = [
    lines("CPU", "Cores that the process keeps busy.", "short", (rate("process_cpu_seconds_total"), "{{instance}}"), min=0),
    lines("Memory of the process", "Resident and virtual size.", "bytes", ("process_resident_memory_bytes{$S}", "resident {{instance}}"), ("process_virtual_memory_bytes{$S}", "virtual {{instance}}"), min=0),
    lines("Memory splits", "Times that a step did not fit into memory and the batch was divided into more parts, of the run.", "short", ("splitmask_train_memory_splits_total{$S}", "{{instance}}"), min=0),
    lines("Memory of the device", "Accelerator memory held by tensors, held by the allocator, and there is. 0 on a CPU.", "bytes", ("splitmask_device_memory_bytes{$S}", "{{kind}} {{instance}}"), min=0),
    lines("File descriptors", "Open descriptors and their limit, on a log scale.", "short", ("process_open_fds{$S}", "open {{instance}}"), ("process_max_fds{$S}", "limit {{instance}}"), log=True),
    lines("Threads", "Threads of the process. They are fixed at the start: a rise is a leak.", "short", ("process_threads{$S}", "{{instance}}"), min=0),
    lines("Scrape", "How long Prometheus waits for /metrics. It should stay far under 100 ms.", "s", ("scrape_duration_seconds{$S}", "{{instance}}"), min=0),
]

RANKS = [
    stat("World", "Processes (ranks) that train the run together, as each says; 1 = alone.", "none", "splitmask_ranks_world{$S}"),
    stat("Restarts", "Starts of all ranks after a failure, as torchrun or SLURM counts them. What ended the last one, the last words of the rank that failed, stands in the log of every rank and in journal.jsonl.", "none", "max by (job) (splitmask_ranks_restarts{$S})"),
    stat("Slowest over median", "Own work in a step of the slowest rank over the median of all: all wait for it. 1 = all alike.", "short", "max by (job) (splitmask_ranks_own_step_seconds{$S}) / quantile by (job) (0.5, splitmask_ranks_own_step_seconds{$S})", decimals=2, steps=[(None, "green"), (1.2, "orange"), (1.5, "red")]),
    lines("Step time by rank", "Each rank's own work in a step, until its last gradients are on their way. Backward ends at the same time on all, so this tells who is slow.", "s", ("splitmask_ranks_own_step_seconds{$S}", "rank {{rank}} {{instance}}"), size=HALF, min=0),
    lines("Waiting for other ranks", "Share of the time that each rank only waits: in steps for gradients, sums and statistics of the others, between steps for the word of all (also while one of them has no batch, writes or evaluates). The slowest rank waits least.", "percentunit", ("rate(splitmask_ranks_exchange_seconds_total{$S}[$I])", "in steps, rank {{rank}} {{instance}}"), ("rate(splitmask_ranks_tick_seconds_total{$S}[$I])", "between steps, rank {{rank}} {{instance}}"), size=HALF, min=0),
    lines("Word between steps", "What the word that all ranks exchange before a step takes by itself, without waiting for whoever comes last. Wished for: below 0.5 ms.", "s", ("rate(splitmask_ranks_tick_message_seconds_total{$S}[$I]) / clamp_min(rate(splitmask_ranks_ticks_total{$S}[$I]), 1e-9)", "rank {{rank}} {{instance}}"), size=HALF, min=0),
    lines("Stragglers", "1 while a rank's own work takes over 1.2 times the median. The log of rank 0 names it with its host.", "none", ("splitmask_ranks_straggling{$S}", "rank {{rank}} {{instance}}"), size=HALF, min=0, max=1),
    lines("Data wait by rank", "Share of each rank's time spent waiting for its own batches. No rank enters a step before all have one, so the hungriest sets the pace.", "percentunit", (share_of_wall("data_wait").replace("by (instance)", "by (instance, rank)"), "rank {{rank}} {{instance}}"), size=HALF, min=0),
]

ROWS = [
    ("Status: is it training?", STATUS),
    ("Learning: is it getting better?", LEARNING),
    ("Time: where does it go?", TIME),
    ("Ranks: does one hold the others up?", RANKS),
    ("Pipeline: which stage limits?", PIPELINE),
    ("Storage: do the bucket and the disk keep up?", STORAGE),
    ("Machine: is there room?", MACHINE),
]

# name, series whose value is a time, colour
ANNOTATIONS = [
    ("Reload", "splitmask_config_last_reload_success_timestamp_seconds", "blue"),
    ("Checkpoint", "splitmask_checkpoint_last_success_timestamp_seconds", "green"),
    ("Rollback", "splitmask_train_last_rollback_timestamp_seconds", "red"),
    ("Start", "process_start_time_seconds", "purple"),
]
