"""Timings of tfsampled and of TensorFlow or Keras, taken in turn in one run.

`python -m benchmarks` runs the families. A family is a module with

- `TITLE`, the title of its table,
- `COLUMNS`, from a column's heading to the format of a row in it, as in
  `{"tfsampled, ms": "{0.tfsampled_ms:.2f}"}`,
- `timings(**options)`, which yields rows: dataclasses that can be written as JSON,
- optionally `plot(rows, path)`, which writes a chart,
- optionally `OPTIONS`, from the name of an argument of `timings` to the settings of an
  `argparse` option: `classes` in the family `fit` is `--fit-classes`.

`benchmarks.__main__.FAMILIES` lists the families. What needs a process of its own, such
as a measurement of memory, goes through `benchmarks.fresh`.
"""
