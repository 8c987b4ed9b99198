"""The verbs that need models: plan, train, predict. Command line, server and benchmark call them; users find them in :mod:`flrplan`."""
