"""One file per task; each turns an encoder and a data set into a JSON-able dict of numbers."""
