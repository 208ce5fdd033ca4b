"""One module a verb; each has ``run(call) -> exit code``. Only the module of the verb in hand is imported."""
