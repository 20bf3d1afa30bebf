"""The techniques: one folder an area, one file a method. Installed as the package `effbench_implementations`."""
