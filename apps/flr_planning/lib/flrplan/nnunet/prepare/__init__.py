"""From labelled cases to what a training reads: data set, plan, preprocessed arrays."""
