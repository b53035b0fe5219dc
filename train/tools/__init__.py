"""Commands beside a run: look at data, caption images, draw curves, measure step times, put two towers together."""
