"""Names that stay stable, since scripts and reports rely on them: a run's files, its status, its tags in MLflow."""

# files in a run's folder
RUN = "run.json"  # `RunRecord` in runner/common/records.py; written first, status kept current
RESOLVED = "resolved.yaml"  # the whole config, nothing left to interpolate
LOCK = "run.lock"  # held by the process that writes the run
CONSOLE = "console.log"  # the run's console messages; a resumed run appends
METRICS = "metrics.jsonl"  # a `MetricsLine` per line
SYSTEM = "system.jsonl"  # samples of the machine (option system_metrics_s), a `MetricsLine` per line
RESULT = "result.json"  # `ResultRecord`; written last, atomically: a run with a result is finished
EARLIER_RESULT = "result.earlier.json"  # the result of a finished run that was then trained further
DELIVERED = "delivered.json"  # the progress of deliveries
VOCABS = "vocabs.json"  # {feature or "target": its vocabulary}, so that a run can be used without its data
CHECKPOINTS = "checkpoints"  # best.safetensors, last.safetensors
BEST = "best.safetensors"
MODEL_FILES = "model_files"  # files that parts of the model need besides their weights, such as a tokenizer
MODEL_CARD = "model_card.md"  # what the model is, how good it is and how it is used
EXAMPLE = "example.json"  # a few rows of input, as MLflow models show
PLOTS = "plots"
PREDICTIONS = "predictions"  # predictions on test, in the data set's own format
OUTCOMES = "outcomes.npz"  # contribution of each test example to the headline figure (runner/inference/outcomes.py)
TABLES = "tables"  # large detail tables of `result.json`, in Parquet (runner/tables/detail.py)
EARLIER_TABLES = "tables.earlier"  # detail tables of `result.earlier.json`
EARLIER = "earlier"  # folders of runs that were not continued, named by their run_id

FILES = (
    RUN,
    RESOLVED,
    CONSOLE,
    METRICS,
    SYSTEM,
    RESULT,
    EARLIER_RESULT,
    DELIVERED,
    VOCABS,
    OUTCOMES,
    MODEL_CARD,
    EXAMPLE,
)
FOLDERS = (CHECKPOINTS, MODEL_FILES, PLOTS, PREDICTIONS, TABLES, EARLIER_TABLES, EARLIER)

# values of run.json's status
RUNNING, FINISHED, FAILED, INTERRUPTED = "running", "finished", "failed", "interrupted"

PATIENCE_SECONDS = 60.0  # after a request to stop, a run has this long to save its state before it is killed

# tags of an MLflow run
TAG_RUN_ID = "hydromel.run_id"
TAG_SWEEP = "sweep.id"
TAG_PARENT = "hydromel.sweep"  # tag of a run that stands for a whole sweep or search; its value is the id of that sweep
TAG_TRIAL = "search.trial"  # the trial's number; the search is recorded as its sweep
TAG_PRUNED = "search.pruned"  # when a trial was ended because others did better
