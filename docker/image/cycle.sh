#!/bin/sh
# One turn of the loop, for cron. Steps may overlap with other turns, and be killed at any moment.
#   METRIC       what is learned, such as val_loss
#   EXPERIMENT   what is improved
#   SUGGESTIONS  how many runs are suggested where something new was learned
set -eu
mlflow-meta harvest
# 3: too few runs, or nothing to tell them apart by. `suggest` says what to do without a model.
mlflow-meta train --metric "$METRIC" || { code=$?; [ $code -eq 3 ] || exit $code; }
mlflow-meta suggest -e "$EXPERIMENT" --metric "$METRIC" -n "$SUGGESTIONS"
