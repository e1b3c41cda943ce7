"""The evaluation worker: a supervisor on a UNIX socket, with one child process for each task.

`client` is the front end's side and `supervisor` the worker's; `channel` is what travels between
them, `child` does the work. A connection is a task: whoever closes it cancels the task.
"""
