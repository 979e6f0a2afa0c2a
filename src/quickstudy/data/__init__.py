"""Step 1, data preparation: GLUE, Hub data sets, the user's files and the bundled samples become `Task`s."""
