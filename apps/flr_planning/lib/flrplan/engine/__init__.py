"""Prediction: which model serves a stage, predictors kept warm, the cascade."""
