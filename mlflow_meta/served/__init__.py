"""What the registered model knows and answers, without MLflow.

A registered model is a meta-model, sealed in files whose SHA-256 are checked (`packed`), beside
what was seen of every task (`memory`). Rows of raw params are read (`rows`), predicted
(`predictor`), and told (`answers`); or configurations are suggested (`suggestions`).

row:    one configuration that is asked about, in its context
value:  what the objective will be, minimised; what is told is the metric, `sign * value`
"""
